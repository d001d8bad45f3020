"""There and back: inversion.

To edit a given portrait, one first needs the noise that it would have come from. DDIM adds no
noise, so its steps can be walked backwards, up to a code that ought to lead to the same portrait
again. It does so only nearly: on the way up each step has to use the noise seen one step too early.
The error shrinks with the steps, and once they are many, twice as many halve it.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit.classroom.metrics import psnr
from coursekit.classroom.show import Figure, curves, sheet
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.tour import Context

STEPS = (5, 10, 20, 40)
MAGNIFY = 5  # how much the errors are magnified


def make(context: Context) -> Iterator[Figure]:
    x0 = context.pictures(1)
    codes, backs = zip(*(round_trip(context, x0, S) for S in STEPS), strict=True)
    decibels = [float(psnr(back.clamp(-1, 1).cpu(), x0.cpu())) for back in backs]
    columns = [f"{S} steps\n{db:.1f} dB" for S, db in zip(STEPS, decibels, strict=True)]
    errors = [(MAGNIFY * (back - x0)).clamp(-1, 1) for back in backs]
    white, grey = torch.ones_like(x0), torch.zeros_like(x0)
    yield sheet(
        torch.cat([white, *codes, x0, *backs, grey, *errors]), ["portrait", *columns],
        ["its code", "and back", f"error, {MAGNIFY} x"],
        alt="The codes look like noise; the portraits that come back resemble the original more "
            "and more to the right, and the errors fade to grey.",
        caption="Up to the code and back with the same number of steps. Where are the last errors "
                "to go?")
    yield curves(
        {"round trip": (STEPS, decibels)}, x="steps", y="PSNR (dB)", log_x=True,
        title="The round trip by the number of steps",
        alt="A line: " + ", ".join(
            f"{db:.1f} dB at {S} steps" for S, db in zip(STEPS, decibels, strict=True)) + ".",
        caption="Higher is closer to the original; an error half as large is 6 dB more.")


def round_trip(context: Context, x0: Tensor, S: int) -> tuple[Tensor, Tensor]:
    """The code of a picture, and the picture that the code leads to, in S steps each."""
    path = context.schedule.trailing(S)
    code = last(invert(context.eps, context.schedule, x0, path)).x
    return code, last(ddim(context.eps, context.schedule, code, path)).x
