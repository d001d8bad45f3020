"""The exercises, one file a lab (lab05.py holds 05-1, 05-2, ..), found by listing the folder."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path

from coursekit.classroom.check.spec import Exercise


def labs() -> list[str]:
    """The numbers of the labs: "01", "02", .."""
    return sorted(path.stem.removeprefix("lab") for path in Path(__file__).parent.glob("lab??.py"))


@cache
def exercises(lab: str) -> tuple[Exercise, ...]:
    """The exercises of a lab, in order."""
    if lab not in labs():
        raise ValueError(f"there is no lab {lab!r}: accepted are {', '.join(labs())}")
    module = importlib.import_module(f"{__name__}.lab{lab}")
    found = tuple(module.EXERCISES)
    wanted = [f"{lab}-{k}" for k in range(1, len(found) + 1)]
    if [e.id for e in found] != wanted:
        raise TypeError(f"lab{lab}.py: ids are {[e.id for e in found]}, expected {wanted}")
    return found


def exercise(id: str) -> Exercise:
    """The exercise of that id, "05-2"."""
    lab = str(id)[:2]
    found = {e.id: e for e in exercises(lab)} if lab in labs() else {}
    if id not in found:
        near = ", ".join(found or labs())
        raise ValueError(f"no exercise has this id: accepted are {near}")
    return found[id]
