"""pix2pix-zero: turn one thing into another by a direction among texts, with no target prompt.

Parmar, Singh, Zhang, Li, Lu & Zhu, "Zero-shot Image-to-Image Translation", SIGGRAPH 2023.

The mean text of many sentences about dogs, less that of many about cats, leads from cat to dog
whatever else a caption says. To keep the layout, each step first moves the latents so that words
look where they looked in the source: one step down the gradient of a loss between attention maps.

    paper               here
    x~_t                image         the source's states: invert(regularised(eps), ..), or others
    c, Delta c_edit     prompt, direction
    M_t^ref, M_t^edit   `attention` of the source with c, of the edit with c + Delta c
    L_xa                `drift`: sum over pixels and tokens, mean over heads, sum over layers
    lambda_xa           lambda_xa
    lambda, L_auto      those of `diffusion.regularise`

The official code stores the maps of all steps in a first run; here the source goes along, so that
those of one step are held. It minimises over both halves of guidance and keeps what came of the
unconditional one; here there is one set of latents, and the maps are those of c + Delta c.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, isfinite
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from coursekit.diffusion.sample import ddim
from coursekit.nets import injection
from coursekit.nets import tiny as models
from coursekit.nets.control import Site, controlled
from coursekit.nets.injection import Picture
from coursekit.nets.latent import Latent, Prompt, Text

NULL = {"strength": 0.0, "lambda_xa": 0.0}


@torch.no_grad()
def edit(
    sd: Latent,
    image: Picture,
    prompt: Prompt,
    direction: Text,
    path: Sequence[int],
    *,
    negative: Prompt | None = None,
    w: float = 5.0,
    lambda_xa: float = 0.1,
    strength: float = 1.0,
) -> Tensor:
    """Latents (b, c, h, w) of the source, changed along the direction.

    image      the source as latents (b, c, h, w), which are inverted with `prompt` at w = 1; or its
               states at every time of the path, as from `invert` or `ddim`.
    prompt     what the source shows, one sentence for all pictures or one for each.
    direction  as from `direction`; taken over in the text's dtype and place.
    path       noisy to clean, e.g. sd.path(50).
    negative   None for the prompt itself, as in the official code: without a direction the weight
               w of guidance then plays no part.
    lambda_xa  >= 0, how far a step moves the latents; 0 for no cross-attention guidance.
    strength   times the direction. With 0 a source that was sampled comes back as it was; one that
               was inverted is still moved by what its reconstruction looks at otherwise.

    ValueError or TypeError names the argument that is not as said; a half-precision network is
    refused, as the gradient through it would be noise.
    """
    negative = prompt if negative is None else negative
    path, source = injection.states(sd, image, path, w, {"prompt": prompt, "negative": negative})
    text = sd.text(prompt)
    _check(sd, text, direction, lambda_xa, strength)
    towards, z = _added(text, direction, strength), source[path[0]]
    layers = injection.PIX2PIX_ZERO.of(injection.traced(sd, z, path[0]), z.shape[2])
    for state in ddim(sd.eps(towards, negative, w), sd.schedule, z, path):
        if state.t > path[-1] and lambda_xa:
            t, x = state.t, state.x
            aim = attention(sd, source[t], t, text, layers)
            state.x = x - lambda_xa * gradient(sd, x, t, towards, layers, aim)
    return state.x


@torch.no_grad()
def direction(sd: Latent, sources: Sequence[str], targets: Sequence[str]) -> Text:
    """The mean text of sentences about the target less that of sentences about the source.

    The paper has a language model write about a thousand of each.
    """
    a, b = _mean(sd, "sources", sources), _mean(sd, "targets", targets)
    return Text(b.tokens - a.tokens, None if b.pooled is None else b.pooled - a.pooled)


# ---- cross-attention guidance ---------------------------------------------------------------


def attention(sd: Latent, z: Tensor, t: int, text: Text, layers: Sequence[Site]) -> list[Tensor]:
    """The maps M (b, heads, n, tokens) of the layers in order, with z's gradients if it has any."""
    names, maps = {site.name for site in layers}, []

    def look(site: Site, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if site.name in names:
            maps.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1))
        return q, k, v

    with controlled(sd.unet, qkv=look):
        sd.eps(text)(z, t)
    return maps


def drift(maps: Sequence[Tensor], aim: Sequence[Tensor]) -> Tensor:
    """L_xa, (b,): how far maps (b, heads, n, tokens) are from those aimed at."""
    return sum((m - ref).square().sum((2, 3)).mean(1)
               for m, ref in zip(maps, aim, strict=True))


@torch.enable_grad()
def gradient(sd: Latent, z: Tensor, t: int, text: Text, layers: Sequence[Site],
             aim: Sequence[Tensor]) -> Tensor:
    """Of the drift in the latents z (b, c, h, w) at time t, through the U-Net; a row each."""
    z = z.detach().requires_grad_()
    loss = drift(attention(sd, z, t, text, layers), aim)
    return torch.autograd.grad(loss.sum(), z)[0]


# ---- texts and refusals ---------------------------------------------------------------------


def _added(text: Text, by: Text, strength: float) -> Text:
    pooled = None if text.pooled is None else text.pooled + strength * by.pooled.to(text.pooled)
    return Text(text.tokens + strength * by.tokens.to(text.tokens), pooled)


def _mean(sd: Latent, name: str, sentences: Sequence[str]) -> Text:
    listed = isinstance(sentences, Sequence) and not isinstance(sentences, str)
    if not listed or not sentences or not all(isinstance(s, str) for s in sentences):
        raise TypeError(f"{name}={sentences!r:.60}: accepted is a list of sentences")
    texts = [sd.text(sentences[i:i + 32]) for i in range(0, len(sentences), 32)]
    pooled = None if texts[0].pooled is None else torch.cat([t.pooled for t in texts])
    return Text(torch.cat([t.tokens for t in texts]).mean(0, keepdim=True),
                None if pooled is None else pooled.mean(0, keepdim=True))


def _check(sd: Latent, text: Text, by: Text, lambda_xa: float, strength: float) -> None:
    asked = (1, *text.tokens.shape[1:])
    if not isinstance(by, Text) or by.tokens.shape != asked or (
            by.pooled is None) != (text.pooled is None):
        kind = tuple(by.tokens.shape) if isinstance(by, Text) else type(by).__name__
        raise ValueError(f"direction is {kind}: accepted is a Text as from direction(sd, ..), "
                         f"{asked}{' with' if text.pooled is not None else ' without'} summary")
    if not isinstance(lambda_xa, Real) or not 0 <= lambda_xa < inf:
        raise ValueError(f"lambda_xa={lambda_xa!r}: accepted is a finite number >= 0")
    if not isinstance(strength, Real) or not isfinite(strength):
        raise ValueError(f"strength={strength!r}: accepted is a finite number")
    dtype = next(sd.unet.parameters()).dtype
    if lambda_xa and dtype not in (torch.float32, torch.float64):
        raise ValueError(f"sd has a U-Net in {dtype}: accepted is torch.float32 or torch.float64, "
                         "as a gradient goes through it, or lambda_xa=0")


def tiny() -> dict[str, Any]:
    """Arguments that hold weights, small and random."""
    sd = models.latent()
    return {"sd": sd, "prompt": "a cat", "direction": direction(sd, ["a cat"], ["a dog"])}
