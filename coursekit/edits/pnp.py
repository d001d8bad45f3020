"""Plug-and-Play: draw a new prompt with the features and the self-attention of a picture.

Tumanyan, Geyer, Bagon & Dekel, "Plug-and-Play Diffusion Features for Text-Driven Image-to-Image
Translation", CVPR 2023.

Inside the decoder, the features of a coarse layer say which part of what a place is, and
self-attention says which places belong together; neither says what they look like. So both are
taken from the source while the prompt is free to choose colours, materials and style.

    paper               here
    I^G, x_t^G          image     the guidance picture, as latents, or z*_t at the times of the path
    P                   target
    f_t^4               the output of `injection.feature`, before the shortcut sum
    q_t^l, k_t^l        queries and keys of the layers `injection.PNP`; the map is softmax(q k^T)
    tau_f, tau_A        tau_f, tau_A    here the share of the hops in which each is injected
    P_n, alpha          negative, w

The paper puts the source and both halves of guidance into one batch of three; here the source has
a pass of its own, which is the same arithmetic, and none once both windows are closed. The source
shows its inverted z*_t, not its reconstruction, as in the official code; the values v are always
the edit's own. The official code replaces the ResNet's `forward` by a copy, which later versions
of diffusers broke; it always injects at t = 1000; and it inverts in 999 hops, to sample in 50.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from coursekit.diffusion.sample import ddim, last
from coursekit.nets import injection
from coursekit.nets import tiny as models
from coursekit.nets.control import Site, controlled, tapped
from coursekit.nets.injection import Picture
from coursekit.nets.latent import Latent, Prompt

Swap = Callable[..., tuple[Tensor, ...]]
NULL = {"target": "", "w": 1.0, "tau_f": 0.0, "tau_A": 0.0}  # where the prompt is "", too


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
    tau_f: float = 0.8,
    tau_A: float = 0.5,
) -> Tensor:
    """Latents (b, c, h, w) of the target prompt, laid out as the source is.

    image    the source as latents (b, c, h, w), which are inverted with `prompt` at w = 1; or its
             states at every time of the path, as from `invert` or `ddim`.
    prompt   what the source shows; "" as in the paper, where nothing is known. One sentence for
             all pictures or one for each, as `target` and `negative`.
    path     noisy to clean, e.g. sd.path(50).
    w        guidance; the official negative is "ugly, blurry, black, low res, unrealistic".
    tau_f    share in [0, 1] of the hops, from the noisy end, in which features are injected.
    tau_A    the same for self-attention. More of both holds the layout more firmly.

    ValueError or TypeError names the argument that is not as said.
    """
    prompts = {"prompt": prompt, "target": target, "negative": negative}
    path, source = injection.states(sd, image, path, w, prompts)
    z, S = source[path[0]], len(path) - 1
    until_f, until_A = injection.window("tau_f", tau_f, S), injection.window("tau_A", tau_A, S)
    sites = injection.traced(sd, z, path[0])
    feature = injection.feature(sd, sites)
    names = {site.name for site in injection.PNP.of(sites, z.shape[2])}
    look, predict = sd.eps(prompt), sd.eps(target, negative, w)

    def eps(x: Tensor, t: int) -> Tensor:
        i = path.index(t)
        features, maps = [feature] if i < until_f else [], names if i < until_A else set()
        if not features and not maps:
            return predict(x, t)
        keep, give = _handed()
        with _met(sd, features, maps, keep):
            look(source[t], t)
        with _met(sd, features, maps, give):
            return predict(x, t)

    return last(ddim(eps, sd.schedule, z, path)).x


def _handed() -> tuple[Swap, Swap]:
    """One that notes what it meets under a name, and one that gives it in the place of others."""
    kept: dict[str, tuple[Tensor, ...]] = {}

    def keep(name: str, *met: Tensor) -> tuple[Tensor, ...]:
        kept[name] = met
        return met

    def give(name: str, *met: Tensor) -> tuple[Tensor, ...]:
        return tuple(injection.repeated(a, like=b) for a, b in zip(kept[name], met, strict=True))

    return keep, give


@contextmanager
def _met(sd: Latent, features: Sequence[nn.Module], names: Collection[str],
         swap: Swap) -> Iterator[None]:
    """swap("f", f) -> (f,) at the output of `features`, swap(name, q, k) -> (q, k) at attention."""
    def qkv(site: Site, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (*swap(site.name, q, k), v) if site.name in names else (q, k, v)

    with ExitStack() as stack:
        for module in features:
            stack.enter_context(tapped(module, lambda f: swap("f", f)[0]))
        if names:
            stack.enter_context(controlled(sd.unet, qkv=qkv))
        yield


def tiny() -> dict[str, Any]:
    """Arguments that hold weights, small and random."""
    return {"sd": models.latent(), "prompt": "", "target": "a dog"}
