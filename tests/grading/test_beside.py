"""The comparison with other graders: what it counts, and that the one we depend on really runs."""

import os

import pytest

import beside
from coursekit.grading import sandbox

ROOT = pytest.mark.skipif(bool(sandbox.refusal()) or os.getuid() != 0,
                          reason=sandbox.refusal() or "needs root, to give rights away")
ALL = dict(beside.POINTS)


@pytest.mark.parametrize(("marks", "points", "found"), [
    (ALL, 2, "as deserved"), (ALL, 0, "leak"), (ALL | {"05-1": 0}, 0, "as deserved"),
    (ALL | {"05-1": 1}, 2, "false fail"), (ALL | {"05-2": 0}, 2, "others lost"), ({}, 0, "no marks"),
])
def test_what_marks_come_to(marks, points, found):
    assert beside.verdict(beside.Fixture("a", b"", "05-1", points, "leak"), marks) == found


def test_a_table_counts_each_notebook_once_for_each_tool():
    found = [{"fixture": name, "tool": tool, "verdict": "leak" if name == tool else "harm"}
             for name in "ab" for tool in "ab"]
    lines = beside.table(found).splitlines()
    assert lines[0] == "| of 2 notebooks | a | b |"
    assert [line[-10:] for line in lines if "reached" in line or "does harm" in line] == [
        " | 1 | 1 |"] * 2 and sum(line.endswith("| 0 | 0 |") for line in lines) == 5


@ROOT
@pytest.mark.slow
def test_an_answer_that_names_its_own_check_passes_in_nbgrader_and_not_here(tmp_path):
    pytest.importorskip("nbgrader")
    tmp_path.chmod(0o755)
    given = beside.Nbgrader(tmp_path / "nbgrader").given
    chosen = {f.name: f for f in beside.fixtures() if f.name in ("honest", "brings_its_own_check")}
    assert given(chosen["honest"].content) == beside.coursekit(chosen["honest"].content) == ALL
    bad = chosen["brings_its_own_check"]
    assert beside.verdict(bad, given(bad.content)) == "false pass"
    assert beside.verdict(bad, beside.coursekit(bad.content)) == "as deserved"
