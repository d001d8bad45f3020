"""What a portrait wears: clothes, hair, beard, hat, glasses, earrings."""

from __future__ import annotations

import torch
from torch import Tensor

from .scene import Builder


def body(b: Builder) -> None:
    p = b.p
    build = 0.70 + 0.05 * p.where("subject", "man").float() + 0.10 * b.stout - 0.10 * b.young
    b.solid("clothes", (0, -1.08, -0.22), (build, 0.46, 0.36), b.cloth, head=False)
    b.solid("skin", (0, -0.60, -0.14), (0.175 + 0.03 * p.where("subject", "man").float(), 0.26,
            0.20), b.skin * 0.80, head=False)  # fmt: skip
    b.solid("clothes", (0, -0.76, -0.02), (0.30, 0.13, 0.22), b.cloth * 0.82, head=False,
            mask=lambda u, v: v < 0.45 * u * u + 0.1)


def _hair(b: Builder, *styles: str) -> Tensor:
    return b.p.where("hair_style", *styles)


def back_hair(b: Builder) -> None:
    """Everything behind the face: seen beside the neck and above the shoulders."""
    hair = dict(shine=0.16)
    b.solid("hair", (0, 0.06, -0.22), (b.fw * 1.10, b.fh * 1.02, 0.42), b.hair * 0.9,
            _hair(b, "short", "bob", "long", "bangs"), **hair)
    b.solid("hair", (0, -0.10, -0.26), (b.fw * 1.20, b.fh * 1.02, 0.36), b.hair * 0.85,
            _hair(b, "bob", "bangs"), **hair)
    b.solid("hair", (0, -0.34, -0.26), (b.fw * 1.24, b.fh * 1.12, 0.32), b.hair * 0.85,
            _hair(b, "long"), **hair)
    b.solid("hair", (0, 0.12, -0.24), (b.fw * 1.26, b.fh * 1.02, 0.42), b.hair * 0.85,
            _hair(b, "curly"), **hair)


def hair(b: Builder) -> None:
    """The cap of hair with its hair line, and what falls or stands around the face."""
    p = b.p
    turn = p.yaw.sin()
    hatless = p.where("hat", "none")
    line = 0.40 + 0.34 * b.receding - 0.02 * b.young

    def swept(u: Tensor, v: Tensor, shift: Tensor, height: Tensor) -> Tensor:
        side = u - shift * 0.8
        line = height - 0.16 * torch.cos(side * 3.2) + 0.5 * (side.abs() - 0.6).clamp(min=0)
        return (v > line) | ((side.abs() > 0.90) & (v > -0.12))

    cap = (0, 0.07, -0.03), (b.fw * 1.08, b.fh * 1.02, b.fz * 1.12)
    b.solid("hair", *cap, b.hair, _hair(b, "short", "bob", "long", "curly"), mask=swept,
            params=(turn, line), shine=0.22)

    def fringe(u: Tensor, v: Tensor, shift: Tensor, height: Tensor) -> Tensor:
        side = u - shift * 0.8
        line = height - 0.16 + 0.03 * torch.sin(side * 22)
        return (v > line) | ((side.abs() > 0.86) & (v > -0.3))

    b.solid("hair", *cap, b.hair, _hair(b, "bangs"), mask=fringe, params=(turn, line), shine=0.22)
    for s in (-1, 1):
        b.solid("hair", (s * b.fw * 1.02, -0.12, 0.04), (0.12, 0.34, 0.22), b.hair,
                _hair(b, "bob", "bangs"), shine=0.2)
        b.solid("hair", (s * b.fw * 1.06, -0.30, 0.02), (0.13, 0.54, 0.22), b.hair,
                _hair(b, "long"), shine=0.2)
        for x, y, z, r in ((1.05, 0.05, 0.10, 0.16), (1.08, -0.15, 0.0, 0.15),
                           (0.92, 0.28, 0.15, 0.17)):
            b.solid("hair", (s * b.fw * x, y, z), (r, r, r), b.hair, _hair(b, "curly"), shine=0.2)
        for x, y in ((0.62, 0.50), (0.22, 0.58)):
            b.solid("hair", (s * b.fw * x, y, 0.12), (0.17, 0.16, 0.18), b.hair,
                    _hair(b, "curly") & hatless, shine=0.2)
    mohawk = _hair(b, "mohawk") & hatless
    for y, z, r in ((0.50, 0.22, 0.17), (0.60, 0.02, 0.20), (0.55, -0.2, 0.22)):
        b.solid("hair", (0, y, z), (0.085, r * 1.25, r), b.hair, mohawk, shine=0.2)


