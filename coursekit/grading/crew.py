"""Every submission to somebody who grades, every result into the store, with progress.

`run` goes through the submissions once and holds only those that are under way, so that a class of
thousands takes no more memory than one of ten. What is in the store already is not graded again.
What failed for reasons of ours is tried again, later, and is no result whatever happens. Stopped at
any point, by Ctrl-C or a power cut, the same call goes on from the results that were kept.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from datetime import datetime

from coursekit.grading.hands import PATIENCE, Cluster, Local
from coursekit.grading.record import Record, Submission
from coursekit.grading.store import Store

TRIES = 3
BACKOFF = (1.0, 5.0)  # seconds before the second and the third try
TICK = 60.0  # seconds in which at least once is looked at who has been silent for too long


@dataclass(frozen=True)
class Ground:
    """What results rest on: the lab's version, what answers run with, and the walls there."""

    assignment: str
    environment: str
    layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class HandIn:
    """A submission without its bytes.

    submission  the sha256 of the bytes as hex, "" where there are none.
    """

    student: str
    source: str
    submission: str
    submitted: datetime | None = None
    problem: str = ""
    review: bool = False
    variant: str = ""


@dataclass(frozen=True)
class Event:
    """What happened to one hand-in.

    kind      known (its result is in the store), graded, again (to be tried again: `words` say why),
              failed (tried often enough) or nothing (there are no bytes to grade).
    before    the result that counted until now, where it was graded anew.
    verdicts  of all exercises so far. eta: seconds to go, None as long as nothing can be said.
    """

    kind: str
    hand_in: HandIn
    done: int
    total: int | None
    verdicts: dict[str, int]
    record: Record | None = None
    before: Record | None = None
    words: str = ""
    seconds: float = 0.0
    eta: float | None = None


@dataclass
class Task:
    """One set of bytes that is under way, for all who handed it in."""

    hand_ins: list[HandIn]
    content: bytes
    before: Record | None
    tries: int = 0
    since: float = 0.0
    due: float = 0.0

    @property
    def key(self) -> tuple[str, str]:
        return self.hand_ins[0].submission, self.hand_ins[0].variant


def run(submissions: Iterable[Submission], lab: str, store: Store, *, key: bytes, ground: Ground,
        hands: Local | Cluster, grade: Callable[..., Record], total: int | None = None,
        regrade: bool = False, unsafe: bool = False,
        variant: Callable[[str], str] = lambda student: "") -> Iterator[Event]:
    """Grade what the store does not hold; an event for each hand-in and for each failed try.

    grade    trusted.grade, or a function of its signature that other processes can import.
    ground   what the results must rest on; one that rests on something else counts as failed.
    total    the number of submissions, for the time to go.
    regrade  grade everything, and add a result to those that are there.
    variant  from a student's name to the variant of the lab that is theirs.
    """
    crew = _Crew(lab, store, ground, hands, total, regrade, not unsafe)
    crew.job = lambda task: hands.submit(grade, task.content, lab, key=key,
                                         variant=task.key[1], unsafe=unsafe)
    try:
        for submission in submissions:
            while crew.full:
                yield from crew.step()
            content = submission.content
            sha = "" if content is None else hashlib.sha256(content).hexdigest()
            yield from crew.take(submission, HandIn(
                submission.student, submission.source, sha, submission.submitted,
                submission.problem, submission.review, variant(submission.student)))
        while crew.busy:
            yield from crew.step()
    finally:
        for future in crew.pending:
            future.cancel()


