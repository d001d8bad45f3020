"""`coursekit grade`, `override`, `appeal`: what they write, what they say, with which code.

`COURSEKIT_CLASS=100 COURSEKIT_KILLS=20 pytest tests/grading/test_grade_cli.py -k bytes` grades a
class of a hundred, again with other numbers of jobs, and again while it is killed twenty times; a
plain run takes six notebooks and two kills.
"""

import csv
import json
import os
import random
import re
import signal
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

import fakes
import handed
import mixed
from coursekit import cli
from coursekit.grading import crew, hands, marking, sandbox, trusted
from coursekit.grading.folder import Folder
from coursekit.grading.report.line import ABSENT
from coursekit.grading.store import Store

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
WALLS = pytest.mark.skipif(bool(sandbox.refusal()), reason=sandbox.refusal() or "walls stand")


def call(capsys, *args):
    """Exit code, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err


def refused(capsys, *args):
    code, out, err = call(capsys, *args)
    lines = [line for line in err.splitlines() if line.startswith("coursekit: ")]
    assert code == 2 and out == "" and len(lines) == 1
    return lines[0]


def ground(assignment=fakes.GROUND.assignment):
    return lambda lab, hands, unsafe: crew.Ground(
        assignment, fakes.GROUND.environment, ("rlimits",) if unsafe else ("paper",))


def with_paper(monkeypatch):
    monkeypatch.setattr(marking, "ground", ground())
    monkeypatch.setattr(marking, "grade", partial(marking.grade, function=fakes.grade))
    monkeypatch.setattr(hands, "Local", fakes.Inline)
    monkeypatch.setattr(crew, "BACKOFF", (0.0, 0.0))


@pytest.fixture
def paper(monkeypatch, tmp_path):
    """A grader of paper in place of the real one, and three submissions."""
    monkeypatch.chdir(tmp_path)
    with_paper(monkeypatch)
    for i, name in enumerate(("anna", "ben", "cleo")):
        hand_in(name, f"notebook {i}")
    return tmp_path


def hand_in(name, words):
    Path("in", name).mkdir(parents=True, exist_ok=True)
    Path("in", name, "05_ddim.ipynb").write_text(words)


def grade(capsys, *more):
    return call(capsys, "grade", "in", "--lab", "05", "--out", "out", "--jobs", "1", *more)


def rows(folder="out"):
    with Path(folder, "marks.csv").open(encoding="utf-8-sig", newline="") as stream:
        return {row["student"]: row for row in csv.DictReader(stream)}


def log(folder="out"):
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def outputs(folder):
    """All that is made of the marks, which is all but key, results and log."""
    own = ("course.key", "log.jsonl", "results.sqlite", "results.sqlite-shm", "results.sqlite-wal")
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*")
            if p.is_file() and p.name not in own}


# ---- a run

def test_a_class_is_graded_and_a_rerun_grades_nothing(capsys, paper):
    code, out, err = grade(capsys)
    assert code == 0 and "3 students, 3 graded now, 0 known" in out
    assert "walls around every answer: paper" in out and "a new course key is in" in err
    before = outputs("out")
    assert {"marks.csv", "nbgrader.csv", "index.html", "overview.html", "similar.html",
            "students/anna.html", "gradescope/anna.json"} <= set(before)
    code, out, err = grade(capsys)
    assert code == 0 and "0 graded now, 3 known" in out and "new course key" not in err
    assert outputs("out") == before
    wanted = {s: fakes.record(Path("in", s, "05_ddim.ipynb").read_bytes()) for s in rows()}
    assert {s: row["points"] for s, row in rows().items()} == {
        s: str(r.points) for s, r in wanted.items()}


def test_the_folder_and_the_key_are_the_owners_alone(capsys, paper):
    grade(capsys)
    assert stat.S_IMODE(os.stat("out").st_mode) == 0o700
    assert stat.S_IMODE(os.stat("out/course.key").st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{64}\n", Path("out/course.key").read_text())


def test_the_log_has_a_line_an_event_with_times_and_reports_have_none(capsys, paper):
    grade(capsys)
    found = log()
    assert [e["event"] for e in found] == ["begin", "graded", "graded", "graded", "end"]
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", e["at"]) for e in found)
    assert found[0]["walls"] == ["paper"] and found[-1]["students"] == 3
    day = found[0]["at"][:10].encode()
    assert not any(day in content for content in outputs("out").values())


def test_json_is_one_object(capsys, paper):
    code, out, _ = grade(capsys, "--json")
    page = json.loads(out)
    assert code == 0 and page["events"] == {"graded": 3} and page["settled"] is True
    assert page["layers"] == ["paper"] and page["open"] == []


def test_what_could_not_be_graded_is_code_1_and_touches_nobody_else(capsys, paper):
    grade(capsys)
    before = outputs("out")
    hand_in("zoe", "infra")
    code, out, _ = grade(capsys)
    assert code == 1 and "to be looked at: zoe: could not be graded, try again: 05-1: no" in out
    after = outputs("out")
    assert after["students/anna.html"] == before["students/anna.html"]
    assert (rows()["zoe"]["points"], rows()["zoe"]["05-1 verdict"]) == ("0", "")
    assert [e["event"] for e in log() if e.get("student") == "zoe"] == ["again", "again", "failed"]
    hand_in("zoe", "a better day")
    assert grade(capsys)[0] == 0


def test_regrading_says_what_has_changed(capsys, paper):
    grade(capsys)
    with Store(Path("out/results.sqlite")) as store:
        anna = fakes.record(b"notebook 0", exercises=(fakes.exercise("05-1", "wrong", 0, 2),
                                                      fakes.exercise("05-2", "correct", 3, 3)))
        store.put(anna, again=True)
    assert "3 known" in grade(capsys)[1] and rows()["anna"]["points"] == "3"
    code, out, _ = grade(capsys, "--regrade")
    assert code == 0 and "3 graded now, 0 known" in out
    assert "changed by regrading: anna: 05-1 wrong 0 -> correct 2" in out
    assert out.count("changed by regrading") == 1


def test_without_walls_is_refused_and_unsafe_is_stamped(capsys, paper, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(paper)
    monkeypatch.setattr(sandbox, "refusal", lambda: "bubblewrap is not installed")
    monkeypatch.setattr(sandbox, "layers", lambda: ())
    words = refused(capsys, "grade", "in", "--lab", "05", "--out", "out")
    assert "bubblewrap is not installed. --unsafe runs them without walls" in words
    assert not Path("out").exists()
    with_paper(monkeypatch)
    code, out, _ = grade(capsys, "--unsafe")
    assert code == 0 and "UNTRUSTED: answers ran without walls" in out and "walls around" not in out
    assert all(b"untrusted" in content.lower() for name, content in outputs("out").items()
               if name != "similar.csv")
    code, out, _ = grade(capsys)  # what was untrusted is no result of a run with walls
    assert "3 graded now, 0 known" in out and rows()["anna"]["trust"] == "trusted"


def test_who_is_on_the_roster_and_handed_in_nothing_is_listed(capsys, paper):
    Path("class.csv").write_text("student\nanna\nben\ncleo\nDora\n")
    code, out, _ = grade(capsys, "--roster", "class.csv")
    assert code == 0 and "1 without a notebook" in out
    assert (rows()["Dora"]["points"], rows()["Dora"]["to be looked at"]) == ("0", ABSENT)
    assert "nothing handed in" in Path("out/index.html").read_text()


def test_lateness_takes_points_off(capsys, paper):
    for name, when in (("anna", "2026-05-04 21:00:00 UTC"), ("ben", "2026-05-05 23:00:00 UTC")):
        folder = Path("sub/submitted", name, "05_ddim")
        folder.mkdir(parents=True)
        (folder / "05_ddim.ipynb").write_text("notebook 5")
        (folder / "timestamp.txt").write_text(when)
    Path("late.toml").write_text('deadline = 2026-05-04T22:00:00+00:00\n[late]\noff = 10\n')
    code, _, _ = call(capsys, "grade", "sub", "--lab", "05", "--out", "out", "--jobs", "1",
                      "--policy", "late.toml")
    anna, ben = rows()["anna"], rows()["ben"]
    full = fakes.record(b"notebook 5").points
    assert code == 0 and float(anna["points"]) == full
    assert float(ben["points"]) == pytest.approx(0.8 * full) and ben["hours late"] == "25"
    nbgrader = Path("out/nbgrader.csv").read_text().splitlines()
    assert "2026-05-04 22:00:00,2026-05-05 23:00:00,ben" in nbgrader[2]


def test_variants_give_equal_notebooks_results_of_their_own(capsys, paper):
    for name in ("anna", "ben", "cleo"):
        hand_in(name, "the same")
    assert "3 graded now" in grade(capsys, "--variants")[1]
    with Folder(Path("out")) as folder:
        assert len({variant for _, variant, _ in folder.store.rows("05")}) == 3


def test_names_do_nothing_to_the_terminal(capsys, paper):
    hand_in("x\x1b[31m\u202e", "infra")
    code, out, err = grade(capsys)
    assert code == 1 and "\x1b" not in out + err and "\u202e" not in out + err


# ---- override

def test_a_mark_set_by_hand_counts_and_is_kept_with_its_reason(capsys, paper):
    grade(capsys)
    before = rows()["anna"]
    code, out, _ = call(capsys, "override", "anna", "05-3", 2, "--reason", "on paper", "--by", "P",
                        "--out", "out")
    assert code == 0 and "05-3 of anna: 2 of 3 points, by P" in out
    code, out, _ = grade(capsys)
    assert code == 0 and "0 graded now, 3 known" in out
    assert float(rows()["anna"]["points"]) == float(before["points"]) + 2
    assert "05-3: 2 by P" in rows()["anna"]["set by hand"] and "on paper" in \
        Path("out/students/anna.html").read_text()
    assert [e["reason"] for e in log() if e["event"] == "override"] == ["on paper"]
    with Store(Path("out/results.sqlite")) as store:
        kept = {r.submission: r for _, _, r in store.rows("05")}
    wanted = [fakes.record(b"notebook %d" % i) for i in range(3)]
    assert kept == {r.submission: r for r in wanted}


@pytest.mark.parametrize("args, words", [
    (["nobody", "05-3", 1, "--reason", "r", "--by", "b"], "STUDENT='nobody' has not handed in"),
    (["anna", "05-3", 9, "--reason", "r", "--by", "b"], "POINTS=9: accepted are 0..3 for 05-3"),
    (["anna", "05-9", 1, "--reason", "r", "--by", "b"], "EXERCISE='05-9' is not known: accepted are 05-1"),
    (["anna", "05-3", 1, "--reason", " ", "--by", "b"], "--reason=''"),
    (["anna", "05-3", 1, "--by", "b"], "--reason"),
], ids=str)
def test_an_override_that_cannot_be_is_refused(capsys, paper, args, words):
    grade(capsys)
    assert words in refused(capsys, "override", *args, "--out", "out")
    with Store(Path("out/results.sqlite")) as store:
        assert store.overrides("05") == {}


# ---- refusals

@pytest.mark.parametrize("args, words", [
    (["nowhere", "--lab", "05"], "SUBMISSIONS='nowhere': there is no such folder or archive"),
    (["in", "--lab", "05", "--jobs", "2", "--dask", "tcp://x:1"], "--jobs and --dask"),
    (["in", "--lab", "05", "--jobs", "0"], "'--jobs': '0'; accepted is a whole number 1..256"),
    (["in", "--lab", "99"], "'99'"), (["empty", "--lab", "05"], "'empty' holds no notebook"),
    (["in", "--lab", "05", "--key", "no.key"], "--key='no.key': there is no such file"),
    (["in", "--lab", "05", "--policy", "no.toml"], "'no.toml': there is no such file"),
    (["in", "--lab", "05", "--roster", "more.csv"], "has extensions, but there is no deadline"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_arguments_are_refused_in_a_line(capsys, paper, args, words):
    Path("empty").mkdir()
    Path("more.csv").write_text("student,extension\nanna,48 hours\n")
    assert words in refused(capsys, "grade", *args, "--out", "out")
    assert not Path("out/marks.csv").exists()


def test_nothing_heavy_is_imported_to_refuse():
    code = ("import sys; from coursekit.cli import main\n"
            "try: main(['grade', 'nowhere', '--lab', '05'])\n"
            "finally: print([m for m in ('torch', 'numpy', 'jinja2') if m in sys.modules])")
    answer = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True,
                            text=True)
    assert answer.stdout == "[]\n" and answer.returncode == 2


@pytest.mark.parametrize("content, mode, words", [
    ("a" * 64, 0o640, "may be read by others (mode 640)"), ("a" * 63, 0o600, "is no key"),
    ("", 0o600, "is no key"), ("xyz" * 40, 0o600, "is no key")])
def test_a_key_that_is_none_or_no_secret_is_refused(capsys, paper, content, mode, words):
    Path("my.key").write_text(content)
    Path("my.key").chmod(mode)
    assert words in refused(capsys, "grade", "in", "--lab", "05", "--out", "out", "--key", "my.key")


def test_results_stay_with_their_key(capsys, paper):
    grade(capsys)
    key = Path("out/course.key").rename("elsewhere.key")
    assert "is missing, but there are results" in refused(
        capsys, "grade", "in", "--lab", "05", "--out", "out")
    Path("other.key").write_text("b" * 64)
    Path("other.key").chmod(0o600)
    assert "is not the key that the results" in refused(
        capsys, "grade", "in", "--lab", "05", "--out", "out", "--key", "other.key")
    assert "3 known" in grade(capsys, "--key", key)[1]


def test_appeal_needs_results(capsys, paper):
    assert "--out='out' holds no results" in refused(
        capsys, "appeal", "in", "anna", "--lab", "05", "--out", "out")


def test_a_reader_of_another_version_is_told_to_grade_first(capsys, paper, monkeypatch):
    grade(capsys)
    monkeypatch.setattr(marking, "ground", ground("b" * 64))
    code, out, _ = grade(capsys)
    assert code == 1 and "3 failed" in out and "start again" in out


# ---- the real thing

CLASS, KILLS = (int(os.environ.get(f"COURSEKIT_{name}", plain))
                for name, plain in (("CLASS", "6"), ("KILLS", "2")))


def run(folder, out, *more, **options):
    command = [sys.executable, "-m", "coursekit", "grade", folder, "--lab", "05", "--out", out,
               *more]
    return subprocess.Popen([str(part) for part in command], env=ENVIRONMENT, cwd=ROOT,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Real notebooks, graded by two processes: their folder, the results, the seconds."""
    folder = tmp_path_factory.mktemp("real")
    mixed.hand_in(folder / "in", CLASS)
    begun = time.monotonic()
    child = run(folder / "in", folder / "out", "--jobs", "2")
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, out + err
    return folder, time.monotonic() - begun


