"""Samplers and plain inversion: one loop over a path, as generators that yield every state.

    q_sigma(x_s | x_t, x_0) = N(sqrt(abar_s) x_0 + sqrt(1 - abar_s - sigma^2) eps, sigma^2)
    with eps = (x_t - sqrt(abar_t) x_0) / sqrt(1 - abar_t)   DDIM (Song 2021), eq. 7, any s < t

keeps the marginal q(x_s | x_0) for every 0 <= sigma^2 <= 1 - abar_s. sigma = 0 is DDIM; the
member with eta = 1 is DDPM. A step puts the predicted x_0 in the place of the true one.

Gradients flow through every sampler; wrap the loop in torch.no_grad() when none are wanted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

from coursekit.diffusion.predict import Eps, to_eps
from coursekit.diffusion.schedule import Schedule

Item = TypeVar("Item")


@dataclass(slots=True)
class State:
    """Where a sampler stands: x at time t, and the x_0 it predicted on the way (None at first).

    A loop may assign ``state.x``: the sampler goes on from there (masks, blends, corrections).
    """

    t: int
    x: Tensor
    x0: Tensor | None = None


def last(items: Iterable[Item]) -> Item:
    """Run a generator to its end and return the last thing it yields: ``last(ddim(..)).x``."""
    item = None
    for item in items:
        pass
    if item is None:
        raise ValueError("items: nothing was yielded")
    return item


def sigma(schedule: Schedule, t: int, s: int, eta: float) -> float:
    """Noise of a move from t to s < t, eta sqrt(beta_tilde) (DDIM, eq. 16); eta in [0, 1]."""
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: {eta} is outside [0, 1]")
    return eta * math.sqrt(schedule.beta_tilde(t, s)) if eta else 0.0


def posterior(schedule: Schedule, x: Tensor, x0: Tensor, t: int, s: int, sd: float) -> Tensor:
    """Mean of q_sigma(x_s | x_t = x, x_0 = x0) with sigma = sd (DDIM, eq. 7); x, x0 (b, ...).

    Any 0 <= sd^2 <= 1 - abar_s will do; sd = `sigma`(.., eta=1) gives DDPM's posterior (eq. 7).
    """
    if not 0 <= s < t:
        raise ValueError(f"t, s: {t}, {s} must satisfy 0 <= s < t")
    room = 1 - schedule.level(s) - sd**2
    if sd < 0 or room < -1e-12:  # sd^2 = 1 - abar_s is allowed and may round to just above
        raise ValueError(f"sd: {sd:g} is outside 0 <= sd <= {math.sqrt(1 - schedule.level(s)):g}")
    a_s, _ = schedule.scales(s, x)
    return a_s * x0 + math.sqrt(max(room, 0)) * to_eps(schedule, "x0", x0, x, t)


def ddim(
    eps: Eps,
    schedule: Schedule,
    x: Tensor,
    path: Sequence[int],
    eta: float = 0.0,
    generator: torch.Generator | None = None,
    clip: float | None = None,
) -> Iterator[State]:
    """Walk x (b, ...) down the path with the generalised DDIM step; yields len(path) states.

    x          floating tensor at level path[0], finite.
    path       times that fall strictly within 0..T, e.g. schedule.trailing(50).
    eta        0 deterministic .. 1 ancestral (DDPM on the path).
    generator  for eta > 0; drawn on its own device, so a CPU seed means the same on a GPU.
    clip       bound on |x_0|, e.g. 1.0; eps is derived again from the clipped x_0.
    """
    sigma(schedule, 1, 0, eta)  # a bad eta is refused here, not at the first step

    def spread(t: int, s: int) -> tuple[float, float]:
        sd = sigma(schedule, t, s, eta)
        return sd, sd

    path = check_entry(schedule, x, path, clip)
    return _walk(eps, schedule, x, path, spread, generator, clip)


def ddpm(
    eps: Eps,
    schedule: Schedule,
    x: Tensor,
    path: Sequence[int],
    variance: Callable[[int, int], float] | None = None,
    generator: torch.Generator | None = None,
    clip: float | None = None,
) -> Iterator[State]:
    """Ancestral sampling (DDPM, algorithm 2): the posterior mean, plus noise of `variance`(t, s).

    variance  None or schedule.beta_tilde: the small one, ddim with eta = 1 (code: "fixedsmall");
              schedule.beta: the large one ("fixedlarge", the DDIM paper's sigma-hat), which widens
              the noise but keeps the mean; or any function (t, s) -> variance >= 0.
    The hop to level 0 adds no noise. Other arguments as in `ddim`.
    """
    variance = variance or schedule.beta_tilde

    def spread(t: int, s: int) -> tuple[float, float]:
        return sigma(schedule, t, s, eta=1.0), math.sqrt(variance(t, s)) if s else 0.0

    path = check_entry(schedule, x, path, clip)
    return _walk(eps, schedule, x, path, spread, generator, clip)


def invert(eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int]) -> Iterator[State]:
    """DDIM inversion: walk a clean x (b, ...) up the path, from path[-1] to path[0].

    The exact inverse of a move s <- t needs eps(x_t, t) before x_t is known; it is replaced by
    eps(x_s, t): the old point, the *target* time. The error is O(1/S) in the number of hops.
    The path is given as for sampling, noisy to clean; a Stable Diffusion path starts at level 1.
    """
    return _climb(eps, schedule, x, check_entry(schedule, x, path))


def _climb(eps: Eps, schedule: Schedule, x: Tensor, path: list[int]) -> Iterator[State]:
    state = State(path[-1], x)
    yield state
    for s, t in pairwise(reversed(path)):
        e = predict_noise(eps, state.x, t)
        x0 = schedule.denoise(state.x, e, s)
        state = State(t, schedule.noise(x0, e, t), x0)
        yield state


def _walk(
    eps: Eps,
    schedule: Schedule,
    x: Tensor,
    path: list[int],
    spread: Callable[[int, int], tuple[float, float]],
    generator: torch.Generator | None,
    clip: float | None,
) -> Iterator[State]:
    """spread(t, s) -> (sigma inside the mean, sigma of the noise): they differ for sigma-hat."""
    state = State(path[0], x)
    yield state
    for t, s in pairwise(path):
        x = state.x
        e = predict_noise(eps, x, t)
        x0 = schedule.denoise(x, e, t)
        if clip is not None:
            x0 = x0.clamp(-clip, clip)
            e = to_eps(schedule, "x0", x0, x, t)
        inner, outer = spread(t, s)
        x = posterior(schedule, x, x0, t, s, inner) if inner else schedule.noise(x0, e, s)
        if outer:
            x = x + outer * randn_like(x, generator)
        state = State(s, x, x0)
        yield state


def predict_noise(eps: Eps, x: Tensor, t: int) -> Tensor:
    """eps(x, t), refused where its shape is not that of x."""
    e = eps(x, t)
    if e.shape != x.shape:
        raise ValueError(f"eps: returned shape {tuple(e.shape)}, x has {tuple(x.shape)}")
    return e


def randn_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise in x's shape, dtype and place, drawn on the generator's device."""
    device = generator.device if generator else x.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """The point at `share` of the arc from a to b, (b, ...) each, every one as one long vector.

    sin((1 - s) phi) / sin(phi) a + sin(s phi) / sin(phi) b, phi the angle between them (Shoemake
    1985); the straight line where the angle is too small to divide by. Vectors that point in
    opposite directions have no arc: ValueError.
    """
    a64, b64 = a.cpu().double(), b.cpu().double()  # not every device has float64
    u, v = a64.flatten(1), b64.flatten(1)  # b d
    cos = (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
    phi = cos.clamp(-1, 1).acos().view(-1, *[1] * (a.ndim - 1))  # b 1 ..
    if (phi > 3.1415).any():
        raise ValueError("a, b: point in opposite directions, accepted is an angle below pi")
    near = phi < 1e-4
    sin = torch.where(near, 1.0, phi.sin())
    left = torch.where(near, 1 - share, ((1 - share) * phi).sin() / sin)
    right = torch.where(near, share, (share * phi).sin() / sin)
    return (left * a64 + right * b64).to(a)


def check_entry(
    schedule: Schedule, x: Tensor, path: Sequence[int], clip: float | None = None
) -> list[int]:
    """Checks made once, when a sampler is called and not at its first step."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2:
        found = f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x: expected a floating tensor (b, ...), got {found}")
    bad = int((~x.isfinite()).sum())
    if bad:
        raise ValueError(f"x: {bad} of {x.numel()} values are NaN or infinite, all must be finite")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip: {clip} is not > 0")
    return schedule.check_path(path)
