"""Labs: built the same every time, without an answer in them; verified without being fooled."""

import copy
import io
import json
import os
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import nbformat
import pytest

from coursekit import cli
from coursekit.classroom.check.exercises import exercises
from coursekit.labs import build, merge, verify
from coursekit.labs.notebook import PART, ROOT, parse, read, written

STEMS = build.stems()
TOKENS, LONG = 6, 20  # shorter lines may be anybody's; in the checks `e = eps(x, t)` is, too


def solution(stem):
    return read(build.SOLUTIONS / f"{stem}.ipynb")


def lab(stem):
    return parse(build.build(stem)[1])


def cell(notebook, id):
    return next(c for c in notebook.cells if c.id == id)


# ---- building --------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", STEMS)
def test_both_notebooks_are_as_a_rebuild_writes_them(stem):
    tidied, built = build.build(stem)
    assert (build.SOLUTIONS / f"{stem}.ipynb").read_bytes() == tidied, "run coursekit build"
    assert (build.LABS / f"{stem}.ipynb").read_bytes() == built, "run coursekit build"
    assert written(parse(built)) == built
    for content in (tidied, built):
        nbformat.validate(nbformat.reads(content.decode(), as_version=4))


@pytest.mark.parametrize("stem", STEMS)
def test_solution_is_complete_and_executed(stem):
    notebook = solution(stem)
    assert build.faults(notebook, exercises(stem[:2])) == []
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert 4 <= len(exercises(stem[:2])) <= 7
    for c in code:
        assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in c.outputs)
    for e in exercises(stem[:2]):
        expected, done = copy.deepcopy(cell(notebook, f"{e.id}-check")), e.points
        merge.judge(expected, e)
        assert expected.source.endswith(cell(notebook, f"{e.id}-check").source)
        outputs = cell(notebook, f"{e.id}-check").outputs
        assert outputs[0].text == expected.outputs[0].text
        assert outputs[1].data["text/plain"] == str(done)
        assert PART.fullmatch(f"{e.id}-picture") and cell(notebook, f"{e.id}-picture").outputs
    words = "".join(c.source for c in notebook.cells)
    assert "go further" in words.lower() and f'check.summary("{stem[:2]}")' in words


def normal(line: str, least: int = TOKENS) -> str:
    """A line of code as its tokens alone; "" if it has fewer than `least`."""
    try:
        found = [t.string for t in tokenize.generate_tokens(io.StringIO(line.strip()).readline)
                 if t.string.strip() and t.type != tokenize.COMMENT]
    except (tokenize.TokenError, IndentationError, SyntaxError):
        found = re.findall(r"\w+|[^\w\s]", line.partition("#")[0])
    return " ".join(found) if len(found) >= least else ""


def answers(stem) -> set[str]:
    """The normalised lines of a solution's regions."""
    lines = [line for c in solution(stem).cells if c.cell_type == "code"
             for inside, line in build.regions(c.source, build.BEGIN, build.END) if inside]
    return {normal(line) for line in lines} - {""}


@pytest.mark.parametrize("stem", STEMS)
def test_no_line_of_a_solution_is_in_a_lab_or_in_a_check(stem):
    secret = answers(stem)
    assert len(secret) >= 5
    page = [line for c in lab(stem).cells for line in c.source.split("\n")]
    checks = (Path(cli.HOUSE) / "classroom" / "check").rglob("*.py")
    code = [line for path in checks for line in path.read_text(encoding="utf-8").split("\n")]
    assert secret & set(map(normal, page)) == set()
    assert secret & {normal(line, LONG) for line in code} - {""} == set()
    text = written(lab(stem)).decode()
    assert "BEGIN SOLUTION" not in text and "HIDDEN" not in text


@pytest.mark.parametrize("stem", STEMS)
def test_lab_has_blanks_ids_and_expected_pictures(stem):
    notebook = lab(stem)
    ids = [c.id for c in notebook.cells]
    for e in exercises(stem[:2]):
        assert "raise NotDoneYet" in cell(notebook, f"{e.id}-answer").source
        assert ids.index(f"{e.id}-expected") + 1 == ids.index(f"{e.id}-picture")
        given = cell(notebook, f"{e.id}-check").metadata["nbgrader"]
        assert (given["schema_version"], given["points"], given["grade"]) == (3, e.points, True)
    for c in notebook.cells:
        assert not c.get("outputs") and c.get("execution_count") is None
    assert len(written(notebook)) < 300_000


