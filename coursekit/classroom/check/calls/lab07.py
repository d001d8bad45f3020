"""Lab 07: losses with their gradients, wrapped autoencoders, predictors and the rows they asked."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from itertools import groupby

import torch
from torch import Tensor

from coursekit.classroom.check.known import levels_of

# ---- 07-2 class centres and classes ------------------------------------------------------------


def named_apart(answer: Callable, pictures: Tensor, prompts: Tensor) -> object:
    """The two results by name; what is no pair stays as it came."""
    got = answer(pictures, prompts)
    if isinstance(got, tuple) and len(got) == 2:
        return {"centres": got[0], "classes": got[1]}
    return got


# ---- 07-3 a loss and its pull ------------------------------------------------------------------


def felt(answer: Callable, generated: Tensor, *args: Tensor) -> dict:
    """The losses, and whether the generated pictures' gradient is finite."""
    with torch.enable_grad():
        x = generated.clone().requires_grad_()
        loss = answer(x, *args)
        if not isinstance(loss, Tensor) or not loss.requires_grad:
            return {"loss": loss, "its gradient": "none"}
        pull = torch.autograd.grad(loss.sum(), x, allow_unused=True)[0]
    kind = "none" if pull is None else "finite" if pull.isfinite().all() else "not finite"
    return {"loss": loss.detach(), "its gradient": kind}


# ---- 07-4 an autoencoder and its wrappers ------------------------------------------------------


class Autoencoder:
    """encode: pictures (b, 3, h, w) -> latents (b, 4, h / 2, w / 2), large and off centre; decode
    is its inverse as well as 4 numbers of 12 allow. Linear, with seeded weights."""

    def __init__(self, dtype: torch.dtype, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        mix = torch.randn(12, 4, generator=g, dtype=torch.float64)
        self.mix, self.back = mix.to(dtype), torch.linalg.pinv(mix).to(dtype)
        shift = torch.randn(4, 1, 1, generator=g, dtype=torch.float64)
        self.shift = (2 + 0.3 * shift).to(dtype)

    def encode(self, x: Tensor) -> Tensor:
        patches = torch.nn.functional.pixel_unshuffle(x, 2)  # b 12 h w
        return torch.einsum("bchw,cd->bdhw", patches, self.mix) + self.shift

    def decode(self, z: Tensor) -> Tensor:
        patches = torch.einsum("bdhw,dc->bchw", z - self.shift, self.back)
        return torch.nn.functional.pixel_shuffle(patches, 2)


def others(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """A picture and latents that the scale was not computed from."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(2, 4, 3, 2, generator=g, dtype=torch.float64)
    return 0.5 * pictures[:1].flip(-1), z.to(pictures.dtype)


def wrapped(answer: Callable, vae: Autoencoder, pictures: Tensor) -> object:
    """The scale, a picture encoded and latents decoded; what is no such triple stays as it came."""
    got = answer(vae, pictures)
    if not isinstance(got, tuple) or len(got) != 3 or not all(map(callable, got[1:])):
        return got
    x, z = others(pictures)
    return {"scale": got[0], "encode": got[1](x), "decode": got[2](z)}


# ---- 07-5 a network that takes a text ----------------------------------------------------------


class Conditional:
    """eps(x, t, text), exact for data N(mu(text), 0.25 I); it keeps what it was asked.

    x (b, 2, 3), text (b, l, 5); `asked` holds the texts and the time of each call.
    """

    def __init__(self, dtype: torch.dtype, seed: int, name: str = "linear") -> None:
        g = torch.Generator().manual_seed(seed)
        self.mix = torch.randn(5, 6, generator=g, dtype=torch.float64).to(dtype)
        self.levels = levels_of(name)
        self.asked: list[tuple[Tensor, int]] = []

    def __call__(self, x: Tensor, t: int, text: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or not isinstance(text, Tensor):
            raise TypeError("eps(x, t, text): x or text is no tensor")
        if isinstance(t, bool) or not isinstance(t, int) or not 1 <= t <= 1000:
            raise ValueError(f"eps(x, t, text): t = {t!r}, accepted is an int in 1..1000")
        if text.ndim != 3 or len(text) != len(x):
            raise ValueError(f"eps(x, t, text): text {tuple(text.shape)} does not fit x "
                             f"{tuple(x.shape)}, accepted is one text for each row of x")
        self.asked.append((text.detach().clone(), t))
        level = self.levels.level(t)
        mu = 2 * (text.mean(1) @ self.mix).tanh().view(-1, 2, 3)
        return math.sqrt(1 - level) / (level / 4 + 1 - level) * (x - math.sqrt(level) * mu)


TIMES = (700, 200)


def starts(cond: Tensor) -> tuple[Tensor, Tensor]:
    """Two batches, of three and of two rows: a predictor must serve any."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 2, 3, generator=g, dtype=torch.float64).to(cond.dtype)
    return x[:3], x[3:]


def guided(answer: Callable, eps: Conditional, cond: Tensor, null: Tensor, w: float) -> object:
    """What the predictor says of two batches, and with which texts it asked, row by row."""
    predictor = answer(eps, cond, null, w)
    if not callable(predictor):
        return predictor
    first, second = (predictor(x, t) for x, t in zip(starts(cond), TIMES, strict=True))
    known = {"null": null[0], "cond": cond[0]}
    rows = [counted(next((name for name, text in known.items() if torch.equal(row, text)), "other")
                    for row in asked) for asked, _ in eps.asked]
    return {"predictor": first, "predictor, next batch": second, "rows asked": rows,
            "times asked": [t for _, t in eps.asked]}


def counted(names: Iterable[str]) -> str:
    """Rows in a few words: 3 null, 3 cond."""
    return ", ".join(f"{len(list(same))} {name}" for name, same in groupby(names))


CALLS = {"07-2": named_apart, "07-3": felt, "07-4": wrapped, "07-5": guided}
KNOWN = {"07-4": {"autoencoder": Autoencoder}, "07-5": {"conditional": Conditional}}
