"""Lab 08: results by name, a predictor of source and target, a network that takes a text."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from coursekit.classroom.check.known import levels_of

# ---- 08-1, 08-2, 08-3 plain predictors ---------------------------------------------------------


def returned(answer: Callable, none, cond, *args) -> object:
    """The pivot and the way back by name, and the times at which `cond` was asked."""
    got = answer(none, cond, *args)
    if not isinstance(got, tuple) or len(got) != 2:
        return got
    return {"pivot": got[0], "back": got[1], "times asked": list(cond.times)}


def asked(answer: Callable, eps, *args) -> dict:
    """What an answer returns, and the times at which it asked its predictor."""
    return {"result": answer(eps, *args), "times asked": list(eps.times)}


# ---- 08-4 source and target in one batch -------------------------------------------------------


class SideBySide:
    """eps(x, t) for x (2b, 2, 3), the b sources first; the targets listen to the sources.

    Each half is exact for a Gaussian around a point of its own, and what a source shows is lent to
    its target, as attention would. `asked` holds the rows and the time of each call.
    """

    def __init__(self, dtype: torch.dtype, seed: int, name: str = "cosine") -> None:
        g = torch.Generator().manual_seed(seed)
        self.centres = torch.randn(2, 2, 3, generator=g, dtype=torch.float64).to(dtype)
        self.levels, self.asked = levels_of(name), []

    def __call__(self, x: Tensor, t: int) -> Tensor:
        if not isinstance(x, Tensor) or x.shape[1:] != (2, 3) or len(x) % 2:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"eps(x, t): x is {shape}, accepted is (2 b, 2, 3), sources first")
        if isinstance(t, bool) or not isinstance(t, int) or not 1 <= t <= 1000:
            raise ValueError(f"eps(x, t): t = {t!r}, accepted is an int in 1..1000")
        self.asked.append((len(x), t))
        a, b = self.levels.scales(t, x)
        source, target = ((half - a * centre) * b / (0.25 * a**2 + b**2)
                          for half, centre in zip(x.chunk(2), self.centres, strict=True))
        return torch.cat([source, target + 0.8 * b * torch.tanh(2 * source)])


def edited(answer: Callable, eps: SideBySide, *args) -> object:
    """Source and target by name, with the rows and times asked for."""
    got = answer(eps, *args)
    if not isinstance(got, tuple) or len(got) != 2:
        return got
    return {"source": got[0], "target": got[1], "rows asked": [rows for rows, _ in eps.asked],
            "times asked": [t for _, t in eps.asked]}


# ---- 08-5, 08-6 a network that takes a text ----------------------------------------------------


class Worded:
    """eps(x, t, text), exact for data N(mu(text), 0.25 I), through which gradients flow.

    x (b, 2, 3), text (1, l, 5); `asked` holds the text and the time of each call.
    """

    def __init__(self, dtype: torch.dtype, seed: int, name: str = "linear") -> None:
        g = torch.Generator().manual_seed(seed)
        self.mix = torch.randn(5, 6, generator=g, dtype=torch.float64).to(dtype)
        self.levels, self.asked = levels_of(name), []

    def __call__(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or not isinstance(text, Tensor):
            raise TypeError("eps(x, t, text): x or text is no tensor")
        if isinstance(t, bool) or not isinstance(t, int) or not 1 <= t <= 1000:
            raise ValueError(f"eps(x, t, text): t = {t!r}, accepted is an int in 1..1000")
        if text.ndim != 3 or len(text) not in (1, len(x)):
            raise ValueError(f"eps(x, t, text): text {tuple(text.shape)} does not fit x "
                             f"{tuple(x.shape)}, accepted is one text for all rows")
        self.asked.append((text.detach().clone(), t))
        level = self.levels.level(t)
        share = 1 / torch.arange(1, text.shape[1] + 1, dtype=text.dtype)  # the first tokens count
        mu = 1.5 * torch.tanh((share @ text) @ self.mix / 2).view(-1, 2, 3)
        return math.sqrt(1 - level) / (level / 4 + 1 - level) * (x - math.sqrt(level) * mu)


def told(eps: Worded, cond: Tensor) -> list[int]:
    """The times at which the network was asked about the prompt."""
    return [t for text, t in eps.asked if torch.equal(text[:1], cond)]


def recorded(things: object) -> list[str]:
    """Which of these tensors still carry the graph of what made them."""
    things = things if isinstance(things, (list, tuple)) else [things]
    return ["a result" for thing in things if isinstance(thing, Tensor) and thing.requires_grad]


def learnt(*names: str) -> Callable:
    """Two results by name, whether they were detached, and when the prompt was asked about."""
    def called(answer: Callable, eps: Worded, cond: Tensor, *args) -> object:
        with torch.enable_grad():
            got = answer(eps, cond, *args)
        if not isinstance(got, tuple) or len(got) != 2:
            return got
        return {**dict(zip(names, got, strict=True)), "times asked": told(eps, cond),
                "graph left": (recorded(got[0]) + recorded(got[1]))[:1]}
    return called


CALLS = {"08-1": returned, "08-2": asked, "08-3": asked, "08-4": edited,
         "08-5": learnt("null", "x"), "08-6": learnt("nulls", "x")}
KNOWN = {"08-4": {"side_by_side": SideBySide}, "08-5": {"worded": Worded},
         "08-6": {"worded": Worded}}
