"""What methods share that take something from a source picture: its states, layers, windows.

Such a method shows the network the source at time t, keeps something of what happens inside, and
gives it to the pass that draws the edit. Where, for every network built as Stable Diffusion is, of
any size; H is the height of the latents, and "decoder" and "after" are read off a traced pass,
since diffusers registers the middle last:

    PNP            self-attention of the decoder, but for       SD 1.5: 8 of 9, 16x16 and finer
                   its first transformer
    PNP's feature  second ResNet of the first decoder           up_blocks.1.resnets.1, 16x16
                   block with attention, before the shortcut
    MASACTRL       self-attention of the decoder, H/2 and up    the last 6 of 16
    PIX2PIX_ZERO   all attention to words                       16
    map_height     H/4; H/2 where that is below 8 or has        16x16, 5 layers
                   fewer than two layers

Time is a window: the first share of a path's hops, whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, isfinite
from numbers import Real

import torch
from torch import Tensor

from coursekit.diffusion.sample import State, invert
from coursekit.nets.control import Site, controlled
from coursekit.nets.latent import Latent, Prompt, Text

Picture = Tensor | Sequence[State]


# ---- layers ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layers:
    """A choice of attentions.

    places    among "down", "mid", "up"
    is_cross  to words, or of the picture to itself
    least     the smallest map that counts, as a share of the latents' height, in [0, 1]
    skip      transformers at the beginning that do not count; XL's have up to ten attentions each
    """

    places: tuple[str, ...]
    is_cross: bool
    least: float = 0.0
    skip: int = 0

    def of(self, sites: Sequence[Site], height: int) -> tuple[Site, ...]:
        """The chosen ones among traced sites, in order; ValueError where there is none."""
        found = [s for s in sites if s.place in self.places and s.is_cross == self.is_cross]
        skipped = list(dict.fromkeys(_transformer(s) for s in found))[:self.skip]
        chosen = tuple(s for s in found if _transformer(s) not in skipped
                       and s.size[0] >= self.least * height)
        if not chosen:
            kind = "attention to words" if self.is_cross else "self-attention"
            raise ValueError(f"sd: its U-Net has no {kind} in {' or '.join(self.places)} of height "
                             f"{self.least * height:g} or more, after the first {self.skip}: "
                             "accepted is one as Stable Diffusion's")
        return chosen


PNP = Layers(("up",), is_cross=False, skip=1)
MASACTRL = Layers(("up",), is_cross=False, least=1 / 2)
PIX2PIX_ZERO = Layers(("down", "mid", "up"), is_cross=True)


def traced(sd: Latent, z: Tensor, t: int) -> list[Site]:
    """All attentions in order of execution, by one pass over one of the latents z (b, c, h, w)."""
    alone = replace(sd, beside=None)  # a ControlNet has hints for all pictures, not for one
    with controlled(sd.unet) as sites, torch.no_grad():
        alone.eps("")(z[:1], t)
    return sites


def feature(sd: Latent, sites: Sequence[Site]) -> torch.nn.Module:
    """The last convolution of PnP's ResNet: its output is the feature before the shortcut sum."""
    block = _transformer(PNP.of(sites, 0)[0]).partition(".attentions.")[0]
    return sd.unet.get_submodule(f"{block}.resnets.1.conv2")


