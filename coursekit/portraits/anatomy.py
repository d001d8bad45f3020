"""Heads: ears, face and features of people and animals."""

from __future__ import annotations

import torch
from torch import Tensor

from .scene import Builder


def ears(b: Builder) -> None:
    p, on = b.p, b.p.where
    inner = b.skin * 0.55 + b.rgb(0.95, 0.62, 0.60) * 0.45
    for s in (-1, 1):
        b.solid("ears", (s * b.fw * 1.01, b.eye_y - 0.09, -0.04),
                (b.ear_r * 0.75, b.ear_r * 1.25, 0.07), b.skin * 0.96, b.human)
        size = b.ear_r / 0.105
        cat = on("subject", "cat")
        fox = on("subject", "fox")
        for who, high, wide, tip in ((cat, 0.25, 0.17, None), (fox, 0.32, 0.18, 0.25)):
            y = b.fh * 0.80 + high * 0.42 * size
            place = (s * b.fw * 0.62, y, -0.02)
            shape = (wide * size, high * size, 0.09)
            b.solid("ears", place, shape, b.skin * 0.95, who, kind="cone", tilt=-s * 0.32 * b.one)
            place = (s * b.fw * 0.62, y - 0.03, 0.05)
            shape = (wide * 0.62 * size, high * 0.72 * size, 0.05)
            b.solid("ears", place, shape, inner, who, kind="cone", tilt=-s * 0.32 * b.one)
            if tip is not None:
                place = (s * (b.fw * 0.62 + 0.075 * size), y + high * 0.62 * size, 0.0)
                b.solid("ears", place, (wide * 0.42 * size, high * 0.40 * size, 0.06),
                        b.rgb(0.20, 0.14, 0.12), who, kind="cone", tilt=-s * 0.32 * b.one)
        bear = on("subject", "bear")
        r = 0.155 * size
        b.solid("ears", (s * b.fw * 0.80, b.fh * 0.80, -0.08), (r, r, 0.08), b.skin * 0.92, bear)
        b.solid("ears", (s * b.fw * 0.80, b.fh * 0.79, 0.0), (r * 0.6, r * 0.6, 0.05), inner, bear)
        rabbit = on("subject", "rabbit")
        lean = -s * 0.14 * b.one
        b.solid("ears", (s * b.fw * 0.50, b.fh + 0.16, -0.08), (0.105 * size, 0.30, 0.07),
                b.skin * 0.97, rabbit, tilt=lean)
        b.solid("ears", (s * b.fw * 0.50, b.fh + 0.16, -0.01), (0.055 * size, 0.23, 0.05),
                inner, rabbit, tilt=lean)
        dog = on("subject", "dog")
        b.solid("ears", (s * b.fw * 1.0, 0.10, 0.02), (0.135 * size, 0.33, 0.13),
                b.skin * 0.66, dog, tilt=s * 0.22 * b.one)


def head(b: Builder) -> None:
    p = b.p
    animal = ~b.human
    b.solid("skin", (0, 0, 0), (b.fw, b.fh, b.fz), b.skin)
    b.solid("skin", (0, -0.20, 0.04), (b.fw * b.jaw, b.fh * 0.70, b.fz * 0.9), b.skin)
    b.solid("skin", (0, -0.44, 0.0), (b.fw * (0.80 + 0.2 * b.stout), 0.12 + 0.10 * b.stout, 0.40),
            b.skin * 0.95, b.stout > 0.02)
    for s in (-1, 1):
        rosy = b.skin * b.rgb(1.0, 0.90, 0.88)
        b.solid("skin", (s * b.fw * 0.52, -0.15, b.fz * 0.70), (0.135, 0.115, 0.10), rosy, b.human)
        fluffy = p.where("subject", "fox", "cat", "rabbit")
        b.solid("skin", (s * b.fw * 0.62, -0.25, b.fz * 0.42), (0.20, 0.15, 0.16),
                b.muzzle, fluffy)
        b.solid("skin", (s * 0.085, -0.25, b.fz * 0.86), (0.14, 0.115, 0.13), b.muzzle, animal)
    b.solid("skin", (0, -0.32, b.fz * 0.80), (0.13, 0.12, 0.13), b.muzzle * 0.97, animal)
    r = b.nose_r
    b.solid("skin", (0, -0.03, b.fz * 0.93), (r * 0.62, 0.13, 0.10), b.skin, b.human)
    b.solid("skin", (0, -0.115, b.fz * 1.0), (r, r * 0.82, 0.11),
            b.skin * b.rgb(1.02, 0.95, 0.93), b.human, shine=0.14)
    dark = b.rgb(0.13, 0.10, 0.10)
    pink = b.rgb(0.85, 0.50, 0.50)
    small = p.where("subject", "cat", "rabbit")
    b.solid("skin", (0, -0.175, b.fz * 1.08), (r * 1.15, r * 0.80, 0.09), dark,
            animal & ~small, shine=0.5)
    b.solid("skin", (0, -0.175, b.fz * 1.06), (r * 0.85, r * 0.62, 0.09), pink, small, shine=0.3)


def features(b: Builder) -> None:
    fur_marks(b)
    wrinkles(b)
    eyes(b)
    brows(b)
    mouth(b)


def fur_marks(b: Builder) -> None:
    """A tabby's stripes, a fox's pale brow, rosy cheeks of people."""
    cat = b.p.where("subject", "cat")
    for x in (-0.10, 0.0, 0.10):
        b.decal("skin", x, b.fh * 0.70, 0.026, 0.13, b.skin * 0.62, cat)
    fox = b.p.where("subject", "fox", "dog")
    for s in (-1, 1):
        b.decal("skin", s * b.eye_x * 0.95, b.eye_y + b.eye_r * 1.75, 0.07, 0.045,
                b.skin * 0.4 + b.muzzle * 0.6, fox)


