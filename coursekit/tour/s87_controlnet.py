"""A silhouette to fill, at any strength: ControlNet.

Words say what; they say badly where. A copy of the network's encoder has learned to look at a
silhouette, and whispers to the network itself, which stayed as it was. How loudly is a dial: at
strength 0 the silhouette goes unheard, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from coursekit import portraits, pretrained
from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import ddim, last
from coursekit.edits import controlnet
from coursekit.edits.controlnet import Control, as_hint, under
from coursekit.tour import Context

STEPS, W, PEOPLE = 10, 3.0, 3
STRENGTHS = (0.0, 0.5, 1.0)


def make(context: Context) -> Iterator[Figure]:
    sd = context.sd
    net = controlnet.load(pretrained.path("portraits-controlnet"), context.device)
    people = context.portraits(PEOPLE)
    names = [people.describe(i)["subject"] for i in range(PEOPLE)]
    prompts = [f"a photo of a {name} on a beach" for name in names]
    hint = as_hint(portraits.silhouette(people)).to(context.device)
    z, path = sd.noise(PEOPLE, context.generator()), sd.path(STEPS)
    rows = [2 * hint - 1]
    for strength in STRENGTHS:
        eps = under(sd, Control(net, hint, strength=strength)).eps(prompts, w=W)
        rows.append(sd.decode(last(ddim(eps, sd.schedule, z.to(hint), path)).x).clamp(-1, 1))
    yield sheet(torch.cat(rows), names,
                ["silhouette", *(f"strength {s:g}" for s in STRENGTHS)],
                alt=f"Silhouettes of {PEOPLE} portraits; below them what '{'; '.join(prompts)}' "
                    "draw from the same noise with strengths "
                    f"{', '.join(f'{s:g}' for s in STRENGTHS)}: the more, the closer to the "
                    "silhouette.",
                caption="Compare each outline with the silhouette above it.")
