"""The trusted side: the bytes of a notebook and a lab in, a record out. No answer runs here.

What is wanted is computed here, from inputs that come of the course's key and of the submission
itself: nobody knows them before, and they are the same when a mark is appealed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import platform
import re
from functools import cache
from importlib import metadata

from coursekit.classroom.check.exercises import exercises
from coursekit.classroom.check.spec import Exercise
from coursekit.grading import extract, sandbox
from coursekit.grading.judging import graded, unanswered
from coursekit.grading.record import ExerciseResult, Record
from coursekit.grading.sandbox import Infra, Limits
from coursekit.grading.sitting import Sitting
from coursekit.grading.view import PACKAGE
from coursekit.labs.notebook import PART

SHORTEST = 16  # bytes of a key
MARKED_BY = (  # files of the package on which a mark depends, beside the lab's own
    "classroom/check/*.py", "classroom/check/exercises/__init__.py",
    "classroom/check/calls/__init__.py", "diffusion/*.py", "nets/*.py", "edits/*.py",
    *(f"labs/{name}.py" for name in ("merge", "notebook", "odd", "pristine", "source")),
    *(f"grading/{name}.py" for name in ("extract", "judging", "line", "protocol", "sandbox",
                                        "sitting", "trusted", "worker")))


def grade(content: bytes, lab: str, *, key: bytes, variant: str = "", limits: Limits = Limits(),
          unsafe: bool = False) -> Record:
    """The record of a notebook: the same for the same arguments, whatever the notebook does.

    key      of the course, at least 16 secret bytes; with `variant` it draws the hidden cases.
    unsafe   run the answers without walls, as the user who grades: the record is not trusted.

    Where the walls do not stand, or something else of ours fails, exercises are `infra-error`.
    """
    if len(key) < SHORTEST:
        raise ValueError(f"key: {len(key)} bytes, accepted are {SHORTEST} and more")
    own, sha = exercises(lab), hashlib.sha256(content).hexdigest()
    notes: list[str] = []
    try:
        extracted = extract.answers(content, lab)
        notes += extracted.found
        results = sat(own, extracted, f"{sha}|{variant}", key, limits, unsafe, notes)
    except extract.Malformed as odd:
        results = [unanswered(e, "malformed", str(odd)) for e in own]
    return Record(sha, lab, assignment(lab), environment(), tuple(results), tuple(notes),
                  ("rlimits",) if unsafe else sandbox.layers(), not unsafe)


def sat(own: tuple[Exercise, ...], extracted: extract.Extracted, name: str, key: bytes,
        limits: Limits, unsafe: bool, notes: list[str]) -> list[ExerciseResult]:
    """The results of all exercises, each with its own verdict."""
    results, failed = [], "" if unsafe else sandbox.refusal()
    with Sitting(setup(own[0].lab), limits, unsafe=unsafe) as sitting:
        for e in own:
            if e.id in extracted.ambiguous:
                results.append(unanswered(e, "needs-review", extracted.ambiguous[e.id]))
            elif e.id not in extracted.sources:
                results.append(unanswered(e, "not-attempted", extracted.missing.get(e.id, "")))
            elif failed:
                results.append(unanswered(e, "infra-error", failed))
            else:
                try:
                    hidden, own_seed = seeds(key, f"{name}|{e.id}")
                    results.append(graded(e, extracted.sources[e.id],
                                          e.cases(hidden, hidden=True), sitting, own_seed,
                                          notes.append))
                except Infra as problem:
                    failed = str(problem)
                    results.append(unanswered(e, "infra-error", failed))
    return results


def seeds(key: bytes, name: str) -> tuple[int, int]:
    """Two seeds that nobody can tell without the key: for the inputs, and for the answer's own."""
    digest = hmac.digest(key, name.encode(), "sha256")
    return int.from_bytes(digest[:8]), int.from_bytes(digest[8:15])


@cache
def setup(lab: str) -> list[tuple[str, str]]:
    """The lab's own cells before its first exercise, as they were handed out."""
    cells = []
    for id, cell in extract.given_cells(lab).items():
        if PART.fullmatch(id):
            break
        if cell.cell_type == "code":
            cells.append((id, cell.source))
    return cells


@cache
def assignment(lab: str) -> str:
    """The version of a lab: a hash over everything of ours that its marks depend on."""
    own = (f"classroom/check/exercises/lab{lab}.py", f"classroom/check/calls/lab{lab}.py")
    found = hashlib.sha256(json.dumps(setup(lab)).encode())
    for path in sorted({p for part in (*MARKED_BY, *own) for p in PACKAGE.glob(part)}):
        content = path.read_bytes()
        found.update(f"{path.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()


@cache
def environment() -> str:
    """A hash of the interpreter, the platform and the versions of what an answer may import."""
    names = sorted({re.match(r"[\w.-]+", line)[0] for line in metadata.requires("coursekit") or ()
                    if "extra ==" not in line})
    found = {"python": platform.python_version(), "kind": platform.python_implementation(),
             "system": platform.system(), "machine": platform.machine(),
             "packages": [f"{name} {metadata.version(name)}" for name in names]}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
