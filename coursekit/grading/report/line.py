"""A mark as all outputs read it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from coursekit.grading.names import slug
from coursekit.grading.record import ExerciseResult, Mark, Override

LOOK = ("needs-review", "tampered")  # verdicts that a person has the last word on
ABSENT = "nothing was handed in"


@dataclass(frozen=True)
class Column:
    """An exercise of the lab."""

    id: str
    title: str
    of: int


@dataclass(frozen=True)
class Plan:
    """What the lab of all marks is.

    stem      "05_ddim", as nbgrader calls assignment and notebook.
    due       the deadline for everybody, None if there is none.
    trusted   False if answers were run without walls: every output says so.
    """

    lab: str
    stem: str
    columns: tuple[Column, ...]
    due: datetime | None = None
    trusted: bool = True

    @property
    def of(self) -> int:
        return sum(column.of for column in self.columns)


@dataclass(frozen=True)
class Cell:
    """An exercise of a student: what came of it, and the points after a mark set by hand."""

    column: Column
    result: ExerciseResult | None
    points: int
    override: Override | None = None

    @property
    def verdict(self) -> str:
        return self.result.verdict if self.result else ""


@dataclass(frozen=True)
class Line:
    """A student. file: a name for files; open: what a person must look at before this counts."""

    mark: Mark
    file: str
    cells: tuple[Cell, ...]
    open: tuple[str, ...]

    @property
    def student(self) -> str:
        return self.mark.student

    @property
    def points(self) -> int:
        """With marks set by hand, before anything is taken off for lateness."""
        return sum(cell.points for cell in self.cells)

    @property
    def absent(self) -> bool:
        return self.mark.record is None and self.mark.problem == ABSENT


def entry(mark: Mark, plan: Plan) -> Line:
    """The line for a mark; an exercise that its record does not have counts nothing."""
    results = {e.id: e for e in mark.record.exercises} if mark.record else {}
    by_hand = {o.exercise: o for o in mark.overrides}  # the last one counts
    cells = []
    for column in plan.columns:
        result, override = results.get(column.id), by_hand.get(column.id)
        points = override.points if override else result.points if result else 0
        cells.append(Cell(column, result, points, override))
    return Line(mark, slug(mark.student), tuple(cells), tuple(_open(mark, cells)))


def _open(mark: Mark, cells: list[Cell]) -> list[str]:
    """What is to be looked at; a mark set by hand closes the matter."""
    if mark.record is None and mark.problem == ABSENT:
        return []
    found = [mark.problem] if mark.problem and not mark.overrides else []
    for cell in cells:
        if cell.verdict in LOOK and not cell.override:
            found.append(f"{cell.column.id}: {cell.verdict}, {cell.result.words}".strip(", "))
    return found
