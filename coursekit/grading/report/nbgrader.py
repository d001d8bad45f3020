"""nbgrader.csv: the columns that `nbgrader export` writes, so that what reads those reads this."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from coursekit.grading.report.line import Line, Plan
from coursekit.grading.report.text import cell
from coursekit.images import whole

HEAD = ("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email",
        "raw_score", "late_submission_penalty", "score", "max_score")


class Export:
    """The file, while it is written."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.plan, self._stack = out / "nbgrader.csv", plan, ExitStack()

    def __enter__(self) -> Export:
        part = self._stack.enter_context(whole(self.path))
        stream = self._stack.enter_context(part.open("w", encoding="utf-8", newline=""))
        self._csv = csv.writer(stream, lineterminator="\n")
        self._csv.writerow(HEAD)
        return self

    def __exit__(self, *problem: object) -> None:
        self._stack.__exit__(*problem)

    def add(self, line: Line) -> None:
        mark = line.mark
        name = self.plan.stem if self.plan.trusted else f"{self.plan.stem} untrusted"
        self._csv.writerow([
            name, stamp(self.plan.due), stamp(mark.submitted), cell(line.student), "", "", "",
            float(line.points), round(line.points - mark.final, 4), float(mark.final),
            float(self.plan.of)])


def stamp(time: datetime | None) -> str:
    """A time as nbgrader keeps it: UTC, and no word of that."""
    return str(time.astimezone(UTC).replace(tzinfo=None)) if time else ""
