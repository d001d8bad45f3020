"""Is what came what was wanted: exact type, shape, dtype, then the values; and if not, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

WHOLE, REAL = (int, np.int64), (float, np.float64)


@dataclass(frozen=True)
class Difference:
    """What is wrong with a value; `numbers` where its kind and shape are right."""

    words: str
    numbers: bool = False


def kind(value: Any) -> str:
    """A value in a few words: float32 tensor (4, 3), list of 2, float."""
    if isinstance(value, Tensor):
        name = "" if type(value) is Tensor else f" ({type(value).__name__})"
        return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}{name}"
    if isinstance(value, np.ndarray):
        return f"numpy array {value.dtype} {value.shape}"
    if isinstance(value, (list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    return "None" if value is None else type(value).__name__


def alike(a: Any, b: Any, *, double: float, single: float) -> bool:
    """Whether an answer a, which may be anything, is b but for rounding.

    Tensors may be off by `double` of 1 + |b| where they have b's dtype, by `single` where a is the
    float32 of a b in float64; floats by `single`. Lists and tuples are compared part by part.
    """
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(
            alike(*pair, double=double, single=single) for pair in zip(a, b, strict=True))
    if isinstance(a, float):
        return isinstance(b, float) and abs(a - b) <= single * (1 + abs(b))
    if not (isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape):
        return False
    allowed = double if a.dtype == b.dtype else single
    return torch.allclose(a.detach().double(), b.detach().double(), allowed, allowed)


def differ(got: Any, wanted: Any, tolerance: float, dtype: str, *, nan: bool = False,
           place: str = "") -> Difference | None:
    """The first difference, or None.

    wanted  in float64; a tensor is wanted in `dtype`. nan: whether NaN equals NaN (a known mistake
            may well produce some; a right answer may not).
    """
    at = f"{place}: " if place else ""
    if isinstance(wanted, Tensor):
        dtype = dtype if wanted.is_floating_point() else str(wanted.dtype).removeprefix("torch.")
        asked = f"{dtype} tensor {tuple(wanted.shape)}"
        fits = type(got) is Tensor and str(got.dtype) == f"torch.{dtype}"
        if not fits or got.shape != wanted.shape:
            return Difference(f"{at}came {kind(got)}, wanted {asked}")
        return _values(got.detach().double(), wanted.double(), tolerance, nan, at)
    if isinstance(wanted, bool) or isinstance(wanted, str) or wanted is None:
        if type(got) is type(wanted) and got == wanted:
            return None
        return Difference(f"{at}came {got!r}, wanted {wanted!r}"[:200],
                          numbers=type(got) is type(wanted))
    if isinstance(wanted, (int, float)):
        accepted = WHOLE if isinstance(wanted, int) else WHOLE + REAL
        if type(got) not in accepted:
            return Difference(f"{at}came {kind(got)}, wanted {kind(wanted)}")
        pair = (torch.tensor(float(v), dtype=torch.float64) for v in (got, wanted))
        return _values(*pair, 0.0 if isinstance(wanted, int) else tolerance, nan, at)
    if isinstance(wanted, (list, tuple)):
        if type(got) is not type(wanted) or len(got) != len(wanted):
            return Difference(f"{at}came {kind(got)}, wanted {kind(wanted)}")
        name = place or "result"
        pairs = [(f"{name}[{i}]", *both) for i, both in enumerate(zip(got, wanted, strict=True))]
    elif isinstance(wanted, Mapping):
        if type(got) is not dict:  # the check's own observations have names of several words
            names = ", ".join(name for name in map(str, wanted) if " " not in name)
            return Difference(f"{at}came {kind(got)}, wanted {names}")
        if list(map(str, got)) != list(map(str, wanted)):
            return Difference(f"{at}came {', '.join(map(str, got))}, "
                              f"wanted {', '.join(map(str, wanted))}")
        pairs = [(f"{place} {key}".strip(), got[key], wanted[key]) for key in wanted]
    else:
        raise TypeError(f"wanted: {kind(wanted)} cannot be compared")
    for key, a, b in pairs:
        found = differ(a, b, tolerance, dtype, nan=nan, place=key)
        if found:
            return found
    return None


def _values(got: Tensor, wanted: Tensor, tolerance: float, nan: bool,
            before: str) -> Difference | None:
    odd = ~got.isfinite()
    if odd.any() and not (nan and torch.equal(odd, ~wanted.isfinite())):
        if got.ndim == 0:
            return Difference(f"{before}came {float(got)}, wanted a finite number", numbers=True)
        return Difference(f"{before}{int(odd.sum())} of {odd.numel()} values are NaN or infinite",
                          numbers=True)
    error = (got - wanted).abs() / (1 + wanted.abs())
    error = torch.where(odd, 0.0, error).flatten()
    if not error.numel() or float(error.max()) <= tolerance:
        return None
    at = int(error.argmax())
    came, want = (float(v.flatten()[at]) for v in (got, wanted))
    where = "" if got.ndim == 0 else f" at {tuple(map(int, np.unravel_index(at, got.shape)))}"
    first = "off by" if got.ndim == 0 else "largest error"
    off = f"{abs(came - want):.3g}" if math.isfinite(came) else "not finite"
    return Difference(f"{before}{first} {off}{where}: came {came:.6g}, wanted {want:.6g}, "
                      f"allowed {tolerance * (1 + abs(want)):.1g}", numbers=True)
