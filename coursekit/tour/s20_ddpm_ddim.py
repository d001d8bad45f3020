"""DDPM against DDIM: how few steps will do.

Both samplers walk the same noise down to a portrait and ask the same network. DDPM adds fresh
noise after each step, DDIM adds none: its portrait is decided by the noise it starts from.

DDPM was made for a thousand steps; with few of them there is no time left to work on what the fresh
noise has changed, and detail is lost. DDIM shows the same person again and again: it loses little
down to twenty steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import ddim, posterior, randn_like, sigma
from coursekit.tour import Context

STEPS = (10, 20, 50, 100)


def make(context: Context) -> Iterator[Figure]:
    pairs = [together(context, context.schedule.trailing(S)) for S in STEPS]
    yield sheet(
        torch.stack(pairs, 1).flatten(0, 1), [f"{S} steps" for S in STEPS],
        ["DDIM\nno noise", "DDPM\nfresh noise"], scale=3,
        alt="DDIM shows one person in every column, nearly the same picture from 20 steps on; "
            "DDPM shows another person in every column, poorest in detail at 10 steps.",
        caption="One starting noise, eight walks. Compare the leftmost pictures, then look for "
                "what stays the same along each row.")


def together(context: Context, path: Sequence[int]) -> Tensor:
    """DDIM in row 0 and DDPM in row 1 of one batch, (2, 3, h, w): half the time of two runs.

    The loop is DDIM's. Both samplers guess the same x_0 from the same x_t, so that row 1 only
    has to land elsewhere: on a draw from the posterior.
    """
    schedule, generator = context.schedule, context.generator()
    state = before = None
    for state in ddim(context.eps, schedule, context.noise(1).repeat(2, 1, 1, 1), path):
        if before is not None:
            (t, x), s = before, state.t
            sd = sigma(schedule, t, s, eta=1.0)
            landing = posterior(schedule, x[1:], state.x0[1:], t, s, sd)
            landing = landing + sd * randn_like(landing, generator)
            state.x = torch.cat([state.x[:1], landing])
        before = state.t, state.x
    return state.x