@dataclass
class _Crew:
    """What is under way, and how far it is."""

    lab: str
    store: Store
    ground: Ground
    hands: Local | Cluster
    total: int | None
    regrade: bool
    trusted: bool
    job: Callable[[Task], Future] | None = None
    pending: dict[Future, Task] = field(default_factory=dict)
    waiting: list[Task] = field(default_factory=list)
    renewed: set[tuple[str, str]] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    done: int = 0
    fresh: int = 0
    begun: float = field(default_factory=time.monotonic)

    @property
    def busy(self) -> bool:
        return bool(self.pending or self.waiting)

    @property
    def full(self) -> bool:
        return len(self.pending) + len(self.waiting) >= self.hands.room

    def take(self, submission: Submission, hand_in: HandIn) -> Iterator[Event]:
        """Take a submission in: it is known, or under way, or there is nothing to grade."""
        self.store.hand_in(self.lab, submission, hand_in.submission)
        if not hand_in.submission:
            yield self._event("nothing", hand_in, words=hand_in.problem)
            return
        key = hand_in.submission, hand_in.variant
        for task in (*self.pending.values(), *self.waiting):
            if task.key == key:
                task.hand_ins.append(hand_in)
                return
        known = self.store.get(key[0], self.ground.assignment, self.ground.environment,
                               variant=key[1], trusted=self.trusted)
        if known and (not self.regrade or key in self.renewed):
            yield self._event("known", hand_in, record=known)
        else:
            self._begin(Task([hand_in], submission.content, known))

    def _begin(self, task: Task) -> None:
        task.since, task.tries = time.monotonic(), task.tries + 1
        self.pending[self.job(task)] = task

    def step(self) -> Iterator[Event]:
        """Wait until something has changed, and take it in."""
        now = time.monotonic()
        for task in [t for t in self.waiting if t.due <= now]:
            self.waiting.remove(task)
            self._begin(task)
        until = min([now + TICK, *(task.due for task in self.waiting)])
        if not self.pending:
            time.sleep(max(0.0, until - now))
            return
        done = wait(self.pending, max(0.0, until - now), FIRST_COMPLETED).done
        for future in done:
            yield from self._end(self.pending.pop(future), future)
        for future, task in list(self.pending.items()):
            if time.monotonic() - task.since > PATIENCE + TICK:
                future.cancel()
                del self.pending[future]
                yield from self._failed(task, f"no result after {PATIENCE:g} s")

    def _end(self, task: Task, future: Future) -> Iterator[Event]:
        """A task has come to an end of some kind."""
        try:
            record, seconds = future.result()
        except CancelledError:
            yield from self._failed(task, "the cluster gave it up")
            return
        except Exception as problem:  # whatever it is, it is no verdict on the student
            yield from self._failed(task, f"{type(problem).__name__}: {problem}")
            return
        wrong = self._foreign(task, record) or _ours(record)
        if wrong:
            yield from self._failed(task, wrong, seconds)
            return
        self.store.put(record, variant=task.key[1], again=self.regrade)
        self.renewed.add(task.key)
        self.fresh += 1
        for hand_in in task.hand_ins:
            yield self._event("graded", hand_in, record=record, before=task.before,
                              seconds=seconds)

    def _foreign(self, task: Task, record: Record) -> str:
        """Why a record is not one that was asked for."""
        wanted = {"submission": task.key[0], "lab": self.lab, "trusted": self.trusted,
                  "assignment": self.ground.assignment, "environment": self.ground.environment}
        wrong = [name for name, value in wanted.items() if getattr(record, name) != value]
        return f"who graded has another {', '.join(wrong)}: start again" if wrong else ""

    def _failed(self, task: Task, words: str, seconds: float = 0.0) -> Iterator[Event]:
        """Something of ours: again after a while, or never."""
        words = " ".join(words.split())[:500]
        if task.tries < TRIES:
            task.due = time.monotonic() + BACKOFF[task.tries - 1]
            self.waiting.append(task)
            yield self._event("again", task.hand_ins[0], words=words, seconds=seconds)
            return
        for hand_in in task.hand_ins:
            yield self._event("failed", hand_in, words=words, seconds=seconds)

    def _event(self, kind: str, hand_in: HandIn, **more: object) -> Event:
        if kind != "again":
            self.done += 1
        record = more.get("record")
        if record is not None:
            self.verdicts.update(e.verdict for e in record.exercises)
        eta = None
        if self.fresh and self.total is not None:
            eta = (time.monotonic() - self.begun) / self.fresh * (self.total - self.done)
        return Event(kind, hand_in, self.done, self.total, dict(self.verdicts), eta=eta, **more)


def _ours(record: Record) -> str:
    """What of ours failed, if a record tells of it."""
    failed = [e for e in record.exercises if e.verdict == "infra-error"]
    return f"{failed[0].id}: {failed[0].words}" if failed else ""
