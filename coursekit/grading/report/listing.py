"""index.html: for the instructor, who needs a look first, and then every mark."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coursekit.grading.report.line import Line, Plan
from coursekit.grading.report.pages import render
from coursekit.images import whole


@dataclass(frozen=True)
class Entry:
    """A student's line without the record, of which there may be thousands."""

    student: str
    file: str
    final: float
    marks: tuple[tuple[str, int, bool], ...]  # verdict, points, set by hand
    hours: float
    open: tuple[str, ...]
    absent: bool


class Listing:
    """The page, and what it lists."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.plan, self.entries = out / "index.html", plan, []
        self.records = None

    def __enter__(self) -> Listing:
        return self

    def __exit__(self, kind: type | None, *problem: object) -> None:
        if kind is None:
            with whole(self.path) as part:
                render(part, "listing.html", plan=self.plan, entries=self.entries,
                       record=self.records)

    def add(self, line: Line) -> None:
        mark = line.mark
        self.records = self.records or mark.record
        marks = tuple((c.verdict, c.points, c.override is not None) for c in line.cells)
        self.entries.append(Entry(line.student, line.file, mark.final, marks, mark.lateness,
                                  line.open, line.absent))
