"""solutions/NN_topic.ipynb -> labs/NN_topic.ipynb, the same bytes every time.

An author writes cells and their ids; everything else is derived. Of a solution the build keeps the
words and the checks. It puts the blank in the place of each solution region, drops hidden tests and
all outputs, and shows the picture that the solution made in a cell before the reader's own.
"""

from __future__ import annotations

import base64
import copy
import html
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.labs.light import lighten
from coursekit.labs.notebook import METADATA, PART, ROOT, STEM, read, write, written
from coursekit.labs.source import defines

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from coursekit.classroom.check.spec import Exercise

SOLUTIONS, LABS = ROOT / "solutions", ROOT / "labs"
BLANK = "# write your answer here\nraise NotDoneYet"
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
HIDE, SHOW = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
LINES, WIDTH = 15, 100  # of a code cell that the reader is given
RUNGS = 3
KEPT = ("cell_type", "id", "metadata", "source", "attachments", "outputs", "execution_count")
PICTURE = re.compile(r'<img[^>]*?src="data:image/png;base64,([\w+/=]+)"[^>]*?alt="([^"]*)"', re.S)


def stems() -> list[str]:
    """The labs of which there is a solution."""
    if not SOLUTIONS.is_dir():
        raise ValueError(f"'{SOLUTIONS}': there is no such folder; labs are built in a clone of "
                         "the course")
    return sorted(p.stem for p in SOLUTIONS.glob("*.ipynb") if STEM.fullmatch(p.stem))


def build(stem: str) -> tuple[bytes, bytes]:
    """The tidied solution and the lab, as bytes; ValueError says what the solution lacks."""
    if stem not in stems():
        raise ValueError(f"STEM={stem!r} is not known: accepted are {', '.join(stems())}")
    from coursekit.classroom.check.exercises import exercises

    notebook = read(SOLUTIONS / f"{stem}.ipynb")
    found = faults(notebook, exercises(stem[:2]))
    if found:
        raise ValueError(f"solutions/{stem}.ipynb has {len(found)} faults: {'; '.join(found)}")
    solution = tidy(notebook, exercises(stem[:2]))
    return written(solution), written(blanked(solution))


def execute(path: Path) -> None:
    """Run a solution from top to bottom and save its outputs; raises at the first error."""
    from nbclient import NotebookClient

    notebook = read(path)
    notebook.metadata, notebook.nbformat_minor = METADATA, 5
    NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False,
                   resources={"metadata": {"path": str(path.parent)}}
                   ).execute(stderr=subprocess.DEVNULL)  # the kernel's own remarks
    lighten(notebook)
    write(path, written(notebook))


# ---- what an author must keep to -------------------------------------------------------------


def faults(notebook: NotebookNode, exercises: tuple[Exercise, ...]) -> list[str]:
    """All that is wrong with a solution, each with the id of its cell."""
    ids = [cell.get("id", "") for cell in notebook.cells]
    cells, found = dict(zip(ids, notebook.cells, strict=True)), []
    found += [f"two cells of id {id!r}" for id in sorted(set(ids)) if ids.count(id) > 1]
    wanted = [f"{e.id}-{part}" for e in exercises for part in ("text", "answer", "check")]
    order = [id for id in ids if id in wanted]
    found += [f"no cell {id}" for id in wanted if id not in order]
    if not found and order != wanted:
        found.append(f"cells {', '.join(order)} are not in this order: {', '.join(wanted)}")
    known = {e.id for e in exercises}
    found += [f"{id}: there is no such exercise" for id in ids
              if PART.fullmatch(id) and PART.fullmatch(id)[1] not in known]
    if found:
        return found
    for e in exercises:
        found += _text(e, cells[f"{e.id}-text"]) + _answer(e, cells[f"{e.id}-answer"])
        call = f'check.ex("{e.id}", {e.name})'
        if without(cells[f"{e.id}-check"].source, HIDE, SHOW).strip() != call:
            found.append(f"{e.id}-check: must be {call}")
    for id, cell in cells.items():
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
            found.append(f"{id!r}: an id of small letters, digits and hyphens is needed")
        if cell.cell_type != "code":
            continue
        lines = cell.source.split("\n")
        if len(lines) > LINES and BEGIN not in cell.source:
            found.append(f"{id}: {len(lines)} lines, at most {LINES}")
        if max(map(len, lines)) > WIDTH:
            found.append(f"{id}: a line of more than {WIDTH} characters")
        if BEGIN in cell.source and not id.endswith("-answer"):
            found.append(f"{id}: a solution region outside an answer")
    return found


