"""Rendering: images a second at 64x64, against a plain renderer that shades every part everywhere.

Both draw the same picture; the bench refuses to time two that differ by more than 1e-3.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from coursekit import portraits
from coursekit.bench import Row, medians
from coursekit.portraits import backgrounds, styles
from coursekit.portraits.attributes import Portraits
from coursekit.portraits.noise import lattice, rgb
from coursekit.portraits.render import (
    GRAIN, SUPERSAMPLING, Surface, _hit, _texture, grid, tabulate,
)  # fmt: skip
from coursekit.portraits.scene import build

N, PLAIN, ROUNDS = 512, 32, 3


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Images a second on the training distribution and on the full world.

    `n` is the number of rounds; each draws 512 portraits with ours and 32 with the plain one.
    """
    for name, fixed in (("training distribution", portraits.TRAINING), ("full world", {})):
        generator = torch.Generator().manual_seed(seed)
        p = portraits.sample(N, generator, device=device, **fixed)
        few = p[:PLAIN].replace(style="photo")
        gap = (portraits.render(few) - plain(few)).abs().max().item()
        if gap > 1e-3:
            raise RuntimeError(f"the two renderers differ by {gap:.2g}, more than 1e-3")
        ours, peer = medians(
            lambda p=p: portraits.render(p).sum().item(),  # .item() waits for a GPU
            lambda few=few: plain(few).sum().item(),
            n=ROUNDS,
        )
        yield Row(f"render 64x64, {name}", N / ours, PLAIN / peer, "images/s", "higher", ROUNDS)


def plain(p: Portraits, size: int = 64) -> Tensor:
    """The same picture the obvious way: each part lit over the whole frame, the nearest kept."""
    n = size * SUPERSAMPLING
    x, y = grid(n, p.device)
    scene = build(p)
    table = tabulate(p, scene)
    image = backgrounds.draw(p, x, y)
    depth = torch.full((len(p), n, n), -10.0, device=p.device)
    part = torch.full((len(p), n, n), -1, dtype=torch.int32, device=p.device)
    bare = [torch.zeros_like(depth) for _ in range(3)]
    for k, item in enumerate(scene.parts):
        u, v, inside, front = _hit(item, slice(None), x, y)
        inside = inside & item.on.view(-1, 1, 1)
        if item.kind == "decal":
            inside = inside & (part >= scene.face[0]) & (part < scene.face[1])
        else:
            z, w, slope, rx, ry, rz = front
            inside = inside & (z > depth)
            depth = torch.where(inside, z, depth)
            ny = (1 - v) * (rz / ry) / 4 if item.kind == "cone" else v * (rz / ry)
            nx = u * (rz / rx) - (0 if slope is None else w * (slope / rx))
            bare = [torch.where(inside, new, old)
                    for new, old in zip((nx, ny, w), bare, strict=True)]  # fmt: skip
        part = torch.where(inside, k, part)
        lit = _lit(p, table[:, k], torch.stack(bare, 1))
        image = torch.where(inside[:, None], lit, image)
    image = F.avg_pool2d(image, SUPERSAMPLING)
    image = styles.apply(p, image, Surface(part, depth, tuple(bare)))
    seed, (ix, iy) = p.seed.to(torch.int32).view(-1, 1, 1), lattice(size, p.device)
    return (image.clamp(0, 1) * 2 - 1 + 2 * GRAIN * rgb(seed, ix, iy, 1)).clamp(-1, 1)


def _lit(p: Portraits, material: Tensor, normal: Tensor) -> Tensor:
    """Ambient, Lambert and Phong terms of one material (b, 8) over normals (b, 3, n, n)."""
    albedo, rest = material[:, :3, None, None], material[:, 3:, None, None].unbind(1)
    ambient, shine, strands, weave, freckles = rest
    normal = normal / (normal.square().sum(1, keepdim=True) + 1e-8).sqrt()
    one = torch.ones_like(p.light)
    light = F.normalize(torch.stack([0.9 * p.light, 0.55 * one, 0.8 * one], 1), dim=1)
    half = F.normalize(light + torch.tensor([0.0, 0.0, 1.0], device=p.device), dim=1)
    lambert = torch.einsum("bchw,bc->bhw", normal, light).clamp(min=0)
    phong = torch.einsum("bchw,bc->bhw", normal, half).clamp(min=0) ** 32
    n = normal.shape[-1]
    bright = (ambient + (1.12 - ambient) * lambert) * _texture(
        p, n, *(a.expand(-1, n, n) for a in (strands, weave, freckles))
    )
    warm = torch.stack([1 + 0.13 * p.warmth, one, 1 - 0.17 * p.warmth], 1)[:, :, None, None]
    return (albedo * warm * bright[:, None] + (shine * phong)[:, None]).clamp(0, 1)
