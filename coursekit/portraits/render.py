"""The renderer: orthographic rays meet ellipsoids and cones in closed form.

Two passes. *Visibility* finds for each sample the nearest part, its depth and normal, working
only in each part's bounding box. *Shading* then colours every sample once: Lambert light with an
ambient term, a Phong highlight, and textures. Samples are averaged 2x2, film grain is added last.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import backgrounds, styles
from .attributes import Portraits
from .noise import lattice, rgb, uniform
from .scene import GROUPS, Part, Scene, build

SUPERSAMPLING = 2
CHUNK = 128  # portraits whose geometry is worked out together: spreads the cost of small steps
SHADED = 16  # portraits shaded together: keeps the working set in the caches of a CPU
GRAIN = 0.025  # half width of the film noise, in [0, 1] units
TEXTURE = 64  # strands, fabric and grain live on this lattice whatever the size
SIZES = (32, 256)

# How strongly each group shows strands (streaks along y), weave (fine grain) and freckles.
_TEXTURES = {"hair": (0.45, 0.10, 0.0), "beard": (0.45, 0.15, 0.0), "brows": (0.2, 0.0, 0.0),
             "clothes": (0.0, 0.22, 0.0), "skin": (0.0, 0.04, 1.0), "hat": (0.0, 0.12, 0.0),
             "ears": (0.0, 0.06, 0.0)}  # fmt: skip


_ENGRAVED = ("eyes", "brows", "mouth", "glasses")


@dataclass(frozen=True)
class Surface:
    """What is seen at each of the n x n samples: index into parts (-1: backdrop), depth, normal."""

    part: Tensor  # (b, n, n) int32
    depth: Tensor  # (b, n, n), towards the viewer
    normal: tuple[Tensor, Tensor, Tensor]  # each (b, n, n), not normalised

    def __getitem__(self, some: slice) -> Surface:
        return Surface(self.part[some], self.depth[some], tuple(a[some] for a in self.normal))


def check_size(size: int) -> None:
    low, high = SIZES
    if not (isinstance(size, int) and low <= size <= high):
        raise ValueError(f"size must be an integer in [{low}, {high}], got {size!r}")


def grid(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Sample coordinates x (1, 1, n), left to right, and y (1, n, 1), top to bottom."""
    line = (torch.arange(n, device=device) + 0.5) * (2 / n) - 1
    return line.view(1, 1, n), -line.view(1, n, 1)


def render(p: Portraits, size: int = 64) -> Tensor:
    """Pictures of a batch of portraits.

    Args:
        p: b records, on any device.
        size: side in pixels, 32 to 256.

    Returns:
        (b, 3, size, size) float32 in [-1, 1] on the records' device; the same record gives the
        same picture in any batch.
    """
    check_size(size)
    images = [_render(p[i : i + CHUNK], size) for i in range(0, len(p), CHUNK)]
    return torch.cat(images) if len(images) != 1 else images[0]


def _render(p: Portraits, size: int) -> Tensor:
    scene = build(p)
    surface = visibility(p, scene, size * SUPERSAMPLING)
    materials = tabulate(p, scene)
    shaded = [slice(i, i + SHADED) for i in range(0, len(p), SHADED)]
    image = torch.cat([
        F.avg_pool2d(shade(p[some], materials[some], surface[some]), SUPERSAMPLING)
        for some in shaded
    ])  # fmt: skip
    image = styles.apply(p, image, surface)
    seed, (ix, iy) = p.seed.to(torch.int32).view(-1, 1, 1), lattice(size, p.device)
    return (image.clamp(0, 1) * 2 - 1 + 2 * GRAIN * rgb(seed, ix, iy, 1)).clamp(-1, 1)


# -- visibility -----------------------------------------------------------------------------


