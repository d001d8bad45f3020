"""Files -> submissions: one notebook a student, or the reason why there is none to be graded.

Which of several notebooks counts is decided by what they hold, by a rule that the layout itself has
(Canvas counts hand-ins, nbgrader wants the lab's own file name), or not at all: then a person must
look. What strangers put into an archive harms nobody's submission but their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coursekit.classroom.check.exercises import exercises
from coursekit.grading import roster as class_list
from coursekit.grading.archive import File, files, nested
from coursekit.grading.choice import Notebook, by_name, competing, fits, narrowed
from coursekit.grading.layout import Layout, Place, counts, moment, recognise
from coursekit.grading.names import kept, shown
from coursekit.grading.record import Submission

NOTEBOOKS, TOGETHER = 20, 100_000_000  # that a student may hand in at once, and their bytes
TOLD = 5  # names in a line, lines about one student's archive
NOTHING = "nothing was handed in"
Say = Callable[[str], None]
Pieces = list[tuple[File, Place]]  # a student's files and what their paths say


class Submissions(Iterator[Submission]):
    """One submission after the other; `len` is the number of them all."""

    def __init__(self, closing: ExitStack, reader: _Reader, students: dict[str, Pieces],
                 called: dict[str, str]) -> None:
        self.total = len(called)
        self._each = _each(closing, reader, students, called)

    def __next__(self) -> Submission:
        return next(self._each)

    def __len__(self) -> int:
        return self.total


def submissions(path: Path, lab: str, *, roster: Iterable[str] | None = None,
                say: Say = lambda words: None) -> Submissions:
    """The submissions in a folder or archive, sorted by student; read one by one.

    lab     "05".
    roster  all who should hand in, e.g. `roster.read(path)`: those who did not are listed, and a
            student whom the layout calls by a longer name gets the one of the roster.
    say     is told the layout, and what is left aside and why, in lines that are fit to be printed.
    """
    exercises(lab)  # an unknown lab is refused before anything is opened
    closing = ExitStack()
    try:
        found = sorted(files(path, closing), key=lambda file: file.parts)
        layout = recognise([file.parts for file in found if not file.refused])
        students = _students(found, layout, say)
        if not students and roster is None:
            raise ValueError(f"'{path}' holds no notebook: accepted are folders and archives with "
                             "a notebook or a zip for each student")
        say(f"layout: {layout.name}, {len(students)} students")
        also = {student: pieces[0][1].also for student, pieces in students.items()}
        called = {s: s for s in also} if roster is None else class_list.called(also, roster, say)
    except BaseException:
        closing.close()
        raise
    return Submissions(closing, _Reader(lab, layout, _stamps(found, layout), say), students, called)


def _each(closing: ExitStack, reader: _Reader, students: dict[str, Pieces],
          called: dict[str, str]) -> Iterator[Submission]:
    with closing:
        for name, student in sorted((name, student) for student, name in called.items()):
            yield reader.submission(name, students.get(student, []))


def _students(found: list[File], layout: Layout, say: Say) -> dict[str, Pieces]:
    """The files of every student; one whose path fits nobody stands under its own name."""
    students, outside = {}, 0
    for file in found:
        if file.refused or not counts(file.parts):
            continue
        if not layout.inside(file.parts):
            outside += 1
            continue
        place = layout.place(file.parts)
        if place is None:
            place = Place(file.source, file.source)
            file = File(file.parts, file.read, f"does not fit the layout {layout.name}")
        students.setdefault(kept(place.student), []).append((file, place))
    if outside:
        say(f"{outside} notebooks outside of {shown('/'.join(layout.around))} were left aside")
    _refused(found, layout, students, say)
    return students


def _refused(found: list[File], layout: Layout, students: dict[str, Pieces], say: Say) -> None:
    """What is not looked at goes to the student to whom it belongs, and to nobody else."""
    told = {}
    for file in filter(lambda file: file.refused, found):
        known = layout.inside(file.parts) and not file.stray
        place = layout.place(file.parts) if known else None
        name = kept(place.student) if place else ""
        if name and (name in students or counts(file.parts)):
            students.setdefault(name, []).append((file, place))
        told.setdefault(name, []).append(f"{shown(file.source)} {file.refused}")
    for lines in told.values():
        _tell(lines, say)


def _tell(lines: list[str], say: Say) -> None:
    for line in lines[:TOLD]:
        say(f"{line}: it was left aside")
    if lines[TOLD:]:
        say(f"and {len(lines) - TOLD} more like these")


def _stamps(found: list[File], layout: Layout) -> dict[tuple[str, str], File]:
    """nbgrader's files with the time of hand-in, by student and assignment."""
    stamps = {}
    for file in found:
        inside = file.parts[-1] == "timestamp.txt" and layout.inside(file.parts)
        place = layout.place(file.parts) if inside and not file.refused else None
        if place and place.folder and place.file == "timestamp.txt":
            stamps[place.student, place.folder] = file
    return stamps


