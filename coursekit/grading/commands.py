"""`coursekit grade`, `coursekit override` and `coursekit appeal`: arguments in, lines out.

Nothing heavy is imported before the arguments have been accepted.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coursekit.terminal import bar, ctrl_c, number, target_folder

if TYPE_CHECKING:
    from coursekit.grading.appeal import Heard
    from coursekit.grading.crew import Event
    from coursekit.grading.folder import Folder
    from coursekit.grading.marking import Outcome

Submissions = Annotated[Path, typer.Argument(
    metavar="SUBMISSIONS", help="A folder or an archive of notebooks, in any usual layout.")]
Lab = Annotated[str, typer.Option(help="The lab's number, e.g. 05.")]
Out = Annotated[Path | None, typer.Option(
    help="Folder for results and reports; the same one resumes.",
    show_default="output/grades-LAB")]
Key = Annotated[Path | None, typer.Option(
    help="The course's key; made in the folder if there is none.")]
Unsafe = Annotated[bool, typer.Option(
    "--unsafe", help="Run answers without walls; every output is stamped untrusted.")]
Roster = Annotated[Path | None, typer.Option(
    help="CSV of all students: who is missing is listed.")]
SHOWN = 2  # verdicts beside the progress bar
VERDICT = {
    True: "the same as on record",
    False: "OTHER THAN ON RECORD: grade it again with --regrade, and look in the answer for what "
           "depends on time or chance",
    None: "there is no result on record to compare with: it was not graded yet, or with another "
          "version of the lab or other packages",
}


def grade(
    submissions: Submissions,
    lab: Lab,
    out: Out = None,
    jobs: Annotated[int | None, typer.Option(
        parser=number(int, 1, 256), help="Submissions at a time on this machine.",
        show_default="one for each core")] = None,
    dask: Annotated[str | None, typer.Option(
        metavar="ADDRESS", help="Grade on a Dask cluster, e.g. tls://host:8786.")] = None,
    regrade: Annotated[bool, typer.Option(
        "--regrade", help="Grade again what has a result; the new one counts.")] = False,
    policy: Annotated[Path | None, typer.Option(
        help="Deadline, lateness, extensions: a .toml or .json.")] = None,
    roster: Roster = None,
    key: Key = None,
    gradebook: Annotated[str | None, typer.Option(
        metavar="FILE", help="Enter the marks in nbgrader's gradebook as well.")] = None,
    variants: Annotated[bool, typer.Option(
        "--variants", help="Other hidden cases for each student, also for equal notebooks.")] = False,
    unsafe: Unsafe = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Grade a class: answers behind walls, hidden cases; run it again to resume."""
    if jobs and dask:
        raise ValueError("--jobs and --dask: accepted is one of them")
    if not submissions.exists():
        raise ValueError(f"SUBMISSIONS='{submissions}': there is no such folder or archive")
    out = folder(out, lab)
    from coursekit.grading import marking
    from coursekit.grading.folder import Folder
    from coursekit.grading.hands import Cluster, Local

    rules, students = marking.settled_rules(policy, roster)
    with ctrl_c("what has been graded is kept, the same command goes on from there"), \
            closing(Cluster(dask) if dask else Local(jobs or cores())) as hands:
        rests = marking.ground(lab, hands, unsafe)
        found, said = marking.taken_in(submissions, lab, students, note)
        with Folder(out, key) as opened, bar() as show:  # until here, nothing was written
            note(key_words(opened))
            run = marking.Run(lab, rests, found, said, opened, hands, rules, regrade, variants,
                              unsafe, gradebook)
            outcome = marking.grade(run, show=lambda event: show(*progress(event)))
    echo([json.dumps(outcome.as_dict())] if as_json else lines(outcome, lab, out))
    if not outcome.settled:
        raise typer.Exit(1)


def override(
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="As in marks.csv.")],
    exercise: Annotated[str, typer.Argument(metavar="EXERCISE", help="E.g. 05-3.")],
    points: Annotated[int, typer.Argument(metavar="POINTS", parser=number(int, 0, 1000))],
    reason: Annotated[str, typer.Option(help="Why; the student reads it.")],
    by: Annotated[str, typer.Option(help="Who sets it.")],
    out: Out = None,
    key: Key = None,
) -> None:
    """Set a mark by hand: who, when and why are kept, and the result stays as it is."""
    lab = exercise[:2]
    out = folder(out, lab)
    from coursekit.classroom.check.exercises import exercises
    from coursekit.grading.folder import Folder
    from coursekit.grading.record import Override

    own = {e.id: e.points for e in exercises(lab)}
    if exercise not in own:
        raise ValueError(f"EXERCISE={exercise!r} is not known: accepted are {', '.join(own)}")
    most = own[exercise]
    if points > most:
        raise ValueError(f"POINTS={points}: accepted are 0..{most} for {exercise}")
    known(out)
    with Folder(out, key) as opened:
        students = {name for name, *_ in opened.store.handed_in(lab)}
        if student not in students:
            raise ValueError(f"STUDENT={student!r} has not handed in lab {lab}: accepted are the "
                             f"names in '{out / 'marks.csv'}'")
        opened.store.override(Override(student, exercise, points, reason, by, datetime.now(UTC)))
        opened.log("override", student=student, exercise=exercise, points=points, reason=reason,
                   by=by)
    echo([f"{exercise} of {student}: {points} of {most} points, by {by}. `coursekit grade` writes "
          "the reports anew and grades nothing again."])


