"""Numeric twins: every displayed equation of a lecture, met by a second, independent route.

A twin computes how far the two sides of its equation lie apart, in units of what rounding or
sampling may account for, and returns that. Its keywords are signs and coefficients of the equation:

    @pytest.mark.equation("01.4")
    @mutated(sign=-1)
    def test_gap_is_a_kl(sign=1):
        return exact(log_p(X), bound(X) + sign * kl(X))

runs twice: as it stands (case "true"), where at most 1 is accepted, and with sign=-1 (case
"mutated-sign=-1"), where more than MARGIN is demanded. A twin that a changed sign does not disturb
is thereby a failing test.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

MARGIN = 10  # a wrong equation must miss by ten times of what a true one may
STANDARD_ERRORS = 5


def exact(left: Any, right: Any, tolerance: float = 1e-10) -> float:
    """Largest |left - right| in units of tolerance * max(1, |right|)."""
    left, right = (torch.as_tensor(side, dtype=torch.float64) for side in (left, right))
    off = (left - right).abs() / right.abs().clamp(min=1) / tolerance
    return float(off.max())


def sampled(draws: Tensor, truth: Any) -> float:
    """Largest |mean of draws - truth| in units of 5 standard errors; draws (n, ...)."""
    error = draws.std(0) / len(draws) ** 0.5
    return float(((draws.mean(0) - truth).abs() / error / STANDARD_ERRORS).max())


def mutated(**changes: Any) -> Callable[[Callable[..., float]], Callable[[dict], None]]:
    """A residual becomes a test: small as it stands, large with any one keyword changed.

    changes  keyword=wrong value, or a tuple of them; each is a case of its own. At least one.
    """
    if not changes:
        raise ValueError("changes: none given; a twin needs a mutated case")
    cases = [pytest.param({}, id="true")]
    for name, wrong in changes.items():
        for value in wrong if isinstance(wrong, tuple) else (wrong,):
            cases.append(pytest.param({name: value}, id=f"mutated-{name}={value}"))

    def decorate(residual: Callable[..., float]) -> Callable[[dict], None]:
        def test(change: dict) -> None:
            off = abs(residual(**change))  # a NaN fails both comparisons below
            if change:
                assert off > MARGIN, f"{change} goes unnoticed: residual {off:.3g}"
            else:
                assert off <= 1, f"the sides differ by {off:.3g} tolerances"

        test.__name__, test.__doc__ = residual.__name__, residual.__doc__
        test.__module__ = residual.__module__
        return pytest.mark.parametrize("change", cases)(test)

    return decorate
