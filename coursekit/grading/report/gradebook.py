"""Marks into nbgrader's gradebook, through nbgrader's own API.

What nbgrader's autograder would write is written from our records: a score for each check cell,
a manual score where a mark was set by hand, and the penalty for lateness. Formgrader and export
then work as ever. A score that was given by hand in nbgrader stays where there is none here.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.grading.record import Mark
from coursekit.grading.report.line import Line, Plan, entry

if TYPE_CHECKING:
    from nbgrader.api import Gradebook


def enter(where: str, marks: Iterable[Mark], plan: Plan) -> int:
    """Enter marks into a gradebook; how many students were entered.

    where  a file, "gradebook.db", or a URL as in nbgrader's own setting.

    What nbgrader does not know yet is added: assignment, notebook, check cells, students. An
    assignment that it does know must have the check cells of this lab.
    """
    if not plan.trusted:
        raise ValueError("marks of answers that ran without walls are not entered in a gradebook")
    try:
        from nbgrader.api import Gradebook
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise ValueError("--gradebook needs nbgrader: pip install nbgrader") from None
    url, count = where if "://" in where else f"sqlite:///{Path(where).absolute()}", 0
    with warnings.catch_warnings(), _beside_python():
        warnings.filterwarnings("ignore", module=r"nbgrader\.")  # remarks on its own queries
        try:
            with closing(Gradebook(url)) as book:
                _assignment(book, plan)
                for mark in marks:
                    if mark.record is not None or mark.overrides:
                        _student(book, entry(mark, plan), plan)
                        count += 1
        except SQLAlchemyError as problem:
            words = " ".join(str(getattr(problem, "orig", None) or problem).split())[:200]
            raise ValueError(f"--gradebook={where!r}: {words}") from None
    return count


@contextmanager
def _beside_python() -> Iterator[None]:
    """nbgrader starts `alembic` by name, which is found where Python is even if nowhere else."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _assignment(book: Gradebook, plan: Plan) -> None:
    """The assignment with its check cells, as it is or made now."""
    from nbgrader.api import MissingEntry

    try:
        book.find_notebook(plan.stem, plan.stem)
    except MissingEntry:
        due = plan.due.astimezone(UTC).replace(tzinfo=None) if plan.due else None
        book.update_or_create_assignment(plan.stem, **({"duedate": due} if due else {}))
        book.update_or_create_notebook(plan.stem, plan.stem)
        for column in plan.columns:
            book.add_grade_cell(f"{column.id}-check", plan.stem, plan.stem, max_score=column.of,
                                cell_type="code")
    for column in plan.columns:
        try:
            cell = book.find_grade_cell(f"{column.id}-check", plan.stem, plan.stem)
        except MissingEntry:
            raise ValueError(f"the gradebook's {plan.stem} has no cell {column.id}-check: it is "
                             "another version of the lab") from None
        if cell.max_score != column.of:
            raise ValueError(f"the gradebook gives {column.id}-check {cell.max_score:g} points, "
                             f"the lab {column.of}: generate the assignment again")


def _student(book: Gradebook, line: Line, plan: Plan) -> None:
    """One student's scores and penalty."""
    book.update_or_create_student(line.student)
    when = line.mark.submitted
    more = {"timestamp": when.astimezone(UTC).replace(tzinfo=None)} if when else {}
    book.update_or_create_submission(plan.stem, line.student, **more)
    for cell in line.cells:
        grade = book.find_grade(f"{cell.column.id}-check", plan.stem, plan.stem, line.student)
        grade.auto_score = float(cell.result.points) if cell.result else 0.0
        if cell.override:
            grade.manual_score = float(cell.override.points)
        grade.needs_manual_grade = cell.verdict in ("needs-review", "tampered") and \
            not cell.override
    notebook = book.find_submission_notebook(plan.stem, plan.stem, line.student)
    notebook.late_submission_penalty = round(line.points - line.mark.final, 4)
    book.db.commit()