def small(**changes):
    """A solution's notebook of lab 05, spoilt by changes: cell id -> new source."""
    notebook = solution("05_ddim")
    for id, source in changes.items():
        cell(notebook, id.replace("_", "-")).source = source
    return notebook


@pytest.mark.parametrize(("changes", "words"), [
    ({"05_1_check": "sigma"}, 'must be check.ex("05-1", sigma)'),
    ({"05_1_answer": "x = 1"}, "does not define sigma"),
    ({"05_1_answer": "def sigma():\n    ### BEGIN SOLUTION\n    pass\n    ### END SOLUTION"},
     "docstring"),
    ({"05_1_text": "## 05-1 The noise of a hop"}, "Difficulty 1 of 5"),
    ({"05_1_text": "## A hop"}, "first line"),
    ({"setup": "pass\n" * 16}, "17 lines"),
    ({"setup": "### BEGIN SOLUTION\n### END SOLUTION"}, "outside an answer"),
])
def test_what_an_author_forgot_is_said(changes, words):
    assert words in "\n".join(build.faults(small(**changes), exercises("05")))


def test_missing_doubled_and_shuffled_cells_are_said():
    for spoil, words in ((lambda c, at: c.pop(at), "no cell 05-1-text"),
                         (lambda c, at: c.append(c[at]), "two cells of id '05-1-text'"),
                         (lambda c, at: c.insert(9, c.pop(at)), "not in this order")):
        notebook = solution("05_ddim")
        spoil(notebook.cells, [c.id for c in notebook.cells].index("05-1-text"))
        assert words in build.faults(notebook, exercises("05"))[0]


def test_hidden_tests_and_nested_indents_are_blanked():
    source = ("class A:\n    def f(self):\n        ### BEGIN SOLUTION\n        return 1\n"
              "        ### END SOLUTION\n    x = 1")
    assert build.blank(source) == ("class A:\n    def f(self):\n        # write your answer here\n"
                                   "        raise NotDoneYet\n    x = 1")
    hidden = f"a\n{build.HIDE}\nb\n{build.SHOW}\nc"
    assert build.without(hidden, build.HIDE, build.SHOW) == "a\nc"
    with pytest.raises(ValueError, match="has no end"):
        build.without(f"{build.HIDE}\nb", build.HIDE, build.SHOW)


# ---- merging: what a reader's notebook may hold ---------------------------------------------


def merged(notebook):
    return merge.merge(notebook, lab("05_ddim"), exercises("05"))


def test_answers_are_found_by_grade_id_then_cell_id_then_name():
    for strip, remark in ((lambda c: None, ""), (lambda c: c.metadata.pop("nbgrader"), ""),
                          (lambda c: (c.metadata.pop("nbgrader"), c.update(id="mine")),
                           "found by its name sigma")):
        theirs = lab("05_ddim")
        mine = cell(theirs, "05-1-answer")
        mine.source = "def sigma(schedule, t, s, eta):\n    return 42"
        strip(mine)
        result = merged(theirs)
        assert "return 42" in cell(result.notebook, "05-1-answer").source
        assert remark in "".join(result.found) and not result.missing


def test_ambiguous_and_missing_answers_are_not_guessed():
    theirs = lab("05_ddim")
    theirs.cells.append(copy.deepcopy(cell(theirs, "05-1-answer")))
    for id in ("05-2-answer", "05-2-check"):
        theirs.cells.remove(cell(theirs, id))
    result = merged(theirs)
    assert "2 cells have the grade_id 05-1-answer" in result.missing["05-1"]
    assert "no cell has the id 05-2-answer" in result.missing["05-2"]
    assert "05-2-check: the check is not there, the original was run" in result.found


