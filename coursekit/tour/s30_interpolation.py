"""Between two people.

With DDIM every starting noise is a person, so there should be somebody between two people as well.
The straight way between two noises does not lead there: half-way it is too short by a factor of
0.7, less noise than the model has ever been shown. Noises of many dimensions lie on a sphere, and
the way along the sphere (slerp) keeps their length.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import ddim, last
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
