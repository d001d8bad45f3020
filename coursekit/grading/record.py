"""What is known of a submission and of its marks: plain values that travel as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime

VERDICTS = ("correct", "partial", "wrong", "not-attempted", "error-in-code", "timeout", "memory",
            "output-limit", "crashed", "malformed", "tampered", "needs-review", "infra-error")
"""What can become of an exercise. `malformed`: what came back is no plain value of the kind that
was asked for, or the notebook cannot be read. `infra-error` is our fault: it is tried again and
never becomes a mark."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one student, as it was handed in.

    student    the name that the layout gives, as it stands there: untrusted text.
    content    the bytes of the notebook; None where `problem` says why there are none.
    source     where it was found, for people: a path relative to what was given.
    submitted  when, with a time zone, if the layout tells.
    problem    why this cannot be graded as it is, in one line; empty if nothing is wrong.
    review     whether a person must look (two notebooks where one was expected), not a fault.
    """

    student: str
    content: bytes | None
    source: str
    submitted: datetime | None = None
    problem: str = ""
    review: bool = False


@dataclass(frozen=True)
class CaseResult:
    """One hidden case: its fixed words, whether it holds, what came if not."""

    what: str
    ok: bool
    words: str = ""
    mistake: str = ""


@dataclass(frozen=True)
class ExerciseResult:
    """An exercise: verdict, whole points, and the known mistake that explains most of it.

    missing  cases that gave no result; a run with any of these is never `correct`.
    """

    id: str
    title: str
    verdict: str
    points: int
    of: int
    cases: tuple[CaseResult, ...] = ()
    mistake: str = ""
    words: str = ""
    missing: int = 0

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict={self.verdict!r}: accepted are {', '.join(VERDICTS)}")
        if not 0 <= self.points <= self.of:
            raise ValueError(f"points={self.points}: accepted are 0..{self.of}")
        if self.verdict == "correct" and (self.points < self.of or self.missing):
            raise ValueError(f"{self.id}: correct, but {self.points} of {self.of} points and "
                             f"{self.missing} cases missing")


@dataclass(frozen=True)
class Record:
    """The result for one notebook; equal inputs give equal records, byte for byte in JSON.

    submission   sha256 of the notebook's bytes, as hex.
    lab          "05".
    assignment   version of lab and exercises: sha256 of what the marks depend on, as hex.
    environment  hash of interpreter, platform and the versions that the answers ran with.
    found        what was odd about the notebook, in words; changes no mark.
    layers       the walls that stood: ("bubblewrap", "uid", "rlimits", ..).
    trusted      False for a run with --unsafe: it stamps whatever is made of it.
    """

    submission: str
    lab: str
    assignment: str
    environment: str
    exercises: tuple[ExerciseResult, ...]
    found: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    trusted: bool = True

    @property
    def points(self) -> int:
        return sum(e.points for e in self.exercises)

    @property
    def of(self) -> int:
        return sum(e.of for e in self.exercises)

    @property
    def again(self) -> bool:
        """Whether something of ours failed, so that this is no mark yet."""
        return any(e.verdict == "infra-error" for e in self.exercises)

    @property
    def review(self) -> bool:
        """Whether a person must look before this counts."""
        return any(e.verdict in ("needs-review", "tampered") for e in self.exercises)

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Record:
        page = json.loads(text)
        exercises = tuple(
            ExerciseResult(**{**e, "cases": tuple(CaseResult(**c) for c in e["cases"])})
            for e in page["exercises"])
        return cls(**{**page, "exercises": exercises, "found": tuple(page["found"]),
                      "layers": tuple(page["layers"])})


@dataclass(frozen=True)
class Override:
    """A mark set by hand: who, when and why are kept, and the record it stands on is not touched."""

    student: str
    exercise: str
    points: int
    reason: str
    by: str
    at: datetime


@dataclass(frozen=True)
class Mark:
    """One line of the table: a student, the record if there is one, and what policy made of it.

    raw       the record's points; final: after overrides and lateness, what counts.
    lateness  hours after the deadline, extension included; 0 if in time or if no time is known.
    rule      the words for what lateness took off; empty if nothing.
    """

    student: str
    source: str
    record: Record | None
    raw: float
    final: float
    of: int
    lateness: float = 0.0
    rule: str = ""
    overrides: tuple[Override, ...] = field(default_factory=tuple)
    problem: str = ""
    submitted: datetime | None = None
