"""Notebooks as they are handed in: the lab as it was given out, with answers in it."""

import json
import re
from functools import cache
from pathlib import Path

from coursekit.classroom.check.exercises import exercise
from coursekit.labs import pristine
from coursekit.labs.build import SOLUTIONS
from coursekit.labs.notebook import read, written

ANSWER = re.compile(r"(\d\d-\d)-answer")
MUTANTS = Path(__file__).parent.parent / "mutants"
BAD = sorted((Path(__file__).parent / "bad").glob("*.py"))
HEAD = re.compile(r"# (\d\d-\d): ([a-z-]+), (\d) of (\d)\n# (.+)\n")  # of a bad answer


def stem(lab):
    return next(s for s in pristine.known() if s.startswith(lab))


@cache
def answers(lab):
    """The solution's answers: exercise -> source."""
    cells = read(SOLUTIONS / f"{stem(lab)}.ipynb").cells
    return {ANSWER.fullmatch(c.id)[1]: c.source for c in cells if ANSWER.fullmatch(c.id)}


def notebook(lab, **sources):
    """The bytes of a notebook with the solution's answers but for e.g. _05_1="def sigma(..)".

    None leaves the blank of the lab; "" takes the cell away.
    """
    own = {name[1:].replace("_", "-"): source for name, source in sources.items()}
    page = pristine.lab(stem(lab))
    for cell in page.cells:
        found = ANSWER.fullmatch(cell.id)
        source = own.get(found[1], answers(lab)[found[1]]) if found else None
        cell.source = cell.source if source is None else source
    page.cells = [c for c in page.cells if own.get(c.id.removesuffix("-answer")) != ""]
    return written(page)


@cache
def variants(id):
    """Right answers to an exercise from tests/mutants: name -> the source of a cell by itself."""
    source = (MUTANTS / f"ex{id.replace('-', '_')}.py").read_text(encoding="utf-8")
    names = re.findall(r"(?m)^(?:def|class) (right_\w+)|^(right_\w+) = ", source)
    return {name: f"{source}\n\n{exercise(id).name} = {name}\n" for name in map("".join, names)}


def alone(lab, **sources):
    """As `notebook`, of answers that need no other: a bad one takes no other with it."""
    own = {f"_{id.replace('-', '_')}": next(iter(variants(id).values())) for id in answers(lab)}
    return notebook(lab, **own | sources)


def records(record):
    """A record's table in short, for the words of a failing test."""
    return json.dumps([(e.id, e.verdict, e.points, e.words, [c.words for c in e.cases if not c.ok])
                       for e in record.exercises], indent=1)
