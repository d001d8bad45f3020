"""There and back: inversion.

To edit a given portrait, one first needs the noise that it would have come from. DDIM adds no
noise, so its steps can be walked backwards, up to a code that ought to lead to the same portrait
again. It does so only nearly: on the way up each step has to use the noise seen one step too early.
The error shrinks with the steps, and once they are many, twice as many halve it.

Where the steps lie matters as much. The colours of the whole picture drown last, in a few moments
near the end, and steps that are even in time walk right over them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coursekit.classroom.metrics import psnr
from coursekit.classroom.show import Figure, curves, sheet
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.tour import Context

STEPS, EVEN = (10, 20, 40), 20
MAGNIFY = 5  # how much the errors are magnified


def make(context: Context) -> Iterator[Figure]:
    x0, schedule = context.pictures(1), context.schedule
    paths = [schedule.trailing(EVEN), *(schedule.karras(S) for S in STEPS)]
    codes, backs = zip(*(round_trip(context, x0, path) for path in paths), strict=True)
    decibels = [decibel(back, x0) for back in backs]
    names = [f"{EVEN} even steps", *(f"{S} steps" for S in STEPS)]
    said = [f"{name}\n{db:.1f} dB" for name, db in zip(names, decibels, strict=True)]
    errors = [(MAGNIFY * (back - x0)).clamp(-1, 1) for back in backs]
    white, grey = torch.ones_like(x0), torch.zeros_like(x0)
    yield sheet(
        torch.cat([white, *codes, x0, *backs, grey, *errors]), ["portrait", *said],
        ["its code", "and back", f"error, {MAGNIFY} x"],
        alt="The codes are full of noise; with even steps a portrait of other colours comes back, "
            "then portraits ever more like the original, whose errors fade to grey.",
        caption="Up to the code and back. First with steps that are even in time: look at the "
                "colours. Then with steps that are short where the picture changes: where are the "
                "last errors to go? And how much of the portrait do you still see in its code?")
    yield curves(
        {"short where it changes": (STEPS, decibels[1:]), "even": ((EVEN,), decibels[:1])},
        x="steps", y="PSNR (dB)", log_x=True, title="The round trip by the number of steps",
        alt="PSNR: " + ", ".join(s.replace("\n", " ") for s in said) + ".",
        caption="Higher is closer to the original; an error half as large is 6 dB more.")


def round_trip(context: Context, x0: Tensor, path: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The code of a picture, and the picture that the code leads to, along the same path."""
    code = last(invert(context.eps, context.schedule, x0, path)).x
    return code, last(ddim(context.eps, context.schedule, code, path)).x


def decibel(back: Tensor, x0: Tensor) -> float:
    """PSNR of one picture as it is shown; on the CPU, as not every device has float64."""
    return float(psnr(back.clamp(-1, 1).cpu(), x0.cpu()))
