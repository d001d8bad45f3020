"""From rough strokes to a portrait: SDEdit.

Paint something crude, drown it in noise up to a time t0, and let the model find the way back. The
noise hides that it was painted: what comes back is a portrait, laid out like the painting. With
little noise the result is faithful and still looks painted, with much it looks real and is somebody
else. Nothing was trained for this.

With a mask only a part may change, and all other pixels stay exactly as they were.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit.classroom.show import Figure, sheet
from coursekit.edits import sdedit
from coursekit.portraits.render import render
from coursekit.portraits.truth import strokes
from coursekit.tour import Context

STEPS, PEOPLE = 25, 3
SHARES = (0.4, 0.6, 0.75, 0.9)  # of T: how far the strokes are drowned
REPAIR = 0.75
RED = (0.55, -0.75, -0.7)


def make(context: Context) -> Iterator[Figure]:
    yield from_strokes(context)
    yield masked(context)


def drowned(context: Context, guide: Tensor, share: float, mask: Tensor | None = None) -> Tensor:
    """SDEdit from t0 = share * T."""
    schedule = context.schedule
    return sdedit.edit(context.eps, schedule, guide, round(share * schedule.T),
                       schedule.trailing(STEPS), mask=mask, generator=context.generator())


def from_strokes(context: Context) -> Figure:
    """Stroke paintings of several people at several t0."""
    x = context.pictures(PEOPLE)
    guide = strokes(x)
    edits = [drowned(context, guide, share) for share in SHARES]
    columns = ["painted\nfrom this", "strokes", *(f"t0 = {s:g} T" for s in SHARES)]
    return sheet(
        torch.stack([x, guide, *edits], 1).flatten(0, 1), columns, [""] * PEOPLE,
        alt="Each row starts with a portrait and a painting of it in six colours; to the right the "
            "painting becomes a portrait that has its colours, and at last a different one.",
        caption="The model saw the strokes only. From left to right: more faithful to more real. "
                "Which t0 would you choose?")


def masked(context: Context) -> Figure:
    """A red cap, painted on without skill, in a picture that may change around it only."""
    x = render(context.portraits(1).replace(hat="none")).to(context.device)
    paint, area = ellipse(x, 0.3, 0.52, 0.24), ellipse(x, 0.32, 0.62, 0.32)
    colour = torch.tensor(RED, device=x.device).view(1, 3, 1, 1)
    guide = torch.where(paint[:, None], colour, x)
    free, repaired = (drowned(context, guide, REPAIR, mask) for mask in (None, area))
    shown = torch.where(area[:, None], 1.0, -1.0).expand_as(x)
    return sheet(
        torch.cat([x, guide, shown, free, repaired]),
        ["portrait", "painted on", "may change", "without mask", "with mask"],
        alt="A portrait, the same with a flat red patch on its head, a white region around the "
            "patch, and two results: without the mask everything changed a little, with it only "
            "the region.",
        caption=f"A patch of red, drowned to t0 = {REPAIR:g} T. With the mask every pixel outside "
                "the white region is the original, bit for bit.")


def ellipse(like: Tensor, row: float, width: float, height: float) -> Tensor:
    """(1, h, w) bool: an ellipse at half the width and `row` of the height, sizes as shares."""
    h, w = like.shape[2:]
    y = (torch.arange(h, device=like.device) + 0.5) / h - row
    x = (torch.arange(w, device=like.device) + 0.5) / w - 0.5
    return (((2 * x / width) ** 2)[None] + ((2 * y / height) ** 2)[:, None] < 1)[None]
