"""The published set of things that an answer is given by name: schedules, predictors, scores.

Both the side that runs an answer and the side that judges it build them from the same name and
numbers, so that no function has to be sent. None of them calls what a lab may study.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.spec import Case, Named
from coursekit.diffusion.schedule import Schedule

SCHEDULES = {"linear": Schedule.linear, "cosine": Schedule.cosine,
             "scaled_linear": Schedule.scaled_linear}


class Predictor:
    """A noise predictor (x, t) -> eps that keeps the times at which it was asked."""

    def __init__(self, inner: Callable[[Tensor, int], Tensor], T: int) -> None:
        self.inner, self.T, self.times = inner, T, []

    def __call__(self, x: Tensor, t: int) -> Tensor:
        if not isinstance(x, Tensor):
            raise TypeError(f"eps(x, t): x is a {type(x).__name__}, accepted is a tensor")
        if isinstance(t, bool) or not isinstance(t, int):
            raise TypeError(f"eps(x, t): t is a {type(t).__name__}, accepted is an int")
        if not 1 <= t <= self.T:
            raise ValueError(f"eps(x, t): t = {t} is outside 1..{self.T}")
        self.times.append(t)
        return self.inner(x, t)


@lru_cache(8)
def levels_of(name: str) -> Schedule:
    """A schedule for predictors, who never hand it out; an answer gets one of its own."""
    return SCHEDULES[name]()


def schedule(dtype: torch.dtype, name: str = "cosine", T: int = 1000) -> Schedule:
    return SCHEDULES[name](T)


def constant(dtype: torch.dtype, value: float = 0.5) -> Predictor:
    """The same noise everywhere: whatever a sampler does with it has a closed form."""
    return Predictor(lambda x, t: torch.full_like(x, value), 1000)


def linear(dtype: torch.dtype, name: str = "cosine", variance: float = 0.25) -> Predictor:
    """The exact predictor for data N(0, variance I)."""
    levels = levels_of(name)

    def eps(x: Tensor, t: int) -> Tensor:
        level = levels.level(t)
        return math.sqrt(1 - level) / (level * variance + 1 - level) * x

    return Predictor(eps, levels.T)


def mixture(dtype: torch.dtype, seed: int = 0, name: str = "cosine", std: float = 0.3,
            parts: int = 3) -> Predictor:
    """The exact predictor for an equal mixture of Gaussians around seeded centres."""
    levels = levels_of(name)

    def eps(x: Tensor, t: int) -> Tensor:
        flat, level = x.flatten(1), levels.level(t)  # b d
        g = torch.Generator().manual_seed(seed)
        centres = torch.randn(parts, flat.shape[1], generator=g, dtype=torch.float64).to(x.dtype)
        var = level * std**2 + 1 - level
        far = (flat[:, None] - math.sqrt(level) * centres).square().sum(-1)  # b parts
        share = (-far / (2 * var)).softmax(1)
        return (math.sqrt(1 - level) / var * (flat - math.sqrt(level) * share @ centres)).view_as(x)

    return Predictor(eps, levels.T)


def unet(dtype: torch.dtype, seed: int = 0, channels: int = 3) -> Predictor:
    """A tiny U-Net with seeded weights, for pictures (b, channels, h, w) with h, w a multiple of 4.

    Its output is bounded, so that a sampler cannot blow up on an untrained network.
    """
    net = _net(dtype, seed, channels)
    return Predictor(lambda x, t: net(x, torch.full((len(x),), t)).tanh(), 1000)


@lru_cache(8)
def _net(dtype: torch.dtype, seed: int, channels: int) -> torch.nn.Module:
    from coursekit.nets.unet import UNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = UNet(channels, channels=(8, 16), encoder=(1, 0), decoder=(1, 0), attention=(1,),
                   head_dim=8, groups=4)
        for weight in net.parameters():
            if not weight.any():  # a fresh network starts with zeros and says nothing
                torch.nn.init.normal_(weight, std=0.1)
    return net.to(dtype).eval().requires_grad_(False)


def spread(dtype: torch.dtype) -> Callable[[Tensor], float]:
    """A score of pictures (b, ...): their standard deviation over all values, as a float."""
    return lambda x: float(x.double().std())


def generator(dtype: torch.dtype, seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


KNOWN = {f.__name__: f for f in (schedule, constant, linear, mixture, unet, spread, generator)}


def build(case: Case, dtype: str,
          more: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """The case's arguments as an answer gets them, floating values rounded to case.dtype first.

    dtype  what the tensors are then: the case's own for the answer, "float64" for the judge.
    """
    kind, rounded = getattr(torch, dtype), getattr(torch, case.dtype)
    kinds = KNOWN | dict(more)

    def one(value: Any) -> Any:
        if isinstance(value, Named):
            if value.kind not in kinds:
                raise ValueError(f"kind: {value.kind!r} is not one of {', '.join(kinds)}")
            return kinds[value.kind](dtype=kind, **value.numbers)
        if isinstance(value, np.ndarray):
            tensor = torch.from_numpy(value.copy())
            return tensor.to(rounded).to(kind) if tensor.is_floating_point() else tensor
        if isinstance(value, (list, tuple)):
            return type(value)(one(v) for v in value)
        return value

    return {name: one(value) for name, value in case.args.items()}
