"""The same on a photograph.

This model has seen one small world of drawn portraits and nothing else, so a photograph is foreign
to it. That shows what each method asks of a model. Inversion only has to walk back the way it came
and does well even here. SDEdit asks what the picture could have been, and the answer comes from the
world that the model knows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit.classroom.show import Figure, sheet
from coursekit.edits import sdedit
from coursekit.portraits.truth import strokes
from coursekit.tour import Context
from coursekit.tour.s40_inversion import decibel, round_trip

STEPS = 25
SHARES = (0.4, 0.6, 0.75, 0.9)


def make(context: Context) -> Iterator[Figure]:
    x, name = context.your_picture()
    yield there_and_back(context, x, name)
    yield edited(context, x, name)


def there_and_back(context: Context, x: Tensor, name: str) -> Figure:
    """Inversion of the picture."""
    code, back = round_trip(context, x, context.schedule.karras(STEPS))
    return sheet(
        torch.cat([x, code, back]), ["picture", "its code", f"and back\n{decibel(back, x):.1f} dB"],
        alt=f"On the left {name}, in the middle a code full of noise, on the right what came back.",
        caption=f"Inversion of {name}, outside the world that the model knows, {STEPS} steps each "
                "way.", scale=3)


def edited(context: Context, x: Tensor, name: str) -> Figure:
    """SDEdit of the picture, and of strokes of it, in one batch."""
    schedule, guides = context.schedule, torch.cat([x, strokes(x)])
    edits = [sdedit.edit(context.eps, schedule, guides, round(share * schedule.T),
                         schedule.trailing(STEPS), generator=context.generator())
             for share in SHARES]
    return sheet(
        torch.stack([guides, *edits], 1).flatten(0, 1),
        ["guide", *(f"t0 = {share:g} T" for share in SHARES)], ["picture", "its strokes"],
        alt=f"SDEdit from {name} and from strokes of it: with more noise, both turn into portraits "
            "of the drawn world that keep its colours and layout.",
        caption=f"SDEdit of {name}, outside the world that the model knows. Colours and layout "
                "survive longest; follow them to the right.")