def test_nothing_but_answers_is_taken():
    theirs = lab("05_ddim")
    theirs.metadata.kernelspec.name = "mine"
    theirs.metadata["execution"] = {"allow_errors": True}
    cell(theirs, "setup").source = "import sys; sys.exit()"
    cell(theirs, "05-1-check").source = "2"
    cell(theirs, "05-2-check").metadata["tags"] = ["raises-exception"]
    cell(theirs, "05-1-answer").source += "\n# NBVAL_SKIP"
    result = merged(theirs)
    said = "\n".join(result.found)
    for words in ("05-1-check: the check was edited", "raises-exception was left out",
                  "05-1-answer: the mark NBVAL_SKIP", "kernel 'mine'", "allow_errors"):
        assert words in said, said
    notebook = result.notebook
    assert "NBVAL_SKIP" not in cell(notebook, "05-1-answer").source
    assert cell(notebook, "05-1-check").source.endswith('\ncheck.ex("05-1", sigma)')
    assert cell(notebook, "setup").source == cell(lab("05_ddim"), "setup").source
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(set(c.metadata) <= {"tags"} for c in notebook.cells)


# ---- broken notebooks, and the commands -----------------------------------------------------

BROKEN = {
    "empty": b"", "cut": b'{"cells": [', "words": b"print(1)", "binary": bytes(range(256)),
    "list": b"[]", "number": b"3", "nothing": b"{}", "deep": b"[" * 100_000,
    "old": b'{"nbformat": 3, "worksheets": []}', "no cells": b'{"nbformat": 4}',
    "bad cell": b'{"nbformat": 4, "cells": [1]}',
    "no source": b'{"nbformat": 4, "cells": [{"cell_type": "code"}]}',
    "odd source": b'{"nbformat": 4, "cells": [{"cell_type": "code", "source": [1]}]}',
    "no metadata": b'{"nbformat": 4, "cells": []}',
    "odd metadata": b'{"nbformat": 4, "metadata": 3, "cells": []}',
    "other": b'{"nbformat": 4, "metadata": {}, "cells": []}',
}


def command(*args):
    with pytest.raises(SystemExit) as end:
        cli.main(list(args))
    return end.value.code


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_notebook_is_refused_in_one_line(tmp_path, capsys, content):
    (tmp_path / "work.ipynb").write_bytes(content)
    assert command("verify", str(tmp_path / "work.ipynb")) == 2
    said = capsys.readouterr().err
    assert said.startswith("coursekit: ") and said.count("\n") == 1 and "work.ipynb" in said


def test_what_is_not_there_is_refused(tmp_path, capsys):
    assert command("verify", str(tmp_path / "none.ipynb")) == 2
    assert command("build", "99_none") == 2
    assert "accepted are 0" in capsys.readouterr().err


def test_build_check_writes_nothing_and_says_what_differs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(build, "LABS", tmp_path / "labs")
    assert command("build", "05_ddim", "--check") == 1
    assert capsys.readouterr().out == "labs/05_ddim.ipynb\n" and not (tmp_path / "labs").exists()
    assert command("build", "05_ddim") == 0
    assert command("build", "05_ddim", "--check") == 0


@pytest.fixture
def half_done(monkeypatch):
    """Stands in for nbval: the first check passes, the second is half right, then all stops."""
    def results(merged):
        half = [{"output_type": "stream", "text": "05-2 1/4 a: ok\n05-2 2/4 b: not yet: c\n"
                 '05-2: 2 of 4 cases, 1 of 3 points; the same numbers again: ..\n'}]
        error = [{"output_type": "error", "ename": "NameError", "evalue": "name 'z'"}]
        return {"05-1-check": {"outcome": "passed", "outputs": []},
                "05-2-check": {"outcome": "failed", "outputs": half},
                "05-3-answer": {"outcome": "failed", "outputs": error},
                "05-3-check": {"outcome": "xfail", "outputs": []}}
    monkeypatch.setattr(verify, "run", results)


def test_the_table_and_its_exit_code(half_done, tmp_path, capsys):
    (tmp_path / "mine.ipynb").write_bytes(written(solution("05_ddim")))
    assert command("verify", str(tmp_path / "mine.ipynb")) == 1
    said = capsys.readouterr().out
    for words in ("05-1  The noise of a hop                done          2 of 2 points",
                  "left          1 of 3 points", "       05-2 2/4 b: not yet: c",
                  "NameError: name 'z'; an answer's cell must hold all that it uses",
                  "the check was not reached", "05_ddim: 1 of 6 done, 3 of 20 points",
                  "self-check"):
        assert words in said, said
    assert command("verify", str(tmp_path / "mine.ipynb"), "--json") == 1
    page = json.loads(capsys.readouterr().out)
    assert (page["lab"], page["points"], page["of"], page["done"]) == ("05_ddim", 3, 20, False)
    assert [row["verdict"] for row in page["exercises"]] == ["done", "left"] + 4 * ["error"]
    assert "self-check" in page["note"] and page["found"] == []