def map_height(sites: Sequence[Site], height: int) -> int:
    """The height of the maps that tell where a word is."""
    heights = [s.size[0] for s in sites if s.is_cross]
    quarter, half = -(-height // 4), -(-height // 2)
    if quarter >= 8 and heights.count(quarter) >= 2:
        return quarter
    return half if half in heights else max(heights)


def _transformer(site: Site) -> str:
    """The path of the module around a site that holds it and those stacked upon it."""
    return site.name.partition(".transformer_blocks.")[0]


# ---- what is handed over --------------------------------------------------------------------


def states(sd: Latent, image: Picture, path: Sequence[int], w: float,
           prompts: Mapping[str, Prompt]) -> tuple[list[int], dict[int, Tensor]]:
    """The path, and the source z*_t at each of its times but the last, once all is found sound.

    image    latents (b, c, h, w) to be inverted here with the prompt called "prompt", w = 1; or
             states known already, in any order, maybe at more times than those of the path.
    w        the weight of guidance, and all prompts by the names of their arguments.
    ValueError or TypeError names what is not as said.
    """
    path = sd.schedule.check_path(path)
    known = _known(sd, image, path)
    b = len(next(iter(known.values())))
    for name, prompt in prompts.items():
        _check_prompt(name, prompt, b)
    if not isinstance(w, Real) or not isfinite(w):
        raise ValueError(f"w={w!r}: accepted is a finite number")
    if isinstance(image, Tensor):
        known = {s.t: s.x for s in invert(sd.eps(prompts["prompt"]), sd.schedule, image, path)}
    return path, {t: known[t] for t in path[:-1]}


def window(name: str, share: float, S: int) -> int:
    """How many of S hops the first `share` in [0, 1] of them are; 0.58 of 50 are 29."""
    if not isinstance(share, Real) or not 0 <= share <= 1:
        raise ValueError(f"{name}={share!r}: accepted is a share of the path in [0, 1]")
    return floor(share * S + 1e-9)  # 0.58 * 50 is 28.999999999999996


def repeated(kept: Tensor, like: Tensor) -> Tensor:
    """Rows of b pictures, once for each half that guidance computes: as many as `like` has."""
    return kept.repeat(len(like) // len(kept), *[1] * (kept.ndim - 1))


# ---- refusals -------------------------------------------------------------------------------


def check_kind(name: str, z: Tensor) -> None:
    """TypeError unless z, the argument `name`, is floating latents (b, c, h, w)."""
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.ndim != 4 or 0 in z.shape:
        kind = f"{z.dtype} {tuple(z.shape)}" if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(f"{name} is {kind}: accepted are floating latents (b, c, h, w)")


def _known(sd: Latent, image: Picture, path: list[int]) -> dict[int, Tensor]:
    """t -> latents, where they are given, all alike and all that the path asks for."""
    if isinstance(image, Tensor):
        _check_latents(sd, image, image)
        return {path[-1]: image}
    if not isinstance(image, Sequence) or not all(isinstance(s, State) for s in image):
        raise TypeError(f"image is {type(image).__name__}: accepted are latents (b, c, h, w), or a "
                        "list of their states as from invert or ddim")
    known = {s.t: s.x for s in image}
    lacking = [t for t in path[:-1] if t not in known]
    if lacking:
        raise ValueError(f"image has no state at t={lacking[0]}: accepted are states at every time "
                         f"of the path but its last, {path[0]}..{path[-2]}")
    for t in path[:-1]:
        _check_latents(sd, known[t], known[path[0]], f" at t={t}")
    return {t: known[t] for t in path[:-1]}


def _check_prompt(name: str, prompt: Prompt, b: int) -> None:
    listed = isinstance(prompt, Sequence) and all(isinstance(p, str) for p in prompt)
    if not listed and not isinstance(prompt, Text):
        raise TypeError(f"{name}={prompt!r:.60}: accepted are a sentence, one for each picture, or "
                        "a Text")
    n = 1 if isinstance(prompt, str) else len(prompt.tokens if isinstance(prompt, Text) else prompt)
    if n not in (1, b):
        raise ValueError(f"{name}: {n} sentences for {b} pictures, accepted are 1 and {b}")


def _check_latents(sd: Latent, z: Tensor, like: Tensor, at: str = "") -> None:
    check_kind(f"image{at}", z)
    if (z.shape, z.dtype, z.device) != (like.shape, like.dtype, like.device):
        raise ValueError(f"image{at} is {z.dtype} {tuple(z.shape)} on {z.device}: accepted is what "
                         f"its first state is, {like.dtype} {tuple(like.shape)} on {like.device}")
    sd.check_place(f"image{at}", z)
    if not z.isfinite().all():
        bad = int((~z.isfinite()).sum())
        raise ValueError(f"image{at}: {bad} of {z.numel()} values are NaN or infinite, accepted "
                         "are finite ones")
