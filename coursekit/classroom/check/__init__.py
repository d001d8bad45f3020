"""Checks for the labs: `check.ex("05-2", posterior_mean)`, and `check.summary()`.

    spec.py       what an exercise is        exercises/   one file a lab, found by listing
    known.py      what is given by name      calls/       how its answers are called, a file a lab
    run.py        one call, fenced in        compare.py   what differs, in words
    verdict.py    the judge                  general.py   mistakes known everywhere
    board.py      done, left, untried

The side that runs an answer needs calls/, known.py and run.py, and nothing of exercises/.

A check takes your function, gives it fresh numbers, compares with closed forms or with trusted
libraries and prints one line a case. It never raises and never shows the answer. What it returns
are the points.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import Any

from coursekit.classroom.check.board import done, note, summary
from coursekit.classroom.check.exercises import exercise
from coursekit.classroom.check.spec import NotDoneYet
from coursekit.classroom.check.verdict import examine

__all__ = ["NotDoneYet", "done", "ex", "summary"]


def ex(id: str, answer: Callable[..., Any], *, seed: int | None = None) -> int:
    """Check an answer to exercise `id`, say a line a case, return the points (an int).

    seed  the numbers of an earlier check, which it names when something is wrong; fresh if None.
    """
    try:
        report = examine(exercise(id), answer, secrets.randbelow(2**31) if seed is None else seed)
    except KeyboardInterrupt:
        lines, points = [f"{id}: stopped, 0 points"], 0
    except ValueError as refused:  # an unknown id
        lines, points = [f"{id}: {refused}"], 0
    else:
        note(report)
        lines, points = report.lines(), report.points
    sys.stdout.write("\n".join(lines) + "\n")  # the one place where the package speaks for itself
    return points
