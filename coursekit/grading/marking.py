"""One run of `coursekit grade`: submissions in, records into the store, marks and reports out.

What is graded, kept, and made into marks is each in a file of its own; here they are put together.
Marks come from the submissions of this run alone: the store may hold earlier ones.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from coursekit import __version__
from coursekit.classroom.check.exercises import exercises
from coursekit.grading import (
    crew,
    extract,
    intake,
    policy,
    report,
    roster,
    rules,
    sandbox,
    similar,
    trusted,
)
from coursekit.grading.crew import Event, Ground, HandIn
from coursekit.grading.folder import Folder
from coursekit.grading.hands import Cluster, Local
from coursekit.grading.policy import Policy
from coursekit.grading.record import Mark, Override, Record, Submission
from coursekit.grading.report import gradebook
from coursekit.grading.report.line import Column, Line, Plan, entry
from coursekit.labs.pristine import known

Say = Callable[[str], None]
BESIDE = "something that was handed in beside the notebook was refused: a person must look"


@dataclass
class Run:
    """What is to be done, read and accepted before anything is written.

    rests  from `ground`. found: from `taken_in`, with what was said of it.
    """

    lab: str
    rests: Ground
    found: intake.Submissions
    said: list[str]
    folder: Folder
    hands: Local | Cluster
    rules: Policy = field(default_factory=Policy)
    regrade: bool = False
    variants: bool = False
    unsafe: bool = False
    gradebook: str | None = None

    @property
    def plan(self) -> Plan:
        columns = tuple(Column(e.id, e.title, e.points) for e in exercises(self.lab))
        stem = next(stem for stem in known() if stem.startswith(f"{self.lab}_"))
        return Plan(self.lab, stem, columns, self.rules.deadline, not self.unsafe)

    def variant(self, student: str) -> str:
        return policy.variant(self.folder.key, student) if self.variants else ""


@dataclass
class Outcome:
    """What became of a run. events: by kind; changed: results that a regrading gave anew."""

    students: int = 0
    events: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    entered: int = 0
    layers: tuple[str, ...] = ()
    trusted: bool = True

    @property
    def settled(self) -> bool:
        """Whether every mark stands as it is."""
        return not self.open

    def as_dict(self) -> dict:
        return {**asdict(self), "settled": self.settled}


def settled_rules(file: Path | None, class_list: Path | None
                  ) -> tuple[Policy, dict[str, str] | None]:
    """The policy with the extensions of the class list, and the list's students."""
    found = rules.read(file) if file else Policy()
    if class_list is None:
        return found, None
    students = roster.read(class_list)
    longer = {}
    for student, words in students.items():
        try:
            longer |= {student: rules.extension(words)} if words else {}
        except ValueError as refusal:
            raise ValueError(f"'{class_list}', {student}: {refusal}") from None
    if longer and found.deadline is None:
        raise ValueError(f"'{class_list}' has extensions, but there is no deadline to extend: name "
                         "one with --policy")
    return policy.extended(found, longer), students


# ---- what results rest on --------------------------------------------------------------------


def look(lab: str) -> tuple[str, str, tuple[str, ...], str]:
    """What a machine has to say: the lab's version, its environment, its walls, its refusal."""
    return trusted.assignment(lab), trusted.environment(), sandbox.layers(), sandbox.refusal()


def ground(lab: str, hands: Local | Cluster | None, unsafe: bool) -> Ground:
    """What all results of a run rest on; ValueError where no answer can be run safely."""
    there = hands.everywhere(look, lab) if isinstance(hands, Cluster) else {"here": look(lab)}
    if not there:
        raise ValueError("--dask: the cluster has no workers")
    if len(set(there.values())) > 1:
        odd = [place for place, words in there.items() if words != next(iter(there.values()))]
        raise ValueError(f"--dask: {odd[0]} has another version of the course, other packages or "
                         "other walls than the rest: install the same everywhere")
    assignment, environment, layers, refusal = next(iter(there.values()))
    if assignment != trusted.assignment(lab):
        raise ValueError("--dask: the workers have another version of the lab than this machine")
    if refusal and not unsafe:
        raise ValueError(f"answers cannot be run safely here: {refusal}. --unsafe runs them without "
                         "walls, and stamps every output as untrusted")
    return Ground(assignment, environment, ("rlimits",) if unsafe else layers)


# ---- the run ---------------------------------------------------------------------------------


def taken_in(path: Path, lab: str, students: Iterable[str] | None, say: Say
             ) -> tuple[intake.Submissions, list[str]]:
    """The submissions, and the list of what will have been said of them when all were read."""
    said = []

    def heard(words: str) -> None:
        said.append(words)
        say(words)

    return intake.submissions(path, lab, roster=students, say=heard), said


