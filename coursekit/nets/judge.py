"""The judge: one small network that reads everything off a portrait.

    32x32   unshuffle, stem, block           level 0  \\
    16x16   stride 2, block                  level 1   | segmentation: a light decoder to 64x64
     8x8    stride 2, two blocks             level 2  /
     4x4    stride 2, block                  level 3
            first look: level 3 and the face at level 1       \\ every attribute, with an
            second look: level 3 and a tower on 40x40 pixels  /  uncertainty if continuous

A block is x + BN(conv x) under a ReLU (He et al. 2016, with one convolution). Features that are
unit-normalised over channels serve perceptual distances as in LPIPS (Zhang et al. 2018), their
means over the picture serve Frechet distances (Heusel et al. 2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursekit.portraits.attributes import CATEGORICAL, CONTINUOUS, IDENTITY
from coursekit.portraits.scene import GROUPS

SIZE = 64
READ = (*IDENTITY, "age", "smile", "yaw", "pitch", "roll", "light", "warmth")
"""The continuous attributes that the judge reads; identity comes first."""

FACE = slice(3, 13)
"""Rows and columns of level 1 that hold the face, whatever the pose."""

PIXELS = (slice(8, 48), slice(12, 52))
"""Rows and columns of the picture that hold it."""

TOWER = ((16, 2), (48, 4), (96, 4), (128, 2))
"""Channels and blocks at 40, 20, 10 and 5 rows of the face. A curved lip is a pixel or two, which
level 0 has lost: it sees 2x2 pixels as one place."""

MIDDLES = tuple(sum(CONTINUOUS[name]) / 2 for name in READ)
SPREADS = tuple((CONTINUOUS[n][1] - CONTINUOUS[n][0]) / math.sqrt(12) for n in READ)


@dataclass(frozen=True)
class Reading:
    """What the judge says of b pictures.

    logits    {categorical attribute: (b, values)}
    mean      (b, 17) continuous attributes in the order of READ, in units of their spread
    log_var   (b, 17) log of the variance that the judge expects of its error in `mean`
    """

    logits: dict[str, Tensor]
    mean: Tensor
    log_var: Tensor

    def index(self, name: str) -> Tensor:
        """(b,) the likeliest value of a categorical attribute, an index into CATEGORICAL."""
        if name not in self.logits:
            raise ValueError(f"name={name!r}: accepted are {', '.join(self.logits)}")
        return self.logits[name].argmax(1)

    def value(self, name: str) -> Tensor:
        """(b,) a continuous attribute in its own units, within its range."""
        if name not in READ:
            raise ValueError(f"name={name!r}: accepted are {', '.join(READ)}")
        k = READ.index(name)
        return (self.mean[:, k] * SPREADS[k] + MIDDLES[k]).clamp(*CONTINUOUS[name])

    @property
    def identity(self) -> Tensor:
        """(b, 10) the identity parameters, standardised; 0 where they cannot be seen."""
        return self.mean[:, : len(IDENTITY)]


class Judge(nn.Module):
    """Reads attributes, identity and parts off portraits of 64x64 pixels.

    Args:
        widths: channels of the four levels.
        depths: blocks of the four levels.
        summary: length of the vector that a look leaves; all attributes are read from these.
        detail: length of the vector from the face at level 1 in the first look; 0 for none.
        face: length of the vector from the tower in the second look; 0 for no second look.
        tower: channels and blocks of the tower's levels.

    Pictures are (b, 3, 64, 64) in [-1, 1]; anything else is refused with a ValueError.
    """

    def __init__(self, widths: tuple[int, int, int, int] = (32, 64, 128, 192),
                 depths: tuple[int, int, int, int] = (1, 1, 2, 1), summary: int = 384,
                 detail: int = 0, face: int = 0,
                 tower: tuple[tuple[int, int], ...] = TOWER) -> None:
        super().__init__()
        self.config = {"widths": tuple(widths), "depths": tuple(depths), "summary": summary,
                       "detail": detail, "face": face,
                       "tower": tuple(tuple(level) for level in tower)}
        self.levels = levels(12, zip(widths, depths, strict=True))
        coarse = widths[3] * (SIZE // 16) ** 2
        self.summary = Dense(coarse, summary)
        if detail:
            self.detail = Dense(widths[1] * (FACE.stop - FACE.start) ** 2, detail)
            self.blend = Dense(summary + detail, summary)
        if face:
            places = math.prod(-(-(s.stop - s.start) // 2 ** (len(tower) - 1)) for s in PIXELS)
            self.context = Dense(coarse, summary)
            self.tower = levels(3, tower)
            self.face = Dense(tower[-1][0] * places, face)
            self.join = Dense(summary + face, summary)
        seen = 2 * summary if face else summary
        self.heads = nn.ModuleDict(
            {name: nn.Linear(seen, len(values)) for name, values in CATEGORICAL.items()})
        self.mean = nn.Linear(seen, len(READ))
        self.log_var = nn.Linear(seen, len(READ))
        self.lateral = nn.ModuleList(nn.Conv2d(w, widths[0], 1) for w in widths[:3])
        self.refine = nn.ModuleList(Conv(widths[0], widths[0]) for _ in range(2))
        self.parts = nn.Conv2d(widths[0], 4 * len(GROUPS), 1)

    def features(self, x: Tensor) -> list[Tensor]:
        """The four levels: (b, 32, 32, 32), (b, 64, 16, 16), (b, 128, 8, 8), (b, 192, 4, 4)."""
        check_pictures("x", x)
        h = F.pixel_unshuffle(x, 2)  # b 12 32 32
        h = h.contiguous(memory_format=torch.channels_last)
        found = []
        for level in self.levels:
            h = level(h)
            found.append(h)
        return found

    def forward(self, x: Tensor) -> Reading:
        """All attributes of pictures x (b, 3, 64, 64) in [-1, 1]."""
        return self.read(x, self.features(x))

    def read(self, x: Tensor, features: list[Tensor]) -> Reading:
        """As `forward`, where the features of x are known already."""
        h = self.look(x, features)
        logits = {name: head(h) for name, head in self.heads.items()}
        return Reading(logits, self.mean(h), self.log_var(h).clamp(-8, 2))

    def look(self, x: Tensor, features: list[Tensor]) -> Tensor:
        """What all attributes are linear in: (b, summary) after one look, (b, 2 summary) after
        two."""
        coarse = features[3].contiguous()
        h = self.summary(coarse)
        if self.config["detail"]:
            near = features[1][:, :, FACE, FACE].contiguous()
            h = self.blend(torch.cat([h, self.detail(near)], 1))
        if self.config["face"]:
            near = x[:, :, *PIXELS].contiguous(memory_format=torch.channels_last)
            for level in self.tower:
                near = level(near)
            near = self.face(near.contiguous())
            h = torch.cat([h, self.join(torch.cat([self.context(coarse), near], 1))], 1)
        return h

    def segment(self, features: list[Tensor]) -> Tensor:
        """Logits of the parts in GROUPS: (b, 12, 64, 64)."""
        h = self.lateral[2](features[2])  # b 32 8 8
        for k in (1, 0):
            h = F.interpolate(h, scale_factor=2.0) + self.lateral[k](features[k])
            h = self.refine[k](h)
        return F.pixel_shuffle(self.parts(h), 2)

    def silhouette(self, x: Tensor) -> Tensor:
        """(b, 64, 64) bool: where the portrait is, and not the backdrop."""
        return self.segment(self.features(x)).argmax(1) != GROUPS.index("background")

    def pooled(self, x: Tensor) -> Tensor:
        """(b, 384) means of levels 1 to 3 over the picture: the features of FID_w."""
        return torch.cat([h.mean((2, 3)) for h in self.features(x)[1:]], 1)


def levels(inside: int, shape: Iterable[tuple[int, int]]) -> nn.ModuleList:
    """Levels of (channels, blocks), each after the first at half the size of the one before."""
    found = nn.ModuleList()
    for width, depth in shape:
        stride = 2 if found else 1
        blocks = (Block(width) for _ in range(depth))
        found.append(nn.Sequential(Conv(inside, width, stride), *blocks))
        inside = width
    return found


class Conv(nn.Sequential):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(self, inside: int, out: int, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(inside, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out),
                         nn.ReLU(inplace=True))


class Dense(nn.Sequential):
    """Flatten, linear, batch norm, ReLU."""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(inside, out, bias=False), nn.BatchNorm1d(out),
                         nn.ReLU(inplace=True))


class Block(nn.Module):
    """relu(x + BN(conv x))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(x + self.norm(self.conv(x)))


def check_pictures(name: str, x: Tensor) -> None:
    """Refuses what is not (b >= 1, 3, 64, 64), floating, finite and within [-1, 1]."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{name} is {kind}: accepted is a floating tensor in [-1, 1]")
    if x.ndim != 4 or tuple(x.shape[1:]) != (3, SIZE, SIZE) or len(x) < 1:
        raise ValueError(f"{name} has shape {tuple(x.shape)}: accepted is (b, 3, {SIZE}, {SIZE})")
    low, high = (float(v) for v in x.detach().aminmax())
    if not (low >= -1.001 and high <= 1.001):  # NaN fails both
        raise ValueError(f"{name} has values in [{low:g}, {high:g}]: accepted are [-1, 1]")
