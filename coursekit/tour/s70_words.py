"""A portrait from words: text to image.

Here nobody hands over a picture. A sentence is read by a text model, noise is shaped into a latent
under its guidance, and an autoencoder turns the latent into pixels: Stable Diffusion, in small,
trained on this world and its captions. Its card says how far it has come: backdrops, clothes, hats,
glasses and animals follow the words; on people an eye or a mouth is still out of place at times.

Guidance asks how much the sentence changes the prediction, and goes further that way by a factor w.
With w = 1 the words are one hint among others; with more they are obeyed, at the cost of variety;
with too much, colours burn. Where each word acts can be seen in the network's cross-attention.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from coursekit.classroom.attention import tinted
from coursekit.classroom.show import Figure, sheet
from coursekit.diffusion.sample import ddim, last
from coursekit.nets.latent import Latent
from coursekit.nets.wordmaps import watched
from coursekit.tour import Context

STEPS, W = 20, 4.0
WEIGHED = "a photo of a woman with long red hair"
PROMPTS = {"cat on\na beach": "a photo of a cat on a beach",
           "woman, long\nred hair": WEIGHED,
           "bear in a\nparty hat": "a photo of a bear in a party hat",
           "man, short\nblack hair": "a photo of a man with short black hair with sunglasses",
           "fox in\nthe snow": "a photo of a fox in the snow",
           "dog with\nsunglasses": "a photo of a dog with sunglasses"}
WEIGHTS = (1.0, 2.0, 4.0, 8.0)
WATCHED = "a photo of a bear in a party hat on a beach"


def make(context: Context) -> Iterator[Figure]:
    sd = context.sd
    yield from_prompts(context, sd)
    yield guided(context, sd)
    yield attended(context, sd)


def drawn(context: Context, sd: Latent, prompts: Sequence[str], w: float) -> Tensor:
    """A picture a prompt from the first noises of the seed, (n, 3, 64, 64)."""
    noise = sd.noise(len(prompts), context.generator())
    return sd.decode(last(ddim(sd.eps(prompts, w=w), sd.schedule, noise, sd.path(STEPS))).x)


def from_prompts(context: Context, sd: Latent) -> Figure:
    """One picture for each of several sentences."""
    return sheet(
        drawn(context, sd, list(PROMPTS.values()), W), list(PROMPTS),
        alt=f"Six portraits drawn from the sentences {'; '.join(PROMPTS.values())}.",
        caption=f"Each from its own noise, {STEPS} steps, w = {W:g}. Try your own: "
                "sd.eps(\"a photo of ..\", w=4.0).", scale=2)


def guided(context: Context, sd: Latent) -> Figure:
    """The same noise under growing guidance."""
    x = torch.cat([drawn(context, sd, [WEIGHED], w) for w in WEIGHTS])
    return sheet(
        x, [f"w = {w:g}" for w in WEIGHTS],
        alt=f"One noise drawn as '{WEIGHED}' four times, under w = "
            f"{', '.join(f'{w:g}' for w in WEIGHTS)}.",
        caption=f"'{WEIGHED}' from one noise. From left to right the words weigh more.", scale=2)


def attended(context: Context, sd: Latent) -> Figure:
    """The picture of a sentence, and the attention to some of its words."""
    eps, maps = watched(sd, WATCHED, w=W, sizes=(16,))
    x = sd.decode(last(ddim(eps, sd.schedule, sd.noise(1, context.generator()), sd.path(STEPS))).x)
    heats = dict(zip(maps.columns, maps.mean(16)[0], strict=True))
    words = ("bear", "party", "hat", "beach")
    shown = torch.stack([x[0], *(tinted(x[0], heats[word]) for word in words)])
    return sheet(
        shown, ["picture", *words],
        alt=f"A portrait drawn from '{WATCHED}', and the same in grey four times, each with the "
            f"pixels lit up that attend to one of the words {', '.join(words)}.",
        caption=f"'{WATCHED}': where the network looks for each word, mean of {STEPS} steps.",
        scale=2)
