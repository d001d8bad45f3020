"""Who grades may die, fail or be stopped at any point: no result changes, none is lost."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil
import pytest

import fakes
from coursekit.grading import crew
from coursekit.grading.hands import Cluster, Local, Process
from coursekit.grading.record import Submission
from coursekit.grading.store import Store
from fakes import GROUND, submissions

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)])}


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "results.sqlite") as store:
        yield store


@pytest.fixture(scope="module")
def hands():
    hands = Local(2)
    yield hands
    hands.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(crew, "BACKOFF", (0.01, 0.02))


def run(work, store, hands, **options):
    return crew.run(work, "05", store, **{"key": b"k" * 32, "ground": GROUND, "hands": hands,
                                          "grade": fakes.grade, **options})


def table(store):
    """What the store holds, whatever the order in which it came."""
    return sorted((r.submission, variant, r.to_json()) for _, variant, r in store.rows("05"))


# ---- what is done

def test_each_is_graded_once_and_a_rerun_does_nothing(store, hands):
    events = list(run(submissions(20), store, hands, total=20))
    assert {e.kind for e in events} == {"graded"} and len(table(store)) == 20
    assert {e.hand_in.student: e.record for e in events} == {
        s.student: fakes.record(s.content) for s in submissions(20)}
    before = table(store)
    again = list(run(submissions(20), store, hands))
    assert {e.kind for e in again} == {"known"} and table(store) == before
    assert [e.record for e in again] == [fakes.record(s.content) for s in submissions(20)]


def test_progress_counts_hand_ins_and_verdicts(store, hands):
    events = list(run(submissions(12), store, hands, total=12))
    assert [e.done for e in events] == list(range(1, 13)) and {e.total for e in events} == {12}
    wanted = Counter(x.verdict for s in submissions(12)
                     for x in fakes.record(s.content).exercises)
    assert events[-1].verdicts == wanted and events[-1].eta == 0
    assert all(e.eta > 0 and e.seconds >= 0 for e in events[:-1])


def test_equal_bytes_are_graded_once_for_all_who_handed_them_in(store, hands):
    work = [Submission(name, b"slow the same", name) for name in ("anna", "ben", "cleo")]
    events = list(run(work, store, hands))
    assert sorted(e.hand_in.student for e in events) == ["anna", "ben", "cleo"]
    assert len(table(store)) == 1
    events = list(run(work, store, hands, regrade=True))
    assert len(table(store)) == 2 and all(e.before == e.record for e in events)


def test_variants_of_equal_bytes_are_graded_apart(store, hands):
    work = [Submission(name, b"the same", name) for name in ("anna", "ben")]
    list(run(work, store, hands, variant=lambda student: student[0]))
    assert [variant for _, variant, _ in table(store)] == ["a", "b"]


def test_what_has_no_bytes_is_noted_and_what_is_empty_is_graded(store, hands):
    work = [Submission("anna", None, "anna/", problem="no notebook in it"),
            Submission("ben", b"", "ben.ipynb")]
    anna, ben = run(work, store, hands)
    assert (anna.kind, anna.words, anna.record) == ("nothing", "no notebook in it", None)
    assert ben.kind == "graded" and len(store.handed_in("05")) == 2


# ---- what goes wrong

def without(store, bad):
    return [row for row in table(store) if row[0] != fakes.record(bad).submission]


@pytest.mark.parametrize("words, said", [
    ("infra", "05-1: no sandbox"), ("raises", "ZeroDivisionError: a defect of ours"),
    ("dies-always", "the process that graded ended"),
    ("elsewhere", "who graded has another environment: start again")])
def test_what_fails_for_our_reasons_is_tried_three_times_and_is_no_result(store, hands, words, said):
    work = [*submissions(6), Submission("zoe", words.encode(), "zoe.ipynb")]
    events = [e for e in run(work, store, hands) if e.hand_in.student == "zoe"]
    assert [e.kind for e in events] == ["again", "again", "failed"]
    assert all(said in e.words for e in events) and events[-1].record is None
    assert without(store, work[-1].content) == table(store)
    assert [r for _, _, r in table(store)] == sorted(
        [fakes.record(s.content).to_json() for s in submissions(6)],
        key=lambda text: fakes.Record.from_json(text).submission)
    assert {e.kind for e in run(work[:6], store, hands)} == {"known"}


def test_a_process_that_dies_is_replaced_and_the_result_is_the_same(store, hands, tmp_path):
    dies = f"dies {tmp_path / 'tries'}".encode()
    events = list(run([*submissions(4), Submission("zoe", dies, "z")], store, hands))
    assert [e.kind for e in events if e.hand_in.student == "zoe"] == ["again", "again", "graded"]
    assert len(table(store)) == 5


def test_a_process_that_says_nothing_is_ended(store, monkeypatch):
    monkeypatch.setattr("coursekit.grading.hands.PATIENCE", 0.1)
    hands = Local(1)
    try:
        warm = list(run(submissions(1), store, hands))[-1]
        events = list(run([Submission("zoe", b"slow", "z")], store, hands))
    finally:
        hands.close()
    assert warm.kind in ("graded", "failed")  # 0.1 s may not do for a process to start
    assert [e.kind for e in events] == ["again", "again", "failed"]
    assert "said nothing for 0.1 s" in events[-1].words


def test_an_unreadable_store_stops_at_once(store, hands):
    store.db.close()
    with pytest.raises(OSError):
        list(run(submissions(3), store, hands))


# ---- kill -9, Ctrl-C

DRIVER = """
import sys
from contextlib import closing
from pathlib import Path
import fakes
from coursekit.grading import crew
from coursekit.grading.hands import Local
from coursekit.grading.store import Store
if __name__ == "__main__":
    hands = Local(2)
    try:
        with Store(Path(sys.argv[1])) as store, closing(crew.run(
                fakes.submissions(int(sys.argv[2])), "05", store, key=b"k" * 32,
                ground=fakes.GROUND, hands=hands, grade=fakes.grade)) as events:
            for event in events:
                print(event.done, flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        hands.close()
"""


@pytest.fixture
def driver(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)

    def start(n, path=tmp_path / "results.sqlite"):
        return subprocess.Popen([sys.executable, str(tmp_path / "driver.py"), str(path), str(n)],
                                env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                start_new_session=True)
    return start


def gone(processes, seconds):
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.slow
def test_killed_at_twenty_random_points_the_table_is_the_same(driver, store, tmp_path):
    n, dice, seen = 400, random.Random(5), []
    for kill in range(20):
        child = driver(n)
        for _ in range(dice.randint(0, 25)):  # events, then a little more: also within a write
            if not child.stdout.readline():
                break
        time.sleep(dice.random() / 50)
        family = psutil.Process(child.pid).children(recursive=True)
        child.kill()
        child.communicate()
        assert gone(family, 5), f"kill {kill} left a process"
        seen.append(len(table(store)))
    assert seen == sorted(seen) and 0 < seen[-1] < n
    assert driver(n).wait(60) == 0
    whole = table(store)
    assert driver(n, tmp_path / "other.sqlite").wait(60) == 0
    with Store(tmp_path / "other.sqlite") as other:
        assert whole == table(other) and len(whole) == n


def test_ctrl_c_ends_all_processes_and_keeps_what_was_done(driver, store):
    child = driver(100_000)
    for _ in range(30):
        child.stdout.readline()
    family = psutil.Process(child.pid).children(recursive=True)
    os.killpg(child.pid, signal.SIGINT)  # as a terminal does
    out, err = child.communicate(timeout=20)
    assert child.returncode == 130 and err == b"" and gone(family, 5)
    assert len(table(store)) >= 30


def test_a_process_does_not_hear_ctrl_c_while_it_starts():
    process = Process()
    try:
        for _ in range(100):
            os.kill(process._process.pid, signal.SIGINT)
            time.sleep(0.002)
        assert process.do((math.sqrt, (4,), {}))[0] == 2
    finally:
        process.kill()


# ---- memory

def test_memory_does_not_grow_with_the_class(store, hands):
    """1,000 notebooks of 100 kB would be 100 MB if they were held."""
    me = psutil.Process()
    work = submissions(1_000, "notebook {i} " + 100_000 * "x")
    with closing(run(work, store, hands)) as events:
        for event in events:
            if event.done == 100:
                before = me.memory_info().rss
    grown = (me.memory_info().rss - before) / 2**20
    assert event.done == 1_000 and grown < 10, f"{grown:.1f} MB more after 900 submissions"


# ---- a cluster

@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(n_workers=3, threads_per_worker=1, processes=True, dashboard_address=":0",
                      silence_logs=50) as cluster:
        yield cluster


@pytest.fixture
def many(cluster):
    hands = Cluster(cluster.scheduler_address)
    yield hands
    hands.close()


@pytest.mark.slow
def test_a_cluster_gives_the_same_table_as_one_machine(store, hands, many, tmp_path):
    events = list(run(submissions(60), store, many))
    assert {e.kind for e in events} == {"graded"}
    with Store(tmp_path / "one.sqlite") as one:
        list(run(submissions(60), one, hands))
        assert table(one) == table(store)
    assert {e.kind for e in run(submissions(60), store, many)} == {"known"}


@pytest.mark.slow
def test_a_lost_worker_of_a_cluster_costs_no_result(store, many):
    pids = many.everywhere(os.getpid)
    killed = False
    work = submissions(30, "slow notebook {i}")
    for event in run(work, store, many):
        if event.done == 3 and not killed:
            os.kill(min(pids.values()), signal.SIGKILL)
            killed = True
        assert event.kind in ("graded", "again"), event
    assert killed and len(table(store)) == 30


@pytest.mark.slow
def test_a_submission_that_ends_workers_of_a_cluster_is_ours_to_put_right(store, many, tmp_path):
    work = [*submissions(5), Submission("zoe", f"dies {tmp_path / 'tries'}".encode(), "z")]
    events = list(run(work, store, many))
    assert [e.kind for e in events if e.hand_in.student == "zoe"][-1] == "graded"
    assert len(table(store)) == 6


@pytest.mark.slow
def test_a_cluster_that_is_gone_is_one_line(store, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.setattr("coursekit.grading.hands.FIND_SECONDS", 3.0)
    cluster = LocalCluster(n_workers=1, threads_per_worker=1, processes=True,
                           dashboard_address=":0", silence_logs=50)
    hands = Cluster(cluster.scheduler_address)
    with pytest.raises(OSError, match="the scheduler is gone"):
        for event in run(submissions(200, "slow {i}"), store, hands):
            if event.done == 2:
                cluster.close()
    hands.close()
    assert len(table(store)) >= 2


def test_an_address_where_nobody_answers_is_refused(monkeypatch):
    monkeypatch.setattr("coursekit.grading.hands.FIND_SECONDS", 0.5)
    for address in ("tcp://127.0.0.1:9", "nonsense://x"):
        with pytest.raises(ValueError, match=f"--dask='{address}': there is no scheduler"):
            Cluster(address)
    with pytest.raises(ValueError, match="names no certificates, accepted are distributed.comm.tls"):
        Cluster("tls://127.0.0.1:9")
