"""Inversion that comes back: three schemes beyond `sample.invert`, over any noise predictor.

Write a DDIM move from t down to s as x_s = a x_t + b eps(x_t, t), and its exact inverse as

    x_t = A x_s + B eps(x_t, t)     A = 1/a = sqrt(abar_t / abar_s)
                                    B = -b/a = sqrt(1 - abar_t) - A sqrt(1 - abar_s)

The unknown stands on both sides. Plain inversion puts x_s into eps; the schemes here do better:

    edict          two coupled copies, each step of one uses the other: invertible by algebra
                   Wallace, Gokul & Naik, "EDICT: Exact Diffusion Inversion via Coupled
                   Transformations", CVPR 2023
    edit_friendly  states noised independently of each other, and the noise that joins them kept
                   Huberman-Spiegelglas, Kulikov & Michaeli, "An Edit Friendly DDPM Noise Space",
                   CVPR 2024
    fixed_point    the implicit equation solved by iteration
                   Pan et al., "AIDI", ICCV 2023; Garibi et al., "ReNoise", ECCV 2024

Paths are given noisy to clean throughout, as for sampling. Wrap loops in torch.no_grad().
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral

import torch
from torch import Tensor

from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import State, check_entry, posterior, predict_noise, randn_like, sigma
from coursekit.diffusion.schedule import Schedule


def ddim_line(schedule: Schedule, t: int, u: int) -> tuple[float, float]:
    """(a, b) with noise(denoise(x, eps, t), eps, u) = a x + b eps, in float64; any t, u in 0..T.

    From t down to s they are a and b above, from s up to t they are A and B.
    """
    now, then = schedule.level(t), schedule.level(u)
    a = math.sqrt(then / now)
    return a, math.sqrt(1 - then) - a * math.sqrt(1 - now)


# ---- EDICT ---------------------------------------------------------------------------------


@dataclass(slots=True)
class Twins:
    """EDICT's two copies x and y, both (b, ...) at time t."""

    t: int
    x: Tensor
    y: Tensor


def edict(
    eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int], y: Tensor | None = None,
    p: float = 0.93,
) -> Iterator[Twins]:
    """Walk the twins down the path; yields len(path) states, 2 calls a hop.

    x, y  (b, ...) at level path[0]; y = None means equal to x.
    p     mixing in (0, 1]: (x, y) are blended after every hop so that they do not drift apart.
          The paper's 0.93 suits 50 hops; 1 does not blend.
    """
    path, y = _check_twins(schedule, x, y, path, p)
    return _edict_down(eps, schedule, x, y, path, p)


def edict_invert(
    eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int], y: Tensor | None = None,
    p: float = 0.93,
) -> Iterator[Twins]:
    """Walk the twins up the path: the exact inverse of `edict`, hop by hop.

    Un-blending multiplies the difference of the twins, and its rounding errors, by p^-2 a hop:
    use float64 (a round trip errs by less than 1e-9). Begin paths where sqrt(abar) is not nearly
    0, as at the end of a cosine schedule: there a hop divides the difference by it.
    """
    path, y = _check_twins(schedule, x, y, path, p)
    return _edict_up(eps, schedule, x, y, path, p)


def _edict_down(
    eps: Eps, schedule: Schedule, x: Tensor, y: Tensor, path: list[int], p: float
) -> Iterator[Twins]:
    yield Twins(path[0], x, y)
    for i, (t, s) in enumerate(pairwise(path)):
        a, b = ddim_line(schedule, t, s)
        first, second = (x, y) if i % 2 == 0 else (y, x)  # who leads alternates
        first = a * first + b * predict_noise(eps, second, t)
        second = a * second + b * predict_noise(eps, first, t)
        first = p * first + (1 - p) * second
        second = p * second + (1 - p) * first
        x, y = (first, second) if i % 2 == 0 else (second, first)
        yield Twins(s, x, y)


