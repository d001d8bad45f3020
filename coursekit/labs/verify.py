"""Runs a merged lab under nbval, in a process of its own, and says what became of each exercise.

nbval compares a check's fresh output with that of a right answer. What it finds is kept by a small
plugin in the child, as nbval's own report has no form for programs. The answers run in one kernel
with the checks: this tells honest readers where they stand. Nobody can be graded by it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from coursekit.labs.merge import Merged, merge
from coursekit.labs.notebook import PART, ROOT, read, written
from coursekit.labs.pristine import lab, which

CELL_SECONDS, START_SECONDS, ALL_SECONDS = 60, 120, 900
SELF_CHECK = ("This is a self-check for you: it runs your answers beside the checks, which a "
              "determined answer could forge.")

CHILD = """
import json, sys
import pytest
from nbval.plugin import IPyNbCell

cells = {}

class Keep:
    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.failed or report.skipped:
            entry = cells.setdefault(report.nodeid.rsplit("::", 1)[-1], {})
            entry["outcome"] = "xfail" if hasattr(report, "wasxfail") else report.outcome
    def pytest_runtest_teardown(self, item):
        if isinstance(item, IPyNbCell):
            cells.setdefault(item.name, {})["outputs"] = item.test_outputs or []

pytest.main(["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout", sys.argv[3],
             "--nbval-kernel-startup-timeout", sys.argv[4], "-q", "-p", "no:cacheprovider",
             "-c", "pytest.ini", sys.argv[1]], plugins=[Keep()])
with open(sys.argv[2], "w", encoding="utf-8") as out:
    json.dump(cells, out)
"""


@dataclass
class Row:
    """What became of an exercise: done, left, not done yet, no answer, error, out of time."""

    exercise: str
    title: str
    verdict: str
    points: int
    of: int
    said: list[str] = field(default_factory=list)


@dataclass
class Verified:
    """The result for a notebook."""

    lab: str
    exercises: list[Row]
    found: list[str]

    @property
    def points(self) -> int:
        return sum(row.points for row in self.exercises)

    @property
    def of(self) -> int:
        return sum(row.of for row in self.exercises)

    @property
    def done(self) -> bool:
        return all(row.verdict == "done" for row in self.exercises)

    def as_dict(self) -> dict:
        return {"lab": self.lab, "points": self.points, "of": self.of, "done": self.done,
                "exercises": [asdict(row) for row in self.exercises], "found": self.found,
                "note": SELF_CHECK}


def verify(path: Path, begin: Callable[[str], None] = lambda words: None) -> Verified:
    """Take the answers from a notebook and check them; ValueError if it cannot be read.

    begin  called with what is being done, once the notebook has been accepted.
    """
    theirs = read(path)
    stem = which(path, theirs)
    from coursekit.classroom.check.exercises import exercises

    own = exercises(stem[:2])
    merged = merge(theirs, lab(stem), own)
    begin(f"running the answers of {stem}")
    results = run(merged)
    rows = []
    for e in own:
        verdict, points, said = judged(e.id, e.points, merged, results)
        rows.append(Row(e.id, e.title, verdict, points, e.points, said))
    setup = next((id for id, r in results.items() if not PART.fullmatch(id)
                  and r.get("outcome") != "passed"), None)
    if setup:
        merged.found.append(f"the lab's own cell {setup} failed here: `coursekit doctor` may help")
    return Verified(stem, rows, merged.found)


def run(merged: Merged) -> dict[str, dict]:
    """What nbval saw, by cell id: outcome and outputs; {} for a cell that was not reached."""
    with tempfile.TemporaryDirectory(prefix="coursekit-") as name:
        folder = Path(name)  # away from the reader's files: one called torch.py would be imported
        (folder / "merged.ipynb").write_bytes(written(merged.notebook))
        (folder / "pytest.ini").write_text("[pytest]\n")  # and not one of a folder above
        found = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": found, "IPYTHONDIR": str(folder / "ipython"),
               "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": ""}
        out = folder / "cells.json"
        args = [sys.executable, "-c", CHILD, "merged.ipynb", str(out), str(CELL_SECONDS),
                str(START_SECONDS)]
        try:
            child = subprocess.run(args, cwd=folder, env=env, capture_output=True, text=True,
                                   check=False, timeout=ALL_SECONDS, stdin=subprocess.DEVNULL)
            cells = json.loads(out.read_text(encoding="utf-8"))
        except subprocess.TimeoutExpired:
            cells = {}
        except FileNotFoundError:
            raise RuntimeError(f"nbval did not run: {child.stdout[-2000:]}{child.stderr[-2000:]}"
                               ) from None
    return {cell.id: cells.get(f"Cell {i}", {}) for i, cell in enumerate(merged.notebook.cells)}


def judged(id: str, most: int, merged: Merged, results: dict) -> tuple[str, int, list[str]]:
    """Verdict, points and the lines that explain them."""
    if id in merged.missing:
        return "no answer", 0, [merged.missing[id]]
    answer, check = (results.get(f"{id}-{part}", {}) for part in ("answer", "check"))
    if check.get("outcome") == "passed":
        return "done", most, []
    wrong = problem(answer)
    if wrong:
        return "error", 0, [wrong]
    lines = "".join(o.get("text", "") for o in check.get("outputs", ())
                    if o["output_type"] == "stream").splitlines()
    if not lines:
        return "error", 0, [problem(check) or "the check was not reached: an answer before it "
                            "ended the kernel or took too long"]
    if any(line.startswith(f"{id}: not done yet") for line in lines):
        return "not done yet", 0, []
    last = re.search(rf"^{id}: \d+ of \d+ cases, (\d+) of {most} points", "\n".join(lines), re.M)
    return "left", min(int(last[1]), most - 1) if last else 0, lines


def problem(cell: dict) -> str:
    """The error that a cell ended with, in one line; "" if it ended well."""
    for output in cell.get("outputs", ()):
        if output["output_type"] == "error":
            if output["ename"] == "KeyboardInterrupt":
                return f"took more than {CELL_SECONDS} s"
            words = " ".join(f"{output['ename']}: {output['evalue']}".split())[:200]
            hint = ("; an answer's cell must hold all that it uses, beside the lab's first cells"
                    if output["ename"] == "NameError" else "")
            return words + hint
    return "took too long or ended the kernel" if cell.get("outcome") not in ("passed", None) \
        else ""


def table(result: Verified) -> list[str]:
    """The lines to print."""
    rows, width = result.exercises, max(len(row.title) for row in result.exercises)
    lines = []
    for row in rows:
        lines.append(f"{row.exercise}  {row.title:{width}}  {row.verdict:12}  "
                     f"{row.points} of {row.of} points")
        lines += [f"       {line}" for line in row.said]
    done = sum(row.verdict == "done" for row in rows)
    lines.append(f"{result.lab}: {done} of {len(rows)} done, {result.points} of {result.of} points")
    lines += [f"found: {line}" for line in result.found]
    return [*lines, SELF_CHECK]
