"""From bytes to a record: verdicts and points, the same every time, and honest answers get all.

`COURSEKIT_HONEST=5 pytest tests/grading/test_trusted.py -k honest` grades 250 honest
notebooks: five seeds, one and two threads; a plain run takes one seed.
"""

import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from handed import alone, answers, notebook, records, variants

from coursekit.classroom.check.exercises import exercise, exercises, labs
from coursekit.classroom.check.run import Outcome
from coursekit.classroom.check.verdict import examine as checked
from coursekit.grading import sandbox, trusted
from coursekit.grading.judging import graded
from coursekit.grading.line import Ended
from coursekit.grading.record import Record
from coursekit.grading.sandbox import Infra, Limits
from coursekit.grading.sitting import Cell, Odd, outcome, scrub
from coursekit.grading.trusted import grade

KEY = b"a key of this test"
SEEDS = int(os.environ.get("COURSEKIT_HONEST", "1"))
WALLS = pytest.mark.skipif(bool(sandbox.refusal()), reason=sandbox.refusal() or "walls stand here")
SIGMA = exercise("05-1")
CASES = SIGMA.cases(1, hidden=True)


# ---- words from the other side ---------------------------------------------------------------


@pytest.mark.parametrize("words, shown", [
    ("<object at 0x7f00deadbeef>", "<object at 0x..>"),
    ("no file: '/opt/python/lib/python3.11/site-packages/torch/x.py'", "no file: '../x.py'"),
    ("cannot open '/tmp/tmpa1b2c3d4'", "cannot open '../tmp..'"),
    ("a\x1b[31mred\x00\nb\u202ec\u200b", "a [31mred b c"),
    ("x / y / z and x/y/z", "x / y / z and x/y/z"),
    ("\ud800!", "!"), ("w " * 1_000, ("w " * 150).strip()),
])
def test_words_are_one_short_line_and_always_the_same(words, shown):
    assert scrub(words).strip() == shown and len(scrub(words)) <= 300


GOOD = {"kind": "value", "words": "", "printed": "", "reseeded": False, "changed": [], "value": 0.5}


def test_a_good_answer_becomes_an_outcome():
    assert outcome(GOOD, [], SIGMA).value == 0.5
    odd = {k: v for k, v in GOOD.items() if k != "value"} | {"odd": "Equal\n" + "x" * 100}
    assert outcome(odd, [], SIGMA).odd == ("Equal " + "x" * 100)[:60]


@pytest.mark.parametrize("change", [
    {"kind": "correct"}, {"kind": None}, {"kind": []}, {"words": 3}, {"printed": None},
    {"reseeded": 0}, {"changed": ["y"]}, {"changed": "eta"}, {"changed": [["eta"]]},
    {"value": [1.0]}, {"value": {"tensor": 0}}, {"odd": "both"},
])
def test_another_form_is_tampering(change):
    with pytest.raises(Ended) as end:
        outcome(GOOD | change, [], SIGMA)
    assert end.value.verdict == "tampered"


# ---- verdicts, with workers made of paper ----------------------------------------------------


class Paper:
    """A sitting whose worker says what a test has written down."""

    def __init__(self, *outcomes, cell=Cell("done", "", 0, True), stray=None):
        self.outcomes, self._cell, self.stray = list(outcomes), cell, stray
        self.forgotten = None

    def cell(self, exercise, source, seed):
        if isinstance(self._cell, Exception):
            raise self._cell
        return self._cell

    def case(self, exercise, case, seed):
        value = self.outcomes.pop(0)
        if isinstance(value, Exception):
            raise value
        return value if isinstance(value, Outcome) else Outcome("value", value=value)

    def leave(self):
        if self.stray:
            raise self.stray

    def drop(self, forget=""):
        self.forgotten = forget


def right(case):
    from coursekit.classroom.check.known import build

    return SIGMA.wanted(*build(case, "float64", {}).values())


RIGHT = [right(case) for case in CASES]
N = len(RIGHT)
LATE, DUE = Outcome("too long", words="no answer after 5 s"), Outcome("not done")
NAME = Outcome("raised", words="raised NameError: name 'x' is not defined")
FULL = Outcome("raised", words="raised MemoryError: ")
EQUAL = Odd("value", odd="Equal")
CRASH, FORGED = Ended("crashed", "ended by the signal SIGABRT"), Ended("tampered", "forged")
LIBRARY = Outcome("under study", words="calls sigma")


