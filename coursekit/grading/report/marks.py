"""marks.csv: a row a student, for a spreadsheet."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from pathlib import Path

from coursekit.grading.report.line import Line, Plan
from coursekit.grading.report.text import cell, number
from coursekit.images import whole


class Table:
    """The file, while it is written: UTF-8 with the mark that spreadsheets look for."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.plan, self._stack = out / "marks.csv", plan, ExitStack()

    def __enter__(self) -> Table:
        part = self._stack.enter_context(whole(self.path))
        stream = self._stack.enter_context(part.open("w", encoding="utf-8-sig", newline=""))
        self._csv = csv.writer(stream, quoting=csv.QUOTE_ALL)
        ids = [column.id for column in self.plan.columns]
        self._csv.writerow(["student", "points", "of", "before lateness", "hours late", "late rule",
                            *ids, *(f"{id} verdict" for id in ids), *(f"{id} mistake" for id in ids),
                            "set by hand", "to be looked at", "source", "submission", "assignment",
                            "environment", "walls", "trust"])
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.__exit__(*problem)

    def add(self, line: Line) -> None:
        mark, record = line.mark, line.mark.record
        by_hand = [f"{o.exercise}: {o.points} by {o.by}, {o.at.isoformat()}: {o.reason}"
                   for o in mark.overrides]
        hashes = [record.submission, record.assignment, record.environment,
                  ", ".join(record.layers)] if record else [""] * 4
        open_now = line.open or ([mark.problem] if line.absent else [])
        self._csv.writerow([cell(text) for text in (
            line.student, number(mark.final), number(mark.of), number(line.points),
            number(mark.lateness), mark.rule, *(number(c.points) for c in line.cells),
            *(c.verdict for c in line.cells),
            *(c.result.mistake if c.result else "" for c in line.cells), " | ".join(by_hand),
            " | ".join(open_now), mark.source, *hashes,
            "trusted" if self.plan.trusted else "untrusted")])
