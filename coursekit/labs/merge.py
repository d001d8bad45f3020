"""A reader's answers in the pristine lab. Nothing else of their notebook is used.

An answer is looked for by nbgrader's grade_id, then by cell id, then by the name it must define;
where more than one cell fits it is not guessed. What was found to be odd is said, so that a reader
sees why the result may differ from what their notebook shows.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coursekit.labs.build import HIDE, SHOW, without
from coursekit.labs.notebook import METADATA, PART, defines, grade_id

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from coursekit.classroom.check.spec import Exercise

MARK = re.compile(r"(?m)^[ \t]*#+[ \t]*((?:NBVAL|PYTEST_VALIDATE)_\w+)[ \t]*$")
TAGS = {"raises-exception", "skip-execution", "nbval-skip", "nbval-ignore-output",
        "nbval-raises-exception", "nbval-check-output"}
CODE = ("answer", "check")
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
    answers = {}
    for e in exercises:
        cell, words = answer(theirs, e)
        if cell is None:
            merged.missing[e.id] = words
        else:
            merged.found += [words] if words else []
            answers[f"{e.id}-answer"] = MARK.sub("", cell.source)
    kept, setup = [], True
    for cell in merged.notebook.cells:
        part = PART.fullmatch(cell.id)
        setup = setup and not part
        if cell.cell_type != "code" or not setup and (not part or part[2] not in CODE):
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


def answer(theirs: NotebookNode, exercise: Exercise) -> tuple[NotebookNode | None, str]:
    """The cell with the answer and a remark, or None and why there is none."""
    name, id = exercise.name, f"{exercise.id}-answer"
    code = [c for c in theirs.cells if c.cell_type == "code"]
    define = [c for c in code if name in defines(c.source)]
    rungs = (("grade_id", [c for c in code if grade_id(c) == id]),
             ("cell id", [c for c in code if c.get("id") == id]), ("name", define))
    for rung, cells in rungs:
        if rung != "name" and len(cells) == 1 and cells[0] not in define and define:
            continue  # the answer has moved: the name will find it
        if len(cells) == 1:
            if rung == "name":
                return cells[0], f"{exercise.id}: found by its name {name}, not in cell {id}"
            return cells[0], ""
        if cells:
            which = f"define {name}" if rung == "name" else f"have the {rung} {id}"
            return None, f"ambiguous: {len(cells)} cells {which}, keep one"
    return None, f"no cell has the id {id} or defines {name}"


def oddities(theirs: NotebookNode, pristine: dict[str, NotebookNode]) -> list[str]:
    """What in their notebook was left aside, in words."""
    found, seen = [], {}
    for cell in theirs.cells:
        for id in {grade_id(cell), str(cell.get("id", ""))} & set(pristine):
            seen.setdefault(id, []).append(cell)
        marks = MARK.findall(cell.source) if cell.cell_type == "code" else []
        tags = cell.metadata.get("tags")
        marks += sorted(TAGS & {t for t in tags if isinstance(t, str)} -
                        _own(cell, pristine)) if isinstance(tags, list) else []
        name = grade_id(cell) or cell.get("id") or "a cell"
        found += [f"{name}: the mark {mark} was left out" for mark in marks]
    for id, cell in pristine.items():
        part = PART.fullmatch(id)
        if not part or part[2] != "check":
            continue
        cells = seen.get(id, [])
        source = without(cell.source, HIDE, SHOW).strip()
        if not cells:
            found.append(f"{id}: the check is not there, the original was run")
        elif any(c.source.strip() != source for c in cells):
            found.append(f"{id}: the check was edited, the original was run")
    found += [f"{id}: {len(cells)} cells have this id" for id, cells in seen.items()
              if len(cells) > 1]
    kernel = theirs.metadata.get("kernelspec")
    kernel = kernel.get("name") if isinstance(kernel, dict) else None
    if kernel not in (None, "python3"):
        found.append(f"the kernel {kernel!r} was left out: python3 ran")
    if "allow_errors" in str({k: v for k, v in theirs.metadata.items() if k != "kernelspec"}):
        found.append("the setting allow_errors was left out")
    return found


def _own(cell: NotebookNode, pristine: dict[str, NotebookNode]) -> set[str]:
    """The tags that the lab itself gives to this cell."""
    original = pristine.get(cell.get("id", "")) or pristine.get(grade_id(cell))
    return set(original.metadata.get("tags", ())) if original else set()
