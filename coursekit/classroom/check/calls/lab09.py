"""Lab 09: a mask beside latents, and the two verbs of a controller on layers of attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from coursekit.classroom.check.calls import watched
from coursekit.nets.control import Site

# ---- 09-5 a mask, and latents ------------------------------------------------------------------


def named_apart(answer: Callable, *args: Any) -> object:
    """The two results by name; what is no pair stays as it came."""
    got = answer(*args)
    if isinstance(got, tuple) and len(got) == 2:
        return {"mask": got[0], "latents": got[1]}
    return got


# ---- 09-6 two verbs, and what they are asked about ---------------------------------------------

SIZES = {"itself": (2, 3), "large": (8, 2), "words": (3, 3)}


def site(name: str) -> Site:
    """A layer of the check's network; "words" pays attention to words, the others do not."""
    index = list(SIZES).index(name)
    return Site(f"up_blocks.0.{name}", "up", index, name == "words", SIZES[name])


def layer(name: str, rows: int, l: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v (rows, 2, .., 4) of a layer, always the same: every row of every one differs."""
    n = SIZES[name][0] * SIZES[name][1]
    g = torch.Generator().manual_seed(list(SIZES).index(name) + 10 * rows)
    lengths = (n, l, l) if name == "words" else (n, n, n)
    return tuple(torch.randn(rows, 2, length, 4, generator=g, dtype=torch.float64).to(like.dtype)
                 for length in lengths)


def asked(name: str, rows: int, l: int, like: Tensor) -> Tensor:
    """What the layer's queries pay to its keys: (rows, 2, n, l), rows sum to 1."""
    q, k, _ = layer(name, rows, l, like)
    return (0.8 * q @ k.mT).softmax(-1)


def steered(answer: Callable, i: int, b: int, R: Tensor, *args: Any) -> object:
    """What the two verbs do under guidance, 4b rows, and without, 2b rows.

    What is no pair of functions stays as it came.
    """
    got = answer(i, b, R, *args)
    if not isinstance(got, tuple) or len(got) != 2 or not all(map(callable, got)):
        return got
    (qkv, probs), l, seen = got, len(R), {}
    for rows, words in ((4 * b, ""), (2 * b, ", w = 1")):
        seen[f"attention to words{words}"], seen[f"A afterwards{words}"] = watched(
            probs, site("words"), asked("words", rows, l, R))
    for rows, words in ((4 * b, ""), (2 * b, ", w = 1")):
        for name in SIZES:
            taken, after = watched(qkv, site(name), *layer(name, rows, l, R))
            if not isinstance(taken, tuple) or len(taken) != 3:
                return {"qkv gives": taken if taken is None else type(taken).__name__}
            for part, value in zip("qkv", taken, strict=True):
                seen[f"{part}, {name}{words}"] = value
            seen[f"{name} afterwards{words}"] = after
    return seen


CALLS = {"09-5": named_apart, "09-6": steered}
KNOWN: dict = {}
