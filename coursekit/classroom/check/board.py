"""What has been done in this session: done, left, untried, with a bar for each lab."""

from __future__ import annotations

import sys

from coursekit.classroom.check.exercises import exercises, labs
from coursekit.classroom.check.verdict import Report

WIDTH = 20
_reports: dict[str, Report] = {}


def note(report: Report) -> None:
    _reports[report.exercise.id] = report


def clear() -> None:
    _reports.clear()


def summary(*numbers: str) -> None:
    """Say for each exercise whether it is done, left or untried: summary() or summary("05").

    Without an argument: the labs of which something was checked in this session.
    """
    known = labs()
    for number in numbers:
        if number not in known:
            raise ValueError(f"lab {number!r} is not one of {', '.join(known)}")
    chosen = numbers or sorted({id[:2] for id in _reports})
    lines = [line for number in chosen for line in table(number)]
    sys.stdout.write("\n".join(lines or ["nothing was checked yet"]) + "\n")


def done(*ids: str) -> bool:
    """Whether the checks of all these exercises have passed in this session; says which have not.

    For cells that show what an answer can do: `if check.done("05-3"): ..`
    """
    open_yet = [id for id in ids if state(id) != "done"]
    if open_yet:
        sys.stdout.write(f"this cell waits for {', '.join(open_yet)}\n")
    return not open_yet


def table(number: str) -> list[str]:
    """The lines for one lab."""
    all_of_it = exercises(number)
    points = {e.id: _reports[e.id].points if e.id in _reports else 0 for e in all_of_it}
    done = sum(state(e.id) == "done" for e in all_of_it)
    filled = WIDTH * done // len(all_of_it)
    width = max(len(e.title) for e in all_of_it)
    head = (f"lab {number} [{'#' * filled}{'.' * (WIDTH - filled)}] {done} of {len(all_of_it)} "
            f"done, {sum(points.values())} of {sum(e.points for e in all_of_it)} points")
    return [head, *(f"{e.id}  {state(e.id):8} {e.title:{width}}  {points[e.id]} of {e.points}"
                    for e in all_of_it)]


def state(id: str) -> str:
    if id not in _reports:
        return "untried"
    return "done" if _reports[id].done else "left"
