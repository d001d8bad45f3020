"""The noise schedule: one tensor, two primitives, and the paths through it.

Time runs t = 0..T as in the papers: x_0 is clean, x_T is noise, and abar[t] is the share of
the variance that is still signal (DDPM's alpha-bar; the DDIM paper calls the same thing alpha).

    noise    x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps            DDPM (Ho 2020), eq. 4
    denoise  x_0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t)        the same, solved for x_0

A deterministic DDIM move from t to u, in either direction, is
``schedule.noise(schedule.denoise(x, eps, t), eps, u)`` (Song 2021, eq. 12 with sigma = 0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Schedule:
    """Signal levels of a diffusion process.

    abar    float64 CPU tensor (T+1,), abar[0] = 1, strictly decreasing, all > 0.
            diffusers' ``alphas_cumprod[k]`` is ``abar[k + 1]``.
    recipe  name and numbers of the constructor that made it, for `to_config`; None if free-hand.
    """

    abar: Tensor
    recipe: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        abar = self.abar
        if not isinstance(abar, Tensor) or abar.dtype != torch.float64 or abar.device.type != "cpu":
            found = f"{abar.dtype} on {abar.device}" if isinstance(abar, Tensor) else type(abar)
            raise TypeError(f"abar: expected a float64 CPU tensor, got {found}")
        if abar.ndim != 1 or len(abar) < 2:
            raise ValueError(f"abar: shape {tuple(abar.shape)} is not (T+1,) with T >= 1")
        if abar[0] != 1:
            raise ValueError(f"abar: abar[0] is {abar[0]:g}, must be 1 (x_0 is clean)")
        if not (abar.diff() < 0).all() or not abar[-1] > 0:
            raise ValueError(f"abar: must fall strictly from 1 and stay > 0; ends at {abar[-1]:g}")

    def __repr__(self) -> str:
        return f"Schedule(T={self.T}, abar[T]={self.abar[-1]:.3g})"

    # ---- constructors ---------------------------------------------------------------------

    @classmethod
    def linear(cls, T: int = 1000, start: float = 1e-4, end: float = 0.02) -> Schedule:
        """beta rises linearly from `start` to `end` (DDPM, section 4)."""
        abar = _cumulate(_ramp(T, start, end, power=1))
        return cls(abar, {"name": "linear", "T": T, "start": start, "end": end})

    @classmethod
    def scaled_linear(cls, T: int = 1000, start: float = 0.00085, end: float = 0.012) -> Schedule:
        """sqrt(beta) rises linearly: Stable Diffusion 1, 2 and XL.

        abar[T] = 0.0047, not 0: 7% of the picture's mean survives in x_T.
        """
        abar = _cumulate(_ramp(T, start, end, power=2))
        return cls(abar, {"name": "scaled_linear", "T": T, "start": start, "end": end})

    @classmethod
    def cosine(cls, T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> Schedule:
        """abar follows a squared cosine, beta capped at `max_beta` (Nichol 2021, eq. 17)."""
        if not isinstance(T, Integral) or T < 1 or not 0 < max_beta < 1:
            raise ValueError(f"T, max_beta: {T!r}, {max_beta} must be an int >= 1 and in (0, 1)")
        angle = (torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2
        curve = angle.cos() ** 2
        betas = (1 - curve[1:] / curve[:-1]).clamp(max=max_beta)
        return cls(_cumulate(betas), {"name": "cosine", "T": T, "s": s, "max_beta": max_beta})

    @classmethod
    def from_diffusers(cls, scheduler: Any) -> Schedule:
        """The table of a diffusers scheduler, float32 drift and all, with abar[0] = 1 put first."""
        abar = scheduler.alphas_cumprod.double().cpu()
        return cls(torch.cat([torch.ones(1, dtype=torch.float64), abar]))

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Schedule:
        """The inverse of `to_config`."""
        if "abar" in config:
            return cls(torch.tensor(config["abar"], dtype=torch.float64))
        named = {"linear": cls.linear, "scaled_linear": cls.scaled_linear, "cosine": cls.cosine}
        numbers = dict(config)
        name = numbers.pop("name", None)
        if name not in named:
            raise ValueError(f"config: schedule name {name!r} is not one of {', '.join(named)}")
        return named[name](**numbers)

    def to_config(self) -> dict[str, Any]:
        """A plain dict for config.json: the recipe if there is one, else the whole table."""
        return dict(self.recipe) if self.recipe else {"abar": self.abar.tolist()}

    # ---- levels ----------------------------------------------------------------------------

    @cached_property
    def T(self) -> int:
        return len(self.abar) - 1

    @cached_property
    def _levels(self) -> list[float]:
        return self.abar.tolist()  # reading a list costs a tenth of Tensor.item() in the loop

    def level(self, t: int) -> float:
        """abar[t] as a Python float; raises unless t is an int in 0..T (-1 would wrap round)."""
        if not isinstance(t, Integral):
            raise TypeError(f"t: expected an int in 0..{self.T}, got {type(t).__name__}")
        if not 0 <= t <= self.T:
            raise ValueError(f"t: {t} is outside 0..{self.T}")
        return self._levels[t]

    def scales(self, t: int | Tensor, like: Tensor) -> tuple[Any, Any]:
        """sqrt(abar_t) and sqrt(1 - abar_t), ready to multiply `like` (b, ...).

        t  an int, or a (b,) integer tensor; keep the latter on the CPU, or a GPU must wait here.
        Computed in float64; floats for an int, tensors (b, 1, ...) in like's dtype for a tensor.
        """
        if not isinstance(t, Tensor):
            level = self.level(t)
            return math.sqrt(level), math.sqrt(1 - level)
        if t.shape != like.shape[:1] or t.is_floating_point():
            raise ValueError(f"t: {t.dtype} of shape {tuple(t.shape)}, expected ints {len(like),}")
        t = t.cpu()
        if t.min() < 0 or t.max() > self.T:  # indexing would let -1 through
            raise ValueError(f"t: {t.tolist()} is not all within 0..{self.T}")
        level = self.abar[t].view(-1, *[1] * (like.ndim - 1))  # (b, 1, ...)
        a, b = level.sqrt().to(like.dtype), (1 - level).sqrt().to(like.dtype)
        return a.to(like.device), b.to(like.device)

    def noise(self, x0: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
        """x_t from a clean x0 and a noise eps, both (b, ...); t in 0..T, int or (b,)."""
        a, b = self.scales(t, x0)
        return a * x0 + b * eps

    def denoise(self, x: Tensor, eps: Tensor, t: int | Tensor) -> Tensor:
        """The x_0 from which the noise eps would have made x; shapes and t as in `noise`."""
        a, b = self.scales(t, x)
        return (x - b * eps) / a

    def beta(self, t: int, s: int | None = None) -> float:
        """Variance that the forward process adds from s to t, 1 - abar_t / abar_s; s = t-1."""
        s = t - 1 if s is None else s
        if not 0 <= s < t:
            raise ValueError(f"t, s: {t}, {s} must satisfy 0 <= s < t <= {self.T}")
        return 1 - self.level(t) / self.level(s)

    def beta_tilde(self, t: int, s: int | None = None) -> float:
        """Variance of q(x_s | x_t, x_0) (DDPM, eq. 7), (1-abar_s)/(1-abar_t) beta; s = t-1."""
        beta = self.beta(t, s)
        return beta * (1 - self.level(t - 1 if s is None else s)) / (1 - self.level(t))

    # ---- paths: times from noisy to clean --------------------------------------------------

    def trailing(self, S: int) -> list[int]:
        """S even hops from T down to 0, e.g. 1000, 980, .., 20, 0."""
        self._check_steps(S, self.T)
        return [round(self.T * i / S) for i in range(S, -1, -1)]

    def leading(self, S: int, offset: int = 0) -> list[int]:
        """diffusers' default spacing in our index; S hops of T // S.

        offset = 0  plain, ends at 0:             981, 961, .., 1, 0
        offset = 1  Stable Diffusion, ends at 1:  982, 962, .., 2, 1
        """
        if offset not in (0, 1):
            raise ValueError(f"offset: {offset} is neither 0 (plain) nor 1 (Stable Diffusion)")
        self._check_steps(S, self.T - offset)
        stride = self.T // S
        return [1 + offset + stride * i for i in range(S - 1, -1, -1)] + [offset]

    def karras(self, S: int, rho: float = 7.0, start: float = 0.98) -> list[int]:
        """Hops even in sigma^(1/rho), sigma = sqrt((1-abar)/abar) (Karras 2022, eq. 5), then 0.

        The way to take for an inversion: its hops are short where a picture takes shape. It begins
        at start * T, since a cosine schedule has abar[T] = 2e-9 and a single hop over its last
        times loses the colours. Hops that fall on one time become one, so that a long path may have
        fewer than S (with T = 1000 from S = 50 or 80 on, by the schedule).
        """
        self._check_steps(S, self.T)
        if not rho > 0 or not 1 / self.T <= start <= 1:
            raise ValueError(f"rho, start: {rho}, {start} must be > 0 and in 1/T..1")
        root = ((1 - self.abar) / self.abar) ** (0.5 / rho)  # (T+1,)
        wanted = torch.linspace(float(root[round(start * self.T)]), float(root[1]), S)
        nearest = (root[1:, None] - wanted).abs().argmin(0) + 1  # (S,)
        return [*dict.fromkeys(nearest.tolist()), 0]

    def check_path(self, path: Sequence[int]) -> list[int]:
        """The path as a list of ints; raises unless it has >= 2 in 0..T that fall strictly."""
        for t in path:
            if not isinstance(t, Integral) or not 0 <= t <= self.T:
                raise ValueError(f"path: {t!r} is not an int in 0..{self.T}")
        for i, (t, s) in enumerate(pairwise(path)):
            if s >= t:
                raise ValueError(f"path: {t} -> {s} at position {i}, times must fall strictly")
        if len(path) < 2:
            raise ValueError(f"path: {path} has fewer than 2 times")
        return [int(t) for t in path]

    def _check_steps(self, S: int, most: int) -> None:
        if not isinstance(S, Integral) or not 1 <= S <= most:
            raise ValueError(f"S: {S!r} is not an int in 1..{most}")


def _ramp(T: int, start: float, end: float, power: int) -> Tensor:
    """betas (T,) whose power-th root rises linearly."""
    if not isinstance(T, Integral) or T < 1:
        raise ValueError(f"T: {T!r} is not an int >= 1")
    if not 0 < start <= end < 1:
        raise ValueError(f"start, end: {start}, {end} must satisfy 0 < start <= end < 1")
    root = 1 / power
    return torch.linspace(start**root, end**root, T, dtype=torch.float64) ** power


def _cumulate(betas: Tensor) -> Tensor:
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])  # (T+1,)
