"""From a record to a scene: the list of solids and decals that make one portrait.

World coordinates: x right, y up, z towards the viewer; the picture shows [-1, 1] x [-1, 1].
A head is an ellipsoid about the origin of its own frame, which is turned by yaw, pitch and roll.
*Solids* (ellipsoids and cones) are hidden by whatever is nearer. *Decals* (eyes, mouth, brows,
wrinkles) are painted on the face that is already there and inherit its shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .attributes import HUMANS, Portraits

GROUPS = (
    "background", "clothes", "skin", "hair", "ears", "eyes", "brows", "mouth",
    "beard", "glasses", "hat", "earrings",
)  # fmt: skip
"""Segmentation labels, in the order of their codes. `skin` is the face and neck, fur included."""

Mask = Callable[..., Tensor]


@dataclass(frozen=True)
class Part:
    """One solid or decal for the whole batch; every tensor is (b,) unless noted.

    `u` and `v` run from -1 to 1 over the part, horizontally and upwards. `mask(u, v, *params)`
    keeps where it is true; `params` are (b,) tensors, handed over as (b, 1, 1).
    """

    group: str
    centre: tuple[Tensor, Tensor, Tensor]
    radii: tuple[Tensor, Tensor, Tensor]
    colour: Tensor  # (b, 3) in [0, 1]
    on: Tensor  # bool
    kind: str = "ellipsoid"  # or "cone" (apex up) or "decal"
    roll: Tensor | None = None  # None: upright whatever the head does
    tilt: Tensor | None = None  # a turn of the part in the picture plane, besides the head's
    slope: Tensor | None = None  # dz/du of a turned solid's front
    ambient: float = 0.5
    shine: float = 0.06
    mask: Mask | None = None
    params: tuple[Tensor, ...] = ()


@dataclass
class Scene:
    """The parts of a batch, back to front only where decals need a host: see `render`."""

    parts: list[Part] = field(default_factory=list)
    face: tuple[int, int] = (0, 0)  # indices of the solids that carry face decals


def ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, linear between."""
    return ((x - low) / (high - low)).clamp(0, 1)


def palette(rows: list[tuple[float, float, float]], position: Tensor) -> Tensor:
    """Colours (b, 3) along a list of stops; `position` (b,) in [0, 1]."""
    stops = torch.tensor(rows, device=position.device)
    place = position.clamp(0, 1) * (len(rows) - 1)
    low = place.floor().clamp(max=len(rows) - 2).long()
    part = (place - low).unsqueeze(1)
    return stops[low] * (1 - part) + stops[low + 1] * part


SKIN = [(0.98, 0.84, 0.73), (0.93, 0.73, 0.58), (0.78, 0.56, 0.40), (0.57, 0.38, 0.26),
        (0.38, 0.25, 0.18)]  # fmt: skip
FUR = {
    "cat": [(0.93, 0.90, 0.86), (0.62, 0.62, 0.66), (0.85, 0.55, 0.27), (0.30, 0.29, 0.31)],
    "dog": [(0.95, 0.87, 0.70), (0.80, 0.60, 0.36), (0.52, 0.35, 0.22), (0.28, 0.22, 0.20)],
    "bear": [(0.72, 0.53, 0.36), (0.52, 0.35, 0.22), (0.35, 0.23, 0.15), (0.20, 0.16, 0.15)],
    "fox": [(0.98, 0.62, 0.25), (0.92, 0.48, 0.15), (0.80, 0.36, 0.12), (0.62, 0.28, 0.14)],
    "rabbit": [(0.97, 0.95, 0.93), (0.80, 0.76, 0.73), (0.70, 0.58, 0.46), (0.48, 0.44, 0.44)],
}
HAIR = [(0.10, 0.085, 0.08), (0.42, 0.24, 0.12), (0.92, 0.76, 0.38), (0.76, 0.26, 0.09),
        (0.20, 0.34, 0.85)]  # fmt: skip
CLOTHES = [(0.78, 0.15, 0.17), (0.94, 0.76, 0.18), (0.17, 0.55, 0.27), (0.16, 0.34, 0.75),
           (0.52, 0.25, 0.66), (0.93, 0.93, 0.92), (0.13, 0.13, 0.15)]  # fmt: skip
IRIS = [(0.30, 0.17, 0.08), (0.45, 0.33, 0.12), (0.22, 0.48, 0.24), (0.20, 0.42, 0.78)]


