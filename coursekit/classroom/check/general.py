"""Mistakes that every exercise knows: a sign, a factor, an argument given back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from coursekit.classroom.check.compare import differ

RAISED = {
    "math domain error": "a square root or logarithm of something negative: a sign or the order "
                         "of two levels may be the other way round",
    "must be broadcastable": "shapes do not fit: a factor for each item needs axes of length one",
    "must match the size of tensor": "shapes do not fit: a factor for each item needs axes of "
                                     "length one",
    "zip() argument": "things of unequal length were paired with strict=True: one may have more "
                      "than is needed",
    "is not defined": "the answer's cell must hold or import all that it uses",
    "division by zero": "something is divided by zero: look at the two ends, t = 0 and t = T",
}


def general(got: Any, wanted: Any, args: Mapping[str, Any], tolerance: float,
            dtype: str) -> str | None:
    """The likely mistake where the exercise's own list has none that fits."""
    if isinstance(got, dict) and isinstance(wanted, dict):  # each of several results
        found = [general(got[k], wanted[k], args, tolerance, dtype) for k in wanted if k in got]
        return next(filter(None, found), None)
    if got is None:
        return "nothing is returned: is there a return at the end?"
    if isinstance(got, Tensor) and isinstance(wanted, Tensor) and \
            differ(got, wanted, tolerance, dtype) is None:
        return None  # one of several results, and not the one that is wrong
    for name, value in args.items():
        if isinstance(value, Tensor) and isinstance(got, Tensor) and same(got, value, tolerance):
            return f"the argument {name} comes back unchanged"
    if isinstance(got, Tensor) and isinstance(wanted, Tensor):
        return _shapes(got, wanted, dtype) or _values(got.detach().double(), wanted.double(),
                                                     tolerance)
    if isinstance(wanted, float):
        if isinstance(got, Tensor) and got.ndim == 0:
            return "a tensor with one number in it is no float: float(..) makes it one"
        if isinstance(got, float):
            pair = (torch.tensor([v], dtype=torch.float64) for v in (got, wanted))
            return _values(*pair, tolerance)
    return None


def same(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or not (a.is_floating_point() and b.is_floating_point()):
        return False
    return differ(a.detach().double(), b.double(), tolerance, "float64", nan=True) is None


def _shapes(got: Tensor, wanted: Tensor, dtype: str) -> str | None:
    if got.shape != wanted.shape:
        if wanted.ndim > 1 and got.shape == wanted.mT.shape:
            return "the two last axes are the other way round"
        if got.squeeze().shape == wanted.squeeze().shape:
            return "an axis of length one too many or too few"
        if got.numel() == 1:
            return "one number came where many are wanted: a sum or a mean goes over too many axes"
        return None
    if wanted.is_floating_point() and str(got.dtype) != f"torch.{dtype}":
        return "the result must keep the dtype of what comes in: a constant or a level has another"
    return None


def _values(got: Tensor, wanted: Tensor, tolerance: float) -> str | None:
    if got.shape != wanted.shape or not bool(got.isfinite().all()):
        return None
    if not wanted.abs().max() > 100 * tolerance:
        return None  # of a zero nothing can be said
    found = {
        "the result is zero everywhere": torch.zeros_like(wanted),
        "the sign is the other way round": -wanted,
        "this is the square of what is wanted: a square root is missing": wanted.square(),
        "this is the square root of what is wanted": wanted.abs().sqrt(),
    }
    for words, value in found.items():
        if same(got, value, tolerance):
            return words
    if got.numel() < 4:
        return None
    factor = float((got * wanted).sum() / wanted.square().sum())
    if same(got, factor * wanted, tolerance):
        return "every value is off by one and the same factor"
    if same(got, wanted + (got - wanted).mean(), tolerance):
        return "every value is off by one and the same amount"
    return None