@pytest.mark.parametrize("outcomes, verdict, points, missing", [
    ([*RIGHT, RIGHT[0]], "correct", 2, 0),
    ([*RIGHT, RIGHT[0] + 1], "partial", 1, 0),
    ([*RIGHT, NAME], "partial", 1, 0),
    ([*RIGHT, EQUAL], "partial", 1, 0),
    ([*RIGHT, CRASH], "crashed", 1, 0),
    ([-1.0] * N, "wrong", 0, 0),
    ([RIGHT[0], *[-1.0] * (N - 1)], "partial", 0, 0),
    ([*RIGHT[:4], *[-1.0] * (N - 4)], "partial", 1, 0),
    ([NAME] * N, "error-in-code", 0, 0),
    ([NAME, *[-1.0] * (N - 1)], "wrong", 0, 0),
    ([*RIGHT[:-1], NAME], "partial", 1, 0),
    ([DUE], "not-attempted", 0, N - 1),
    ([*RIGHT[:4], DUE, *RIGHT[5:]], "partial", 1, 0),
    ([LATE], "timeout", 0, N - 1),
    ([*RIGHT[:4], LATE], "timeout", 1, N - 5),
    ([*RIGHT[:4], FULL, *RIGHT[5:]], "memory", 1, 0),
    ([FULL] * N, "memory", 0, 0),
    ([EQUAL] * N, "malformed", 0, 0),
    ([None] * N, "wrong", 0, 0),
    ([LIBRARY] * N, "wrong", 0, 0),
    ([float("nan")] * N, "wrong", 0, 0),
    ([torch.tensor(v) for v in RIGHT], "wrong", 0, 0),
    ([*RIGHT[:4], CRASH], "crashed", 1, N - 4),
    ([CRASH], "crashed", 0, N),
    ([*RIGHT[:6], FORGED], "tampered", 0, N - 6),
])
def test_verdicts(outcomes, verdict, points, missing):
    sitting = Paper(*outcomes)
    result = graded(SIGMA, "", CASES, sitting, 0, None)
    assert (result.verdict, result.points, result.missing) == (verdict, points, missing)
    assert len(result.cases) == N and sitting.outcomes == []
    passed = sum(c.ok for c in result.cases)
    assert (passed == N) == (verdict == "correct")
    assert all(c.words for c in result.cases if not c.ok)


@pytest.mark.parametrize("cell, verdict, words", [
    (Cell("raised", "SyntaxError: invalid syntax, line 3", 0, False), "error-in-code", "line 3"),
    (Cell("raised", "raised MemoryError: ", 0, False), "memory", "MemoryError"),
    (Cell("too long", "", 0, False), "timeout", "took too long"),
    (Cell("not done", "", 0, False), "not-attempted", ""),
    (Cell("done", "", 0, False), "error-in-code", "does not define sigma"),
    (CRASH, "crashed", "SIGABRT"), (FORGED, "tampered", "forged"),
])
def test_a_cell_that_defines_nothing(cell, verdict, words):
    result = graded(SIGMA, "", CASES, Paper(cell=cell), 0, None)
    assert (result.verdict, result.points, result.missing) == (verdict, 0, N)
    assert words in result.words


def test_bytes_after_the_last_case_cost_all():
    sitting = Paper(*RIGHT, RIGHT[0], stray=FORGED)
    result = graded(SIGMA, "", CASES, sitting, 0, None)
    assert (result.verdict, result.points) == ("tampered", 0)
    assert sitting.forgotten == "05-1"  # its cell does not run again


def test_what_a_cell_did_after_its_answer_is_said():
    cell, notes = Cell("raised", "raised NameError: name 'plot' is not defined", 3, True), []
    result = graded(SIGMA, "", CASES, Paper(*RIGHT, RIGHT[0], cell=cell), 0, notes.append)
    assert result.verdict == "correct" and "plot" in result.words
    assert notes == ["05-1: 3 lines of magic were left out"]


def test_what_cannot_be_judged_is_wrong_and_not_our_failure(monkeypatch):
    def breaks(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("coursekit.grading.judging.judge", breaks)
    result = graded(SIGMA, "", CASES, Paper(*RIGHT), 0, None)
    assert (result.verdict, result.points) == ("wrong", 0)
    assert "ZeroDivisionError" in result.cases[0].words


# ---- records without a worker ----------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", bytes(50), b"{}", b"[" * 100_000, b'{"nbformat": 3}'])
def test_no_notebook_no_answers(content):
    record = grade(content, "05", key=KEY)
    assert {e.verdict for e in record.exercises} == {"malformed"} and record.points == 0
    assert all(e.words for e in record.exercises) and not record.again
    assert record == Record.from_json(record.to_json())


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="key: 5 bytes"):
        grade(b"", "05", key=b"short")


