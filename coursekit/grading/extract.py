"""A notebook -> its answers as text, and nothing else of it. Nothing is run.

An answer is looked for as `coursekit verify` does it: by nbgrader's grade_id, then by cell id, then
by the name it must define. Several cells that fit are no answer but a matter for a person, unless
there is nothing to choose: all hold the same text, or all but one are as they were handed out.
Metadata, tags, outputs and kernels go. Only nbformat 4 is read; older notebooks are refused with
the command that converts them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from coursekit.classroom.check.exercises import exercises
from coursekit.labs.merge import Place, answer, code
from coursekit.labs.notebook import grade_id, loads
from coursekit.labs.odd import oddities
from coursekit.labs.pristine import known, lab as pristine

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from coursekit.classroom.check.spec import Exercise

LONGEST = 100_000  # characters of an answer; a solution has some 1,000
SAID = 30  # lines about what is odd; a notebook can be odd in 50,000 places


@dataclass(frozen=True)
class Extracted:
    """Every exercise is in one of the three tables, under its id.

    sources    the text of the answer, as the student wrote it.
    missing    why there is no answer.
    ambiguous  why it takes a person to say which of several is the answer.
    found      what is odd about the notebook, in words that are fit for any page or terminal.
    """

    sources: dict[str, str]
    missing: dict[str, str]
    ambiguous: dict[str, str]
    found: tuple[str, ...] = ()


class Malformed(ValueError):
    """The bytes are no notebook that can be read; the message is one line."""


def answers(content: bytes, lab: str) -> Extracted:
    """The answers to a lab ("05") in the bytes of a notebook, whatever they are.

    Malformed if they are no notebook of nbformat 4, or a larger, deeper or busier one than any
    that a person writes (`notebook.LARGEST` and below it): so time and memory have a bound.
    """
    own, given = exercises(lab), given_cells(lab)
    try:
        theirs = loads(content, outputs=False)
    except ValueError as error:
        raise Malformed(f"the notebook {error}") from None
    places, found = code(theirs), []
    result = Extracted({}, {}, {})
    for e in own:
        cells, words = _candidates(places, e, given[f"{e.id}-answer"].source)
        if len(cells) > 1:
            result.ambiguous[e.id] = words
        elif not cells:
            result.missing[e.id] = _retyped(theirs, e) or words
        elif len(cells[0].source) > LONGEST:
            result.missing[e.id] = (f"its cell has {len(cells[0].source):,} characters: accepted "
                                    f"are {LONGEST:,}")
        else:
            result.sources[e.id] = cells[0].source
            found += [words] if words else []
    return replace(result, found=_short(found + oddities(theirs, given)))


def _short(found: list[str]) -> tuple[str, ...]:
    more = len(found) - SAID
    return (*found[:SAID], f"and {more:,} more lines like these") if more > 0 else tuple(found)


@cache
def given_cells(lab: str) -> dict[str, NotebookNode]:
    """The cells of a lab as it was handed out, by their ids."""
    stems = {stem[:2]: stem for stem in known()}
    if lab not in stems:
        raise ValueError(f"lab={lab!r} is not known: accepted are {', '.join(stems)}")
    return {cell.id: cell for cell in pristine(stems[lab]).cells}


def _candidates(places: list[Place], e: Exercise,
                blank: str) -> tuple[list[NotebookNode], str]:
    """One cell, or none, or several that differ; and what is to be said about it."""
    fits = answer(places, e)
    texts = {cell.source.strip(): cell for cell in reversed(fits.cells)}  # the first of equal ones
    if len(texts) > 1:
        texts.pop(blank.strip(), None)
    if len(texts) == 1 < len(fits.cells):
        same = "hold the same" if len({c.source.strip() for c in fits.cells}) == 1 else \
            "are as handed out but one, which was taken"
        return list(texts.values()), f"{e.id}: {len(fits.cells)} cells fit and {same}"
    return list(texts.values()), fits.words


def _retyped(theirs: NotebookNode, e: Exercise) -> str:
    """Why there is no answer where its cell is there but is not code."""
    id = f"{e.id}-answer"
    cells = [c for c in theirs.cells if c.cell_type != "code" and id in (grade_id(c), c.get("id"))]
    return f"the cell {id} is no code any more" if cells else ""