# ---- verify, for real ------------------------------------------------------------------------


def run(notebook, tmp_path, name="05_ddim.ipynb"):
    path = tmp_path / name
    path.write_bytes(written(notebook))
    return verify.verify(path)


def verdicts(result):
    return [row.verdict for row in result.exercises]


@pytest.mark.slow
@pytest.mark.parametrize("stem", STEMS)
def test_solved_and_unsolved_labs(stem, tmp_path):
    solved = run(solution(stem), tmp_path)
    assert solved.done and solved.points == solved.of and solved.found == []
    unsolved = run(lab(stem), tmp_path)
    assert set(verdicts(unsolved)) == {"not done yet"} and unsolved.points == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("stem", STEMS)
def test_an_unsolved_lab_runs_to_its_end(stem, tmp_path):
    from nbclient import NotebookClient

    notebook = lab(stem)
    NotebookClient(notebook, timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(o.get("text", "") for c in notebook.cells if c.cell_type == "code"
                   for o in c.outputs)
    own = exercises(stem[:2])
    for e in own:
        assert f"{e.id}: not done yet, 0 of {e.points} points" in said
    assert f"0 of {len(own)} done, 0 of {sum(e.points for e in own)} points" in said


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stem", STEMS)
def test_nbval_finds_no_difference_in_a_solution(stem):
    from test_lectures import run as nbval

    notebook = solution(stem)
    result, log = nbval(build.SOLUTIONS / f"{stem}.ipynb")
    assert result["failed"] == [], log[-3000:]
    assert result["passed"] == sum(c.cell_type == "code" for c in notebook.cells)
    assert result["compared"] == len(exercises(stem[:2]))


@pytest.mark.slow
def test_the_time_limit_works_in_a_kernel():
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell, new_notebook

    source = ("from coursekit.classroom import check\n\ndef sigma(schedule, t, s, eta):\n"
              "    while True:\n        pass\n\ncheck.ex('05-1', sigma)")
    book = new_notebook(cells=[new_code_cell(source)])
    NotebookClient(book, timeout=120, kernel_name="python3").execute()
    said = book.cells[0].outputs[0].text
    assert "05-1 1/5 a long hop, eta one: not yet: no answer after 5 s" in said
    assert "05-1 5/5 the hop that ends at level zero: not yet: left out" in said or \
        "not yet: the same" in said


HACKED = "def {name}(*args):\n    return 0\n"


@pytest.mark.slow
def test_verify_is_not_fooled(tmp_path):
    """Every trick at once, on wrong answers: no point is given, and each trick is named."""
    theirs = solution("05_ddim")
    theirs.metadata.kernelspec.name = "nowhere"
    theirs.metadata["allow_errors"] = True
    for e in exercises("05"):
        cell(theirs, f"{e.id}-answer").source = HACKED.format(name=e.name)  # outputs: all "done"
    theirs.cells.remove(cell(theirs, "05-1-check"))
    cell(theirs, "05-2-check").source = "3"
    cell(theirs, "05-3-check").metadata["tags"] = ["nbval-skip"]
    cell(theirs, "05-4-answer").source = "# NBVAL_SKIP\n" + HACKED.format(name="sample")
    cell(theirs, "05-5-check").outputs = []
    cell(theirs, "05-5-answer").source += "check = type('C', (), {'ex': lambda *a: 4})"
    cell(theirs, "05-6-check").source = "# NBVAL_IGNORE_OUTPUT\ncheck.ex('05-6', sweep)"
    theirs.cells.append(copy.deepcopy(cell(theirs, "05-6-check")))
    result = run(theirs, tmp_path)
    assert result.points == 0 and not result.done
    assert set(verdicts(result)) == {"left"}
    said = "\n".join(result.found)
    for words in ("05-1-check: the check is not there", "05-2-check: the check was edited",
                  "nbval-skip", "NBVAL_SKIP", "NBVAL_IGNORE_OUTPUT", "'nowhere'", "allow_errors",
                  "05-6-check: 2 cells have this id"):
        assert words in said, said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_answers_that_break_things_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "CELL_SECONDS", 20)
    theirs = solution("05_ddim")
    cell(theirs, "05-1-answer").source += "\n    return ("  # a syntax error
    cell(theirs, "05-2-answer").source = "helper = 1\n" + cell(theirs, "05-2-answer").source
    cell(theirs, "05-4-answer").source = "while True:\n    pass"
    cell(theirs, "05-5-answer").source = "import os\nos._exit(0)\ndef slerp(a, b, share): ..."
    result = run(theirs, tmp_path)
    assert verdicts(result)[:4] == ["error", "done", "left", "error"]
    assert result.exercises[4].verdict == result.exercises[5].verdict == "error"
    assert result.points == 3