def appeal(
    submissions: Submissions,
    student: Annotated[str, typer.Argument(metavar="STUDENT", help="As in marks.csv.")],
    lab: Lab,
    out: Out = None,
    roster: Roster = None,
    key: Key = None,
    unsafe: Unsafe = False,
) -> None:
    """Draw the hidden cases of one submission again: what was asked, what came, what is right."""
    out = folder(out, lab)
    known(out)
    from coursekit.grading import marking
    from coursekit.grading.appeal import hear
    from coursekit.grading.folder import Folder

    with ctrl_c("nothing was changed"), Folder(out, key) as opened:
        rests, (_, students) = marking.ground(lab, None, unsafe), marking.settled_rules(None, roster)
        mine = marking.handed_in(submissions, lab, students, student)
        record, variant = marking.recorded(opened, mine, rests, unsafe)
        opened.log("appeal", student=student, submission=record and record.submission)
        results = []
        for heard in hear(mine.content, lab, key=opened.key, variant=variant, unsafe=unsafe):
            results.append(heard.result)
            echo(told(heard))
    same = record is not None and tuple(results) == record.exercises
    echo([VERDICT[None if record is None else same]])
    if not same:
        raise typer.Exit(1)


# ---- what they share -------------------------------------------------------------------------


def folder(out: Path | None, lab: str) -> Path:
    """The folder to write to, refused at once where it cannot be made."""
    return target_folder(out or Path("output") / f"grades-{lab}")


def known(out: Path) -> None:
    from coursekit.grading.folder import RESULTS

    if not (out / RESULTS).is_file():
        raise ValueError(f"--out='{out}' holds no results: `coursekit grade` makes them")


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def echo(lines: list[str], *, err: bool = False) -> None:
    """Lines for a terminal, without what strangers' words could do to it."""
    from coursekit.grading.report.text import clean

    typer.echo(clean("\n".join(lines)), err=err)


def note(words: str) -> None:
    echo([words], err=True)


def key_words(opened: Folder) -> str:
    if not opened.new_key:
        return f"course key: '{opened.key_path}'"
    return (f"a new course key is in '{opened.key_path}': it draws the hidden cases. Keep it as long "
            "as marks may be appealed, and let no student read it.")


def progress(event: Event) -> tuple[str, int, int | None, str]:
    """What the progress bar is told; its own time to go knows nothing of results that are known."""
    left = "" if not event.eta else f"  {event.eta / 60:.0f} min to go" if event.eta > 90 else \
        f"  {event.eta:.0f} s to go"
    return (f"graded {event.done} of {event.total}", event.done, event.total,
            counted(event.verdicts, SHOWN) + left)


def counted(verdicts: dict[str, int], most: int = 99) -> str:
    """40 correct, 3 wrong: the commonest first, the rest together."""
    order = sorted(verdicts.items(), key=lambda v: (-v[1], v[0]))
    rest = sum(n for _, n in order[most:])
    found = [f"{n} {verdict}" for verdict, n in order[:most]] + ([f"{rest} other"] if rest else [])
    return ", ".join(found) or "no verdict yet"


def lines(outcome: Outcome, lab: str, out: Path) -> list[str]:
    """What became of a run, for a person."""
    kinds = Counter(outcome.events)
    found = [f"lab {lab}: {outcome.students} students, {kinds['graded']} graded now, "
             f"{kinds['known']} known, {kinds['failed']} failed, {kinds['nothing']} without a "
             "notebook that could be graded"]
    found.append(f"exercises: {counted(outcome.verdicts)}")
    found.append(f"walls around every answer: {', '.join(outcome.layers)}" if outcome.trusted else
                 "UNTRUSTED: answers ran without walls")
    found += [f"changed by regrading: {words}" for words in outcome.changed]
    found += [f"to be looked at: {words}" for words in outcome.open]
    if outcome.entered:
        found.append(f"entered in the gradebook: {outcome.entered} students")
    return [*found, f"open {out / 'index.html'}; beside it: {', '.join(outcome.written)}"]


def told(heard: Heard) -> list[str]:
    """An exercise that was drawn again, for a person."""
    r = heard.result
    found = [f"{r.id} {r.title}: {r.verdict}, {r.points} of {r.of} points"
             + (f" ({r.words})" if r.words else "")]
    for i, case in enumerate(heard.cases, 1):
        found.append(f"  {i}/{len(heard.cases)} {case.what}: {'holds' if case.ok else 'not yet'}")
        found += [f"      asked   {name} = {value}" for name, value in case.asked.items()]
        found += [f"      came    {case.came}", f"      wanted  {case.wanted}"]
    return found
