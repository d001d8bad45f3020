"""One submission at its workers: cells in their order, each answer's cases after its cell.

As in a notebook that is run from top to bottom: an answer may use what an earlier cell defined,
and a later cell does not change it. When a worker ends early, or an answer leaves something
running, a fresh worker runs the earlier cells again and goes on with the next exercise. What a
worker says is checked for its form here and becomes an Outcome; whether it is right is decided
elsewhere.
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from coursekit.classroom.check.run import Outcome
from coursekit.classroom.check.spec import Case, Exercise
from coursekit.grading.line import STRETCH, Ended, Line
from coursekit.grading.protocol import Broken, decode, encode_case
from coursekit.grading.sandbox import Limits, lent

GRACE = 1.0  # seconds for what comes before and after an answer's own work
WORDS = 300  # characters
CELL_KINDS = ("done", "raised", "not done", "too long")
CASE_KINDS = ("value", "raised", "not done", "too long", "under study", "signature")
PATH = re.compile(r"(?<![\w)\]./])(?:/[\w.+-]+)+/(?=[\w.+-])")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff]+")


@dataclass(frozen=True)
class Cell:
    """What came of an answer's cell. kind: one of CELL_KINDS; magic: lines left out."""

    kind: str
    words: str
    magic: int
    defined: bool


@dataclass
class Odd(Outcome):
    """An outcome whose value could not travel; `odd` names its type."""

    odd: str = ""


class Sitting:
    """Workers for one submission; a context manager."""

    def __init__(self, cells: list[tuple[str, str]], limits: Limits, *, unsafe: bool) -> None:
        self.cells, self.limits, self.unsafe = cells, limits, unsafe
        self.past: list[dict[str, Any]] = []  # requests for the cells that have run
        self.line: Line | None = None
        self.until: float | None = None
        self._stack, self._sandbox = ExitStack(), None

    def __enter__(self) -> Sitting:
        return self

    def __exit__(self, kind: type | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.drop()
        self._stack.close()

    def cell(self, exercise: Exercise, source: str, seed: int) -> Cell:
        """Run an answer's cell. Raises Ended, as the two below."""
        request = {"do": "cell", "id": f"{exercise.id}-answer", "exercise": exercise.id,
                   "name": exercise.name, "source": source,
                   "seconds": STRETCH * self.limits.cell, "seed": seed}
        reply, _ = self._ask(request, [], self.limits.cell)
        self.past.append(request)
        if not (reply.get("kind") in CELL_KINDS and type(reply.get("words")) is str
                and type(reply.get("magic")) is int and type(reply.get("defined")) is bool):
            raise Ended("tampered", "an answer came that is none: no word on a cell")
        return Cell(reply["kind"], scrub(reply["words"]), min(max(reply["magic"], 0), 10**6),
                    reply["defined"])

    def case(self, exercise: Exercise, case: Case, seed: int) -> Outcome:
        """Call the exercise's answer on a case."""
        tree, blocks = encode_case(case)
        task = (exercise.id, exercise.signature, exercise.study, STRETCH * exercise.seconds)
        reply, blocks = self._ask({"do": "case", "task": task, "case": tree, "seed": seed,
                                   "most": self.limits.reply}, blocks, exercise.seconds)
        found = outcome(reply, blocks, exercise)
        if found.kind == "too long":  # by the worker's own clock, which is set for a busy machine
            found.words = f"no answer after {exercise.seconds:g} s"
        return found

    def leave(self) -> None:
        """After the last case of an exercise: nothing may come any more, nothing may go on."""
        if self.line is not None:
            self.line.quiet()
            if self.line.littered():
                self.drop()

    def drop(self, forget: str = "") -> None:
        """End the worker; the cell of the exercise to forget is not run again."""
        self.past = [r for r in self.past if r["exercise"] != forget]
        line, self.line = self.line, None
        if line is not None:
            line.close()

    def _ask(self, request: dict[str, Any], blocks: list[bytes],
             seconds: float) -> tuple[dict[str, Any], list[bytes]]:
        while self.line is None:
            self._open()
        try:
            return self.line.ask(request, blocks, seconds + GRACE, self._left())
        except Ended as end:
            if end.words:
                raise
            words = f"no answer after {seconds:g} s" if self._left() else \
                f"the {self.limits.seconds:g} s for the notebook were used up"
            raise Ended("timeout", words) from None

    def _left(self) -> float:
        """Seconds that are left for the whole notebook."""
        return max(0.0, self.until - time.monotonic())

    def _open(self) -> None:
        """A fresh worker in which the earlier cells have run."""
        if self._sandbox is None or not self._sandbox.usable:
            self._stack.close()
            self._sandbox = self._stack.enter_context(lent(unsafe=self.unsafe))
        if self.until is None:
            self.until = time.monotonic() + self.limits.seconds
        self.line = Line(self._sandbox, self.limits)
        self.line.setup(self.cells)
        for request in list(self.past):
            try:
                self.line.ask(request, [], self.limits.cell + GRACE, self._left())
            except Ended:  # it did not do so before: from now on without this cell
                self.drop(forget=request["exercise"])
                return


def outcome(reply: dict[str, Any], blocks: list[bytes], exercise: Exercise) -> Outcome:
    """A worker's words on a case as an Outcome; Ended if they have another form."""
    kind, changed = reply.get("kind"), reply.get("changed")
    plain = (kind in CASE_KINDS and type(reply.get("words")) is str
             and type(reply.get("printed")) is str and type(reply.get("reseeded")) is bool
             and type(changed) is list and all(name in exercise.arguments for name in changed))
    if not plain or ("odd" in reply) == ("value" in reply):
        raise Ended("tampered", "an answer came that is none: no word on a case")
    same = {"kind": kind, "words": scrub(reply["words"]), "changed": changed,
            "reseeded": reply["reseeded"], "printed": scrub(reply["printed"])}
    if "odd" in reply:
        return Odd(**same, odd=scrub(str(reply["odd"]))[:60])
    try:
        return Outcome(**same, value=decode(reply["value"], blocks))
    except Broken as odd:
        raise Ended("tampered", f"an answer came that is none: {odd}") from None


def scrub(words: str) -> str:
    """Words from the other side as one short line that is the same in every run."""
    words = re.sub(r"0x[0-9a-fA-F]{6,}", "0x..", CONTROL.sub(" ", words[:10 * WORDS]))
    words = re.sub(r"\btmp\w{8}\b", "tmp..", PATH.sub("../", words))
    return " ".join(words.split())[:WORDS]
