"""What in a reader's notebook differs from the lab and is left aside, in words.

Nothing said here changes what an answer is worth. The words hold nothing of the notebook's but
known marks and names that are plain, so that they can be printed anywhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coursekit.labs.build import HIDE, SHOW, without
from coursekit.labs.notebook import PART, grade_id, plain

if TYPE_CHECKING:
    from nbformat import NotebookNode

MARK = re.compile(r"(?m)^[ \t]*#+[ \t]*((?:NBVAL|PYTEST_VALIDATE)_\w+)[ \t]*$")
TAGS = {"raises-exception", "skip-execution", "nbval-skip", "nbval-ignore-output",
        "nbval-raises-exception", "nbval-check-output", "otter_ignore"}
TOOLS = ("nbmake", "otter")  # which keep settings of their own in a notebook
RUN = ("answer", "check")  # the parts of an exercise that are code to run


def oddities(theirs: NotebookNode, pristine: dict[str, NotebookNode]) -> list[str]:
    """One line for each: the whole notebook first, then the checks, then any cells."""
    told, seen = [], {}
    for i, cell in enumerate(theirs.cells):
        ids = [id for id in dict.fromkeys((grade_id(cell), cell.get("id"))) if id in pristine]
        for id in ids:
            seen.setdefault(id, []).append(cell)
        name = plain(grade_id(cell)) or plain(cell.get("id")) or f"cell {i}"
        told += [f"{name}: the mark {mark} was left out" for mark in marks(cell, pristine)]
        told += [f"{name}: its grade_id and its id are those of two cells"] * (len(ids) > 1)
        told += [f"{name}: the settings of {tool} were left out" for tool in TOOLS
                 if tool in cell.metadata]
    found, order = _settings(theirs), {id: i for i, id in enumerate(pristine)}
    if [order[id] for id in seen] != sorted(order[id] for id in seen):
        found.append("the cells are in another order: that of the lab was run")
    for id, cell in pristine.items():
        part, cells = PART.fullmatch(id), seen.get(id, [])
        if part and part[2] == "check":
            found += _check(id, cells, cell)
        if part and part[2] in RUN and any(c.cell_type != "code" for c in cells):
            found.append(f"{id}: it is no code any more")
        if len(cells) > 1:
            found.append(f"{id}: {len(cells)} cells have this id")
    return found + told


def marks(cell: NotebookNode, pristine: dict[str, NotebookNode]) -> list[str]:
    """What a cell tells a tool to leave out, by a comment or by a tag."""
    said = MARK.findall(cell.source) if cell.cell_type == "code" else []
    tags = cell.metadata.get("tags")
    tags = {t for t in tags if isinstance(t, str)} if isinstance(tags, list) else set()
    return list(filter(plain, said)) + sorted(TAGS & tags - _own(cell, pristine))


def _check(id: str, cells: list[NotebookNode], pristine: NotebookNode) -> list[str]:
    """What became of a check in their notebook."""
    if not cells:
        return [f"{id}: the check is not there, the original was run"]
    found, given = [], pristine.metadata["nbgrader"]
    source = without(pristine.source, HIDE, SHOW).strip()
    if any(c.source.strip() != source for c in cells):
        found.append(f"{id}: the check was edited, the original was run")
    kept = [c.metadata["nbgrader"] for c in cells if isinstance(c.metadata.get("nbgrader"), dict)]
    found += [f"{id}: nbgrader's setting {key} was left out, the original was taken"
              for key in ("points", "grade", "locked", "solution", "task")
              if any(table.get(key, given[key]) != given[key] for table in kept)]
    return found


def _settings(theirs: NotebookNode) -> list[str]:
    """What the notebook as a whole asks for."""
    found, kernel = [], theirs.metadata.get("kernelspec")
    kernel = kernel.get("name") if isinstance(kernel, dict) else None
    if kernel not in (None, "python3"):
        name = f"the kernel {kernel!r}" if plain(kernel) else "a kernel of another name"
        found.append(f"{name} was left out: python3 ran")
    found += [f"the settings of {tool} were left out" for tool in TOOLS if tool in theirs.metadata]
    tables = [theirs.metadata, *(v for v in theirs.metadata.values() if isinstance(v, dict))]
    if any("allow_errors" in table for table in tables):
        found.append("the setting allow_errors was left out")
    return found


def _own(cell: NotebookNode, pristine: dict[str, NotebookNode]) -> set[str]:
    """The tags that the lab itself gives to this cell."""
    original = pristine.get(cell.get("id")) or pristine.get(grade_id(cell))
    return set(original.metadata.get("tags", ())) if original else set()