def test_an_unknown_lab_is_refused():
    with pytest.raises(ValueError, match="'99'"):
        grade(b"", "99", key=KEY)


def test_nothing_handed_in_is_no_work(monkeypatch):
    monkeypatch.setattr(sandbox, "Sandbox", None)  # nobody may start one
    record = grade(notebook("05", **{f"_05_{k}": "" for k in range(1, 7)}), "05", key=KEY)
    assert {e.verdict for e in record.exercises} == {"not-attempted"}
    assert all("05" in e.words for e in record.exercises)


def test_hidden_numbers_hang_on_the_key_and_on_the_submission():
    names = ("a|", "b|", "a|v1")
    other = b"another key, not this"
    assert len({trusted.seeds(key, name)[0] for key in (KEY, other) for name in names}) == 6
    assert trusted.seeds(KEY, "a|") == trusted.seeds(KEY, "a|")


@pytest.mark.parametrize("lab", labs())
def test_what_a_lab_is_graded_by(lab):
    assert len(trusted.assignment(lab)) == 64
    assert len({trusted.assignment(other) for other in labs()}) == len(labs())
    assert trusted.setup(lab) and "NotDoneYet" in trusted.setup(lab)[0][1]
    assert trusted.environment() == trusted.environment()


CHANGES_NO_MARK = {  # loaded where marks are made: names, walls, drawing, the form of a record
    "__init__", "images", "labs/build", "labs/light", "grading/record", "grading/seccomp",
    "grading/slot", "grading/view", "grading/watch"}


def test_a_mark_rests_on_nothing_that_a_labs_version_leaves_out():
    code = ("import sys; from coursekit.classroom.check.exercises import exercises, labs; "
            "from coursekit.grading import trusted, worker; "
            "[exercises(lab) and trusted.assignment(lab) for lab in labs()]; "
            "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'coursekit'))")
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    versioned = {p for part in trusted.MARKED_BY for p in trusted.PACKAGE.glob(part)}
    left = {p.relative_to(trusted.PACKAGE).with_suffix("").as_posix()
            for p in map(Path, loaded.stdout.split()) if p not in versioned}
    left = {name for name in left if not re.fullmatch(
        r"classroom/check/(exercises|calls)/lab\d\d|.+/__init__", name)}
    assert left <= CHANGES_NO_MARK, left - CHANGES_NO_MARK


