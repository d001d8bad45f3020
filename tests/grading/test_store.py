"""Every result once: rows are added, never changed, and a row is there or it is not."""

import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from coursekit.grading.record import Override, Submission
from coursekit.grading.store import Store
from fakes import exercise, record

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results.sqlite") as store:
        yield store


def get(store, r, **more):
    return store.get(r.submission, r.assignment, r.environment, **more)


def rows(store):
    return [(n, variant, r.submission) for n, variant, r in store.rows("05")]


# ---- results

def test_a_result_is_kept_once_and_comes_back_equal(store):
    r = record(b"one")
    assert get(store, r) is None
    assert store.put(r) and not store.put(r)
    assert get(store, r) == r and len(rows(store)) == 1


@pytest.mark.parametrize("other", ["submission", "assignment", "environment"])
def test_each_part_of_the_key_counts(store, other):
    r = record(b"one")
    store.put(r)
    key = {name: getattr(r, name) for name in ("submission", "assignment", "environment")}
    assert store.get(**{**key, other: "0" * 64}) is None


def test_variants_and_untrusted_results_are_kept_apart(store):
    r, unsafe = record(b"one"), record(b"one", trusted=False)
    store.put(unsafe)
    assert get(store, r) is None and get(store, r, trusted=False) == unsafe
    store.put(r, variant="b")
    assert get(store, r) is None and get(store, r, variant="b") == r


def test_regrading_adds_a_row_and_the_newest_counts(store):
    r = record(b"one")
    new = record(b"one", exercises=(exercise("05-1", "wrong", 0, 2),))
    store.put(r)
    assert store.put(new, again=True)
    assert get(store, r) == new and [x for _, _, x in store.rows("05")] == [r, new]


def test_an_infra_error_is_no_result(store):
    bad = record(b"one", exercises=(exercise("05-1", "infra-error", 0, 2),))
    with pytest.raises(ValueError, match="infra-error is no result"):
        store.put(bad)
    assert get(store, bad) is None


def test_words_that_are_no_text_can_be_kept(store):
    store.put(record(b"one", found=("half a pair \ud800", "nul \0", "\u202e")))
    assert get(store, record(b"one")).found[0] == "half a pair ?"


@pytest.mark.parametrize("table", ["results", "handed_in", "overrides", "settings"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET rowid = 9", "DELETE FROM {}"])
def test_nothing_is_ever_changed(store, table, verb):
    store.put(record(b"one"))
    store.hand_in("05", Submission("anna", b"", "a.ipynb"), "0")
    store.override(Override("anna", "05-1", 1, "why", "me", datetime.now(UTC)))
    store.settle("a", "b")
    with pytest.raises(sqlite3.IntegrityError, match="rows are only added"):
        store.db.execute(verb.format(table))


# ---- hand-ins, overrides, settings

def test_a_hand_in_is_noted_once(store):
    s = Submission("anna", b"x", "anna.ipynb", datetime(2026, 3, 1, tzinfo=UTC))
    assert store.hand_in("05", s, "abc") and not store.hand_in("05", s, "abc")
    assert store.hand_in("05", s, "def")  # a new version of it
    assert store.handed_in("05") == [("anna", "anna.ipynb", "abc", "2026-03-01T00:00:00+00:00"),
                                     ("anna", "anna.ipynb", "def", "2026-03-01T00:00:00+00:00")]


def test_overrides_stay_on_record_by_student_and_lab(store):
    first = Override("anna", "05-1", 1, "a typing error", "Prof. X", datetime.now(UTC))
    last = Override("anna", "05-1", 2, "seen again", "Prof. X", datetime.now(UTC))
    for entry in (first, last, Override("ben", "04-1", 0, "copied", "Y", datetime.now(UTC))):
        store.override(entry)
    assert store.overrides("05") == {"anna": (first, last)} and set(store.overrides("04")) == {"ben"}
    with pytest.raises(ValueError, match="--reason=''"):
        store.override(Override("anna", "05-1", 1, " ", "Prof. X", datetime.now(UTC)))


def test_a_setting_keeps_its_first_value(store):
    assert store.settle("key", "a") == "a" and store.settle("key", "b") == "a"


# ---- the file

def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "notes").write_text("no database at all, but longer than a header " * 9)
    with pytest.raises(OSError) as refusal:
        Store(tmp_path / "notes")
    assert refusal.value.filename == str(tmp_path / "notes")
    db = sqlite3.connect(tmp_path / "later")
    db.execute("PRAGMA user_version = 7")
    db.close()
    with pytest.raises(ValueError, match="is of version 7: accepted is 1"):
        Store(tmp_path / "later")


def test_a_full_disk_keeps_what_was_there(store):
    store.put(record(b"one"))
    pages = store.db.execute("PRAGMA page_count").fetchone()[0]
    store.db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError) as refusal:
        for i in range(1000):
            store.put(record(b"%d" % i))
    assert refusal.value.errno == errno.ENOSPC
    kept = len(rows(store))
    store.db.execute("PRAGMA max_page_count = 100000")
    assert store.put(record(b"after")) and len(rows(store)) == kept + 1


WRITER = """
import sys
from pathlib import Path
from coursekit.grading.store import Store
from fakes import record
with Store(Path(sys.argv[1])) as store:
    print("open", flush=True)
    for i in range(int(sys.argv[2])):
        store.put(record(b"%d" % i))
"""


def writer(path, n):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(n)], env=env,
                            stdout=subprocess.PIPE)


def test_several_processes_write_the_same_results_once(tmp_path):
    children = [writer(tmp_path / "r.sqlite", 150) for _ in range(3)]
    assert [child.wait(30) for child in children] == [0, 0, 0]
    for child in children:
        child.stdout.close()
    with Store(tmp_path / "r.sqlite") as store:
        assert len(rows(store)) == 150


def test_a_writer_killed_leaves_whole_rows(tmp_path):
    child = writer(tmp_path / "r.sqlite", 100_000)
    child.stdout.readline()
    time.sleep(0.3)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with Store(tmp_path / "r.sqlite") as store:
        kept = rows(store)
        assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert kept and [sha for *_, sha in kept] == [record(b"%d" % i).submission
                                                      for i in range(len(kept))]
