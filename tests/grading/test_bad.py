"""Bad submissions, one source a file in bad/: each is the answer to one exercise of lab 05.

The first line says which exercise, and the verdict and points that it must get; the other answers
of the notebook are right and keep their points. An attack that succeeds would be right, or would
take somebody's points: the stated verdict is that of an attack in vain. After each, nothing is left
of it, and an honest notebook gets the same record as before, byte by byte.
"""

import os
import time
from pathlib import Path

import pytest
from handed import BAD, HEAD, alone, answers, records

from coursekit.grading import sandbox
from coursekit.grading.trusted import grade
from coursekit.grading.watch import owned, tree

KEY = b"a key of this test"
LIMITS = sandbox.Limits(cell=3.0, memory=2**29)
SECONDS = 5.0 + 2.0  # the exercise's limit for a case, and what it may take to notice and to end it
ELSE = 20.0  # for all else in a notebook, on a busy machine
UNPICKLED = Path("/tmp/unpickled")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(
    bool(sandbox.refusal()), reason=sandbox.refusal() or "walls stand here")]


@pytest.fixture(scope="module", autouse=True)
def secret():
    os.environ["COURSEKIT_SECRET"] = "of the grader"
    yield
    del os.environ["COURSEKIT_SECRET"]


@pytest.fixture(scope="module")
def honest(secret):
    """An honest notebook and its record; the sandbox has started when this is there."""
    content = alone("05")
    record = grade(content, "05", key=KEY, limits=LIMITS)
    assert record.points == record.of == 20 and record.trusted, records(record)
    return content, record.to_json()


def graded(source, id):
    content = alone("05", **{f"_{id.replace('-', '_')}": source})
    start = time.monotonic()
    return grade(content, "05", key=KEY, limits=LIMITS), time.monotonic() - start


@pytest.mark.parametrize("path", BAD, ids=[p.stem for p in BAD])
def test_bad(path, honest, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    source = path.read_text(encoding="utf-8")
    id, verdict, points, of, _ = HEAD.match(source).groups()
    record, seconds = graded(source, id)
    result = next(e for e in record.exercises if e.id == id)
    assert (result.verdict, result.points, result.of) == (verdict, int(points), int(of)), \
        records(record)
    assert all(e.verdict == "correct" for e in record.exercises if e.id != id), records(record)
    assert seconds < SECONDS + ELSE
    with sandbox.lent() as box:  # the one that has just been used
        assert len(tree(box.process.pid)) == box.idle
        assert not box.uid or owned(box.uid) == []
    assert list(tmp_path.iterdir()) == [] and not UNPICKLED.exists()
    content, before = honest
    assert grade(content, "05", key=KEY, limits=LIMITS).to_json() == before


def test_bad_submissions_are_bad():
    """Each file states what it must get, and none gets points that an honest answer would not."""
    heads = [HEAD.match(p.read_text(encoding="utf-8")) for p in BAD]
    assert all(heads) and len(BAD) >= 60
    assert {h[2] for h in heads} >= {"timeout", "memory", "output-limit", "crashed", "malformed",
                                     "tampered", "error-in-code", "not-attempted", "partial",
                                     "wrong", "correct"}
    assert answers("05").keys() >= {h[1] for h in heads}
