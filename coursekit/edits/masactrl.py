"""MasaCtrl: let a picture keep its looks while the prompt moves what is in it.

Cao, Wang, Qi, Shan, Qie & Zheng, "MasaCtrl: Tuning-Free Mutual Self-Attention Control for
Consistent Image Synthesis and Editing", ICCV 2023.

Early hops settle the layout, so they are left to the new prompt. After them self-attention asks
with the edit's own queries, but what it finds are the source's keys and values: every place of the
new layout is filled with the textures of the source. (Plug-and-Play does the reverse.)

    paper               here
    I_s, P_s            image, prompt
    P                   target
    Q; K_s, V_s         the edit's own; those of the source at the same time
    S = 4 of 50         start         share of the hops that are left free
    L = 10              least         by the sides of maps: decoder layers at H/2 and finer
    M_s, M_t            the masks of the two `words`, where attention to them is above `threshold`

The paper counts layers in order of execution, where the middle is number 6; diffusers registers it
last, so a dictionary of processors has other layers from 10 on. XL has 70 layers and needs another
number, while a share of the picture's height says the same of both.
Under guidance each half takes from the same half of the source. In mask-guided attention places of
the object see the object alone, places of the background the background, in one softmax whose
other entries are struck out; the official code adds two, which is the same.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, last
from coursekit.nets import injection
from coursekit.nets import tiny as models
from coursekit.nets.control import QKV, Probs, Site, controlled
from coursekit.nets.injection import Picture
from coursekit.nets.latent import Latent, Prompt
from coursekit.nets.wordmaps import watched
from coursekit.nets.words import tokens

NULL = {"target": "", "w": 1.0, "start": 1.0}  # where the prompt is "", too


@torch.no_grad()
def edit(
    sd: Latent,
    image: Picture,
    prompt: Prompt,
    target: Prompt,
    path: Sequence[int],
    *,
    negative: Prompt = "",
    w: float = 7.5,
    start: float = 0.08,
    least: float = injection.MASACTRL.least,
    words: tuple[str, str] | None = None,
    threshold: float = 0.1,
) -> Tensor:
    """Latents (b, c, h, w) of the target prompt, looking like the source.

    image      the source as latents (b, c, h, w), which are inverted with `prompt` at w = 1; or its
               states at every time of the path, as from `invert` or `ddim`.
    prompt     what the source shows. One sentence for all pictures or one for each, as `target`.
    path       noisy to clean, e.g. sd.path(50).
    start      share in [0, 1] of the hops, from the noisy end, that are left free.
    least      the smallest maps in which keys and values are the source's, as a share in [0, 1] of
               the latents' height.
    words      what is the object in `prompt` and in `target`, as ("cat", "dog"), for mask-guided
               attention; both prompts are then one sentence, and hold their word once.
    threshold  in [0, 1), of the attention to a word, scaled to 0..1 over the picture.

    ValueError or TypeError names the argument that is not as said.
    """
    prompts = {"prompt": prompt, "target": target, "negative": negative}
    path, source = injection.states(sd, image, path, w, prompts)
    injection.window("least", least, 1)
    z = source[path[0]]
    free = injection.window("start", start, len(path) - 1)
    sites = injection.traced(sd, z, path[0])
    layers = replace(injection.MASACTRL, least=least).of(sites, z.shape[2])
    names = {site.name for site in layers}
    look, predict, probs = sd.eps(sd.text(prompt), negative, w), sd.eps(target, negative, w), None
    if words is not None:
        size = injection.map_height(sites, z.shape[2])
        look, predict, probs = _watched(sd, prompts, w, words, threshold, size)

    def eps(x: Tensor, t: int) -> Tensor:
        if path.index(t) < free:
            return predict(x, t)
        keep, give = _mutual(names)
        with controlled(sd.unet, qkv=keep):
            look(source[t], t)
        with controlled(sd.unet, qkv=give, probs=probs, where=lambda site: site.name in names):
            return predict(x, t)

    return last(ddim(eps, sd.schedule, z, path)).x


def _mutual(names: Collection[str]) -> tuple[QKV, QKV]:
    """A verb that notes the keys and values of the attentions `names`, and one that gives them."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(site: Site, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if site.name in names:
            kept[site.name] = k, v
        return q, k, v

    def give(site: Site, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (q, *kept[site.name]) if site.name in names else (q, k, v)

    return keep, give


# ---- mask-guided ----------------------------------------------------------------------------


def foreground(maps: Tensor, threshold: float, size: tuple[int, int]) -> Tensor:
    """Where attention (b, h, w) to a word is above `threshold` of its range: bool (b, *size)."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    mask = (maps - low > threshold * (high - low)).float()
    return F.interpolate(mask[:, None], size)[:, 0].bool()  # nearest


def apart(A: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """A (b, heads, n, l) in which the object sees the object and the background the background.

    here, there  bool (b, n) and (b, l), True in the object of the edit and of the source. A pixel
                 that is left with nothing to see, as one of the two has no object, sees all.
    """
    kept = A * (here[:, :, None] == there[:, None])[:, None]
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept / total, A)


def _watched(sd: Latent, prompts: dict[str, Prompt], w: float, words: tuple[str, str],
             threshold: float, size: int) -> tuple[Eps, Eps, Probs]:
    """Predictors of source and edit that note attention to words, and the verb that uses it."""
    columns = _columns(sd, prompts, words, threshold)
    (look, shown), (predict, drawn) = (
        watched(sd, prompts[name], prompts["negative"], w, sizes=(size,))
        for name in ("prompt", "target"))

    def probs(site: Site, A: Tensor) -> Tensor:
        if not drawn.steps:  # the first hop: where the object will be is not known yet
            return A
        here, there = (foreground(maps.mean(size)[:, column].sum(1), threshold, site.size)
                       for maps, column in zip((drawn, shown), reversed(columns), strict=True))
        return apart(A, *(injection.repeated(m.flatten(1), like=A) for m in (here, there)))

    return look, predict, probs


def _columns(sd: Latent, prompts: dict[str, Prompt], words: tuple[str, str],
             threshold: float) -> list[list[int]]:
    """The columns of `watched` for the word of the prompt, and for that of the target."""
    if not isinstance(words, (tuple, list)) or [type(word) for word in words] != [str, str]:
        raise ValueError(f"words={words!r:.60}: accepted are two, the object in prompt and target")
    if not isinstance(threshold, Real) or not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold!r}: accepted is a number in [0, 1)")
    columns = []
    for name, word in zip(("prompt", "target"), words, strict=True):
        if not isinstance(sentence := prompts[name], str):
            raise ValueError(f"{name} is {type(sentence).__name__}: accepted with words is one "
                             "sentence")
        at = set(tokens(sd, sentence, word, "words"))
        columns.append([i for i, (_, own) in enumerate(sd.words(sentence), 1) if at & set(own)])
    return columns


def tiny() -> dict[str, Any]:
    """Arguments that hold weights, small and random."""
    return {"sd": models.latent(), "prompt": "", "target": "a dog"}
