"""From what came of an exercise's cases to its verdict and its points. No answer runs here."""

from __future__ import annotations

from collections.abc import Callable

from coursekit.classroom.check.run import Outcome
from coursekit.classroom.check.spec import Case, Exercise
from coursekit.classroom.check.verdict import (
    EXPLAINED,
    UNSOLVED,
    Report,
    Verdict,
    judge,
    repeats,
)
from coursekit.grading.line import Ended
from coursekit.grading.record import CaseResult, ExerciseResult
from coursekit.grading.sitting import Cell, Odd, Sitting, scrub

MEMORY = ("raised MemoryError", "can't allocate memory", "Cannot allocate memory")
RAISED = {"raised": "error-in-code", "too long": "timeout", "not done": "not-attempted"}
FORGED = "tampered"


class Sheet:
    """An exercise as it is being graded: a verdict for each case that gave a result."""

    def __init__(self, exercise: Exercise, cases: list[Case]) -> None:
        self.exercise, self.cases = exercise, cases
        self.report = Report(exercise, [], len(cases))
        self.natures: list[str] = []  # of each case: "" if it holds, else a verdict
        self.ended: Ended | None = None
        self.remark = ""

    @property
    def passed(self) -> int:
        return self.report.passed

    def take(self, outcome: Outcome) -> None:
        """Judge the outcome of the next case."""
        case = self.cases[len(self.natures)]
        verdict = judged(self.exercise, case, outcome, explain=not self._clear)
        self.report.verdicts.append(verdict)
        self.natures.append("" if verdict.ok else nature(outcome))

    @property
    def _clear(self) -> bool:
        return sum(bool(v.likely) for v in self.report.verdicts) >= EXPLAINED

    def spoil(self, words: str, *likely: str) -> None:
        """The first case does not hold after all."""
        self.report.verdicts[0] = Verdict(self.cases[0].what, False, words, list(likely))
        self.natures[0] = "wrong"

    def result(self) -> ExerciseResult:
        e, verdicts = self.exercise, self.report.verdicts
        verdict = self._verdict()
        points = 0 if verdict == FORGED else self.report.points
        words = self.ended.words if self.ended else self.remark
        left = [CaseResult(c.what, False, "not reached") for c in self.cases[len(verdicts):]]
        mistake = scrub(self.report.likely)
        return ExerciseResult(
            e.id, e.title, verdict, points, e.points,
            tuple(CaseResult(v.what, v.ok, scrub(v.words), scrub((v.likely or [""])[0]))
                  for v in verdicts) + tuple(left), mistake, words, missing=len(left))

    def _verdict(self) -> str:
        if self.ended:
            return self.ended.verdict
        if self.report.done:
            return "correct"
        failed = {n for n in self.natures if n}
        for grave in ("timeout", "memory"):
            if grave in failed:
                return grave
        if self.passed:
            return "partial"
        return failed.pop() if len(failed) == 1 else "wrong"


def graded(exercise: Exercise, source: str, cases: list[Case], sitting: Sitting, seed: int,
           note: Callable[[str], None]) -> ExerciseResult:
    """Run an answer on its cases and judge it. Raises Infra and nothing else."""
    sheet = Sheet(exercise, cases)
    try:
        cell = sitting.cell(exercise, source, seed)
        if cell.magic:
            note(f"{exercise.id}: {cell.magic} lines of magic were left out")
        if not cell.defined:
            sitting.leave()
            return undefined(exercise, cases, cell)
        if cell.kind != "done":
            sheet.remark = f"the cell itself {said(cell)}"
        examine(sheet, sitting, seed + 1)
        sitting.leave()
    except Ended as end:
        sitting.drop(forget=exercise.id if end.verdict == FORGED else "")
        if sheet.report.done:  # it ended when it was called once more
            sheet.spoil(f"a second call with the same arguments: {end.words}")
        sheet.ended = end
    return sheet.result()


def examine(sheet: Sheet, sitting: Sitting, seed: int) -> None:
    """All cases in turn, and the first once more: an answer must depend on its arguments alone."""
    exercise, first = sheet.exercise, None
    for i, case in enumerate(sheet.cases):
        outcome = sitting.case(exercise, case, seed + i)
        sheet.take(outcome)
        first = first or outcome
        if outcome.kind == "too long" or i == 0 and outcome.kind == "not done":
            return
    if sheet.report.done:
        again = sitting.case(exercise, sheet.cases[0], seed + len(sheet.cases))
        if isinstance(again, Odd) or not repeats(exercise, first, again, sheet.cases[0]):
            sheet.spoil("a second call with the same arguments returns something else",
                        "the answer must depend on its arguments alone")


def judged(exercise: Exercise, case: Case, outcome: Outcome, *, explain: bool) -> Verdict:
    """The public check's judgement; whatever came, it is a verdict and no exception."""
    if isinstance(outcome, Odd) and outcome.kind == "value":
        return Verdict(case.what, False, f"came {outcome.odd}: accepted are plain tensors, "
                                         "numbers, words, lists, tuples and dicts")
    if outcome.kind == "not done":
        return Verdict(case.what, False, UNSOLVED)
    try:
        return judge(exercise, case, outcome, explain=explain)
    except Exception as problem:  # a value so odd that comparing it fails is not what is wanted
        words = f"what came cannot be compared ({type(problem).__name__})"
        return Verdict(case.what, False, words)


def nature(outcome: Outcome) -> str:
    """The verdict that an outcome which does not hold stands for."""
    if outcome.kind == "raised" and any(part in outcome.words for part in MEMORY):
        return "memory"
    if isinstance(outcome, Odd) and outcome.kind == "value":
        return "malformed"
    return RAISED.get(outcome.kind, "wrong")


def undefined(exercise: Exercise, cases: list[Case], cell: Cell) -> ExerciseResult:
    """The result for a cell that does not define what was asked for."""
    verdict, words = RAISED.get(cell.kind, "error-in-code"), said(cell)
    if verdict == "error-in-code" and nature(Outcome(cell.kind, words=cell.words)) == "memory":
        verdict = "memory"
    if verdict == "error-in-code":
        words = f"its cell does not define {exercise.name}" + (f": {words}" if words else "")
    return unanswered(exercise, verdict, words, len(cases))


def said(cell: Cell) -> str:
    return {"too long": "took too long", "not done": ""}.get(cell.kind, cell.words)


def unanswered(exercise: Exercise, verdict: str, words: str, missing: int = 0) -> ExerciseResult:
    """A result without cases."""
    return ExerciseResult(exercise.id, exercise.title, verdict, 0, exercise.points, words=words,
                          missing=missing)
