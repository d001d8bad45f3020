"""Inversion under guidance: what a guided sampler must be given to return a picture.

Plain inversion at w = 1 leaves a pivot, the states z*_T .. z*_0, down which w = 1 comes back. With

    eps_w = eps_null + w (eps_c - eps_null)

another w follows another equation: it leaves the pivot, the further the larger w, and more hops do
not help. Three ways to stay on it:

    null_text        the embedding behind eps_null is optimised, hop by hop, until it does
                     Mokady, Hertz, Aberman, Pritch & Cohen-Or, "Null-text Inversion for Editing
                     Real Images using Guided Diffusion Models", CVPR 2023
    negative prompt  the source's own prompt takes the place of the empty one: eps_w = eps_c for
                     every w, and nothing is left to do but predict.guided(source, target, w)
                     Miyake, Iohara, Saito & Tanaka, "Negative-prompt Inversion", 2023
    direct           what a hop misses the pivot by is kept, and added when sampling
                     Ju, Zeng, Bian, Liu & Xu, "Direct Inversion", ICLR 2024

A pivot is ``list(invert(cond, schedule, x, path))``, or any states of which no two share a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite
from numbers import Integral, Real

import torch
from torch import Tensor

from coursekit.diffusion.inversion import Hop
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import State, check_entry, posterior, predict_noise
from coursekit.diffusion.schedule import Schedule

# ---- direct --------------------------------------------------------------------------------


def direct(eps: Eps, schedule: Schedule, pivot: Sequence[State]) -> Iterator[Hop]:
    """Find the offsets d = z*_s - step(z*_t) that keep the sampler of `eps` on the pivot.

    eps  as it will sample, guidance and all; one call a hop.
    Yields the pivot's states noisy to clean, with d as Hop.noise and sd = 0. ``hops = list(..)``
    is the code: `inversion.replay(eps, schedule, hops)` returns the picture. While editing, the
    paper adds d to the source alone; a target that shares no state with it goes its own way.
    """
    return _direct(eps, schedule, _sorted(schedule, pivot))


def _direct(eps: Eps, schedule: Schedule, pivot: list[State]) -> Iterator[Hop]:
    t, x = pivot[0].t, pivot[0].x
    yield Hop(t, x)
    for now, then in pairwise(pivot):
        x0 = schedule.denoise(x, predict_noise(eps, x, now.t), now.t)
        step = posterior(schedule, x, x0, now.t, then.t, 0.0)
        d = then.x - step
        x = step + d  # not then.x: the replay must meet the same rounding
        yield Hop(then.t, x, x0, d)


# ---- null-text -----------------------------------------------------------------------------

LR = 1e-2  # falls to half of it along the path
ENOUGH, SLACK = 1e-5, 1e-3  # a loss that will do: the first at the noisy end, their sum at last


@dataclass(slots=True)
class Nulled(State):
    """A state that guided sampling reached, with what was optimised to lead it here.

    null    the embedding of the hop that ends here; None at the first state
    losses  mean squared distance from the pivot before each update, and at last as it is
    """

    null: Tensor | None = None
    losses: tuple[float, ...] = ()


def null_text(
    null_eps: Callable[[Tensor], Eps], cond: Eps, schedule: Schedule, pivot: Sequence[State],
    null: Tensor, w: float = 7.5, iterations: int = 10,
) -> Iterator[Nulled]:
    """Find for each hop the embedding with which the sampler under guidance w stays on the pivot.

    null_eps    from an embedding to the unconditional predictor; gradients must flow through it.
    cond        the predictor at w = 1 that made the pivot.
    null        the embedding to begin with, that of the empty text: float32 or float64, one for all
                pictures, or one for each (then they do not disturb each other).
    iterations  most updates a hop, >= 0; with 0 this is plain guided sampling.

    Each hop starts from the embedding of the one before. Adam, begun anew; its rate falls from LR
    to LR / 2 and the loss that ends a hop rises from ENOUGH to ENOUGH + SLACK: at 50 hops that is
    the paper's 1e-2 (1 - i / 100) and 1e-5 + 2e-5 i. Yields len(pivot) states, noisy to clean:
    ``{a.t: b.null for a, b in pairwise(states)}`` has an embedding for each time.
    Gradients are taken inside only, also under torch.no_grad(); nothing else gets one.
    """
    if not isinstance(iterations, Integral) or iterations < 0:
        raise ValueError(f"iterations: {iterations!r} is not an int >= 0")
    if not isinstance(w, Real) or not isfinite(w):
        raise ValueError(f"w: {w!r} is not a finite number")
    if not isinstance(null, Tensor) or null.dtype not in (torch.float32, torch.float64):
        kind = null.dtype if isinstance(null, Tensor) else type(null).__name__
        raise TypeError(f"null: {kind}, accepted is a tensor in float32 or float64")
    return _null_text(null_eps, cond, schedule, _sorted(schedule, pivot), null, w, iterations)


def _null_text(
    null_eps: Callable[[Tensor], Eps], cond: Eps, schedule: Schedule, pivot: list[State],
    null: Tensor, w: float, iterations: int,
) -> Iterator[Nulled]:
    x, null = pivot[0].x, null.detach()
    yield Nulled(pivot[0].t, x)
    for i, (now, then) in enumerate(pairwise(pivot)):
        with torch.no_grad():
            e_c = predict_noise(cond, x, now.t)

        def hop(null: Tensor, x: Tensor = x, e_c: Tensor = e_c, t: int = now.t, s: int = then.t,
                ) -> tuple[Tensor, Tensor]:
            e = predict_noise(null_eps(null), x, t)
            e = e + w * (e_c - e)
            x0 = schedule.denoise(x, e, t)
            return schedule.noise(x0, e, s), x0

        def miss(null: Tensor, hop: Callable = hop, goal: Tensor = then.x) -> Tensor:
            return (hop(null)[0] - goal).square().flatten(1).mean(1)  # (b,)

        share = i / (len(pivot) - 1)
        null, losses = _descend(miss, null, LR * (1 - share / 2), ENOUGH + SLACK * share,
                                iterations)
        with torch.no_grad():
            x, x0 = hop(null)
            losses.append(float((x - then.x).square().mean()))
        yield Nulled(then.t, x, x0, null, tuple(losses))


def _descend(miss: Callable[[Tensor], Tensor], null: Tensor, lr: float, enough: float,
             iterations: int) -> tuple[Tensor, list[float]]:
    """Adam from null until every row of `miss` is below `enough`; the losses before each update."""
    null, losses = null.clone().requires_grad_(), []
    adam = torch.optim.Adam([null], lr=lr)
    with torch.enable_grad():
        for _ in range(iterations):
            rows = miss(null)
            if (rows < enough).all():
                break
            losses.append(float(rows.detach().mean()))
            null.grad, = torch.autograd.grad(rows.sum(), null)
            adam.step()
    return null.detach(), losses


def _sorted(schedule: Schedule, pivot: Sequence[State]) -> list[State]:
    """The states noisy to clean, once they are found to be of one kind."""
    if not isinstance(pivot, Sequence) or len(pivot) < 2 or \
            not all(isinstance(s, State) for s in pivot):
        raise TypeError("pivot: accepted are two states or more, as list(invert(..)) gives them")
    states = sorted(pivot, key=lambda s: -s.t)
    for state in states:
        check_entry(schedule, state.x, [s.t for s in states])
        if (state.x.shape, state.x.dtype) != (states[0].x.shape, states[0].x.dtype):
            raise ValueError(f"pivot: at t={state.t} {state.x.dtype} {tuple(state.x.shape)}, "
                             f"accepted is what it is at t={states[0].t}, {states[0].x.dtype} "
                             f"{tuple(states[0].x.shape)}")
    return states
