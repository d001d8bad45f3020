"""Another word, the same portrait: inversion under guidance and Prompt-to-Prompt.

A portrait and its sentence are given; one word of the sentence changes. The way back to noise is
walked without guidance, as guidance is not needed to describe what is there. But a new word is
hardly heard without it, and under it the way down no longer leads home: already the old sentence
gives another picture. Direct inversion puts the source back on its own way at every step.

Then the new picture is drawn beside the source, and looks where the source looks: it takes over the
attention that pixels pay to the words in common. Guidance leads away from the old sentence, so that
it raises what is new alone. Of this world the perfect edit is known; it stands in the last row.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit import portraits
from coursekit.classroom.metrics import psnr
from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import State, ddim, invert, last
from coursekit.edits import p2p
from coursekit.nets.latent import Latent
from coursekit.portraits import CATEGORICAL, Caption, Portraits
from coursekit.tour import Context

STEPS, W = 18, 5.0
NEW = {"hat": ("party", "beanie"), "background": ("beach", "snow"),
       "glasses": ("sunglasses", "round"), "clothes": ("yellow", "purple")}
CONTROL = p2p.Control(cross_attention=0.05, self_attention=0.2)


def make(context: Context) -> Iterator[Figure]:
    sd = context.sd
    p = context.portraits(1)
    caption = portraits.caption(p, context.generator(), details=3)[0]
    x = portraits.render(p).to(context.device)
    pivot = list(invert(sd.eps(caption.text), sd.schedule, sd.encode(x), sd.path(STEPS)))
    yield ways_back(sd, x, caption, pivot)
    yield edits(context, sd, p, caption, pivot)


def ways_back(sd: Latent, x: Tensor, caption: Caption, pivot: list[State]) -> Figure:
    """The portrait and what comes back of it, without guidance and under it."""
    path, noise = sd.path(STEPS), pivot[-1].x
    plain, guided = (last(ddim(sd.eps(caption.text, w=w), sd.schedule, noise, path)).x
                     for w in (1.0, W))
    shown = {"portrait": x, "autoencoder\nalone": sd.decode(pivot[0].x),
             "no guidance": sd.decode(plain), f"w = {W:g}": sd.decode(guided)}
    found = {name: f"{name}\n{psnr(y.clamp(-1, 1), x).item():.1f} dB" if name != "portrait"
             else name for name, y in shown.items()}
    return sheet(
        torch.cat(list(shown.values())), list(found.values()),
        alt="A portrait and its reconstructions, PSNR: "
            + ", ".join(" ".join(s.split("\n")) for s in list(found.values())[1:]) + ".",
        caption=f"'{caption.text}'. The last one is drawn from the very noise of the one before "
                "it. With direct inversion the source returns as the autoencoder alone gives it, "
                "under any w.", scale=2)


def edits(context: Context, sd: Latent, p: Portraits, caption: Caption,
          pivot: list[State]) -> Figure:
    """Four words changed: drawn anew from the same noise, by Prompt-to-Prompt, and perfect."""
    changed = [p.replace(**{name: torch.tensor([code(p, name)])}) for name in NEW]
    source = portraits.recaption([caption], p, *NEW)[0]  # names what is to change, where it can
    targets = [portraits.recaption([source], q, name)[0].text
               for name, q in zip(NEW, changed, strict=True)]
    path, n = sd.path(STEPS), len(targets)
    noise = pivot[-1].x.expand(n, -1, -1, -1)
    anew = last(ddim(sd.eps(targets, w=W), sd.schedule, noise, path)).x
    states = [State(s.t, s.x.expand(n, -1, -1, -1)) for s in pivot]
    edited = p2p.edit(sd, states, source.text, targets, path, negative=source.text, w=W,
                      control=CONTROL)
    perfect = torch.cat([portraits.render(q) for q in changed]).to(context.device)
    return sheet(
        torch.cat([sd.decode(anew), sd.decode(edited), perfect]),
        [f"{name}:\n{CATEGORICAL[name][code(p, name)]}" for name in NEW],
        ["drawn anew", "Prompt-to-\nPrompt", "perfect"],
        alt=f"Three rows of four portraits after {', '.join(NEW)} have changed: drawn anew from "
            "the inverted noise, edited by Prompt-to-Prompt, and the perfect edit.",
        caption=f"The same noise and w = {W:g} in the first two rows. What else has changed in "
                "the first? And where does the second still differ from the third?", scale=2)


def code(p: Portraits, name: str) -> int:
    """The new value of an attribute of one portrait: one that it does not have."""
    first, second = (CATEGORICAL[name].index(value) for value in NEW[name])
    return second if int(getattr(p, name)) == first else first
