"""students/NAME.html: what a student is told, exercise by exercise."""

from __future__ import annotations

from pathlib import Path

from coursekit.grading.report.line import Line, Plan
from coursekit.grading.report.pages import render
from coursekit.images import whole


class Pages:
    """The folder: a page for each student of these marks, and no other of an earlier run."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.plan, self.kept = out / "students", plan, set()

    def __enter__(self) -> Pages:
        self.path.mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type | None, *problem: object) -> None:
        for old in self.path.glob("*.html") if kind is None else ():
            if old.name not in self.kept:
                old.unlink()

    def add(self, line: Line) -> None:
        path = self.path / f"{line.file}.html"
        self.kept.add(path.name)
        with whole(path) as part:
            render(part, "student.html", line=line, plan=self.plan)
