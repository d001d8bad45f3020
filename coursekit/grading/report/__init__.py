"""What is made of the marks: tables for programs, pages for people.

    line.py        a mark as all outputs read it: points after overrides, and what is still open
    text.py        strangers' words made fit for a page and for a spreadsheet
    marks.py       marks.csv, a row a student
    nbgrader.py    nbgrader.csv, as `nbgrader export` writes it
    gradescope.py  gradescope/NAME.json, a results.json a student
    student.py     students/NAME.html, a page a student
    overview.py    overview.html, the class without names: distributions and known mistakes
    listing.py     index.html, for the instructor: who needs a look, and every mark
    pairs.py       similar.csv and similar.html, pairs that look alike
    pages.py       Jinja2, and templates/ with everything that is HTML
    gradebook.py   marks into nbgrader's gradebook

Equal marks give equal bytes: nothing in here knows the time, the machine or the order of grading.
Marks are read once, one by one, and each file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from coursekit.grading.record import Mark
from coursekit.grading.report import (
    gradescope,
    listing,
    marks as table,
    nbgrader,
    overview,
    pairs,
    student,
)
from coursekit.grading.report.line import Plan, entry
from coursekit.grading.similar import Alike
from coursekit.images import sweep

OUTPUTS = (table.Table, nbgrader.Export, gradescope.Results, student.Pages, overview.Overview,
           listing.Listing)
NOBODY = Alike((), 0, 0)


def write(out: Path, marks: Iterable[Mark], plan: Plan, alike: Alike = NOBODY) -> list[Path]:
    """Write every output into a folder; the paths of the marks' own.

    marks  in the order of the students.
    plan   what the lab consists of.
    alike  what `similar.alike` found.
    """
    out.mkdir(parents=True, exist_ok=True)
    sweep(out)
    with ExitStack() as stack:
        outputs = [stack.enter_context(kind(out, plan)) for kind in OUTPUTS]
        for mark in marks:
            line = entry(mark, plan)
            for output in outputs:
                output.add(line)
    pairs.write(out, alike, plan)
    return [output.path for output in outputs]