def visibility(p: Portraits, scene: Scene, n: int) -> Surface:
    """The nearest part at each sample; decals are painted on the face as it is at their turn."""
    x, y = grid(n, p.device)
    shape = (len(p), n, n)
    part = torch.full(shape, -1, dtype=torch.int32, device=p.device)
    depth = torch.full(shape, -10.0, device=p.device)
    normal = tuple(torch.zeros(shape, device=p.device) for _ in range(3))
    boxes = _boxes(scene.parts, n)
    for k, item in enumerate(scene.parts):
        rows, (top, bottom, left, right) = boxes[k]
        if not rows or top >= bottom or left >= right:
            continue
        some = slice(None)
        if len(rows) < len(p):
            some = torch.tensor(rows, device=p.device)
        window = (some, slice(top, bottom), slice(left, right))
        u, v, inside, front = _hit(item, some, x[..., left:right], y[:, top:bottom])
        if item.kind == "decal":
            seen = part[window]
            inside = inside & (seen >= scene.face[0]) & (seen < scene.face[1])
            _write(part, window, inside, torch.tensor(k, dtype=torch.int32, device=p.device))
            continue
        z, w, slope, rx, ry, rz = front
        inside = inside & (z > depth[window])
        ny = (1 - v) * (0.25 * rz / ry) if item.kind == "cone" else v * (rz / ry)
        nx = u * (rz / rx)
        if slope is not None:
            nx = nx - w * (slope / rx)
        _write(part, window, inside, torch.tensor(k, dtype=torch.int32, device=p.device))
        for buffer, value in zip((depth, *normal), (z, nx, ny, w), strict=True):
            _write(buffer, window, inside, value)
    return Surface(part, depth, normal)


def _write(buffer: Tensor, window: tuple, inside: Tensor, value: Tensor) -> None:
    """buffer[window] = value where inside; in place when the window is a view."""
    old = buffer[window]
    if isinstance(window[0], slice):
        torch.where(inside, value, old, out=old)
    else:
        buffer[window] = torch.where(inside, value, old)


def _boxes(parts: list[Part], n: int) -> list[tuple[list[int], tuple[int, int, int, int]]]:
    """For each part who has it, and the samples that its ellipses can touch; one transfer."""
    on = torch.stack([q.on for q in parts])
    cx, cy = (torch.stack([q.centre[i] for q in parts]) for i in (0, 1))
    rx, ry = (torch.stack([q.radii[i] for q in parts]) for i in (0, 1))
    turn = torch.stack([_turn(q) for q in parts])
    c, s = turn.cos(), turn.sin()
    ex = ((rx * c) ** 2 + (ry * s) ** 2).sqrt()
    ey = ((rx * s) ** 2 + (ry * c) ** 2).sqrt()
    cones = torch.tensor([q.kind == "cone" for q in parts], device=on.device)[:, None]
    ex, ey = (torch.where(cones, (rx * a).abs() + (ry * b).abs(), e)
              for a, b, e in ((c, s, ex), (s, c, ey)))  # fmt: skip
    far = torch.tensor(9.0, device=on.device)
    edges = torch.stack([
        torch.where(on, 1 - cy - ey, far).amin(1), torch.where(on, 1 - cy + ey, -far).amax(1),
        torch.where(on, cx - ex + 1, far).amin(1), torch.where(on, cx + ex + 1, -far).amax(1),
    ])  # fmt: skip
    low, high = (edges[0::2] * (n / 2)).floor(), (edges[1::2] * (n / 2)).ceil()
    sides = torch.stack([low[0], high[0], low[1], high[1]]).clamp(0, n).int().T.tolist()
    who = on.tolist()
    return [([i for i, yes in enumerate(row) if yes], tuple(side))
            for row, side in zip(who, sides, strict=True)]  # fmt: skip


def _turn(q: Part) -> Tensor:
    turn = torch.zeros_like(q.centre[0]) if q.roll is None else q.roll
    return turn if q.tilt is None else turn + q.tilt


def _hit(q: Part, some: slice | Tensor, x: Tensor, y: Tensor) -> tuple:
    """Coordinates on the part, whether the ray meets it, and for solids the front's depth."""

    def each(value: Tensor) -> Tensor:
        return value[some].view(-1, 1, 1)

    cx, cy, cz = (each(c) for c in q.centre)
    rx, ry, rz = (each(r) for r in q.radii)
    dx, dy = x - cx, y - cy
    if q.roll is None and q.tilt is None:
        u, v = dx / rx, dy / ry
    else:
        turn = each(_turn(q))
        c, s = turn.cos(), turn.sin()
        u = dx * (c / rx) + dy * (s / rx)
        v = dy * (c / ry) - dx * (s / ry)
    if q.kind == "cone":
        k = (1 - v) * 0.5
        d = torch.where(v.abs() < 1, k * k - u * u, -1.0)
    else:
        d = 1 - (u * u + v * v)
    inside = d > 0
    if q.mask is not None:
        inside = inside & q.mask(u, v, *(each(a) for a in q.params))
    if q.kind == "decal":
        return u, v, inside, None
    w = d.clamp(min=0).sqrt()
    z = cz + rz * w
    slope = None if q.slope is None else each(q.slope)
    if slope is not None:
        z = z + slope * u
    return u, v, inside, (z, w, slope, rx, ry, rz)


# -- shading --------------------------------------------------------------------------------