def _text(e: Exercise, cell: NotebookNode) -> list[str]:
    found = [f"{e.id}-text: is no markdown"] if cell.cell_type != "markdown" else []
    if f"{e.id} {e.title}" not in cell.source.split("\n")[0]:
        found.append(f"{e.id}-text: its first line must hold '{e.id} {e.title}'")
    if e.head not in cell.source:
        found.append(f"{e.id}-text: '{e.head}' is missing")
    rungs = cell.source.count("<details>")
    if rungs < RUNGS or cell.source.count("</details>") != rungs:
        found.append(f"{e.id}-text: {rungs} help rungs <details>..</details>, need {RUNGS}")
    return found


def _answer(e: Exercise, cell: NotebookNode) -> list[str]:
    id, found = f"{e.id}-answer", []
    if e.name not in defines(cell.source):
        found.append(f"{id}: does not define {e.name}")
    if cell.source.count(BEGIN) != 1 or cell.source.count(END) != 1:
        found.append(f"{id}: needs one region {BEGIN} .. {END}")
    elif '"""' not in cell.source.partition(BEGIN)[0]:
        found.append(f"{id}: needs a docstring with the shapes before {BEGIN}")
    return found


# ---- tidy and blank --------------------------------------------------------------------------


def tidy(notebook: NotebookNode, exercises: tuple[Exercise, ...]) -> NotebookNode:
    """The solution with nbgrader's metadata (schema 3) from ids and specifications."""
    notebook, points = copy.deepcopy(notebook), {e.id: e.points for e in exercises}
    notebook.metadata, notebook.nbformat_minor = METADATA, 5
    for cell in notebook.cells:
        for key in set(cell) - set(KEPT):
            del cell[key]
        cell.metadata = {}
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data and len(data.get("text/plain", "")) > WIDTH:
                data["text/plain"] = "a figure"  # its repr would repeat the picture's bytes
        found = PART.fullmatch(cell.id)
        part = found[2] if found else ""
        if part in ("text", "answer", "check"):
            cell.metadata["nbgrader"] = {
                "grade": part == "check", "grade_id": cell.id, "locked": part != "answer",
                "schema_version": 3, "solution": part == "answer", "task": False}
            cell.metadata["deletable"] = False
        if part == "check":
            cell.metadata["nbgrader"]["points"] = points[found[1]]
            cell.metadata["editable"] = False
            cell.metadata["tags"] = ["nbval-check-output"]
    return notebook


def blanked(solution: NotebookNode) -> NotebookNode:
    """The lab: blanks for solutions, no hidden tests, no outputs, expected pictures."""
    lab = copy.deepcopy(solution)
    lab.cells = []
    for cell in copy.deepcopy(solution.cells):
        if cell.cell_type == "code":
            lab.cells += expected(cell)
            cell.source = blank(without(cell.source, HIDE, SHOW)).strip("\n")
            cell.outputs, cell.execution_count = [], None
        lab.cells.append(cell)
    return lab


def blank(source: str) -> str:
    """The source with the blank in the place of each solution region, indented as that was."""
    lines = []
    for inside, line in regions(source, BEGIN, END):
        if BEGIN in line:
            indent = line[:len(line) - len(line.lstrip())]
            lines += [indent + part for part in BLANK.split("\n")]
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def without(source: str, begin: str, end: str) -> str:
    return "\n".join(line for inside, line in regions(source, begin, end) if not inside)


def regions(source: str, begin: str, end: str) -> Iterator[tuple[bool, str]]:
    """Lines, each with whether it lies in a region; the markers are inside."""
    inside = False
    for line in source.split("\n"):
        inside = inside or begin in line
        yield inside, line
        if end in line:
            inside = False
    if inside:
        raise ValueError(f"a region {begin} has no end")


def expected(cell: NotebookNode) -> list[NotebookNode]:
    """The solution's picture as a markdown cell, for a cell NN-k-picture."""
    from nbformat.v4 import new_markdown_cell

    found = PART.fullmatch(cell.id)
    shown = [str(o.data["text/html"]) for o in cell.get("outputs", ()) if
             "text/html" in o.get("data", {})]
    picture = PICTURE.search("".join(shown))
    if not found or found[2] != "picture" or not picture:
        return []
    name = f"{found[1]}.png"
    alt = html.unescape(picture[2]).replace("[", "(").replace("]", ")").replace("\n", " ")
    cell = new_markdown_cell(f"**What to expect** (your own picture comes below):\n\n"
                             f"![{alt}](attachment:{name})", id=f"{found[1]}-expected")
    content = base64.b64encode(base64.b64decode(picture[1])).decode()
    cell.attachments = {name: {"image/png": content}}
    return [cell]
