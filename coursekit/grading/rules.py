"""A policy from a file, TOML or JSON: read strictly, so that no rule is passed over for a typo.

    deadline = 2026-03-01T23:59:00+01:00
    grace = "15 minutes"
    cut-off = "7 days"

    [late]
    off = 10            # percent
    each = "day"        # that has begun; or "hour"
    most = 50           # percent in all
    of = "earned"       # points; or "full", those of the lab

    [extensions]
    "Ada Lovelace" = "48 hours"
    "Bob" = 2026-03-09T12:00:00+01:00

    [[overrides]]
    student = "Ada Lovelace"
    exercise = "05-2"
    points = 3
    reason = "right, but for a shape that the text does not name"
    by = "E. N."
    at = 2026-03-12T10:00:00+01:00
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from coursekit.grading.names import kept, shown
from coursekit.grading.policy import UNITS, Late, Policy
from coursekit.grading.record import Override

LARGEST = 10_000_000  # bytes
LONGEST = timedelta(days=3660)
SECONDS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
TIME = "a time with its zone, e.g. 2026-03-01T23:59:00+01:00"
SPAN = "a number and its unit, e.g. \"90 minutes\", \"48 hours\", \"7 days\", \"2 weeks\""
Reader = Callable[[Any], Any]  # gives the value, or raises ValueError with what is accepted


def read(path: Path) -> Policy:
    """The policy in a file; ValueError names the key, its value and what is accepted."""
    if not path.is_file():
        raise ValueError(f"'{path}': there is no such file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"'{path}' has {path.stat().st_size // 10**6} MB: accepted are "
                         f"{LARGEST // 10**6}")
    parse = {".toml": _toml, ".json": _json}.get(path.suffix.lower())
    if parse is None:
        raise ValueError(f"'{path}': accepted are .toml and .json")
    try:
        return policy(parse(path.read_bytes().decode("utf-8-sig")))
    except (UnicodeDecodeError, RecursionError):
        raise ValueError(f"'{path}' is no {path.suffix[1:].upper()} in UTF-8") from None
    except ValueError as error:
        said = " ".join(str(error).split())
        raise ValueError(f"'{path}': {said}") from None


def policy(page: Mapping[str, Any]) -> Policy:
    """The policy in what TOML or JSON give for the file."""
    found = _table(page, "", {"deadline": moment, "grace": span, "cut-off": span, "late": _late,
                              "extensions": _extensions, "overrides": _overrides})
    if "deadline" not in found and set(found) - {"overrides"}:
        raise ValueError(f"{', '.join(sorted(set(found) - {'overrides'}))} without a deadline: "
                         f"accepted is {TIME}")
    grace, cutoff = found.get("grace", timedelta(0)), found.get("cut-off")
    if cutoff is not None and cutoff < grace:
        raise ValueError(f"cut-off={page['cut-off']!r} comes before the end of the grace, "
                         f"{page['grace']!r}")
    for student, extra in found.get("extensions", {}).items():
        if isinstance(extra, datetime) and extra < found["deadline"]:
            raise ValueError(f"extensions: {shown(student)} would have less time than the others")
    return Policy(found.get("deadline"), grace, cutoff, found.get("late"),
                  found.get("extensions", {}), found.get("overrides", ()))


def extension(value: Any) -> timedelta | datetime:
    """How much longer ("48 hours") or until when, as in a policy and in a class list."""
    for reader in (span, moment):
        try:
            return reader(value)
        except ValueError:
            continue
    raise ValueError(f"{_said(value)}: accepted is {SPAN}, or {TIME}")


def moment(value: Any) -> datetime:
    """A time, from TOML or as a text."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f"{_said(value)}: accepted is {TIME}") from None
    if not isinstance(value, datetime) or value.tzinfo is None or not 1970 < value.year < 9000:
        raise ValueError(f"{_said(value)}: accepted is {TIME}")
    return value


def span(value: Any) -> timedelta:
    """A length of time."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?) *(minute|hour|day|week)s?", value.strip()) \
        if isinstance(value, str) else None
    time = timedelta(seconds=float(Decimal(found[1]) * SECONDS[found[2]])) if found else None
    if time is None or time > LONGEST:
        raise ValueError(f"{_said(value)}: accepted is {SPAN}")
    return time


# ---- the tables ------------------------------------------------------------------------------


def _table(given: Any, place: str, readers: Mapping[str, Reader],
           needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values of a table that has these keys and no others."""
    within = f"{place}: " if place else ""
    if not isinstance(given, Mapping):
        raise ValueError(f"{within}{_said(given)}: accepted is a table with {', '.join(readers)}")
    for key in given:
        if key not in readers:
            raise ValueError(f"{within}{shown(key)} is not known: accepted are "
                             f"{', '.join(readers)}")
    for key in needed:
        if key not in given:
            raise ValueError(f"{within}{key} is missing: needed are {', '.join(needed)}")
    found = {}
    for key, value in given.items():
        try:
            found[key] = readers[key](value)
        except ValueError as error:
            raise ValueError(f"{within}{key}: {error}") from None
    return found


def _late(given: Any) -> Late:
    return Late(**_table(given, "", {
        "off": _percent, "each": _one_of(*UNITS), "most": _percent, "of": _one_of("earned", "full")
    }, needed=("off",)))


def _extensions(given: Any) -> dict[str, timedelta | datetime]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{_said(given)}: accepted is a table of students")
    found = {}
    for student, value in given.items():
        try:
            found[kept(student)] = extension(value)
        except ValueError as error:
            raise ValueError(f"{shown(student)}: {error}") from None
    return found


def _overrides(given: Any) -> tuple[Override, ...]:
    if not isinstance(given, list):
        raise ValueError(f"{_said(given)}: accepted is a list of tables")
    readers = {"student": _text, "exercise": _text, "points": _points, "reason": _text, "by": _text,
               "at": moment}
    return tuple(Override(**_table(entry, f"entry {i}", readers, tuple(readers)))
                 for i, entry in enumerate(given, 1))


def _percent(value: Any) -> Decimal:
    number = isinstance(value, (int, Decimal)) and not isinstance(value, bool)
    if not number or not Decimal(value).is_finite() or not 0 <= value <= 100:
        raise ValueError(f"{_said(value)}: accepted are 0 to 100, in percent")
    return Decimal(value)


def _points(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1000:
        raise ValueError(f"{_said(value)}: accepted are whole points")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{_said(value)}: accepted is a text that is not empty")
    return kept(value)


def _one_of(*words: str) -> Reader:
    def reader(value: Any) -> str:
        if value not in words:
            raise ValueError(f"{_said(value)}: accepted are {', '.join(words)}")
        return value

    return reader


def _said(value: Any) -> str:
    """A value as one would write it, if that is short."""
    text = value if isinstance(value, str) else \
        value.isoformat() if hasattr(value, "isoformat") else str(value)
    return shown(text)


# ---- the two languages -----------------------------------------------------------------------


def _toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text, parse_float=Decimal)


def _json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_constant=Decimal,
                      object_pairs_hook=_without_doubles)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{shown(next(n for n in names if names.count(n) > 1))} is there twice")
    return found
