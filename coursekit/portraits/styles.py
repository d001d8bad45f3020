"""Styles that are a post-process of the photo: sketch, watercolour, pixel art. (Bronze is a
material, see `render`.)  Images are (b, 3, h, w) in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from .attributes import Portraits
from .noise import lattice, uniform

if TYPE_CHECKING:
    from .render import Surface


def apply(p: Portraits, image: Tensor, surface: Surface) -> Tensor:
    """Each portrait in its own style."""
    codes = p.style.tolist()
    if not any(codes):
        return image
    image = image.clone()
    for code, draw in ((1, sketch), (2, watercolour), (3, pixel_art)):
        rows = [i for i, c in enumerate(codes) if c == code]
        if rows:
            index = torch.tensor(rows, device=p.device)
            image[index] = draw(p[index], image[index], surface.depth[index])
    return image


def _outline(image: Tensor, depth: Tensor, ink: float = 0.22) -> Tensor:
    """Where depth or colour jumps by more than `ink`: (b, 1, h, w) in [0, 1]."""
    depth = F.interpolate(depth[:, None].clamp(min=-1.2), size=image.shape[-2:], mode="area")
    both = torch.cat([depth * 0.5, image * 0.6], 1)
    both = F.pad(both, (1, 1, 1, 1), mode="replicate")
    here = both[..., 1:-1, 1:-1]
    dx = (both[..., 1:-1, 2:] - here).abs().amax(1, keepdim=True)
    dy = (both[..., 2:, 1:-1] - here).abs().amax(1, keepdim=True)
    return ((torch.maximum(dx, dy) - ink) * 3.0).clamp(0, 1)


def sketch(p: Portraits, image: Tensor, depth: Tensor) -> Tensor:
    """Coloured pencil on paper: dark outlines, hatching in the shade, a light wash of colour."""
    h = image.shape[-1]
    grey = image.mean(1, keepdim=True)
    wash = 0.42 + 0.55 * image + 0.35 * (image - grey)
    ix, iy = lattice(h, p.device)
    hatch = ((((ix + iy) * 64) // h) % 3 == 0)[:, None] & (grey < 0.45)
    return wash.clamp(0, 1) * (1 - 0.22 * hatch) * (1 - 0.85 * _outline(image, depth, 0.12))


def watercolour(p: Portraits, image: Tensor, depth: Tensor) -> Tensor:
    """Colours flattened within edges, pale and saturated, on rough paper."""
    soft = _kuwahara(image)
    grey = soft.mean(1, keepdim=True)
    wash = 0.22 + 0.78 * (grey + 1.25 * (soft - grey))
    h = image.shape[-1]
    ix, iy = lattice(h, p.device)
    seed = p.seed.to(torch.int32).view(-1, 1, 1)
    paper = uniform(seed, (ix * 64) // (2 * h), (iy * 64) // (2 * h), 5) - 0.5
    return wash.clamp(0, 1) * (1 + 0.14 * paper[:, None]) * (1 - 0.12 * _outline(soft, depth))


def _kuwahara(image: Tensor) -> Tensor:
    """Each pixel takes the mean of the calmest of its four 2x2 neighbourhoods."""
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    mean = F.avg_pool2d(padded, 2, 1)
    spread = (F.avg_pool2d(padded * padded, 2, 1) - mean * mean).sum(1, keepdim=True)
    h, w = image.shape[-2:]
    corners = [(i, j) for i in (0, 1) for j in (0, 1)]
    means = torch.stack([mean[..., i : i + h, j : j + w] for i, j in corners])
    spreads = torch.stack([spread[..., i : i + h, j : j + w] for i, j in corners])
    best = spreads.argmin(0, keepdim=True).expand(1, *image.shape)
    return means.gather(0, best)[0]


def pixel_art(p: Portraits, image: Tensor, depth: Tensor) -> Tensor:
    """Blocks of 2/64 of the side and eight levels a channel, with a dark outline."""
    blocks = F.adaptive_avg_pool2d(image, 32)
    line = F.adaptive_max_pool2d(_outline(image, depth), 32)
    blocks = (blocks * 7).round() / 7 * (1 - 0.30 * (line > 0.8))
    return F.interpolate(blocks, size=image.shape[-2:], mode="nearest")