def beard(b: Builder) -> None:
    full = b.p.where("beard", "full")
    moustache = b.p.where("beard", "full", "moustache")
    turn = b.p.yaw.sin()

    def chin(u: Tensor, v: Tensor, shift: Tensor) -> Tensor:
        side = u - shift * 0.8
        lips = (side / 0.50) ** 2 + ((v - 0.30) / 0.36) ** 2
        return (v < 0.34 + 0.45 * side.abs()) & (lips > 1) & (v < 0.75)

    b.solid("beard", (0, -0.36, 0.05), (b.fw * b.jaw * 1.03, b.fh * 0.52, b.fz * 0.99), b.hair,
            full, mask=chin, params=(turn,), shine=0.12)
    for s in (-1, 1):
        b.solid("beard", (s * 0.085, b.mouth_y + 0.105, b.fz * 0.93), (0.115, 0.045, 0.08), b.hair,
                moustache, tilt=-s * 0.22 * b.one, shine=0.12)


def hat(b: Builder) -> None:
    p = b.p
    beanie, cap, party = (p.where("hat", h) for h in ("beanie", "cap", "party"))
    teal, cream = b.rgb(0.10, 0.48, 0.50), b.rgb(0.93, 0.88, 0.76)
    dome = (0, 0.10, -0.02), (b.fw * 1.17, b.fh * 1.10, b.fz * 1.2)
    b.solid("hat", *dome, teal, beanie, mask=lambda u, v: v > 0.42, shine=0.0)
    b.solid("hat", (0, 0.33, 0.0), (b.fw * 1.17, 0.115, b.fz * 1.24), cream, beanie, shine=0.0)
    b.solid("hat", (0, 0.74, -0.02), (0.11, 0.11, 0.11), cream, beanie, shine=0.0)
    navy, red = b.rgb(0.80, 0.16, 0.15), b.rgb(0.55, 0.08, 0.10)
    b.solid("hat", *dome, navy, cap, mask=lambda u, v: v > 0.36, shine=0.1)
    b.solid("hat", (0, 0.34, b.fz * 0.98), (b.fw * 0.92, 0.085, 0.34), red, cap, shine=0.15)
    b.solid("hat", (0, 0.71, 0.0), (0.045, 0.03, 0.05), red, cap)
    cone = (0, 0.71, 0.02), (0.27, 0.29, 0.27)
    b.solid("hat", *cone, b.rgb(0.90, 0.22, 0.55), party, kind="cone", turn=False, shine=0.2)
    b.solid("hat", (0, 0.71, 0.035), (0.27, 0.29, 0.27), b.rgb(0.99, 0.86, 0.25), party,
            kind="cone", turn=False, shine=0.2,
            mask=lambda u, v: ((v * 2.2 + u * 0.6) % 1.0) < 0.45)
    b.solid("hat", (0, 0.965, 0.03), (0.055, 0.05, 0.05), b.rgb(0.99, 0.95, 0.85), party)


def lenses(b: Builder) -> tuple[Tensor, Tensor, Tensor]:
    """Where the right lens is in the head's frame, and its radius."""
    return b.eye_x, b.eye_y - 0.005, b.eye_r * 0.55 + 0.085


def temples(b: Builder) -> None:
    """The arms of the glasses, drawn on the face from the lens to its edge."""
    x, y, r = lenses(b)
    reach = (b.fw - x - r).clamp(min=0.01) / 2 + 0.03
    for s in (-1, 1):
        b.decal("glasses", s * (x + r + reach - 0.03), y + 0.02, reach, 0.024,
                b.rgb(0.09, 0.07, 0.08), b.p.where("glasses", "round", "sunglasses"))


def glasses(b: Builder) -> None:
    p = b.p
    clear, dark = p.where("glasses", "round"), p.where("glasses", "sunglasses")
    either = clear | dark
    frame, lens = b.rgb(0.09, 0.07, 0.08), b.rgb(0.05, 0.05, 0.07)
    x, y, r = lenses(b)
    z = b.fz * (1 - (x / b.fw) ** 2).clamp(min=0.05).sqrt() + 0.06
    ring = dict(ambient=0.85, shine=0.25)
    for s in (-1, 1):
        b.solid("glasses", (s * x, y, z), (r, r, 0.02), frame, clear,
                mask=lambda u, v: u * u + v * v > 0.60, **ring)
        b.solid("glasses", (s * x, y - 0.01, z), (r * 1.08, r * 0.98, 0.03), lens, dark,
                ambient=0.6, shine=0.8)
    bridge = (x - r).clamp(min=0.02) + 0.03
    b.solid("glasses", (0, y + 0.02, b.fz * 1.08), (bridge, 0.026, 0.05), frame, either, **ring)


def earrings(b: Builder) -> None:
    gold = b.p.where("earrings", "gold")
    for s in (-1, 1):
        b.solid("earrings", (s * (b.fw * 1.04 + 0.03), b.eye_y - 0.30, 0.16), (0.058, 0.075, 0.06),
                b.rgb(0.98, 0.80, 0.22), gold, ambient=0.6, shine=0.7)
