"""The layout of a picture, under any words: Plug-and-Play.

Prompt-to-Prompt needs a sentence for the source that shares its words with the new one. Sometimes
there is none, and all that shall stay is where things are. Inside the decoder, features say which
part of what a place is, and self-attention says which places belong together; neither says what they
look like. So both are handed from the source to a picture that is drawn from a sentence of its own.

How long they are handed over is a dial: too short and the words put somebody else in the place, too
long and they are not heard.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import State, invert
from coursekit.edits import pnp
from coursekit.tour import Context

STEPS, W = 15, 5.0
TARGETS = {"bear": "a photo of a bear in a red shirt on a beach",
           "woman": "a photo of a woman with long black hair in the snow"}
SHARES = {"words alone": (0.0, 0.0), "a little": (0.3, 0.2), "longer": (0.6, 0.5),
          "always": (1.0, 1.0)}  # of the hops: tau_f of features, tau_A of self-attention


def make(context: Context) -> Iterator[Figure]:
    sd = context.sd
    x, n = context.pictures(1), len(TARGETS)
    path = sd.path(STEPS)
    pivot = [State(s.t, s.x.expand(n, -1, -1, -1))
             for s in invert(sd.eps(""), sd.schedule, sd.encode(x), path)]
    made = [sd.decode(pnp.edit(sd, pivot, "", list(TARGETS.values()), path, w=W, tau_f=f, tau_A=A))
            for f, A in SHARES.values()]
    shown = torch.stack([x.expand(n, -1, -1, -1), *made], 1)  # targets columns 3 64 64
    yield sheet(
        shown.flatten(0, 1),
        ["portrait", *(f"{name}\n{f:g}, {A:g}" for name, (f, A) in SHARES.items())],
        list(TARGETS),
        alt=f"A portrait, and beside it what becomes of it in two rows under the sentences "
            f"{'; '.join(TARGETS.values())}: the longer features and attention are handed over, "
            "the more of the portrait's layout stays.",
        caption="No sentence was needed for the portrait. The numbers are the shares of the steps "
                "in which features and self-attention are the portrait's. Where is the best "
                "trade?", scale=2)
