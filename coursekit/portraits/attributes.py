"""What a portrait is made of: the record, its accepted values, and how records are drawn."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

CATEGORICAL: dict[str, tuple[str, ...]] = {
    "subject": ("woman", "man", "cat", "dog", "bear", "fox", "rabbit"),
    "hair_style": ("bald", "short", "bob", "long", "bangs", "curly", "mohawk"),
    "hair_colour": ("black", "brown", "blond", "red", "blue"),
    "beard": ("none", "moustache", "full"),
    "mouth": ("closed", "open"),
    "eyes": ("open", "closed"),
    "glasses": ("none", "round", "sunglasses"),
    "hat": ("none", "beanie", "cap", "party"),
    "earrings": ("none", "gold"),
    "clothes": ("red", "yellow", "green", "blue", "purple", "white", "black"),
    "ageing": ("grey", "wrinkles", "receding", "stout"),
    "background": ("plain", "gradient", "beach", "mountains", "forest", "city", "snow"),
    "style": ("photo", "sketch", "watercolour", "pixel-art", "bronze"),
}
"""Every categorical attribute and its values; a record stores the index of the value."""

IDENTITY: tuple[str, ...] = (
    "face_width", "face_height", "eye_spacing", "eye_size", "nose_size",
    "mouth_width", "brow_thickness", "ear_size", "tone", "iris",
)  # fmt: skip
"""What makes a person that person; an edit must keep these."""

CONTINUOUS: dict[str, tuple[float, float]] = {
    **{name: (-1.0, 1.0) for name in IDENTITY},
    "age": (0.0, 1.0),
    "smile": (-1.0, 1.0),
    "yaw": (-0.5, 0.5),
    "pitch": (-0.15, 0.15),
    "roll": (-0.12, 0.12),
    "light": (-1.0, 1.0),
    "warmth": (-1.0, 1.0),
    "hue": (0.0, 1.0),
}
"""Every continuous attribute and its range. Angles are radians (positive yaw looks to the
right edge of the picture), `light` runs from left to right, `warmth` from blue to orange,
`hue` is the backdrop's colour."""

TRAINING: dict[str, str | tuple[str, ...]] = {
    "style": "photo",
    "background": ("plain", "gradient", "beach", "snow"),
}
"""The default training distribution: what the shipped generators have seen. The other styles
and backgrounds are unseen domains, for methods that need one."""

HUMANS = ("woman", "man")