@WALLS
@pytest.mark.slow
def test_real_notebooks_get_the_marks_that_their_answers_earn(real):
    folder, _ = real
    found = rows(folder / "out")
    with Store(folder / "out/results.sqlite") as store:
        records = {r.submission: r for _, _, r in store.rows("05")}
    for student, content in mixed.notebooks(CLASS):
        record = records[fakes.record(content).submission]
        assert found[student]["points"] == str(record.points) and record.trusted
    assert found["student000"]["points"] == "20"  # right throughout
    assert 0 < float(found["student001"]["points"]) < 20
    assert "not-attempted" in found["student002"].values()


@WALLS
@pytest.mark.slow
def test_graded_twice_the_bytes_are_the_same(real):
    folder, _ = real
    child = run(folder / "in", folder / "twice", "--jobs", "1", "--key", folder / "out/course.key")
    out, err = child.communicate(timeout=600)
    assert child.returncode == 0, out + err
    assert f"{CLASS} students" in out and " 0 graded now" not in out
    assert outputs(folder / "twice") == outputs(folder / "out")


@WALLS
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_and_resumed_the_bytes_are_the_same(real):
    """Killed at random points, of the start, the grading and the reports; twice or more."""
    folder, seconds = real
    dice, key, whole, kills = random.Random(3), folder / "out/course.key", 0, 0
    while kills < KILLS or not whole:
        child = run(folder / "in", folder / f"again{whole}", "--jobs", "1", "--key", key,
                    start_new_session=True)
        try:
            patience = 1.1 * seconds * dice.random() if kills < KILLS else 600
            out, err = child.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            family, kills = psutil.Process(child.pid).children(recursive=True), kills + 1
            child.kill()
            child.communicate()
            assert not psutil.wait_procs(family, timeout=10)[1]
        else:
            assert child.returncode == 0, out + err
            assert outputs(folder / f"again{whole}") == outputs(folder / "out")
            whole += 1


