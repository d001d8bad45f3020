"""The hidden cases of one submission once more: what was asked, what came, what was wanted.

The inputs come of the course's key and the submission's bytes, so that they are those of the mark.
The answers run again, behind the same walls; the record that comes of it is compared with the one
that counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from coursekit.classroom.check.compare import kind
from coursekit.classroom.check.exercises import exercises
from coursekit.classroom.check.known import build
from coursekit.classroom.check.run import Outcome
from coursekit.classroom.check.spec import Case, Exercise, Named
from coursekit.grading import extract, trusted
from coursekit.grading.judging import graded, unanswered
from coursekit.grading.record import ExerciseResult
from coursekit.grading.sandbox import Infra, Limits
from coursekit.grading.sitting import Odd, Sitting

SHOWN = 6  # numbers of an array
LONGEST = 200  # characters of a value


@dataclass(frozen=True)
class Shown:
    """A case: what was asked for, what came, and what is right, in words."""

    what: str
    asked: dict[str, str]
    came: str
    wanted: str
    ok: bool


@dataclass(frozen=True)
class Heard:
    """An exercise, drawn and run again."""

    result: ExerciseResult
    cases: tuple[Shown, ...]


class Witness(Sitting):
    """A sitting that keeps what came."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seen: list[Outcome] = []

    def case(self, exercise: Exercise, case: Case, seed: int) -> Outcome:
        self.seen.append(super().case(exercise, case, seed))
        return self.seen[-1]


def hear(content: bytes, lab: str, *, key: bytes, variant: str = "", limits: Limits = Limits(),
         unsafe: bool = False) -> Iterator[Heard]:
    """Every exercise in turn, as `trusted.grade` has it; ValueError if it cannot be run."""
    extracted, sha = extract.answers(content, lab), hashlib.sha256(content).hexdigest()
    with Witness(trusted.setup(lab), limits, unsafe=unsafe) as sitting:
        for e in exercises(lab):
            if e.id not in extracted.sources:
                ambiguous = e.id in extracted.ambiguous
                words = (extracted.ambiguous if ambiguous else extracted.missing)[e.id]
                verdict = "needs-review" if ambiguous else "not-attempted"
                yield Heard(unanswered(e, verdict, words), ())
                continue
            hidden, own = trusted.seeds(key, f"{sha}|{variant}|{e.id}")
            sitting.seen, cases = [], e.cases(hidden, hidden=True)
            try:
                result = graded(e, extracted.sources[e.id], cases, sitting, own, lambda words: None)
            except Infra as problem:
                raise ValueError(f"{e.id} could not be run: {problem}") from None
            yield Heard(result, tuple(_shown(e, cases, sitting.seen, result)))


def _shown(exercise: Exercise, cases: list[Case], seen: list[Outcome],
           result: ExerciseResult) -> Iterator[Shown]:
    for i, (case, found) in enumerate(zip(cases, result.cases, strict=False)):
        args = build(case, "float64", exercise.task.known)
        wanted = exercise.wanted(*(args[name] for name in exercise.arguments))
        came = brief(seen[i].value) if i < len(seen) and seen[i].kind == "value" and not \
            isinstance(seen[i], Odd) else found.words or "nothing"
        yield Shown(f"{case.what}, {case.dtype}" if case.dtype not in case.what else case.what,
                    {name: brief(value) for name, value in case.args.items()}, came,
                    brief(wanted), found.ok)


def brief(value: Any) -> str:
    """A value in a line: its kind and its first numbers."""
    if isinstance(value, Named):
        numbers = ", ".join(f"{name}={brief(v)}" for name, v in value.numbers.items())
        return f"{value.kind}({numbers})"[:LONGEST]
    if isinstance(value, dict):
        return "; ".join(f"{name}: {brief(v)}" for name, v in value.items())[:LONGEST]
    if isinstance(value, (list, tuple)):
        parts = ", ".join(map(brief, value[:SHOWN])) + (", .." if len(value) > SHOWN else "")
        return f"[{parts}]"[:LONGEST]
    flat = value.flatten() if hasattr(value, "flatten") and hasattr(value, "dtype") else None
    if flat is not None and getattr(value, "ndim", 0):
        first = flat[:SHOWN].tolist()
        more = ", .." if len(flat) > SHOWN else ""
        parts = ", ".join(f"{n:.6g}" if isinstance(n, float) else str(n) for n in first)
        return f"{kind(value)} [{parts}{more}]"
    if isinstance(value, Tensor):
        value = value.item()
    return f"{value:.10g}" if isinstance(value, float) else str(value)[:LONGEST]


