"""What is behind the portrait: seven procedural backdrops, each a function of place and seed.

Every function takes coordinates x (1, 1, n), y (1, n, 1) in [-1, 1] and the records that have this
backdrop, and returns colours (b, 3, n, n) in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from .attributes import CATEGORICAL, Portraits
from .noise import uniform


def hsv(h: Tensor, s: float | Tensor, v: float | Tensor) -> Tensor:
    """Hue, saturation, value in [0, 1] -> (b, 3); hue wraps around."""
    shift = torch.tensor([5.0, 3.0, 1.0], device=h.device)
    k = (shift + h[:, None] * 6) % 6
    s, v = (torch.as_tensor(c, device=h.device).reshape(-1, 1) for c in (s, v))
    return v - v * s * torch.minimum(k, 4 - k).clamp(0, 1)


def _flat(colour: Tensor) -> Tensor:
    return colour[:, :, None, None]


def _rgb(like: Portraits, *colour: float) -> Tensor:
    return torch.tensor(colour, device=like.device).view(1, 3, 1, 1)


def _wave(p: Portraits, x: Tensor, stream: int, waves: tuple[tuple[float, float], ...]) -> Tensor:
    """A sum of sines along x with random phases: (b, 1, n)."""
    total = torch.zeros(len(p), 1, x.shape[-1], device=p.device)
    seed = p.seed.to(torch.int32)
    for k, (frequency, height) in enumerate(waves):
        phase = uniform(seed, torch.tensor(k, dtype=torch.int32, device=p.device),
                        torch.tensor(0, dtype=torch.int32, device=p.device), stream)
        total = total + height * torch.sin(frequency * x + 6.2832 * phase.view(-1, 1, 1))
    return total


def _mix(base: Tensor, over: Tensor, share: Tensor) -> Tensor:
    """`over` where share (b, n, n) is 1."""
    return base + (over - base) * share[:, None].to(base.dtype)


def plain(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    vignette = 1 - 0.10 * (x * x + y * y)
    return _flat(hsv(p.hue, 0.42, 0.80)) * vignette[:, None]


def gradient(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    top, bottom = _flat(hsv(p.hue, 0.50, 0.88)), _flat(hsv(p.hue + 0.32, 0.55, 0.62))
    share = (y + 1)[:, None] / 2
    return (bottom + (top - bottom) * share).expand(-1, -1, -1, x.shape[-1])


def beach(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    sky = _rgb(p, 0.52, 0.78, 0.95) + (_rgb(p, 0.90, 0.95, 0.98) - _rgb(p, 0.52, 0.78, 0.95)) * (
        (0.9 - y)[:, None] / 0.9
    ).clamp(0, 1)
    image = sky.expand(len(p), -1, -1, x.shape[-1])
    sea = _rgb(p, 0.08, 0.50, 0.66) + _rgb(p, 0.10, 0.14, 0.12) * (-y[:, None] * 3).clamp(0, 1)
    image = _mix(image, sea, (y < 0.06).expand(len(p), -1, x.shape[-1]))
    shore = -0.34 + _wave(p, x, 11, ((5.0, 0.035), (11.0, 0.015)))
    image = _mix(image, _rgb(p, 0.97, 0.98, 0.97), y < shore + 0.05)
    return _mix(image, _rgb(p, 0.93, 0.82, 0.58), y < shore)


def mountains(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    sky = _rgb(p, 0.60, 0.72, 0.90) + _rgb(p, 0.32, 0.18, 0.02) * (0.5 - y)[:, None].clamp(0, 1)
    image = sky.expand(len(p), -1, -1, x.shape[-1])
    far = 0.46 + _wave(p, x, 12, ((2.6, 0.20), (6.1, 0.10), (13.0, 0.04)))
    image = _mix(image, _rgb(p, 0.46, 0.47, 0.60), y < far)
    snow = (y < far) & (y > far - 0.13 + 0.05 * torch.sin(x * 25))
    image = _mix(image, _rgb(p, 0.96, 0.97, 1.0), snow & (far > 0.40))
    near = -0.02 + _wave(p, x, 13, ((3.1, 0.12), (7.3, 0.06)))
    return _mix(image, _rgb(p, 0.26, 0.40, 0.30), y < near)


def forest(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    light = (y * 0.5 + 0.5)[:, None]
    image = (_rgb(p, 0.10, 0.22, 0.11) + _rgb(p, 0.34, 0.42, 0.16) * light).expand(
        len(p), -1, -1, x.shape[-1]
    )
    trunks = _wave(p, x, 14, ((17.0, 0.5), (29.0, 0.5))) > 0.48
    image = _mix(image, _rgb(p, 0.25, 0.16, 0.10), trunks.expand(-1, y.shape[1], -1))
    leaves = 0.45 + _wave(p, x, 15, ((9.0, 0.12), (21.0, 0.09)))
    image = _mix(image, _rgb(p, 0.14, 0.38, 0.14), y > leaves)
    grass = -0.35 + _wave(p, x, 16, ((8.0, 0.05), (40.0, 0.03)))
    return _mix(image, _rgb(p, 0.20, 0.42, 0.12), y < grass)


def city(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    """A skyline at night: blocks a quarter wide, windows lit by the seed."""
    night = _rgb(p, 0.05, 0.06, 0.20) + _rgb(p, 0.30, 0.14, 0.22) * (0.6 - y)[:, None].clamp(0, 1)
    image = night.expand(len(p), -1, -1, x.shape[-1])
    seed = p.seed.to(torch.int32).view(-1, 1, 1)
    block = ((x + 1) * 4).floor().to(torch.int32)
    height = -0.05 + 0.85 * uniform(seed, block, torch.zeros_like(block), 17)
    houses = y < height
    image = _mix(image, _rgb(p, 0.10, 0.11, 0.16), houses)
    column, row = ((x + 1) * 16).floor().to(torch.int32), ((y + 1) * 12).floor().to(torch.int32)
    lit = uniform(seed, column, row, 18) < 0.32
    pane = ((((x + 1) * 16) % 1) > 0.3) & ((((y + 1) * 12) % 1) > 0.35)
    return _mix(image, _rgb(p, 0.98, 0.85, 0.45), houses & lit & pane)


def snow(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    sky = _rgb(p, 0.70, 0.76, 0.84) + _rgb(p, 0.14, 0.12, 0.08) * (0.5 - y)[:, None].clamp(0, 1)
    image = sky.expand(len(p), -1, -1, x.shape[-1])
    hill = -0.12 + _wave(p, x, 19, ((2.2, 0.14), (4.7, 0.06)))
    image = _mix(image, _rgb(p, 0.94, 0.96, 0.99), y < hill)
    seed = p.seed.to(torch.int32).view(-1, 1, 1)
    column, row = ((x + 1) * 14).floor().to(torch.int32), ((y + 1) * 14).floor().to(torch.int32)
    flake = uniform(seed, column, row, 20) < 0.16
    round_ = ((((x + 1) * 14) % 1) - 0.5) ** 2 + ((((y + 1) * 14) % 1) - 0.5) ** 2 < 0.08
    return _mix(image, _rgb(p, 1.0, 1.0, 1.0), flake & round_)


_DRAW = {"plain": plain, "gradient": gradient, "beach": beach, "mountains": mountains,
         "forest": forest, "city": city, "snow": snow}  # fmt: skip


def draw(p: Portraits, x: Tensor, y: Tensor) -> Tensor:
    """The backdrop of each portrait: (b, 3, n, n) in [0, 1]; each kind is drawn once."""
    image = torch.empty(len(p), 3, y.shape[1], x.shape[-1], device=p.device)
    kinds = p.background.tolist()
    for code, name in enumerate(CATEGORICAL["background"]):
        rows = [i for i, k in enumerate(kinds) if k == code]
        if rows:
            index = torch.tensor(rows, device=p.device)
            image[index] = _DRAW[name](p[index], x, y)
    return image
