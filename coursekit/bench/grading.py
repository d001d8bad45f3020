"""Grading: what walls cost, how soon an end is noticed, and what is left behind.

Needs the solutions, and so a clone of the course. Where no walls stand it says why and stops.
"""

from __future__ import annotations

import gc
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil

from coursekit.bench import Row, medians
from coursekit.classroom.check.exercises import exercises, labs
from coursekit.classroom.check.verdict import examine
from coursekit.grading import sandbox
from coursekit.grading.extract import answers
from coursekit.grading.line import Ended, Line
from coursekit.grading.sandbox import Limits, lent
from coursekit.grading.sitting import GRACE
from coursekit.grading.trusted import grade, setup
from coursekit.grading.view import python
from coursekit.grading.watch import tree
from coursekit.labs.build import SOLUTIONS

KEY = b"the key of a measurement"
LIMITS = Limits(processes=16)
STARTS, WORKERS, LATE, FLAT = 9, 15, 3, 30
CACHE = "torchinductor_"  # torch's own folder, made wherever an optimiser is
ENDS = "import os\nos._exit(1)"
LOOP = ("import signal\nsignal.setitimer(signal.ITIMER_REAL, 0)\n"
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass")
DAEMONS = ("import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        os.setsid()\n"
           "        time.sleep(600)\n        os._exit(0)")


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Starts, ends, labs and leftovers; answers run on the CPU."""
    if sandbox.refusal():
        raise ValueError(sandbox.refusal())
    with tempfile.TemporaryDirectory() as name:
        before, tempfile.tempdir = tempfile.tempdir, name
        try:
            yield from _starts()
            yield from _ends()
            yield from _labs(seed)
            yield _growth()
        finally:
            sandbox.shut()
            tempfile.tempdir = before
        left = [p for p in Path(name).iterdir() if not p.name.startswith(CACHE)]
    yield Row("temporary files left by all of this", len(left), None, "files", "lower", 1)


def _starts() -> Iterator[Row]:
    ours, peer = medians(sandbox.probe, _bare, n=STARTS)
    yield Row("walls around nothing; bare Python", ours, peer, "s", "lower", STARTS)
    start = time.perf_counter()
    with lent():
        yield Row("a sandbox with torch in it, once", time.perf_counter() - start, None, "s",
                  "lower", 1)

    def worker() -> None:
        with lent() as box:
            line = Line(box, LIMITS)
            line.setup(setup("05"))
            line.close()

    yield Row("a fresh worker in it, from first to last", *medians(worker, n=WORKERS), None, "s",
              "lower", WORKERS)


def _bare() -> None:
    subprocess.run(python("pass"), check=True)


def _ends() -> Iterator[Row]:
    yield Row("a dead worker is noticed after", _until_end(ENDS, WORKERS)[0], None, "s", "lower",
              WORKERS)
    seconds, left = _until_end(LOOP, LATE)
    yield Row("a loop ends after its deadline by", seconds - 1.0, None, "s", "lower", LATE)
    yield Row("processes left by loops", left, None, "processes", "lower", LATE)
    yield Row("processes left by daemons", _until_end(DAEMONS, LATE)[1], None, "processes",
              "lower", LATE)


def _until_end(source: str, n: int) -> tuple[float, int]:
    """Median seconds from the request to the end of the worker, and the processes still there.

    The deadline is one second; the answer's own process has a grace after it.
    """
    seconds, left = [], 0
    request = {"do": "cell", "id": "a", "exercise": "05-1", "name": "sigma", "source": source,
               "seconds": 1.0, "seed": 0}
    for _ in range(n):
        with lent() as box:
            line = Line(box, LIMITS)
            line.setup(setup("05"))
            start = time.perf_counter()
            try:
                line.ask(request, [], 1.0 + GRACE)
            except Ended:
                pass
            finally:
                line.close()
            seconds.append(time.perf_counter() - start)
            left += len(tree(box.process.pid)) - box.idle
    return median(seconds), left


def _labs(seed: int) -> Iterator[Row]:
    """Each lab's solution graded, and the same answers checked in this process without walls."""
    most = 0.0
    for path in sorted(SOLUTIONS.glob("*.ipynb")):
        lab = path.stem[:2]
        if lab not in labs():
            continue
        content = path.read_bytes()
        functions = _functions(content, lab)

        def walled(content: bytes = content, lab: str = lab) -> None:
            if not all(e.verdict == "correct" for e in grade(content, lab, key=KEY).exercises):
                raise RuntimeError(f"the solution of lab {lab} did not get all points")

        def inside(lab: str = lab, functions: dict = functions) -> None:
            for e in exercises(lab):
                examine(e, functions[e.name], seed, hidden=True)

        ours, peer = medians(walled, inside, n=5)
        most = max(most, ours - peer)
        yield Row(f"lab {lab}, {len(functions)} exercises; in one process", ours, peer, "s",
                  "lower", 5)
    yield Row("the most that walls add to a lab", most, None, "s", "lower", 5)


def _functions(content: bytes, lab: str) -> dict:
    """The solution's answers as functions, run here: they are ours."""
    space: dict = {"display": lambda *shown: None}
    for _, source in setup(lab):
        exec(source, space)
    for source in answers(content, lab).sources.values():
        exec(source, space)
    return {e.name: space[e.name] for e in exercises(lab)}


def _growth() -> Row:
    """What this process grows by while it grades the same notebook over and over."""
    content = next(SOLUTIONS.glob("05_*.ipynb")).read_bytes()

    def held() -> float:
        gc.collect()
        return psutil.Process().memory_info().rss / 2**20

    for _ in range(5):
        grade(content, "05", key=KEY)
    before = held()
    for i in range(FLAT):
        grade(content, "05", key=KEY, variant=str(i))
    return Row(f"the grader grows over {FLAT} notebooks by", held() - before, None, "MB", "lower",
               FLAT)
