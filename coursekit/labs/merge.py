"""A reader's answers in the pristine lab. Nothing else of their notebook is used.

An answer is looked for by nbgrader's grade_id, then by cell id, then by the name it must define;
where more than one cell fits it is not guessed. What was found to be odd is said, so that a reader
sees why the result may differ from what their notebook shows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coursekit.labs.notebook import METADATA, PART, grade_id
from coursekit.labs.odd import MARK, RUN, oddities
from coursekit.labs.source import defines

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from coursekit.classroom.check.spec import Exercise

UNANSWERED = 'raise NotImplementedError("this notebook has no answer")'


@dataclass
class Merged:
    """The notebook to run, why an exercise has no answer in it, and what was found."""

    notebook: NotebookNode
    missing: dict[str, str] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)


def merge(theirs: NotebookNode, lab: NotebookNode, exercises: tuple[Exercise, ...]) -> Merged:
    """Setup cells and checks of the pristine lab, with their answers between."""
    ids = {c.id: c for c in lab.cells}
    merged = Merged(copy.deepcopy(lab), found=oddities(theirs, ids))
    answers, places = {}, code(theirs)
    for e in exercises:
        fits = answer(places, e)
        if len(fits.cells) != 1:
            merged.missing[e.id] = fits.words
        else:
            merged.found += [fits.words] if fits.words else []
            answers[f"{e.id}-answer"] = MARK.sub("", fits.cells[0].source)
    kept, setup = [], True
    for cell in merged.notebook.cells:
        part = PART.fullmatch(cell.id)
        setup = setup and not part
        if cell.cell_type != "code" or not setup and (not part or part[2] not in RUN):
            continue
        cell.metadata, cell.outputs, cell.execution_count = {}, [], None
        if part and part[2] == "answer":
            cell.source = answers.get(cell.id, UNANSWERED)
        elif part:
            judge(cell, next(e for e in exercises if e.id == part[1]))
        kept.append(cell)
    merged.notebook.cells, merged.notebook.metadata = kept, METADATA
    return merged


def judge(cell: NotebookNode, exercise: Exercise) -> None:
    """Gives a check the output that it has for a right answer."""
    from nbformat.v4 import new_output

    cases = exercise.cases(0)
    lines = [f"{exercise.id} {i}/{len(cases)} {c.what}: ok" for i, c in enumerate(cases, 1)]
    lines.append(f"{exercise.id}: {len(cases)} of {len(cases)} cases, {exercise.points} of "
                 f"{exercise.points} points, done")
    cell.outputs = [new_output("stream", text="\n".join(lines) + "\n"),
                    new_output("execute_result", data={"text/plain": str(exercise.points)},
                               execution_count=1)]
    cell.source = f"from coursekit.classroom import check\n{cell.source}"  # whatever is named so
    cell.execution_count, cell.metadata = 1, {"tags": ["nbval-check-output"]}


@dataclass(frozen=True)
class Fits:
    """The cells that may hold an answer: one if it is clear. The words say why it is not."""

    cells: list[NotebookNode]
    words: str = ""


@dataclass(frozen=True)
class Place:
    """A cell of code, its names in nbgrader and in the notebook, and what it defines."""

    cell: NotebookNode
    grade_id: str
    id: str
    names: set[str]


def code(notebook: NotebookNode) -> list[Place]:
    return [Place(c, grade_id(c), c.get("id", ""), defines(c.source)) for c in notebook.cells
            if c.cell_type == "code"]


def answer(places: list[Place], exercise: Exercise) -> Fits:
    """The cell with the answer and a remark, or all that fit, or none, and why."""
    name, id = exercise.name, f"{exercise.id}-answer"
    define = [p.cell for p in places if name in p.names]
    rungs = (("grade_id", [p.cell for p in places if p.grade_id == id]),
             ("cell id", [p.cell for p in places if p.id == id]), ("name", define))
    for rung, cells in rungs:
        if rung != "name" and len(cells) == 1 and define and not any(c is cells[0] for c in define):
            continue  # the answer has moved: the name will find it
        if len(cells) == 1:
            moved = f"{exercise.id}: found by its name {name}, not in cell {id}"
            return Fits(cells, moved if rung == "name" else "")
        if cells:
            which = f"define {name}" if rung == "name" else f"have the {rung} {id}"
            return Fits(cells, f"ambiguous: {len(cells)} cells {which}, keep one")
    return Fits([], f"no cell has the id {id} or defines {name}")