def test_a_lab_has_another_version_when_what_it_rests_on_changes(monkeypatch, tmp_path):
    before = trusted.assignment.__wrapped__("05")
    for path in (trusted.PACKAGE / "classroom/check").rglob("*.py"):
        copy = tmp_path / path.relative_to(trusted.PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    monkeypatch.setattr(trusted, "PACKAGE", tmp_path)
    first = trusted.assignment.__wrapped__("05")
    with (tmp_path / "classroom/check/exercises/lab04.py").open("a") as file:
        file.write("# another lab's\n")
    assert trusted.assignment.__wrapped__("05") == first != before
    with (tmp_path / "classroom/check/exercises/lab05.py").open("a") as file:
        file.write("# a change\n")
    assert trusted.assignment.__wrapped__("05") != first


# ---- with workers ----------------------------------------------------------------------------


def mixed(lab, i):
    """The i-th honest notebook of a lab: the solution, then mixes of other right answers."""
    if i == 0:
        return notebook(lab)
    chosen = {}
    for id in answers(lab):
        sources = list(variants(id).values())
        chosen[f"_{id.replace('-', '_')}"] = sources[(i - 1) % len(sources)]
    return notebook(lab, **chosen)


@WALLS
@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("lab", labs())
def test_honest_answers_get_all_points(lab):
    most = max(len(variants(id)) for id in answers(lab))
    for i, seed in itertools.product(range(most + 1), range(SEEDS)):
        for threads in (1, 2) if SEEDS > 1 else (1 + i % 2,):
            record = grade(mixed(lab, i), lab, key=KEY, variant=str(seed),
                           limits=Limits(threads=threads))
            assert {e.verdict for e in record.exercises} == {"correct"}, \
                f"mix {i}, seed {seed}, {threads} threads: {records(record)}"
            assert record.points == record.of == sum(e.points for e in exercises(lab))


WRONG = """
def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * (1 - then) / (1 - now) * (1 - now / then)
"""
DRAWS = """
import random

import numpy as np


def sigma(schedule, t, s, eta):
    return float(torch.rand(()) + random.random() + np.random.rand() + id(eta) * 0)
"""
ENDS = "def {name}(*args):\n    import os\n    os._exit(4)\n"


@WALLS
@pytest.mark.slow
def test_the_same_bytes_give_the_same_record():
    content = alone("05", _05_1=DRAWS, _05_2=None, _05_5="def slerp(a, b, share):\n    return a\n")
    first = grade(content, "05", key=KEY)
    assert [e.verdict for e in first.exercises] == ["wrong", "not-attempted", "correct", "correct",
                                                    "partial", "correct"], records(first)
    assert grade(content, "05", key=KEY).to_json() == first.to_json()
    sandbox.shut()
    assert grade(content, "05", key=KEY).to_json() == first.to_json()
    other = grade(content, "05", key=KEY, variant="v1")
    assert other.to_json() != first.to_json()
    assert [e.verdict for e in other.exercises] == [e.verdict for e in first.exercises]
    assert Record.from_json(first.to_json()) == first


@WALLS
@pytest.mark.slow
def test_a_mistake_is_named_as_the_check_names_it():
    record = grade(alone("05", _05_1=WRONG), "05", key=KEY)
    space = {}
    exec(WRONG, space)
    report = checked(SIGMA, space["sigma"], 1, hidden=True)
    assert record.exercises[0].mistake == report.likely == SIGMA.mistakes[0].words
    assert record.exercises[0].points == report.points
    assert [c.ok for c in record.exercises[0].cases] == [v.ok for v in report.verdicts]


@WALLS
@pytest.mark.slow
def test_each_exercise_has_its_own_verdict_whatever_ends():
    ends = {f"_05_{k}": ENDS.format(name=exercise(f"05-{k}").name) for k in (1, 3, 6)}
    record = grade(alone("05", **ends), "05", key=KEY)
    assert [e.verdict for e in record.exercises] == [
        "crashed", "correct", "crashed", "correct", "correct", "crashed"], records(record)
    assert record.points == sum(e.points for e in exercises("05")) - 2 - 3 - 4


@WALLS
@pytest.mark.slow
def test_what_an_earlier_cell_defined_is_there_after_a_restart():
    source = "def mine():\n    return 0.0\n\n\n" + ENDS.format(name="sigma")
    uses = next(iter(variants("05-2").values())) + "\n\nmine()\n"
    record = grade(alone("05", _05_1=source, _05_2=uses), "05", key=KEY)
    assert [e.verdict for e in record.exercises][:2] == ["crashed", "correct"], records(record)
    assert record.exercises[1].words == ""  # its own use of mine() did not fail


@WALLS
@pytest.mark.slow
def test_the_time_of_a_whole_notebook_is_bounded():
    loop = "def {}(*args):\n    while True:\n        pass\n"
    loops = {f"_05_{k}": loop.format(exercise(f"05-{k}").name) for k in (2, 3)}
    record = grade(alone("05", **loops), "05", key=KEY, limits=Limits(seconds=4.0))
    assert [e.verdict for e in record.exercises] == ["correct", *["timeout"] * 5], records(record)
    assert "4 s for the notebook were used up" in record.exercises[-1].words


@WALLS
@pytest.mark.slow
def test_two_at_a_time_do_not_meet():
    content = alone("05", _05_1=WRONG)
    alone_record, found = grade(content, "05", key=KEY).to_json(), []

    def work():
        found.append(grade(content, "05", key=KEY).to_json())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [alone_record] * 2


@WALLS
@pytest.mark.slow
def test_our_own_failure_is_no_mark(monkeypatch):
    def gone(*args):
        raise Infra("the sandbox is gone")

    monkeypatch.setattr("coursekit.grading.sitting.Line", gone)
    record = grade(alone("05", _05_2=""), "05", key=KEY)
    assert [e.verdict for e in record.exercises] == ["infra-error", "not-attempted",
                                                     *["infra-error"] * 4]
    assert record.again and record.points == 0


@pytest.mark.slow
def test_without_walls_nothing_is_trusted():
    loop = "def slerp(a, b, share):\n    while True:\n        try:\n            while True:\n" \
           "                pass\n        except BaseException:\n            continue\n"
    ends = ENDS.format(name="sigma")
    record = grade(alone("05", _05_1=ends, _05_5=loop), "05", key=KEY, unsafe=True)
    assert not record.trusted and record.layers == ("rlimits",)
    assert [e.verdict for e in record.exercises] == ["crashed", "correct", "correct", "correct",
                                                     "timeout", "correct"], records(record)
    with sandbox.lent(unsafe=True) as box:
        assert box.usable
        box.close()
