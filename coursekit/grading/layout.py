"""Whose file is it? The layout is recognised from all paths together, then asked for each.

    flat       ada.ipynb                                           the file has the student's name
    folders    ada/any/05_ddim.ipynb                               one folder a student
    nbgrader   submitted/ada/05_ddim/05_ddim.ipynb, timestamp.txt  student, assignment, notebook
    Canvas     lovelaceada_LATE_123_456_05_ddim-2.ipynb            -2: handed in for a third time
    Moodle     Ada Lovelace_123_assignsubmission_file_/05_ddim.ipynb, or with no folder

In the place of a notebook there may be a zip. One folder around all is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from os.path import commonprefix
from zoneinfo import ZoneInfo

MOODLE = re.compile(r"(?s)(?P<name>.+)_(?P<id>\d+)_assignsubmission_file_?(?P<file>.*)")
CANVAS = re.compile(r"(?s)(?P<name>[^_]+)_(?:LATE_)?(?P<id>\d+)_\d+_(?P<file>.+)")
AGAIN = re.compile(r"(?s)(?P<stem>.+)-(?P<turn>\d{1,4})(?P<ending>\.[^.]+)")
LABS = re.compile(r"\d\d_\w+(-Copy\d+)?(\.ipynb)?")
AROUND = ("submitted", "submissions")  # what a folder around all students is called
COURSE = {"source", "release", "submitted", "autograded", "feedback"}  # nbgrader's, side by side
IGNORED = ("__MACOSX", ".ipynb_checkpoints")
Parts = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """What a path says of a file.

    student  whose it is, as it stands there.
    also     shorter names under which a class list may hold the student.
    file     what the student called it.
    turn     the how manieth hand-in of that file, from 0, where the layout counts them.
    folder   nbgrader's name of the assignment.
    """

    student: str
    file: str
    also: tuple[str, ...] = ()
    turn: int = 0
    folder: str = ""


@dataclass(frozen=True)
class Layout:
    """A recognised layout: its name, the folders around all students, and what a path says."""

    name: str
    around: Parts
    at: Callable[[Parts], Place | None]

    def inside(self, parts: Parts) -> bool:
        return parts[:len(self.around)] == self.around and len(parts) > len(self.around)

    def place(self, parts: Parts) -> Place | None:
        """Whose the file is; None if its path does not fit."""
        return self.at(parts[len(self.around):])


def counts(parts: Parts) -> bool:
    """Whether this can be handed-in work: a notebook or zip that no system put there by itself."""
    hidden = any(part.startswith(".") or part in IGNORED for part in parts[:-1])
    return not hidden and parts[-1].lower().endswith((".ipynb", ".zip")) and \
        not parts[-1].startswith("._")


def recognise(paths: list[Parts]) -> Layout:
    """The layout of all the paths that count, and of the timestamp.txt among them."""
    work = [parts for parts in paths if counts(parts)]
    around = _around(work)
    course = {parts[len(around)] for parts in work}
    if "submitted" in course <= COURSE:
        within = (*around, "submitted")
        work = [parts for parts in work if parts[:len(within)] == within]
        around = _around(work)
    above = len(around)
    most = [parts[above:] for parts in work]
    for name, place in (("Moodle", moodle), ("Canvas", canvas)):
        if 2 * sum(place(parts) is not None for parts in most) > len(most):
            return Layout(name, around, place)
    stamped = any(parts[-1] == "timestamp.txt" and len(parts) == above + 3 for parts in paths)
    if stamped or around[-1:] == ("submitted",):
        return Layout("nbgrader", around, nbgrader)
    flat = sum(len(parts) == 1 for parts in most)
    name = "one folder a student" if not flat else "flat" if flat == len(most) else \
        "flat, with folders beside"
    return Layout(name, around, own)


def _around(work: list[Parts]) -> Parts:
    """The folders that lie around all students."""
    shared = commonprefix([parts[:-1] for parts in work]) if work else ()
    for i, name in enumerate(shared):
        if MOODLE.fullmatch(name):
            return shared[:i]
        if name in AROUND:
            return shared[:i + 1]
    inside = {parts[len(shared)] for parts in work}
    alone = len(inside) == 1 or all(map(LABS.fullmatch, inside))  # the folder of a single student
    while shared and LABS.fullmatch(shared[-1]):
        shared, alone = shared[:-1], True
    return shared[:-1] if alone else shared


def moodle(parts: Parts) -> Place | None:
    found = MOODLE.fullmatch(parts[0])
    if not found or len(parts) == 1 and not found["file"]:
        return None
    student = f"{found['name']}_{found['id']}"
    file = "/".join(parts[1:]) or found["file"]
    return Place(student, file, (found["name"], found["id"]))


def canvas(parts: Parts) -> Place | None:
    found = CANVAS.fullmatch(parts[0])
    if not found or len(parts) > 1:
        return None
    student = f"{found['name']}_{found['id']}"
    again = AGAIN.fullmatch(found["file"])
    file = again["stem"] + again["ending"] if again else found["file"]
    return Place(student, file, (found["id"], found["name"]), int(again["turn"]) if again else 0)


def nbgrader(parts: Parts) -> Place | None:
    if len(parts) < 3:
        return own(parts)
    return Place(parts[0], "/".join(parts[2:]), folder=parts[1])


def own(parts: Parts) -> Place | None:
    """A file or folder that is called like its student."""
    if len(parts) > 1 and not parts[0].lower().endswith(".zip"):
        return Place(parts[0], "/".join(parts[1:]))
    return Place(parts[0].rpartition(".")[0] or parts[0], parts[0])


def moment(text: str) -> datetime | None:
    """The time in a timestamp.txt of nbgrader, "2026-03-01 12:00:00.5 UTC", or None.

    Without a zone it is UTC, as nbgrader takes it; with one that is not known it is no time.
    """
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)\s*(\S{0,40})",
                         text.strip())
    if not found:
        return None
    try:
        if re.fullmatch(r"Z|[+-]\d\d:?\d\d", found[2]):
            return datetime.fromisoformat(found[1] + found[2])
        zone = UTC if found[2] in ("", "UTC", "GMT") else ZoneInfo(found[2])
        return datetime.fromisoformat(found[1]).replace(tzinfo=zone).astimezone(UTC)
    except (ValueError, KeyError, OSError, OverflowError):
        return None