def grade(run: Run, *, show: Callable[[Event], None],
          function: Callable[..., Record] = trusted.grade) -> Outcome:
    """Do it: an Outcome when all that can be graded has been, and the reports are written.

    show is given every event.
    """
    begun, log, rests = time.monotonic(), run.folder.log, run.rests
    outcome = Outcome(len(run.found), layers=rests.layers, trusted=not run.unsafe)
    log("begin", lab=run.lab, students=len(run.found), room=run.hands.room, regrade=run.regrade,
        unsafe=run.unsafe, walls=rests.layers, assignment=rests.assignment,
        environment=rests.environment, coursekit=__version__, python=platform.python_version())
    answers, hand_ins = {}, {}
    with closing(crew.run(
            _noted(run.found, run.lab, answers), run.lab, run.folder.store, key=run.folder.key,
            ground=rests, hands=run.hands, grade=function, total=len(run.found),
            regrade=run.regrade, unsafe=run.unsafe, variant=run.variant)) as events:
        for event in events:
            _keep(event, outcome, hand_ins, log)
            show(event)
    _finish(run, outcome, [hand_ins[name] for name in sorted(hand_ins)], answers)
    log("end", seconds=round(time.monotonic() - begun, 3), said=run.said, **outcome.as_dict())
    return outcome


def _noted(found: Iterable[Submission], lab: str, answers: dict[str, dict[str, str]]
           ) -> Iterator[Submission]:
    """The submissions, and on the way the texts of their answers, to be compared."""
    for submission in found:
        try:
            answers[submission.student] = extract.answers(submission.content or b"", lab).sources
        except extract.Malformed:
            pass
        yield submission


def _keep(event: Event, outcome: Outcome, hand_ins: dict[str, HandIn],
          log: Callable[..., None]) -> None:
    """What an event means for the outcome and for the log."""
    outcome.events[event.kind] = outcome.events.get(event.kind, 0) + 1
    outcome.verdicts = event.verdicts
    hand_in, record = event.hand_in, event.record
    if event.kind != "again":
        why = f"could not be graded, try again: {event.words}" if event.kind == "failed" else ""
        hand_ins[hand_in.student] = replace(hand_in, problem=why) if why else hand_in
    if event.kind == "graded" and event.before not in (None, record):
        outcome.changed.append(changes(hand_in.student, event.before, record))
    log(event.kind, student=hand_in.student, source=hand_in.source, done=event.done,
        of=event.total, submission=hand_in.submission, seconds=round(event.seconds, 3),
        eta=None if event.eta is None else round(event.eta), words=event.words,
        points=record.points if record else None,
        verdicts={e.id: e.verdict for e in record.exercises} if record else {})


def changes(student: str, before: Record, after: Record) -> str:
    """In which exercises a new result differs from the one before."""
    old = {e.id: e for e in before.exercises}
    found = [f"{e.id} {old[e.id].verdict} {old[e.id].points} -> {e.verdict} {e.points}"
             for e in after.exercises if e.id in old
             and (e.verdict, e.points) != (old[e.id].verdict, old[e.id].points)]
    return f"{student}: {', '.join(found) or 'other words, the same points'}"


def _finish(run: Run, outcome: Outcome, hand_ins: list[HandIn],
            answers: dict[str, dict[str, str]]) -> None:
    """Reports, and what they leave open."""
    plan, by_hand = run.plan, run.folder.store.overrides(run.lab)
    given = [c.source for c in extract.given_cells(run.lab).values() if c.cell_type == "code"]

    def marks() -> Iterator[Mark]:
        for hand_in in hand_ins:
            yield settled(hand_in, run, by_hand)

    def watched() -> Iterator[Mark]:
        for mark in marks():
            outcome.open += opened(entry(mark, plan))
            yield mark

    paths = report.write(run.folder.out, watched(), plan, similar.alike(answers, given))
    outcome.written = [path.name for path in paths]
    if run.gradebook:
        outcome.entered = gradebook.enter(run.gradebook, marks(), plan)


def settled(hand_in: HandIn, run: Run, by_hand: dict[str, tuple[Override, ...]]) -> Mark:
    """A student's mark: the record that counts now, what was set by hand, and lateness.

    With a record there is a mark, also if a later try failed or something beside it is odd.
    """
    record = run.folder.store.get(
        hand_in.submission, run.rests.assignment, run.rests.environment, variant=hand_in.variant,
        trusted=not run.unsafe) if hand_in.submission else None
    odd = hand_in.problem or (BESIDE if hand_in.review else "")
    mark = policy.settle(replace(hand_in, problem="" if record else odd), record, run.rules, run.lab,
                         by_hand.get(hand_in.student, ()))
    return replace(mark, problem=odd or mark.problem)


def opened(line: Line) -> list[str]:
    return [f"{line.student}: {words}" for words in line.open]


def handed_in(path: Path, lab: str, students: Iterable[str] | None, student: str) -> Submission:
    """What one student handed in."""
    for submission in intake.submissions(path, lab, roster=students):
        if submission.student == student:
            if submission.content is None:
                raise ValueError(f"STUDENT={student!r}: {submission.problem}")
            return submission
    raise ValueError(f"STUDENT={student!r} is not among those in '{path}'")


def recorded(folder: Folder, submission: Submission, rests: Ground, unsafe: bool
             ) -> tuple[Record | None, str]:
    """The record that counts for a submission, and the variant that it was graded with."""
    sha = hashlib.sha256(submission.content).hexdigest()
    for variant in ("", policy.variant(folder.key, submission.student)):
        record = folder.store.get(sha, rests.assignment, rests.environment, variant=variant,
                                  trusted=not unsafe)
        if record is not None:
            return record, variant
    return None, ""
