"""The lab as it was given out: the copy in the package, or built again from its solution.

A reader works in labs/ itself, so that what lies there proves nothing. An installed package carries
its own copies; a clone has solutions/ to build from. Where neither is there, nothing is verified.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.labs.build import SOLUTIONS, build
from coursekit.labs.notebook import PART, STEM, grade_id, parse, read

if TYPE_CHECKING:
    from nbformat import NotebookNode

PACKAGED = Path(__file__).parent / "given"  # put there when a wheel is built, see pyproject.toml


def known() -> list[str]:
    """The labs that can be verified here."""
    places = (PACKAGED, SOLUTIONS)
    found = {p.stem for place in places for p in place.glob("*.ipynb") if STEM.fullmatch(p.stem)}
    if not found:
        raise ValueError(f"there is no pristine lab to compare with: neither '{PACKAGED}' nor "
                         f"'{SOLUTIONS}' has one; install the package again, or clone the course")
    return sorted(found)


def lab(stem: str) -> NotebookNode:
    """The pristine notebook of a lab."""
    packaged = PACKAGED / f"{stem}.ipynb"
    return read(packaged) if packaged.is_file() else parse(build(stem)[1])


def which(path: Path, notebook: NotebookNode) -> str:
    """The lab that a reader's notebook belongs to: by the ids of its cells, then by its name."""
    stems = {stem[:2]: stem for stem in known()}
    ids = [name for cell in notebook.cells for name in (grade_id(cell), cell.get("id", ""))]
    numbers = {id[:2] for id in ids if PART.fullmatch(id)} & set(stems)
    if len(numbers) > 1:
        raise ValueError(f"'{path}' holds exercises of the labs {', '.join(sorted(numbers))}: "
                         "accepted is one lab a notebook")
    number = numbers.pop() if numbers else path.name[:2]
    if number not in stems:
        raise ValueError(f"'{path}' is none of the labs {', '.join(stems.values())}: no cell has "
                         "an id of theirs, nor does its name begin with a lab's number")
    return stems[number]
