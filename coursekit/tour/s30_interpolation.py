"""Between two people.

With DDIM every starting noise is a person, so there should be somebody between two people as well.
The straight way between two noises does not lead there: half-way it is too short by a factor of
0.7, less noise than the model has ever been shown. Noises of many dimensions lie on a sphere, and
the way along the sphere (slerp) keeps their length.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import ddim, last, slerp
from coursekit.tour import Context

STEPS = 20
PLACES = (0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 1.0)


def make(context: Context) -> Iterator[Figure]:
    a, b = context.noise(2).split(1)
    sphere = [slerp(a, b, place) for place in PLACES]
    line = [(1 - place) * a + place * b for place in PLACES[1:-1]]  # the ends are the same
    path = context.schedule.trailing(STEPS)
    x = last(ddim(context.eps, context.schedule, torch.cat(sphere + line), path)).x
    first, final = x[:1], x[len(PLACES) - 1:len(PLACES)]
    yield sheet(
        torch.cat([x[:len(PLACES)], first, x[len(PLACES):], final]),
        [f"{place:.0%}" for place in PLACES], ["along the\nsphere", "straight"],
        alt="Along the sphere one portrait changes into another through clear portraits; on the "
            "straight way the middle ones are smooth and poor in detail.",
        caption="The same two people at the ends of both rows. Look at the middle: who is a "
                "person, and who is a blur?")