# ---- nbgrader and the wheel ------------------------------------------------------------------

CONFIG = """
c = get_config()
c.CourseDirectory.course_id = "course"
c.ClearSolutions.code_stub = {"python": %r}
c.ExecutePreprocessor.timeout = 120
c.ExecutePreprocessor.iopub_timeout = 60
""" % build.BLANK


def without_pictures(cells):
    """The code before the first exercise, the answers and the checks."""
    first = next(i for i, c in enumerate(cells) if PART.fullmatch(c.id))
    return [c for i, c in enumerate(cells) if c.cell_type == "code"
            and (i < first or c.id.endswith(("-answer", "-check")))]


def nbgrader(folder, *args):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run([sys.executable, "-m", "nbgrader", *args], cwd=folder, timeout=600,
                          env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},  # for alembic
                          capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("stem", STEMS)
def test_nbgrader_accepts_the_source_and_gives_an_unsolved_lab_nothing(stem, tmp_path):
    pytest.importorskip("nbgrader")
    (tmp_path / "nbgrader_config.py").write_text(CONFIG)
    source = tmp_path / "source" / stem
    source.mkdir(parents=True)
    (source / f"{stem}.ipynb").write_bytes(build.build(stem)[0])
    made = nbgrader(tmp_path, "generate_assignment", stem)
    assert made.returncode == 0, made.stderr[-2000:]
    released = read(tmp_path / "release" / stem / f"{stem}.ipynb")
    ours = {c.id: c.source for c in lab(stem).cells}
    for c in released.cells:
        assert c.source.strip() == ours[c.id].strip(), c.id
    handed = tmp_path / "submitted" / "ada" / stem
    handed.mkdir(parents=True)
    (handed / f"{stem}.ipynb").write_bytes((tmp_path / "release" / stem / f"{stem}.ipynb")
                                           .read_bytes())
    graded = nbgrader(tmp_path, "autograde", stem)
    assert graded.returncode == 0, graded.stderr[-2000:]
    checked = read(tmp_path / "autograded" / "ada" / stem / f"{stem}.ipynb")
    for e in exercises(stem[:2]):
        outputs = cell(checked, f"{e.id}-check").outputs
        assert [o.data["text/plain"] for o in outputs if o.output_type == "execute_result"] == ["0"]
    whole = read(source / f"{stem}.ipynb")
    whole.cells = without_pictures(whole.cells)  # that the rest runs, nbval shows
    (source / "short.ipynb").write_bytes(written(whole))
    valid = nbgrader(tmp_path, "validate", str(source / "short.ipynb"))
    assert "Success" in valid.stdout + valid.stderr, valid.stdout[-2000:] + valid.stderr[-2000:]


@pytest.mark.slow
def test_the_wheel_holds_labs_and_no_solution(tmp_path):
    import zipfile

    made = subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w",
                           str(tmp_path), str(ROOT)], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no wheel could be built here: {made.stderr[-300:]}")
    secret = set().union(*map(answers, STEMS))
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        for stem in STEMS:
            assert f"coursekit/labs/given/{stem}.ipynb" in names
        assert not any("solutions" in n or "mutants" in n for n in names)
        for name in names:
            if name.startswith(("coursekit/classroom/", "coursekit/labs/")):
                text = wheel.read(name).decode("utf-8", "ignore")
                lines = [json.loads(f'"{m}"') for m in re.findall(r'^\s+"(.*?)\\n",?$', text, re.M)
                         ] if name.endswith(".ipynb") else text.split("\n")
                least = TOKENS if name.endswith(".ipynb") else LONG
                assert secret & {normal(line, least) for line in lines} == set(), name
