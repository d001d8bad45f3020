"""The evidence lower bound of a diffusion model, every term of it, in nats.

    log p(x_0) >= -L_0 - L_T - sum_{t >= 2} L_{t-1}                     DDPM (Ho 2020), eq. 5
    L_T     = KL(q(x_T | x_0) || p(x_T))                                `prior`
    L_{t-1} = E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))           `matching`
    L_0     = -E log p(x_0 | x_1)                                       `discretised`

All hold on any path 0 < t_1 < .. < T, with s, t for t-1, t. Sums over all but the first dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.special import log_ndtr

from coursekit.diffusion.mhvae import gaussian_kl
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import check_entry, posterior, randn_like
from coursekit.diffusion.schedule import Schedule


def bits_per_dim(nats: Any, dims: int) -> Any:
    """Nats for one image of `dims` numbers (3 * 64 * 64) -> bits for each number."""
    if dims < 1:
        raise ValueError(f"dims: {dims} is not an int >= 1")
    return nats / (dims * math.log(2))


def prior(schedule: Schedule, x0: Tensor, t: int | None = None, var_p: float = 1.0) -> Tensor:
    """L_T: KL of q(x_t | x_0) from N(0, var_p), (b,); x0 (b, ...), t = T unless said."""
    t = schedule.T if t is None else t
    level = schedule.level(t)
    return _total(gaussian_kl(level * x0**2, 1 - level, var_p))


def matching(
    schedule: Schedule,
    x0: Tensor,
    x0_hat: Tensor,
    t: int,
    s: int,
    sd: float | None = None,
    var_p: float | None = None,
) -> Tensor:
    """L_{t-1}: KL of q_sigma(x_s | x_t, x_0) from a step that believes x0_hat, (b,); 0 < s < t.

    sd     sigma of q (default: DDPM's, sqrt(beta_tilde)); var_p  variance of the step (sd^2).
    x_t enters both means with the same weight and drops out of the difference.
    """
    sd = math.sqrt(schedule.beta_tilde(t, s)) if sd is None else sd
    gap = posterior(schedule, torch.zeros_like(x0), x0 - x0_hat, t, s, sd)
    return _total(gaussian_kl(gap**2, sd**2, sd**2 if var_p is None else var_p))


def gamma(schedule: Schedule, t: int, s: int, sd: float) -> float:
    """Weight of ||eps - eps_theta||^2 in L_{t-1} when both variances are sd^2; sd > 0.

    1 / (2 sd^2) (sqrt(abar_s (1 - abar_t) / abar_t) - sqrt(1 - abar_s - sd^2))^2. DDPM's weight
    beta^2 / (2 sd^2 alpha (1 - abar)) (eq. 12) is this at sd^2 = beta_tilde and only there.
    """
    low, high = schedule.level(t), schedule.level(s)
    if not 0 < sd**2 <= 1 - high:
        raise ValueError(f"sd: {sd:g} is outside 0 < sd <= {math.sqrt(1 - high):g}")
    return (math.sqrt(high * (1 - low) / low) - math.sqrt(1 - high - sd**2)) ** 2 / (2 * sd**2)


def snr(schedule: Schedule, t: int) -> float:
    """Signal-to-noise ratio abar / (1 - abar), t in 1..T.

    With sd^2 = beta_tilde, L_{t-1} = (snr(s) - snr(t)) / 2 ||x_0 - x0_hat||^2 (Kingma 2021).
    """
    level = schedule.level(t)
    if level == 1:
        raise ValueError(f"t: {t} is outside 1..{schedule.T} (a clean image has no noise)")
    return level / (1 - level)


def discretised(x: Tensor, mean: Tensor, sd: float, bins: int = 256) -> Tensor:
    """log P(x | mean, sd), elementwise: the Gaussian's mass in the bin of x (DDPM, eq. 13).

    x, mean  any one shape, x in [-1, 1] on the grid -1 + 2k / (bins - 1); outer bins open.
    Worked in log space from the nearer tail, so nothing needs the customary floor of 1e-12.
    """
    if not sd > 0:
        raise ValueError(f"sd: {sd} is not > 0")
    if not (x.abs() <= 1).all():
        raise ValueError(f"x: {x.min():g} .. {x.max():g} is outside [-1, 1]")
    half = 1 / (bins - 1)
    x, mean = x.double(), mean.double()
    lo = torch.where(x < half - 1, -math.inf, (x - half - mean) / sd)
    hi = torch.where(x > 1 - half, math.inf, (x + half - mean) / sd)
    lo, hi = torch.where(lo + hi > 0, -hi, lo), torch.where(lo + hi > 0, -lo, hi)
    upper, lower = log_ndtr(hi), log_ndtr(lo)
    return upper + (-torch.expm1(lower - upper)).log()


@dataclass(frozen=True)
class Term:
    """One part of the negative bound: name ("prior", "matching", "decoder"), its t, nats (b,)."""

    name: str
    t: int
    nats: Tensor


def terms(
    eps: Eps,
    schedule: Schedule,
    x0: Tensor,
    path: Sequence[int],
    generator: torch.Generator | None = None,
    variance: Callable[[int, int], float] | None = None,
    decoder: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Iterator[Term]:
    """Every term of the bound for a model on a path, with one draw of x_t for each; sum = -ELBO.

    x0        (b, ...) in [-1, 1].  path  ends at 0, e.g. trailing(T); a pass for each hop.
    variance  (t, s) -> variance of the model's step; None is beta_tilde, matched to q.
    decoder   (x0, x0_hat) -> log p(x_0 | x_1), elementwise; None is `discretised` with the noise of
              the last step but one, as the step to 0 itself has none.
    """
    path = check_entry(schedule, x0, path)
    if path[-1] != 0 or len(path) < 3:
        raise ValueError(f"path: ends at {path[-1]} after {len(path) - 1} hops, need 0 and >= 2")
    variance = variance or schedule.beta_tilde
    if decoder is None:
        decoder = partial(discretised, sd=math.sqrt(schedule.beta_tilde(path[-3], path[-2])))

    def walk() -> Iterator[Term]:
        yield Term("prior", path[0], prior(schedule, x0, path[0]))
        for t, s in pairwise(path):
            x = schedule.noise(x0, randn_like(x0, generator), t)
            x0_hat = schedule.denoise(x, eps(x, t), t)
            if s:
                nats = matching(schedule, x0, x0_hat, t, s, var_p=variance(t, s))
                yield Term("matching", t, nats)
            else:
                yield Term("decoder", t, -_total(decoder(x0, x0_hat)))

    return walk()


def _total(elements: Tensor) -> Tensor:
    return elements.flatten(1).sum(1)  # (b,)
