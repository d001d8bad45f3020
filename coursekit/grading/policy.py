"""What lateness takes off, who has longer, what was set by hand, which variant is whose.

Pure functions: a time of hand-in, a record and a policy give a mark, whenever they are asked. Times
have zones and are compared as moments; a day is 24 hours, also in the night when clocks change.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Protocol

from coursekit.classroom.check.exercises import exercises
from coursekit.grading.names import kept, shown
from coursekit.grading.record import Mark, Override, Record

UNITS = {"hour": timedelta(hours=1), "day": timedelta(days=1)}
SHORTEST = 16  # bytes of a key
CENT = Decimal("0.01")  # what marks are rounded to, halves up


@dataclass(frozen=True)
class Late:
    """`off` percent for each hour or day that has begun, `most` in all, of the points earned or
    of all that the lab has."""

    off: Decimal
    each: str = "day"
    most: Decimal = Decimal(100)
    of: str = "earned"


@dataclass(frozen=True)
class Policy:
    """The rules of a lab; without a deadline there is no lateness.

    grace       after the deadline, in which nothing is taken off; then lateness counts in full.
    cutoff      after the deadline, and then nothing counts.
    extensions  student -> how much longer, or until when; grace and cutoff move with it.
    """

    deadline: datetime | None = None
    grace: timedelta = timedelta(0)
    cutoff: timedelta | None = None
    late: Late | None = None
    extensions: Mapping[str, timedelta | datetime] = field(default_factory=dict)
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        times = [self.deadline, *self.extensions.values()]
        if any(isinstance(t, datetime) and t.tzinfo is None for t in times):
            raise ValueError("a time without a zone: accepted is e.g. 2026-03-01T23:59:00+01:00")

    def until(self, student: str) -> datetime | None:
        """A student's own deadline, never before that of the class."""
        if self.deadline is None:
            return None
        extra = self.extensions.get(kept(student), timedelta(0))
        own = extra if isinstance(extra, datetime) else self.deadline.astimezone(UTC) + extra
        return max(own, self.deadline).astimezone(UTC)


class HandIn(Protocol):
    """What is asked of a submission: its notebook is not needed for a mark."""

    student: str
    source: str
    submitted: datetime | None
    problem: str


def settle(hand_in: HandIn, record: Record | None, policy: Policy, lab: str,
           overrides: Sequence[Override] = ()) -> Mark:
    """The mark of a student: the record's points, those set by hand over them, then lateness.

    overrides  of this student, beside those of the policy; for an exercise the latest counts.
    """
    most = {e.id: e.points for e in exercises(lab)}
    points = {e.id: e.points for e in record.exercises} if record else dict.fromkeys(most, 0)
    raw, applied = sum(points.values()), _applied(hand_in.student, most, policy, overrides)
    points |= {o.exercise: o.points for o in applied}
    total, of = sum(points.values()), sum(most.values())
    lateness, taken, rule = _lateness(hand_in, policy, Decimal(total), of)
    return Mark(hand_in.student, hand_in.source, record, float(raw), _rounded(total - taken), of,
                lateness, rule, applied, hand_in.problem or _open(record, applied),
                hand_in.submitted)


def _open(record: Record | None, applied: tuple[Override, ...]) -> str:
    """Why this is no mark yet."""
    done = {o.exercise for o in applied}
    failed = [e.id for e in record.exercises
              if e.verdict == "infra-error" and e.id not in done] if record else []
    return f"no mark yet: {', '.join(failed)} could not be graded, grade again" if failed else ""


def _applied(student: str, most: Mapping[str, int], policy: Policy,
             overrides: Sequence[Override]) -> tuple[Override, ...]:
    """What was set by hand for a student, the latest for each exercise."""
    latest = {}
    for entry in sorted((*policy.overrides, *overrides), key=lambda o: o.at):
        if kept(entry.student) != kept(student):
            continue
        place = f"override of {entry.exercise!r} for {shown(student)}"
        if entry.exercise not in most:
            raise ValueError(f"{place}: accepted are {', '.join(most)}")
        if not 0 <= entry.points <= most[entry.exercise]:
            raise ValueError(f"{place}: {entry.points} points, accepted are 0.."
                             f"{most[entry.exercise]}")
        latest[entry.exercise] = entry
    return tuple(latest[id] for id in most if id in latest)


def _lateness(hand_in: HandIn, policy: Policy, total: Decimal,
              of: int) -> tuple[float, Decimal, str]:
    """Hours late, points off and the words for it."""
    until, when, none = policy.until(hand_in.student), hand_in.submitted, Decimal(0)
    if until is None or hand_in.problem:
        return 0.0, none, ""
    if when is None:
        unknown = "when it was handed in is not known: nothing was taken off"
        return 0.0, none, unknown if policy.late or policy.cutoff is not None else ""
    if when.tzinfo is None:
        raise ValueError(f"submitted={when.isoformat()} has no time zone")
    late = when.astimezone(UTC) - until
    hours = max(0.0, late / UNITS["hour"])
    if late <= policy.grace:
        return hours, none, ""
    if policy.cutoff is not None and late > policy.cutoff:
        return hours, total, f"{_words(late)} late: nothing counts after {_words(policy.cutoff)}"
    if policy.late is None:
        return hours, none, ""
    return hours, *_off(policy.late, late, total, of)


def _off(late: Late, by: timedelta, total: Decimal, of: int) -> tuple[Decimal, str]:
    begun = -(-by // UNITS[late.each])
    percent = min(late.most, late.off * begun)
    points = min(total, percent / 100 * (total if late.of == "earned" else of))
    what = "the points earned" if late.of == "earned" else f"{of} points"
    most = ", the most that is taken" if percent < late.off * begun else ""
    many = f"{begun} {late.each}{'s' * (begun > 1)}"
    return points, f"{many} late: {percent.normalize():f} % of {what} taken off{most}"


def _words(time: timedelta) -> str:
    """2 days 3 h, 5 h 20 min: down to the two largest parts, the rest left out."""
    days, seconds = time.days, time.seconds
    parts = [(days, "day" if days == 1 else "days"), (seconds // 3600, "h"),
             (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    first = next((i for i, (n, _) in enumerate(parts) if n), 3)
    return " ".join(f"{n} {unit}" for n, unit in parts[first:first + 2] if n) or "0 s"


def _rounded(points: Decimal) -> float:
    return float(max(Decimal(0), points).quantize(CENT, ROUND_HALF_UP))


def extended(policy: Policy, more: Mapping[str, timedelta | datetime]) -> Policy:
    """The policy with the extensions of a class list; two that differ for a student are refused."""
    both = {kept(student): time for student, time in more.items()}
    for student, time in both.items():
        if policy.extensions.get(student, time) != time:
            raise ValueError(f"{shown(student)} has one extension in the policy and another one in "
                             "the class list")
    return replace(policy, extensions={**policy.extensions, **both})


def variant(key: bytes, student: str) -> str:
    """Which variant of a lab is a student's: nobody can tell it without the key, and with the key
    it is the same every time."""
    if len(key) < SHORTEST:
        raise ValueError(f"key: {len(key)} bytes, accepted are {SHORTEST} and more")
    return hmac.digest(key, b"variant of a lab\0" + kept(student).encode(), "sha256").hex()[:16]