class Builder:
    """Derives measures and colours from a record once, then adds the parts of the scene."""

    def __init__(self, p: Portraits) -> None:
        self.p, self.scene = p, Scene()
        self.one = torch.ones(len(p), device=p.device)
        self.human = p.where("subject", *HUMANS)
        self.everyone = torch.ones_like(self.human)
        self.yaw, self.pitch, self.roll = ((a.cos(), a.sin()) for a in (p.yaw, p.pitch, p.roll))
        self.measures()
        self.colours()

    def measures(self) -> None:
        p = self.p
        self.young = 1 - ramp(p.age, 0.0, 0.3)
        self.old = ramp(p.age, 0.4, 1.0)
        style = {s: p.where("ageing", s).float() * self.old for s in ("grey", "wrinkles",
                                                                      "receding", "stout")}
        self.grey, self.wrinkled = style["grey"], style["wrinkles"]
        self.receding, self.stout = style["receding"], style["stout"]
        man, woman = p.where("subject", "man").float(), p.where("subject", "woman").float()
        self.fw = 0.455 + 0.045 * p.face_width + 0.015 * man + 0.02 * self.stout
        self.fh = (0.565 + 0.035 * p.face_height) * (1 - 0.12 * self.young)
        self.fz = 0.52 * self.one
        self.jaw = 0.86 + 0.07 * man - 0.06 * woman + 0.22 * self.stout + 0.04 * self.young
        # Faces lengthen with age: eyes sit lower in a child's head. It is the one cue of age
        # that every ageing style shares.
        self.eye_y = -0.035 + 0.15 * p.age
        self.eye_x = 0.195 + 0.025 * p.eye_spacing
        self.eye_r = (0.100 + 0.016 * p.eye_size) * (1 + 0.22 * self.young)
        self.nose_r = (0.068 + 0.018 * p.nose_size) * (1 - 0.2 * self.young)
        self.mouth_x = (0.185 + 0.04 * p.mouth_width) * (1 - 0.12 * self.young)
        self.mouth_y = -0.305 - 0.015 * p.age + 0.03 * self.young
        self.brow_r = 0.022 + 0.009 * p.brow_thickness + 0.008 * man - 0.004 * woman
        self.ear_r = 0.105 + 0.03 * p.ear_size

    def colours(self) -> None:
        p = self.p
        tone = (p.tone + 1) / 2
        skin = palette(SKIN, tone)
        for animal, fur in FUR.items():
            skin = torch.where(p.where("subject", animal)[:, None], palette(fur, tone), skin)
        silver = torch.tensor([0.80, 0.80, 0.82], device=p.device)
        fur_grey = (self.grey * (~self.human) * 0.6)[:, None]
        self.skin = skin + (silver - skin) * fur_grey
        hair = torch.tensor(HAIR, device=p.device)[p.hair_colour]
        self.hair = hair + (silver - hair) * (0.75 * self.grey)[:, None]
        pale = torch.tensor([0.97, 0.94, 0.90], device=p.device)
        light_muzzle = p.where("subject", "fox", "cat", "rabbit").float() * 0.25 + 0.5
        muzzle = self.skin + (pale - self.skin) * light_muzzle[:, None]
        self.muzzle = muzzle + (silver - muzzle) * (0.5 * self.old)[:, None]
        self.brow = torch.where(self.human[:, None], self.hair * 0.75, self.skin * 0.55)
        self.iris = palette(IRIS, (p.iris + 1) / 2)
        self.cloth = torch.tensor(CLOTHES, device=p.device)[p.clothes]

    # -- frames ---------------------------------------------------------------------------

    def turned(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Head frame -> world: yaw, then pitch, then roll."""
        (cy, sy), (cp, sp), (cr, sr) = self.yaw, self.pitch, self.roll
        x, z = cy * x + sy * z, cy * z - sy * x
        y, z = cp * y + sp * z, cp * z - sp * y
        return cr * x - sr * y, sr * x + cr * y + 0.03, z

    def rgb(self, *colour: float) -> Tensor:
        return torch.tensor(colour, device=self.p.device).expand(len(self.p), 3)

    def full(self, *values: float | Tensor) -> tuple[Tensor, ...]:
        return tuple(v * self.one for v in values)

    def solid(
        self, group: str, centre: tuple, radii: tuple, colour: Tensor, on: Tensor | None = None,
        *, head: bool = True, turn: bool = True, **options,
    ) -> None:  # fmt: skip
        """Adds an ellipsoid or cone. `turn`: its own shape turns with the yaw, not only its
        place: the exact outline of a turned ellipsoid is again an ellipse, its front a sheared
        half ellipsoid."""
        (x, y, z), (rx, ry, rz) = self.full(*centre), self.full(*radii)
        slope = None
        if head and turn:
            c, s = self.yaw
            wide = ((rx * c) ** 2 + (rz * s) ** 2).sqrt()
            slope = s * c * (rz**2 - rx**2) / wide
            rx, rz = wide, rx * rz / wide
        if head:
            x, y, z = self.turned(x, y, z)
            options.setdefault("roll", self.p.roll)
        on = self.everyone if on is None else on
        self.scene.parts.append(
            Part(group, (x, y, z), (rx, ry, rz), colour, on, slope=slope, **options)
        )

    def decal(
        self, group: str, x: float | Tensor, y: float | Tensor, rx: float | Tensor,
        ry: float | Tensor, colour: Tensor, on: Tensor | None = None, **options,
    ) -> None:  # fmt: skip
        """Paints an ellipse on the face at head coordinates (x, y), foreshortened by its normal."""
        x, y, rx, ry = self.full(x, y, rx, ry)
        depth = (1 - (x / self.fw) ** 2 - (y / self.fh) ** 2).clamp(min=0.04).sqrt()
        z = self.fz * depth
        n = torch.stack([x / self.fw**2, y / self.fh**2, z / self.fz**2])
        n = n / n.norm(dim=0)
        c, s = self.yaw
        nx = c * n[0] + s * n[2]
        facing = (1 - nx**2).clamp(min=0.02).sqrt()
        visible = c * n[2] - s * n[0] > 0.12
        visible = visible if on is None else visible & on
        self.scene.parts.append(
            Part(group, self.turned(x, y, z), (rx * facing, ry, self.one), colour, visible,
                 kind="decal", roll=self.p.roll, **options)
        )  # fmt: skip


def build(p: Portraits) -> Scene:
    """The scene of each portrait in the batch (all parts for all; `Part.on` says who has it)."""
    from . import anatomy, wardrobe

    b = Builder(p)
    wardrobe.body(b)
    anatomy.ears(b)
    wardrobe.back_hair(b)
    first = len(b.scene.parts)
    anatomy.head(b)
    b.scene.face = (first, len(b.scene.parts))
    anatomy.features(b)
    wardrobe.temples(b)
    b.scene.face = (first, len(b.scene.parts))
    wardrobe.beard(b)
    wardrobe.hair(b)
    wardrobe.hat(b)
    wardrobe.glasses(b)
    wardrobe.earrings(b)
    return b.scene
