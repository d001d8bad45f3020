"""The class list: a CSV with the columns student and, if need be, extension.

    student,extension
    Ada Lovelace,48 hours
    Émilie du Châtelet,

A layout may call a student by a longer name than the list does (Canvas and Moodle add numbers):
then the list's name counts, if it fits one student alone.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from coursekit.grading.names import kept, shown

COLUMNS = ("student", "extension")
LARGEST = 10_000_000  # bytes
TOLD = 5  # names in a line


def read(path: Path) -> dict[str, str]:
    """Student -> extension as it is written there, "" for none; ValueError names line and cause."""
    if not path.is_file():
        raise ValueError(f"'{path}': there is no such file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"'{path}' has {path.stat().st_size // 10**6} MB: accepted are "
                         f"{LARGEST // 10**6}")
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines(), strict=True))
    except (UnicodeDecodeError, csv.Error):
        raise ValueError(f"'{path}' is no CSV in UTF-8: accepted are the columns "
                         f"{', '.join(COLUMNS)}") from None
    head = [name.strip() for name in lines[0]] if lines else []
    wrong = [name for name in head if name not in COLUMNS or head.count(name) > 1]
    if wrong or "student" not in head:
        said = f"has the column {shown(wrong[0])}" if wrong else "has no column 'student'"
        raise ValueError(f"'{path}' {said}: its first line must name the columns, accepted are "
                         f"{', '.join(COLUMNS)}")
    return _rows(path, head, lines[1:])


def _rows(path: Path, head: list[str], lines: list[list[str]]) -> dict[str, str]:
    found = {}
    for number, line in enumerate(lines, 2):
        if any(cell.strip() for cell in line):
            student, extension = _row(line, head, f"'{path}', line {number}")
            if student in found:
                raise ValueError(f"'{path}', line {number}: {shown(student)} is there already")
            found[student] = extension
    return found


def _row(line: list[str], head: list[str], place: str) -> tuple[str, str]:
    if len(line) > len(head):
        raise ValueError(f"{place}: {len(line)} columns, the first line names {len(head)}")
    row = dict(zip(head, (cell.strip() for cell in line), strict=False))
    if not row.get("student"):
        raise ValueError(f"{place}: no student")
    return kept(row["student"]), row.get("extension", "")


def called(students: Mapping[str, Iterable[str]], roster: Iterable[str],
           say: Callable[[str], None]) -> dict[str, str]:
    """The layout's name of every student -> the one that counts; who is absent is added.

    students  the layout's name -> shorter ones under which the roster may know the student.
    """
    wanted = {kept(name) for name in roster}
    found = {student: student for student in students if student in wanted}
    claims = {}
    for student, also in students.items():
        name = next((n for n in map(kept, also) if n in wanted), None)
        if student not in found and name is not None:
            claims.setdefault(name, []).append(student)
    for name, who in claims.items():
        if len(who) == 1 and name not in found:
            found[who[0]] = name
        else:
            say(f"{shown(name)} of the roster fits {len(who) + (name in found)} students: it was "
                "not given to any by guess")
    strangers = sorted(set(students) - set(found))
    if strangers:
        said = ", ".join(map(shown, strangers[:TOLD])) + (", .." if strangers[TOLD:] else "")
        say(f"{len(strangers)} students are not in the roster: {said}")
    absent = wanted - set(found.values())
    return {name: name for name in absent} | found | {name: name for name in strangers}