def tabulate(p: Portraits, scene: Scene) -> Tensor:
    """Materials (b, parts, 8): colour, ambient, shine, strands, weave, freckles."""
    plain = torch.tensor([
        (q.ambient, q.shine, *_TEXTURES.get(q.group, (0.0, 0.0, 0.0))) for q in scene.parts
    ], device=p.device)  # fmt: skip
    colour = torch.stack([q.colour for q in scene.parts], 1)
    table = torch.cat([colour, plain.expand(len(p), -1, -1)], 2)
    # A bronze is one metal; only what is engraved or worn on the face keeps its lights and darks.
    engraved = torch.tensor([q.group in _ENGRAVED for q in scene.parts], device=p.device)
    tint = torch.where(engraved[:, None], 0.25 + 0.85 * colour.mean(2, keepdim=True), 1.0)
    metal = torch.tensor([0.66, 0.42, 0.20], device=p.device)
    rest = torch.tensor([0.22, 0.75, 0.0, 0.10, 0.0], device=p.device)
    cast = torch.cat([metal * tint, rest.expand(*colour.shape[:2], -1)], 2)
    return torch.where(p.where("style", "bronze")[:, None, None], cast, table)


def shade(p: Portraits, materials: Tensor, surface: Surface) -> Tensor:
    """Colours of all samples, backdrop included: (b, 3, n, n) in [0, 1]."""
    b, n = surface.part.shape[:2]
    index = surface.part.clamp(min=0).view(b, 1, -1).long().expand(-1, 8, -1)
    columns = materials.transpose(1, 2).gather(2, index).view(b, 8, n, n)
    albedo, (ambient, shine, strands, weave, freckles) = columns[:, :3], columns[:, 3:].unbind(1)
    nx, ny, nz = surface.normal
    scale = (nx * nx).addcmul_(ny, ny).addcmul_(nz, nz).add_(1e-8).rsqrt_()
    light = torch.stack([0.9 * p.light, torch.full_like(p.light, 0.55),
                         torch.full_like(p.light, 0.8)])  # fmt: skip
    light = (light / light.norm(dim=0)).view(3, b, 1, 1)
    half = light + torch.tensor([0.0, 0.0, 1.0], device=p.device).view(3, 1, 1, 1)
    half = half / half.norm(dim=0)

    def towards(direction: Tensor) -> Tensor:
        dot = (nx * direction[0]).addcmul_(ny, direction[1]).addcmul_(nz, direction[2])
        return dot.mul_(scale).clamp_(min=0)

    phong = towards(half)
    for _ in range(5):  # phong ** 32
        phong.mul_(phong)
    bright = (1.12 - ambient).mul_(towards(light)).add_(ambient)
    bright.mul_(_texture(p, n, strands, weave, freckles))
    warm = torch.stack([1 + 0.13 * p.warmth, torch.ones_like(p.warmth), 1 - 0.17 * p.warmth], 1)
    colour = (albedo * warm[:, :, None, None]).mul_(bright[:, None])
    colour.add_(phong.mul_(shine)[:, None]).clamp_(0, 1)
    behind = backgrounds.draw(p, *grid(n, p.device))
    return torch.where((surface.part < 0)[:, None], behind, colour)


def _texture(p: Portraits, n: int, streak: Tensor, weave: Tensor, freckle: Tensor) -> Tensor:
    """A factor near 1 on the brightness: strands, weave and freckles, by the detail seed."""
    seed = p.seed.to(torch.int32).view(-1, 1, 1)
    ix, iy = lattice(TEXTURE, p.device)
    strands = uniform(seed, ix, iy // 5, 2) - 0.5
    fine = uniform(seed, ix, iy, 3)
    dots = (uniform(seed, ix, iy, 4) < 0.055) & (seed % 3 == 0)

    def sampled(field: Tensor) -> Tensor:
        if n == TEXTURE * SUPERSAMPLING:
            return field.repeat_interleave(SUPERSAMPLING, 1).repeat_interleave(SUPERSAMPLING, 2)
        return F.interpolate(field[:, None], size=(n, n), mode="bilinear")[:, 0]

    fields = torch.cat([strands, fine - 0.5, dots * -0.22])
    strands, fine, dots = sampled(fields).chunk(3)
    return (streak * strands).addcmul_(weave, fine).addcmul_(freckle, dots).add_(1)


def group_codes(scene: Scene, device: torch.device) -> Tensor:
    """Codes in `GROUPS` (parts + 1,), shifted by one so that part -1, the backdrop, is at 0."""
    codes = [0] + [GROUPS.index(q.group) for q in scene.parts]
    return torch.tensor(codes, device=device)