def _edict_up(
    eps: Eps, schedule: Schedule, x: Tensor, y: Tensor, path: list[int], p: float
) -> Iterator[Twins]:
    yield Twins(path[-1], x, y)
    for i, (t, s) in reversed(list(enumerate(pairwise(path)))):
        a, b = ddim_line(schedule, t, s)
        first, second = (x, y) if i % 2 == 0 else (y, x)
        second = (second - (1 - p) * first) / p
        first = (first - (1 - p) * second) / p
        second = (second - b * predict_noise(eps, first, t)) / a
        first = (first - b * predict_noise(eps, second, t)) / a
        x, y = (first, second) if i % 2 == 0 else (second, first)
        yield Twins(t, x, y)


# ---- edit-friendly -------------------------------------------------------------------------


@dataclass(slots=True)
class Hop(State):
    """A state with the noise that leads to it: x = posterior mean + noise.

    noise  (b, ...), sd * z in the paper's letters; None at the first state.
    sd     standard deviation of the sampler's own noise on that hop, 0 on a hop to level 0.
    """

    noise: Tensor | None = None
    sd: float = 0.0


def edit_friendly(
    eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int], eta: float = 1.0,
    generator: torch.Generator | None = None, keep_last: bool = True,
) -> Iterator[Hop]:
    """Find the noise that makes the sampler pass through noised copies of a clean x (b, ...).

    Every state is sqrt(abar) x + sqrt(1 - abar) n with an n of its own, independent across times:
    the noise found is larger than N(0, 1) and correlated, and holds the layout of x more firmly.
    ``hops = list(edit_friendly(..))`` is the code; `replay` decodes it. x also stands for the
    state at path[-1], be it level 0 or Stable Diffusion's 1.

    eta        of the sampler; 1 in the paper.
    generator  for the n, drawn clean to noisy.
    keep_last  True: the last hop's noise is kept, and replay is exact. False: it is 0 as in the
               official code, and the result is the last predicted x_0.
    Yields len(path) states noisy to clean, one call a hop.
    """
    sigma(schedule, 1, 0, eta)
    path = check_entry(schedule, x, path)
    return _edit_friendly(eps, schedule, x, path, eta, generator, keep_last)


def _edit_friendly(
    eps: Eps, schedule: Schedule, x: Tensor, path: list[int], eta: float,
    generator: torch.Generator | None, keep_last: bool,
) -> Iterator[Hop]:
    states = {t: schedule.noise(x, randn_like(x, generator), t) for t in path[-2::-1]}
    states[path[-1]] = x
    x = states[path[0]]
    yield Hop(path[0], x)
    for t, s in pairwise(path):
        sd = sigma(schedule, t, s, eta)
        x0 = schedule.denoise(x, predict_noise(eps, x, t), t)
        mean = posterior(schedule, x, x0, t, s, sd)
        noise = states[s] - mean if s > path[-1] or keep_last else torch.zeros_like(x)
        x = mean + noise  # not states[s]: the replay must meet the same rounding
        yield Hop(s, x, x0, noise, sd)


def replay(eps: Eps, schedule: Schedule, hops: Sequence[Hop]) -> Iterator[State]:
    """Sample with the noise of `edit_friendly`; with the same eps it returns the clean x.

    hops  the whole list, or hops[skip:] to enter later: the later, the closer to the original.
    """
    if len(hops) < 2 or any(h.noise is None for h in hops[1:]):
        raise ValueError(f"hops: {len(hops)} states, accepted are >= 2 in a row of edit_friendly's")
    check_entry(schedule, hops[0].x, [h.t for h in hops])
    return _replay(eps, schedule, hops)


def _replay(eps: Eps, schedule: Schedule, hops: Sequence[Hop]) -> Iterator[State]:
    state = State(hops[0].t, hops[0].x)
    yield state
    for hop in hops[1:]:
        t, x = state.t, state.x
        x0 = schedule.denoise(x, predict_noise(eps, x, t), t)
        state = State(hop.t, posterior(schedule, x, x0, t, hop.t, hop.sd) + hop.noise, x0)
        yield state


# ---- fixed point ---------------------------------------------------------------------------

LONGEST = 8.0  # full steps at once, where G creeps towards its fixed point from one side


@dataclass(slots=True)
class Solved(State):
    """A state of `fixed_point`, with how well its equation x = G(x) was solved, a row each.

    residual  (b,) RMS of G(x) - x at the last point looked at; x lies one step beyond it.
    rate      (b,) residual after the first full step over that before: G contracts where < 1.
              None where the hop was done in one call.
    step      (b,) length of the last step in full steps: < 1 damped, > 1 stretched.
    calls     calls of eps on this hop.
    """

    residual: Tensor | None = None
    rate: Tensor | None = None
    step: Tensor | None = None
    calls: int = 0