@WALLS
@pytest.mark.slow
def test_ctrl_c_ends_everything_and_what_was_graded_is_kept(real):
    folder, _ = real
    child = run(folder / "in", folder / "stopped", "--jobs", "2", "--key",
                folder / "out/course.key", start_new_session=True)
    while not (folder / "stopped/log.jsonl").exists() or \
            '"graded"' not in (folder / "stopped/log.jsonl").read_text():
        time.sleep(0.05)
        assert child.poll() is None, child.communicate()
    family = psutil.Process(child.pid).children(recursive=True)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and "coursekit: stopped by Ctrl-C: what has been graded" in err
    assert not psutil.wait_procs(family, timeout=10)[1] and "Traceback" not in err
    assert log(folder / "stopped")[-1]["event"] == "stopped"
    with Store(folder / "stopped/results.sqlite") as store:
        assert 1 <= len(list(store.rows("05"))) < CLASS


@WALLS
@pytest.mark.slow
def test_an_appeal_draws_the_same_cases_and_shows_what_came(real, capsys):
    folder, _ = real
    code, out, _ = call(capsys, "appeal", folder / "in", "student001", "--lab", "05", "--out",
                        folder / "out")
    assert code == 0 and out.endswith("the same as on record\n")
    for e in handed.answers("05"):
        assert re.search(rf"(?m)^{e} ", out)
    assert out.count("      wanted  ") == out.count("      came    ") > 20
    code, out, _ = call(capsys, "appeal", folder / "in", "student001", "--lab", "05", "--out",
                        folder / "out", "--unsafe")
    assert code == 1 and "there is no result on record to compare with" in out


@WALLS
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_gives_the_same_bytes(real, monkeypatch, capsys):
    from distributed import LocalCluster

    folder, _ = real
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0",
                      silence_logs=50) as cluster:
        code, out, _ = call(capsys, "grade", folder / "in", "--lab", "05", "--out",
                            folder / "many", "--dask", cluster.scheduler_address, "--key",
                            folder / "out/course.key")
        assert code == 0 and f"{CLASS} students" in out and " 0 graded now" not in out
        many = hands.Cluster(cluster.scheduler_address)
        there = marking.ground("05", many, unsafe=False)
        many.close()
    assert there.assignment == trusted.assignment("05") and there.layers == sandbox.layers()
    assert outputs(folder / "many") == outputs(folder / "out")
