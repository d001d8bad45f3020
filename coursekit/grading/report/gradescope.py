"""gradescope/NAME.json: for each student what Gradescope's autograders write as results.json.

The fields are those of its autograder specification; words are plain text, never HTML.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coursekit.grading.report.line import Cell, Line, Plan
from coursekit.grading.report.text import clean, number
from coursekit.images import whole


class Results:
    """The folder: a file for each student of these marks, and no other of an earlier run."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.plan, self.kept = out / "gradescope", plan, set()

    def __enter__(self) -> Results:
        self.path.mkdir(exist_ok=True)
        return self

    def __exit__(self, kind: type | None, *problem: object) -> None:
        for old in self.path.glob("*.json") if kind is None else ():
            if old.name not in self.kept:
                old.unlink()

    def add(self, line: Line) -> None:
        path = self.path / f"{line.file}.json"
        self.kept.add(path.name)
        with whole(path) as part:
            part.write_text(json.dumps(results(line, self.plan), ensure_ascii=False, indent=1) + "\n",
                            encoding="utf-8")


def results(line: Line, plan: Plan) -> dict[str, Any]:
    """A results.json: the score that counts, and a test for each exercise."""
    mark, record = line.mark, line.mark.record
    said = [] if plan.trusted else ["UNTRUSTED: answers were run without walls."]
    said += [clean(words) for words in (*line.open, mark.rule) if words]
    said += [f"{o.exercise}: {o.points} points set by {clean(o.by)}: {clean(o.reason)}"
             for o in mark.overrides]
    extra = {"trusted": plan.trusted, "lab": plan.lab, "hours_late": round(mark.lateness, 4),
             "points_before_lateness": line.points}
    if record:
        extra |= {"submission": record.submission, "assignment": record.assignment,
                  "environment": record.environment, "walls": list(record.layers)}
    return {"score": round(mark.final, 4), "output": "\n".join(said), "output_format": "text",
            "test_output_format": "text", "test_name_format": "text", "visibility": "visible",
            "stdout_visibility": "hidden", "extra_data": extra,
            "tests": [_test(cell) for cell in line.cells]}


def _test(cell: Cell) -> dict[str, Any]:
    status = "passed" if cell.points == cell.column.of else "failed"
    return {"score": cell.points, "max_score": cell.column.of, "status": status,
            "name": cell.column.title, "number": cell.column.id, "output": "\n".join(_said(cell)),
            "visibility": "visible", "extra_data": {"verdict": cell.verdict}}


def _said(cell: Cell) -> list[str]:
    if cell.result is None:
        return []
    lines = [f"{cell.verdict}{': ' if cell.result.words else ''}{clean(cell.result.words)}"]
    for case in cell.result.cases:
        lines.append(f"{clean(case.what)}: {'ok' if case.ok else f'not yet: {clean(case.words)}'}")
    if cell.result.mistake:
        lines.append(f"likely: {clean(cell.result.mistake)}")
    if cell.override:
        lines.append(f"{number(cell.override.points)} points set by hand")
    return lines
