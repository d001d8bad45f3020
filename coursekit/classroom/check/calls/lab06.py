"""Lab 06: codes and ways back by name, and the times at which a predictor was asked."""

from __future__ import annotations

from collections.abc import Callable


def asked(answer: Callable, eps, *args) -> dict:
    """What an answer returns, and the times at which it asked its predictor."""
    return {"x": answer(eps, *args), "times asked": list(eps.times)}


def several(*names: str) -> Callable:
    """What an answer returns in a tuple, by name; what is no such tuple stays as it came."""
    def called(answer: Callable, eps, *args) -> object:
        got = answer(eps, *args)
        if not isinstance(got, tuple) or len(got) != len(names):
            return got
        return {**dict(zip(names, got, strict=True)), "times asked": list(eps.times)}
    return called


CALLS = {"06-2": asked, "06-3": asked, "06-4": several("code", "back", "psnr"), "06-5": asked,
         "06-6": several("x", "y")}
KNOWN: dict = {}
