"""A class of marks for tests of the reports: made up, the same every time, with odd ones in it."""

import random
from datetime import UTC, datetime

from coursekit.classroom.check.exercises import exercises
from coursekit.grading.record import CaseResult, ExerciseResult, Mark, Override
from coursekit.grading.report.line import ABSENT, Column, Plan
from fakes import record

OWN = exercises("05")
PLAN = Plan("05", "05_ddim", tuple(Column(e.id, e.title, e.points) for e in OWN),
            datetime(2026, 5, 4, 22, 0, tzinfo=UTC))
SAID = "largest error 0.0413 at (0, 2): came 0.812, wanted 0.771, allowed 2e-06"


def result(e, kind, dice):
    """An exercise's result of a kind: correct, partial, wrong or any other verdict."""
    if kind not in ("correct", "partial", "wrong"):
        return ExerciseResult(e.id, e.title, kind, 0, e.points, words=f"words about {kind}")
    hold = {"correct": 4, "partial": dice.randint(1, 3), "wrong": 0}[kind]
    known = [m.words for m in e.mistakes if m.wrong]
    mistake = "" if kind == "correct" or not known or dice.random() < .2 else dice.choice(known[:3])
    cases = tuple(CaseResult(f"case {i}", i < hold, "" if i < hold else SAID,
                             "" if i < hold else mistake) for i in range(4))
    return ExerciseResult(e.id, e.title, kind, e.points * hold // 4, e.points, cases, mistake)


def mark(student, kinds, dice, **more):
    r = record(student.encode(), exercises=tuple(
        result(e, kind, dice) for e, kind in zip(OWN, kinds, strict=True)))
    return Mark(student, f"{student}/05_ddim.ipynb", r, r.points, r.points, r.of, **more)


def marks(n=24):
    """n students, the last of whom are odd."""
    dice, kinds = random.Random(1), ["correct", "partial", "wrong", "not-attempted", "timeout"]
    found = []
    for i in range(n):
        mood = [6, 2, 1, 1, .2] if dice.random() < .6 else [1, 2, 3, 4, 1]
        found.append(mark(f"student{i:03}", dice.choices(kinds, mood, k=6), dice))
    return found + odd()


def odd():
    dice = random.Random(2)
    by = Override("zz hand", "05-2", 3, "a typing error in the last line, =cmd()", "Prof. X",
                  datetime(2026, 5, 6, 9, 30, tzinfo=UTC))
    hand = mark("zz hand", ["correct", "wrong"] + 4 * ["correct"], dice, overrides=(by,))
    hand = Mark(**{**vars(hand), "final": hand.raw + 3 - hand.record.exercises[1].points})
    late = mark("zz late", 6 * ["correct"], dice, lateness=26.5, rule="10 % off for each day",
                submitted=datetime(2026, 5, 6, 0, 30, tzinfo=UTC))
    late = Mark(**{**vars(late), "final": 16.5})
    rude = mark('zz <script>alert(1)</script>"\x1b[31m', ["tampered"] + 5 * ["wrong"], dice)
    return [hand, late, rude,
            Mark("zz absent", "", None, 0, 0, PLAN.of, problem=ABSENT),
            Mark("zz two", "zz two/", None, 0, 0, PLAN.of,
                 problem="2 notebooks could be lab 05, a person must say which counts")]
