"""Lab 06: codes and ways back by name, and the times at which a predictor was asked."""

from __future__ import annotations

from collections.abc import Callable


def asked(answer: Callable, eps, *args) -> dict:
    """What an answer returns, and the times at which it asked its predictor."""
    return {"x": answer(eps, *args), "times asked": list(eps.times)}


def there(answer: Callable, eps, *args) -> dict:
    up, back, psnr = answer(eps, *args)
    return {"code": up, "back": back, "psnr": psnr, "times asked": list(eps.times)}


def two(answer: Callable, eps, *args) -> dict:
    x, y = answer(eps, *args)
    return {"x": x, "y": y, "times asked": list(eps.times)}


CALLS = {"06-2": asked, "06-3": asked, "06-4": there, "06-5": asked, "06-6": two}
KNOWN: dict = {}
