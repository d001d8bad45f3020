"""Inversion to noise that looks like noise: a predictor regularised on the way up.

Parmar, Singh, Zhang, Li, Lu & Zhu, "Zero-shot Image-to-Image Translation", SIGGRAPH 2023, section
3.1. DDIM inversion of a smooth picture predicts smooth noise, which a model has never seen and
edits badly. So what it predicts at a step is moved downhill of two losses before it is used:

    L_pair   correlations of the noise with itself, shifted: 0 for white noise
    L_KL     divergence of its mean and variance from those of N(0, 1)

    z_T = last(invert(regularised(eps, generator=g), schedule, z, path)).x

The official inversion leaves out the first and the last time of the path, and draws shifts that can
be 0, for which "uncorrelated" reads "no noise at all"; ours are 1 or more.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from numbers import Integral, Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.diffusion.predict import Eps

SIDE = 64  # of the latents for which the paper's weights were chosen


def regularised(eps: Eps, *, lambda_ac: float = 20.0, lambda_kl: float = 20.0, rounds: int = 5,
                rolls: int = 5, generator: torch.Generator | None = None) -> Eps:
    """An Eps whose noise is more like white noise of mean 0 and variance 1.

    lambda_ac, lambda_kl  >= 0, lengths of steps down `autocorrelation` and `divergence`, scaled
                          so that they do to a pixel what the paper's do on 64x64 latents.
    rounds, rolls         >= 1; a round is so many shifts, then one step for L_KL.
    generator             for the shifts, which all rows share.
    Rows are moved each by itself. No gradients flow through the steps.
    """
    for name, value in (("lambda_ac", lambda_ac), ("lambda_kl", lambda_kl)):
        if not isinstance(value, Real) or not 0 <= value < inf:
            raise ValueError(f"{name}={value!r}: accepted is a finite number >= 0")
    for name, value in (("rounds", rounds), ("rolls", rolls)):
        if not isinstance(value, Integral) or value < 1:
            raise ValueError(f"{name}={value!r}: accepted is a whole number >= 1")

    def better(x: Tensor, t: int) -> Tensor:
        e = eps(x, t)
        share = e.shape[2] * e.shape[3] / SIDE**2
        for _ in range(rounds):
            for _ in range(rolls):
                e = e - share * lambda_ac / rolls * _slope(autocorrelation, e, generator)
            e = e - share * lambda_kl * _slope(divergence, e)
        return e

    return better


def autocorrelation(e: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """L_pair, (b,): squared correlations of e (b, c, h, w) with itself, shifted down and right.

    By a random distance, at every level of a pyramid of means over 2x2 down to a side of 8; summed
    over levels, directions and channels. Coarse levels count less, as a mean of noise is smaller.
    """
    total = 0
    while True:
        side = min(e.shape[2:])
        device = generator.device if generator else "cpu"
        by = int(torch.randint(1, max(side // 2, 2), (1,), generator=generator, device=device))
        total = total + sum((e * e.roll(by, dim)).mean((2, 3)).square().sum(1) for dim in (2, 3))
        if side <= 8:
            return total
        e = F.avg_pool2d(e, 2)


def divergence(e: Tensor) -> Tensor:
    """L_KL, (b,): twice the divergence of a Gaussian with the mean and variance of e from N(0, 1).
    """
    var, mean = torch.var_mean(e.flatten(1), 1)
    return var + mean**2 - 1 - var.log()


@torch.enable_grad()
def _slope(loss: Callable[..., Tensor], e: Tensor, *more: Any) -> Tensor:
    e = e.detach().requires_grad_()
    return torch.autograd.grad(loss(e, *more).sum(), e)[0]
