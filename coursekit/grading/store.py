"""Every result once: an SQLite file to which rows are added and in which none is ever changed.

    results     a record, by submission, assignment, environment and variant; the newest counts
    handed_in   who handed in what, and when it was first seen
    overrides   marks set by hand: who, when, why; the newest for an exercise counts

A row is written in one transaction: whatever ends the process, a row is there or it is not. Infra
errors are no results and are refused. The times in here appear in no report.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from coursekit.grading.record import Override, Record, Submission

VERSION = 1
WAIT_SECONDS = 60.0  # for another process that writes
TABLES = """
CREATE TABLE results (
    n INTEGER PRIMARY KEY, submission TEXT NOT NULL, assignment TEXT NOT NULL,
    environment TEXT NOT NULL, variant TEXT NOT NULL, trusted INTEGER NOT NULL,
    lab TEXT NOT NULL, record TEXT NOT NULL, at TEXT NOT NULL) STRICT;
CREATE INDEX result ON results (submission, assignment, environment, variant, trusted);
CREATE TABLE handed_in (
    n INTEGER PRIMARY KEY, lab TEXT NOT NULL, student TEXT NOT NULL, source TEXT NOT NULL,
    submission TEXT NOT NULL, submitted TEXT NOT NULL, problem TEXT NOT NULL, seen TEXT NOT NULL,
    UNIQUE (lab, student, source, submission, submitted, problem)) STRICT;
CREATE TABLE overrides (
    n INTEGER PRIMARY KEY, student TEXT NOT NULL, exercise TEXT NOT NULL, points INTEGER NOT NULL,
    reason TEXT NOT NULL, "by" TEXT NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""
GUARD = """
CREATE TRIGGER {table}_{verb} BEFORE {verb} ON {table}
BEGIN SELECT RAISE(ABORT, 'rows are only added'); END;
"""
KEY = "submission = ? AND assignment = ? AND environment = ? AND variant = ? AND trusted = ?"


class Store:
    """The file, opened. For one thread; other processes may have it open as well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._said():
            self.db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
        try:
            with self._said():
                self.db.execute("PRAGMA journal_mode = WAL")
                self.db.execute("PRAGMA synchronous = NORMAL")
                with self._transaction():
                    self._prepare()
        except BaseException:
            self.db.close()
            raise

    def _prepare(self) -> None:
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise ValueError(f"'{self.path}' is of version {version}: accepted is {VERSION}")
        if version:
            return
        guards = [GUARD.format(table=table, verb=verb) for verb in ("UPDATE", "DELETE")
                  for table in ("results", "handed_in", "overrides", "settings")]
        for statement in [*filter(str.strip, TABLES.split(";")), *guards,
                          f"PRAGMA user_version = {VERSION}"]:
            self.db.execute(statement)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *problem: object) -> None:
        self.db.close()

    # ---- results -----------------------------------------------------------------------------

    def get(self, submission: str, assignment: str, environment: str, *, variant: str = "",
            trusted: bool = True) -> Record | None:
        """The newest result for these, None if there is none."""
        key = (submission, assignment, environment, variant, int(trusted))
        with self._said():
            row = self.db.execute(f"SELECT record FROM results WHERE {KEY} ORDER BY n DESC LIMIT 1",
                                  key).fetchone()
        return Record.from_json(row[0]) if row else None

    def put(self, record: Record, *, variant: str = "", again: bool = False) -> bool:
        """Keep a result: True if a row was added. again: also where there is one already."""
        if record.again:
            raise ValueError(f"record of {record.submission}: an infra-error is no result")
        key = (record.submission, record.assignment, record.environment, variant,
               int(record.trusted))
        with self._said(), self._transaction():
            if not again and self.db.execute(f"SELECT 1 FROM results WHERE {KEY}", key).fetchone():
                return False
            self.db.execute("INSERT INTO results (submission, assignment, environment, variant, "
                            "trusted, lab, record, at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                            (*key, record.lab, fit(record.to_json()), _now()))
        return True

    def rows(self, lab: str) -> Iterator[tuple[int, str, Record]]:
        """Every result of a lab in the order of writing, older ones too: number, variant, record."""
        with self._said():
            for n, variant, record in self.db.execute(
                    "SELECT n, variant, record FROM results WHERE lab = ? ORDER BY n", (lab,)):
                yield n, variant, Record.from_json(record)

    # ---- who handed in what ------------------------------------------------------------------

    def hand_in(self, lab: str, submission: Submission, sha: str) -> bool:
        """Note a notebook as handed in: True if it had not been seen before."""
        when = submission.submitted.isoformat() if submission.submitted else ""
        with self._said():
            done = self.db.execute(
                "INSERT OR IGNORE INTO handed_in (lab, student, source, submission, submitted, "
                "problem, seen) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (lab, *map(fit, (submission.student, submission.source)), sha, when,
                 fit(submission.problem), _now()))
        return done.rowcount == 1

    def handed_in(self, lab: str) -> list[tuple[str, str, str, str]]:
        """Student, source, sha256 and the time of every hand-in that was seen, sorted."""
        with self._said():
            return self.db.execute("SELECT student, source, submission, submitted FROM handed_in "
                                   "WHERE lab = ? ORDER BY student, n", (lab,)).fetchall()

    # ---- overrides ---------------------------------------------------------------------------

    def override(self, entry: Override) -> None:
        """Keep a mark set by hand; an earlier one stays on record and counts no longer."""
        for name in ("student", "reason", "by"):
            if not getattr(entry, name).strip():
                raise ValueError(f"--{name}='': accepted are words, which are kept with the mark")
        with self._said():
            self.db.execute(
                'INSERT INTO overrides (student, exercise, points, reason, "by", at) '
                "VALUES (?, ?, ?, ?, ?, ?)",
                (fit(entry.student), entry.exercise, entry.points, fit(entry.reason),
                 fit(entry.by), entry.at.isoformat()))

    def overrides(self, lab: str) -> dict[str, tuple[Override, ...]]:
        """All marks of a lab set by hand, by student, in the order in which they were set."""
        found: dict[str, tuple[Override, ...]] = {}
        with self._said():
            for *words, at in self.db.execute(
                    'SELECT student, exercise, points, reason, "by", at FROM overrides '
                    "WHERE substr(exercise, 1, 2) = ? ORDER BY n", (lab,)):
                entry = Override(*words, datetime.fromisoformat(at))
                found[entry.student] = (*found.get(entry.student, ()), entry)
        return found

    # ---- what all results here share ---------------------------------------------------------

    def settle(self, name: str, value: str) -> str:
        """The value that a setting has had since it was first set; `value` if it is set now."""
        with self._said(), self._transaction():
            self.db.execute("INSERT OR IGNORE INTO settings VALUES (?, ?)", (name, value))
            return self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)
                                   ).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")  # waits for other writers here and not later
        try:
            yield
        except BaseException:
            if self.db.in_transaction:  # a full disk has ended it already
                self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    @contextmanager
    def _said(self) -> Iterator[None]:
        """What SQLite says as an error of the system, about this file."""
        try:
            yield
        except sqlite3.Error as problem:
            code = getattr(problem, "sqlite_errorcode", 0) & 0xFF
            number = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS,
                      sqlite3.SQLITE_PERM: errno.EACCES}.get(code, errno.EIO)
            raise OSError(number, str(problem), str(self.path)) from problem


def fit(text: str) -> str:
    """Text that a database and a page can hold: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _now() -> str:
    return datetime.now(UTC).isoformat()
