"""Which of a student's notebooks is the one of the lab: told by what it holds, never guessed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from coursekit.classroom.check.exercises import exercises
from coursekit.grading.layout import Layout, Place
from coursekit.labs.pristine import known

ID = re.compile(rb'"(?:grade_)?id"\s*:\s*"(\d\d)-\d-(?:text|answer|check|picture|expected)"')


@dataclass(frozen=True)
class Notebook:
    """A notebook of a student's: its bytes, or why there are none; and how it fits the lab.

    fits  "yes" by what it holds, "other" if it is of another lab, "maybe" if nothing tells;
          "odd" for what was in a zip and is not even looked at.
    """

    source: str
    place: Place
    content: bytes | None
    fits: str
    problem: str = ""


def fits(content: bytes, source: str, lab: str) -> str:
    """Whether a notebook is of this lab, from its bytes as they are: nothing is parsed."""
    labs = {found.decode() for found in ID.findall(content)} & {stem[:2] for stem in known()}
    if labs:
        return "yes" if lab in labs else "other"
    return "yes" if _defines(lab).search(content) else by_name(source, lab)


@cache
def _defines(lab: str) -> re.Pattern[bytes]:
    """A line of JSON that begins to define what an exercise of the lab asks for."""
    names = "|".join(e.name for e in exercises(lab)).encode()
    return re.compile(rb'(?:"|\\n)(?:def|class) (?:%s)\b' % names)


def by_name(source: str, lab: str) -> str:
    """Whether a file is of another lab, by a number at the beginning of its own name."""
    number = source.rpartition("/")[2][:3]
    other = any(number == f"{stem[:2]}_" for stem in known() if stem[:2] != lab)
    return "other" if other else "maybe"


def competing(found: list[Notebook], lab: str) -> list[Notebook]:
    """Those that could be the one that counts; equal ones are one."""
    sure = [n for n in found if n.fits == "yes"]
    could = [n for n in found if n.fits == "maybe"]
    named = [n for n in could if n.source.rpartition("/")[2].startswith(f"{lab}_")]
    # beside a notebook that surely is of the lab, one that cannot be read may be a newer one
    mine = sure + [n for n in could if n.content is None] if sure else named or could
    first = {n.content or n.source: n for n in reversed(mine)}
    return [n for n in mine if first[n.content or n.source] is n]


def narrowed(mine: list[Notebook], layout: Layout, lab: str) -> list[Notebook]:
    """Those that are left by the layout's own rule."""
    if layout.name == "Canvas" and len({n.place.file for n in mine}) == 1:
        newest = max(n.place.turn for n in mine)
        return [n for n in mine if n.place.turn == newest]
    if layout.name == "nbgrader":
        stem = next(stem for stem in known() if stem.startswith(lab))
        for is_it in (lambda n: n.place.folder == stem, lambda n: n.place.file == f"{stem}.ipynb"):
            mine = list(filter(is_it, mine)) or mine
    return mine
