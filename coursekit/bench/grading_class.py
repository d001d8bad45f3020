"""Grading a class: what more processes bring, and what the one that drives them holds.

Needs the solutions, and so a clone of the course. Where no walls stand it says why and stops.
"""

from __future__ import annotations

import gc
import json
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import psutil

from coursekit.bench import Row
from coursekit.grading import crew, marking, sandbox, trusted
from coursekit.grading.commands import cores
from coursekit.grading.hands import Local
from coursekit.grading.record import Submission
from coursekit.grading.store import Store
from coursekit.labs.build import SOLUTIONS

KEY, LAB = b"the key of a measurement", "05"
EACH, ROUNDS = 8, 3  # notebooks for each process, turns of all numbers of processes
CLASS, SIZE = 1_000, 100_000  # notebooks that cannot be read, and their bytes


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Throughput with one process and with one a core, and memory; seed and device play no part."""
    if sandbox.refusal():
        raise ValueError(sandbox.refusal())
    jobs = cores()
    hands = {n: Local(n) for n in {1, jobs}}
    try:
        speed = {n: max(_speeds(hands[n], n)) for n in hands}
        yield Row("one process", speed[1], None, "notebooks/s", "higher", ROUNDS)
        if jobs > 1:
            yield Row(f"{jobs} processes; one", speed[jobs], speed[1], "notebooks/s", "higher",
                      ROUNDS)
            yield Row(f"{jobs} processes; {jobs} times one", speed[jobs] / (jobs * speed[1]), 1.0,
                      "of all cores", "higher", ROUNDS)
        yield Row(f"what drives them grows over {CLASS * 9 // 10} of {CLASS} notebooks by",
                  _growth(hands[jobs]), None, "MB", "lower", 1)
    finally:
        for each in hands.values():
            each.close()


def _speeds(hands: Local, jobs: int) -> Iterator[float]:
    """Notebooks a second, each time over other ones; the first round starts the processes."""
    page = json.loads(next(SOLUTIONS.glob(f"{LAB}_*.ipynb")).read_bytes())
    for turn in range(ROUNDS + 1):
        count = EACH * jobs
        work = [Submission(f"{turn} {i}", json.dumps({**page, "turn": [turn, i]}).encode(), "")
                for i in range(count)]
        begun = time.perf_counter()
        for event in _run(work, hands):
            if event.kind != "graded" or event.record.points < event.record.of:
                raise RuntimeError(f"the solution of lab {LAB} was {event.kind}: {event.words}")
        if turn:
            yield count / (time.perf_counter() - begun)


def _run(work: Iterable[Submission], hands: Local) -> Iterator[crew.Event]:
    rests = marking.ground(LAB, hands, unsafe=False)
    with tempfile.TemporaryDirectory() as name, Store(Path(name) / "results.sqlite") as store, \
            closing(crew.run(work, LAB, store, key=KEY, ground=rests, hands=hands,
                             grade=trusted.grade)) as events:
        yield from events


def _growth(hands: Local) -> float:
    """MB, from the hundredth notebook to the last: kept notebooks would be 90 MB."""
    def held() -> float:
        gc.collect()
        return psutil.Process().memory_info().rss / 2**20

    work = (Submission(f"{i}", f"{i} ".encode() + bytes(SIZE), "") for i in range(CLASS))
    before = 0.0
    for event in _run(work, hands):
        if event.done == CLASS // 10:
            before = held()
    return held() - before