def wrinkles(b: Builder) -> None:
    """Lines that come with age: some for everybody, many in the ageing style `wrinkles`."""
    deep = (0.28 * b.old + 0.72 * b.wrinkled).clamp(0, 1)
    line = b.skin * (1 - 0.62 * deep)[:, None]
    folds = deep > 0.02
    for s in (-1, 1):
        def fold(u: Tensor, v: Tensor, side: int = s) -> Tensor:
            return (u * side - 0.35 + 0.55 * v * v).abs() < 0.24

        b.decal("skin", s * b.mouth_x * 1.15, -0.225, 0.11, 0.12, line, folds, mask=fold)
        b.decal("skin", s * b.eye_x, b.eye_y - b.eye_r * 1.25, b.eye_r * 0.95, 0.035, line, folds,
                mask=lambda u, v: v < 0.15 - 0.5 * (1 - u * u) + 0.35)
    furrow = b.wrinkled > 0.05
    line = b.skin * (1 - 0.62 * b.wrinkled)[:, None]
    for k, y in enumerate((0.17, 0.24, 0.31)):
        b.decal("skin", 0.0, b.eye_y + y + 0.03, 0.23 - 0.025 * k, 0.055, line, furrow,
                mask=lambda u, v: (v + 0.5 * u * u - 0.2).abs() < 0.36)


def eyes(b: Builder) -> None:
    p = b.p
    opened, closed = p.where("eyes", "open"), p.where("eyes", "closed")
    woman = p.where("subject", "woman")
    lash = b.rgb(0.10, 0.07, 0.07)
    x, y, r = b.eye_x, b.eye_y, b.eye_r
    white = torch.where(b.human[:, None], b.rgb(0.97, 0.97, 0.96), b.rgb(0.98, 0.96, 0.88))
    big = torch.where(b.human, 0.60, 0.80)
    pupil = torch.where(p.where("subject", "cat"), 0.14, 0.34)
    tall = torch.where(p.where("subject", "cat"), 0.55, 0.36)
    glint = b.rgb(1.0, 1.0, 1.0)
    for s in (-1, 1):
        lid = r * (0.96 + 0.22 * woman)
        b.decal("eyes", s * x, y + 0.012, lid * 1.12, r * 0.92, lash, opened)
        b.decal("eyes", s * x, y - 0.008, r, r * 0.80, white, opened, ambient=0.8)
        b.decal("eyes", s * x, y - 0.004, r * big, r * 0.72, b.iris, opened, ambient=0.85)
        b.decal("eyes", s * x, y - 0.004, r * pupil, r * tall, b.rgb(0.03, 0.03, 0.04), opened,
                ambient=0.9)
        b.decal("eyes", s * x + r * 0.22, y + r * 0.28, r * 0.22, r * 0.20, glint, opened,
                ambient=1.0)
        b.decal("eyes", s * x, y - 0.01, r * 1.08, r * 0.62, b.skin * 0.90, closed)
        b.decal("eyes", s * x, y - r * 0.30, r * 1.08, r * 0.62, lash, closed,
                mask=lambda u, v: (v + 0.55 * (1 - u * u) - 0.15).abs() < 0.26)


def brows(b: Builder) -> None:
    p = b.p
    lift = b.eye_y + b.eye_r * 1.22 + 0.028
    for s in (-1, 1):
        # Sad brows rise towards the middle, happy ones arch evenly.
        tilt = -s * (0.30 * (-p.smile).clamp(min=0) - 0.05)
        b.decal("brows", s * b.eye_x * 1.02, lift, b.eye_r * 1.20, b.brow_r * 2.4, b.brow,
                tilt=tilt, mask=lambda u, v: (v + 0.55 * u * u - 0.2).abs() < 0.42)


def mouth(b: Builder) -> None:
    """An arc v = bend (u^2 - 1/2): up at the corners for a smile, down for a frown."""
    p = b.p
    woman, man = p.where("subject", "woman")[:, None], p.where("subject", "man")[:, None]
    lips = torch.where(woman, b.rgb(0.76, 0.14, 0.20), b.skin * b.rgb(0.78, 0.52, 0.50))
    lips = torch.where(b.human[:, None], lips, b.rgb(0.20, 0.11, 0.10))
    full = torch.where(p.where("subject", "woman"), 0.20, torch.where(b.human, 0.145, 0.095))
    opened = p.where("mouth", "open")
    bend = 0.95 * p.smile

    def lip(u: Tensor, v: Tensor, k: Tensor, thick: Tensor) -> Tensor:
        return (v - k * (u * u - 0.45)).abs() < thick * (1.15 - u * u)

    place = (0.0, b.mouth_y, b.mouth_x, 0.135)
    gape = torch.where(opened, 0.34, 0.0)
    b.decal("mouth", *place, lips, mask=lip, params=(bend, full + gape), ambient=0.62)
    b.decal("mouth", *place, b.rgb(0.25, 0.04, 0.06), opened, mask=lip,
            params=(bend, gape + 0.03), ambient=0.9)

    def teeth(u: Tensor, v: Tensor, k: Tensor, thick: Tensor) -> Tensor:
        rise = v - k * (u * u - 0.45)
        return (rise > 0.25 * thick) & (rise < thick * (1.05 - u * u)) & (u.abs() < 0.8)

    b.decal("mouth", *place, b.rgb(0.97, 0.96, 0.93), opened, mask=teeth, params=(bend, gape),
            ambient=0.9)
    seam = b.rgb(0.25, 0.06, 0.08)
    b.decal("mouth", *place, seam, ~opened & b.human, mask=lip, params=(bend, full * 0.30),
            ambient=0.8)