@dataclass(frozen=True)
class _Reader:
    """Makes a submission of one student's files."""

    lab: str
    layout: Layout
    stamps: dict[tuple[str, str], File]
    say: Say

    def submission(self, student: str, pieces: Pieces) -> Submission:
        if not pieces:
            return Submission(student, None, "", problem=NOTHING)
        found, size = [], 0
        for notebook in self.notebooks(pieces):
            found.append(notebook)
            size += len(notebook.content or b"")
            if len(found) > NOTEBOOKS or size > TOGETHER:
                return Submission(student, None, notebook.source, review=True, problem=(
                    f"more than {NOTEBOOKS} notebooks, or {TOGETHER // 10**6} MB of them"))
        mine = narrowed(competing(found, self.lab), self.layout, self.lab)
        self.left_aside(student, found, mine)
        return self.chosen(student, mine, [f for f, _ in pieces if f.refused],
                           any(n.fits == "odd" for n in found), kept(pieces[0][0].source))

    def chosen(self, student: str, mine: list[Notebook], refused: list[File], odd: bool,
               source: str) -> Submission:
        if len(mine) == 1:
            one = mine[0]
            return Submission(student, one.content, one.source, self.time(one.place), one.problem,
                              review=odd or bool(refused))
        said = [shown(n.source) for n in mine] or [f"{shown(f.source)} {f.refused}"
                                                   for f in refused]
        words = f"{len(mine)} notebooks could be lab {self.lab}, a person must say which counts" \
            if mine else f"no notebook of lab {self.lab}"
        return Submission(student, None, mine[0].source if mine else source,
                          review=bool(mine or odd or refused),
                          problem=": ".join(filter(None, (words, "; ".join(said[:TOLD])))))

    def notebooks(self, pieces: Pieces) -> Iterator[Notebook]:
        """The notebooks in a student's files, zips opened."""
        for file, place in pieces:
            source = kept(file.source)
            if file.refused:
                continue
            if not source.lower().endswith(".zip"):
                yield self.read(file, source, place)
                continue
            try:
                inside = sorted(nested(file.read()), key=lambda f: f.parts)
            except ValueError as error:
                yield Notebook(source, place, None, by_name(source, self.lab), f"the zip {error}")
                continue
            odd = [f"{shown(f'{source}/{f.source}')} {f.refused}" for f in inside if f.refused]
            _tell(odd, self.say)
            if odd:
                yield Notebook(source, place, None, "odd")
            for f in inside:
                if not f.refused and counts(f.parts) and f.parts[-1].lower().endswith(".ipynb"):
                    yield self.read(f, kept(f"{source}/{f.source}"), place)

    def read(self, file: File, source: str, place: Place) -> Notebook:
        try:
            content = file.read()
        except ValueError as error:
            return Notebook(source, place, None, by_name(source, self.lab), f"the notebook {error}")
        return Notebook(source, place, content, fits(content, source, self.lab))

    def left_aside(self, student: str, found: list[Notebook], mine: list[Notebook]) -> None:
        for other in found:
            if other.fits != "odd" and not any(other is n for n in mine):
                why = "is of another lab" if other.fits == "other" else "is not the one that counts"
                self.say(f"{shown(student)}: {shown(other.source)} {why}: it was left aside")

    def time(self, place: Place) -> datetime | None:
        file = self.stamps.get((place.student, place.folder))
        try:
            return moment(file.read()[:200].decode("utf-8-sig", "replace")) if file else None
        except ValueError:
            return None
