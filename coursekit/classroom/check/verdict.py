"""From what came to a verdict: the trusted side, which computes what is wanted and runs no answer.

The lines are fixed: no floating number stands in them unless something is wrong, so that they can
be compared word by word with those of a right answer.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from coursekit.classroom.check.compare import differ, kind
from coursekit.classroom.check.general import RAISED, general
from coursekit.classroom.check.known import build
from coursekit.classroom.check.run import Outcome, run
from coursekit.classroom.check.spec import Case, Exercise

UNSOLVED = "not done yet"
EXPLAINED = 2  # cases that are enough to name a mistake: trying them all takes time


@dataclass
class Verdict:
    """One case: whether it holds, and if not what came of it and what may be behind it."""

    what: str
    ok: bool
    words: str = ""
    likely: list[str] = field(default_factory=list)

    @property
    def result(self) -> str:
        return "ok" if self.ok else f"not yet: {self.words}"


@dataclass
class Report:
    """All cases of an exercise."""

    exercise: Exercise
    verdicts: list[Verdict]
    cases: int
    kind: str = "tried"  # "tried", "not done yet"
    seed: int = 0

    @property
    def passed(self) -> int:
        return sum(v.ok for v in self.verdicts)

    @property
    def points(self) -> int:
        """Whole points, in proportion to the cases that hold; all of them only for all cases."""
        return self.exercise.points * self.passed // self.cases

    @property
    def done(self) -> bool:
        return self.passed == self.cases

    @property
    def likely(self) -> str:
        """The mistake that explains most of the failed cases."""
        names = [words for v in self.verdicts for words in v.likely]
        return max(names, key=names.count) if names else ""

    def lines(self) -> list[str]:
        e = self.exercise
        if self.kind == UNSOLVED:
            return [f"{e.id}: {UNSOLVED}, 0 of {e.points} points"]
        lines, said = [], ""
        for i, v in enumerate(self.verdicts, 1):
            words = "not yet: the same" if not v.ok and v.words == said else v.result
            lines.append(f"{e.id} {i}/{self.cases} {v.what}: {words}")
            said = v.words or said
        total = f"{e.id}: {self.passed} of {self.cases} cases, {self.points} of {e.points} points"
        if self.done:
            return [*lines, f"{total}, done"]
        if self.likely:
            lines.append(f"{e.id} likely: {self.likely}")
        return [*lines, f'{total}; the same numbers again: ex("{e.id}", .., seed={self.seed})']


def examine(exercise: Exercise, answer: Callable[..., Any], seed: int, *,
            hidden: bool = False) -> Report:
    """Run an answer on every case. It may do what it likes: a Report comes back."""
    cases = exercise.cases(seed, hidden=hidden)
    report = Report(exercise, [], len(cases), seed=seed)
    late, first = False, None
    for case in cases:
        if late:
            report.verdicts.append(Verdict(case.what, False, "left out, an earlier one was late"))
            continue
        outcome = run(exercise.task, answer, case)
        if outcome.kind == "not done":
            return Report(exercise, [], len(cases), UNSOLVED, seed)
        first = first or outcome
        late = outcome.kind == "too long"
        clear = sum(bool(v.likely) for v in report.verdicts) >= EXPLAINED
        report.verdicts.append(judge(exercise, case, outcome, explain=not clear))
    if report.done and not repeats(exercise, first, run(exercise.task, answer, cases[0]), cases[0]):
        words = "a second call with the same arguments returns something else"
        report.verdicts[0] = Verdict(cases[0].what, False, words,
                                     ["the answer must depend on its arguments alone"])
    return report


def repeats(exercise: Exercise, first: Outcome, again: Outcome, case: Case) -> bool:
    if again.kind != "value":
        return False
    dtype, tolerance = case.dtype, exercise.tolerance[case.dtype]
    return differ(again.value, _double(first.value), tolerance, dtype) is None


def judge(exercise: Exercise, case: Case, outcome: Outcome, *, explain: bool = True) -> Verdict:
    """The verdict on one outcome; explain: whether to look for the likely mistake."""
    said = _unfit(exercise, outcome)
    if not said:
        with warnings.catch_warnings():  # a wrong formula may divide by zero: that is no news
            warnings.simplefilter("ignore")
            said = _compared(exercise, case, outcome, explain)
    if not said:
        return Verdict(case.what, True)
    words, *likely = said
    if outcome.printed.strip():
        words += f" (it printed: {' '.join(outcome.printed.split())[:120]})"
    return Verdict(case.what, False, words, [w for w in likely if w])


def _unfit(exercise: Exercise, outcome: Outcome) -> list[str]:
    """Why there is nothing to compare, then what is likely; empty where there is."""
    if outcome.kind == "under study":
        return [f"it {outcome.words}, and this exercise asks you to write that yourself: the "
                "library's own refuses while your answer runs"]
    if outcome.kind == "too long":
        return [outcome.words, "a loop that does not end, or far more work than is needed"]
    if outcome.kind == "raised":
        return [outcome.words, _raised(exercise, outcome.words)]
    if outcome.kind != "value":
        return [outcome.words]
    if outcome.changed:
        return [f"it changes its argument {', '.join(outcome.changed)} in place",
                "work on a copy: x = x + y makes a new tensor, x += y writes into the caller's"]
    if outcome.reseeded:
        return ["it seeds torch's global generator",
                "use what you are given and leave the seeds to the caller"]
    return []


def _compared(exercise: Exercise, case: Case, outcome: Outcome, explain: bool) -> list[str]:
    """What differs from what is wanted, then what is likely; empty if nothing does."""
    args = build(case, "float64", exercise.task.known)
    wanted = exercise.wanted(*(args[name] for name in exercise.arguments))
    tolerance = exercise.tolerance[case.dtype]
    try:
        found = differ(outcome.value, wanted, tolerance, case.dtype)
    except (RuntimeError, NotImplementedError) as odd:  # sparse, meta and other strange tensors
        return [f"came {kind(outcome.value)} which cannot be read ({type(odd).__name__})"]
    words = found.words if found else (
        exercise.judge and exercise.judge(outcome.value, wanted, args))
    if not words:
        return []
    likely = _likely(exercise, outcome, wanted, case) if explain else []
    if found and explain and not likely:
        likely = [general(outcome.value, wanted, args, tolerance, case.dtype) or ""]
    return [words, *likely]


def _raised(exercise: Exercise, words: str) -> str:
    own = {m.raised: m.words for m in exercise.mistakes if m.raised}
    known = own | {part: said for part, said in RAISED.items() if part not in own}  # own ones first
    return next((said for part, said in known.items() if part in words), "")


def _likely(exercise: Exercise, outcome: Outcome, wanted: Any, case: Case) -> list[str]:
    """The words of every known mistake that would have given this value."""
    found, tolerance = [], exercise.tolerance[case.dtype]
    for mistake in exercise.mistakes:
        if mistake.raised:
            continue
        args = build(case, "float64", exercise.task.known)  # fresh: a predictor keeps count
        try:
            if mistake.when is not None and mistake.when(outcome.value, wanted, args):
                found.append(mistake.words)
            if mistake.wrong is not None:
                value = mistake.wrong(*(args[name] for name in exercise.arguments))
                got = _same_part(outcome.value, value, wanted, tolerance, case.dtype)
                alike = differ(got, value, tolerance, case.dtype, nan=True) is None
                if alike and speaks(value):
                    found.append(mistake.words)
        except (ArithmeticError, ValueError, TypeError, RuntimeError, LookupError,
                AttributeError):  # a wrong formula need not exist for every case
            continue
    return found


def _same_part(got: Any, wrong: Any, wanted: Any, tolerance: float, dtype: str) -> Any:
    """What of an answer a wrong formula speaks of: all of it, or the first of several results.

    None where that first result is right: then the mistake lies elsewhere.
    """
    if not (isinstance(wanted, dict) and isinstance(got, dict)) or isinstance(wrong, dict):
        return got
    first = next(iter(wanted))
    right = differ(got[first], wanted[first], tolerance, dtype) is None
    return None if right else got[first]


def speaks(value: Any) -> bool:
    """Whether a value tells mistakes apart: NaN alone has many causes."""
    return not isinstance(value, torch.Tensor) or bool(value.isfinite().any())


def _double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().double() if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        return type(value)(map(_double, value))
    return {k: _double(v) for k, v in value.items()} if isinstance(value, dict) else value