def fixed_point(
    eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int], iterations: int = 20,
    tol: float = 1e-6, adaptive: bool = True,
) -> Iterator[Solved]:
    """DDIM inversion with every implicit equation x_t = G(x_t) = A x_s + B eps(x_t, t) solved.

    iterations  most calls of eps a hop, >= 1; with 1 this is plain inversion.
    tol         > 0; a hop ends when every row's residual (RMS) is <= tol.
    adaptive    False takes full steps, x <- G(x), which diverge where |B| L > 1 (L the Lipschitz
                constant of eps). True measures that and shortens or stretches them.

    Nothing is raised where a hop does not converge: read `Solved.residual`. For an exact score
    x - G(x) is the gradient of a convex function (all eigenvalues of B d eps/dx are below 1), so
    the solution is unique and short steps reach it; full ones overshoot where one is below -1.
    """
    if not isinstance(iterations, Integral) or iterations < 1:
        raise ValueError(f"iterations: {iterations!r} is not an int >= 1")
    if not tol > 0:
        raise ValueError(f"tol: {tol} is not > 0")
    path = check_entry(schedule, x, path)
    return _fixed_point(eps, schedule, x, path, iterations, tol, adaptive)


def _fixed_point(
    eps: Eps, schedule: Schedule, x: Tensor, path: list[int], iterations: int, tol: float,
    adaptive: bool,
) -> Iterator[Solved]:
    state = Solved(path[-1], x)
    yield state
    for s, t in pairwise(reversed(path)):
        A, B = ddim_line(schedule, s, t)
        x, base = state.x, A * state.x

        def G(x: Tensor, base: Tensor = base, B: float = B, t: int = t) -> Tensor:
            return base + B * predict_noise(eps, x, t)

        state = _solve(G, x, iterations, tol, adaptive)
        state.t = t
        yield state


def _solve(
    G: Callable[[Tensor], Tensor], x: Tensor, iterations: int, tol: float, adaptive: bool
) -> Solved:
    """Steps along r = G(x) - x, each row with a length of its own (Barzilai & Borwein 1988).

    With c = <r_new, r> / <r, r>, the length times 1 / (1 - c) would have ended this step at
    r_new = 0 along r. A row whose residual grew steps back and tries at most half the length.
    """
    r, calls, rate = G(x) - x, 1, None
    size = _rms(r)
    length = torch.ones_like(size)
    while calls < iterations and not (size <= tol).all():
        trial = x + _as(length, x) * r
        new, calls = G(trial) - trial, calls + 1
        new_size = _rms(new)
        rate = new_size / size if rate is None else rate
        if adaptive:
            c = (new * r).flatten(1).mean(1) / size**2
            better = torch.where(c < 1, length / (1 - c), LONGEST).clamp(max=LONGEST)
            taken = new_size < size
            better = torch.where(taken, better, torch.minimum(better, length / 2))
            length = torch.where(size <= tol, length, better)  # a solved row rests
            new_size = torch.where(taken, new_size, size)
            trial, new = (torch.where(_as(taken, x), a, b) for a, b in ((trial, x), (new, r)))
        x, r, size = trial, new, new_size
    return Solved(0, x + _as(length, x) * r, None, size, rate, length, calls)


def _rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()  # (b,)


def _as(row: Tensor, x: Tensor) -> Tensor:
    return row.view(-1, *[1] * (x.ndim - 1))  # (b, 1, ...)


def _check_twins(
    schedule: Schedule, x: Tensor, y: Tensor | None, path: Sequence[int], p: float
) -> tuple[list[int], Tensor]:
    if not 0 < p <= 1:
        raise ValueError(f"p: {p} is outside 0 < p <= 1")
    y = x if y is None else y
    if y.shape != x.shape or y.dtype != x.dtype:
        raise ValueError(f"y: {y.dtype} {tuple(y.shape)}, accepted is x's {x.dtype} "
                         f"{tuple(x.shape)}")
    check_entry(schedule, y, path)
    return check_entry(schedule, x, path), y