@dataclass(frozen=True)
class Portraits:
    """A batch of b portraits, as numbers: one tensor of shape (b,) for each attribute.

    Categorical attributes are int64 indices into `CATEGORICAL`, continuous ones float32 within
    `CONTINUOUS`, `seed` is an int64 that fixes all fine detail (strands, freckles, film noise).
    Records are immutable: `replace` returns an edited copy.
    """

    subject: Tensor
    hair_style: Tensor
    hair_colour: Tensor
    beard: Tensor
    mouth: Tensor
    eyes: Tensor
    glasses: Tensor
    hat: Tensor
    earrings: Tensor
    clothes: Tensor
    ageing: Tensor
    background: Tensor
    style: Tensor
    face_width: Tensor
    face_height: Tensor
    eye_spacing: Tensor
    eye_size: Tensor
    nose_size: Tensor
    mouth_width: Tensor
    brow_thickness: Tensor
    ear_size: Tensor
    tone: Tensor
    iris: Tensor
    age: Tensor
    smile: Tensor
    yaw: Tensor
    pitch: Tensor
    roll: Tensor
    light: Tensor
    warmth: Tensor
    hue: Tensor
    seed: Tensor

    def __post_init__(self) -> None:
        shape = self.subject.shape
        for field in fields(self):
            value = getattr(self, field.name)
            if value.ndim != 1 or value.shape != shape:
                raise ValueError(
                    f"{field.name} must have shape {tuple(shape)} like subject, "
                    f"got {tuple(value.shape)}"
                )

    def __len__(self) -> int:
        return self.subject.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Portraits:
        """The portraits at `index`; an int gives a batch of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"index {index} is outside a batch of {len(self)} portraits")
            index = index % len(self)
            index = slice(index, index + 1)
        return Portraits(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @property
    def device(self) -> torch.device:
        return self.subject.device

    def to(self, device: torch.device | str) -> Portraits:
        return Portraits(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def replace(self, **changes: str | float | Tensor) -> Portraits:
        """A copy with some attributes changed, for the whole batch or one value a portrait.

        Args:
            changes: attribute = value; a name for categorical ones (`hat="beanie"`), a number
                in range for continuous ones, or a (b,) tensor of indices or numbers.

        Raises:
            ValueError: unknown attribute, unknown value, out of range, or wrong shape.
        """
        return replace(self, **{k: self._column(k, v) for k, v in changes.items()})

    def _column(self, name: str, value: str | float | Tensor) -> Tensor:
        like = getattr(self, check_attribute(name))
        if isinstance(value, Tensor):
            if value.shape != like.shape:
                raise ValueError(
                    f"{name} must have shape {tuple(like.shape)}, got {tuple(value.shape)}"
                )
            column = value.to(like)
            check_range(name, column)
            return column
        return torch.full_like(like, check_value(name, value))

    def describe(self, index: int = 0) -> dict[str, str | float | int]:
        """Portrait `index` in words and numbers: {"subject": "fox", "age": 0.31, ..}."""
        row = self[index]
        words = {k: names[int(getattr(row, k))] for k, names in CATEGORICAL.items()}
        return words | {k: float(getattr(row, k)) for k in CONTINUOUS} | {"seed": int(row.seed)}

    def where(self, name: str, *values: str) -> Tensor:
        """(b,) bool: does categorical `name` have one of `values`?"""
        column = getattr(self, name)
        hit = torch.zeros_like(column, dtype=torch.bool)
        for value in values:
            hit = hit | (column == check_value(name, value))
        return hit


def stack(*batches: Portraits) -> Portraits:
    """Several batches as one, in order."""
    names = [f.name for f in fields(Portraits)]
    return Portraits(**{n: torch.cat([getattr(b, n) for b in batches]) for n in names})


def check_attribute(name: str) -> str:
    """`name` itself, or a ValueError that lists the attributes."""
    if name not in CATEGORICAL and name not in CONTINUOUS and name != "seed":
        known = ", ".join([*CATEGORICAL, *CONTINUOUS, "seed"])
        raise ValueError(f"unknown attribute {name!r}; attributes are {known}")
    return name


def check_value(name: str, value: str | float) -> int | float:
    """The number a record stores for `value`; refuses what `name` does not accept."""
    if name in CATEGORICAL:
        values = CATEGORICAL[name]
        if value not in values:
            raise ValueError(f"{name} must be one of {', '.join(values)}; got {value!r}")
        return values.index(value)
    if isinstance(value, str) or (name == "seed" and int(value) != value):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if name == "seed":
        return int(value)
    low, high = CONTINUOUS[name]
    if not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value:g}")
    return float(value)


def check_range(name: str, column: Tensor) -> None:
    """Refuses a column with a value (or NaN) outside the accepted range of `name`."""
    if name == "seed" or column.numel() == 0:
        return
    low, high = (0, len(CATEGORICAL[name]) - 1) if name in CATEGORICAL else CONTINUOUS[name]
    if not bool(((column >= low) & (column <= high)).all()):
        bad = column[~((column >= low) & (column <= high))][0].item()
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {bad:g}")


def sample(
    n: int,
    generator: torch.Generator | None = None,
    *,
    device: torch.device | str = "cpu",
    **fixed: str | float | tuple[str, ...],
) -> Portraits:
    """Draw n portraits with independent attributes.

    Subjects are people half of the time; animals have no hair and no beard, women no beard.
    Everything else is independent of everything else (see `correlated` for a world that is not).

    Args:
        n: how many, at least 1.
        generator: a CPU generator; the draw is the same on every device.
        device: where the record lives.
        fixed: restrict attributes: one value (`style="photo"`) or a tuple of names to draw
            from (`background=("plain", "snow")`). `sample(n, **TRAINING)` is the training set.

    Raises:
        ValueError: n < 1, unknown attribute or value.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    columns: dict[str, Tensor] = {}
    for name, values in CATEGORICAL.items():
        weights = torch.ones(len(values))
        if name == "subject":
            weights[:2] = 2.5
        elif name in ("eyes", "glasses", "hat", "earrings"):
            weights[0] = 2.0
        columns[name] = torch.multinomial(weights, n, replacement=True, generator=generator)
    for name, (low, high) in CONTINUOUS.items():
        columns[name] = low + (high - low) * torch.rand(n, generator=generator)
    columns["seed"] = torch.randint(2**31, (n,), generator=generator)
    human = columns["subject"] < len(HUMANS)
    man = columns["subject"] == 1
    columns["hair_style"] = columns["hair_style"] * human
    columns["beard"] = columns["beard"] * man * (columns["age"] > 0.3)
    for name, allowed in fixed.items():
        columns[name] = _restricted(check_attribute(name), allowed, n, generator)
    return Portraits(**columns).to(device)


def _restricted(
    name: str, allowed: str | float | tuple[str, ...], n: int, generator: torch.Generator | None
) -> Tensor:
    if not isinstance(allowed, tuple):
        value = check_value(name, allowed)
        return torch.full((n,), value, dtype=torch.float32 if name in CONTINUOUS else torch.long)
    if name not in CATEGORICAL:
        raise ValueError(f"{name} takes one number, got {allowed!r}")
    codes = torch.tensor([check_value(name, value) for value in allowed])
    return codes[torch.randint(len(codes), (n,), generator=generator)]


def correlated(
    n: int,
    generator: torch.Generator | None = None,
    *,
    rho: float = 0.5,
    device: torch.device | str = "cpu",
    **fixed: str | float | tuple[str, ...],
) -> Portraits:
    """Draw n portraits whose attributes go together on purpose, so that entanglement shows.

    A hat comes with glasses, a beard with age (men only), a smile with warm light and earrings
    with long hair: each pair of indicators has Pearson correlation `rho` (the first exactly, as
    both have probability 1/2; see the tests for the measured others).

    Args:
        rho: strength in [0, 1]; 0 draws these attributes independently.
        n, generator, device, fixed: as in `sample`.
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"rho must lie in [0, 1], got {rho:g}")
    base = sample(n, generator, **fixed)

    def coin() -> Tensor:
        return torch.rand(n, generator=generator) < 0.5

    def follow(lead: Tensor) -> Tensor:
        """A fair coin that equals `lead` with probability (1 + rho) / 2."""
        return torch.where(torch.rand(n, generator=generator) < rho, lead, coin())

    hat = coin()
    kinds = torch.randint(1, 4, (n,), generator=generator)
    frames = torch.randint(1, 3, (n,), generator=generator)
    man = base.where("subject", "man")
    old = base.age > 0.5
    beard = torch.randint(1, 3, (n,), generator=generator) * follow(old) * man
    smile = base.smile.abs() * torch.where(follow(base.warmth > 0), 1.0, -1.0)
    long_hair = base.where("hair_style", "bob", "long", "bangs")
    changes = {
        "hat": kinds * hat,
        "glasses": frames * follow(hat),
        "beard": beard,
        "smile": smile,
        "earrings": follow(long_hair).long(),
    }
    return base.replace(**{k: v for k, v in changes.items() if k not in fixed}).to(device)
