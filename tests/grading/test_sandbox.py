"""The walls: what stands where, what is seen inside, and that nothing outlives them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from handed import alone

from coursekit.grading import sandbox, seccomp, slot, view
from coursekit.grading.line import Ended, Line, ending
from coursekit.grading.record import Record
from coursekit.grading.sandbox import Infra, Limits, Sandbox, lent
from coursekit.grading.trusted import grade, setup
from coursekit.grading.watch import children, look, owned, tree

HERE = pytest.mark.skipif(bool(sandbox.refusal()), reason=sandbox.refusal() or "walls stand here")
LIMITS = Limits(processes=24, memory=2**29)


# ---- without a sandbox -----------------------------------------------------------------------


@pytest.mark.parametrize("name, value", [
    ("seconds", 0), ("cell", -1), ("memory", 0), ("output", 0), ("reply", -5), ("processes", 0),
    ("tmp", 0), ("files", 0), ("threads", 0), ("seconds", float("nan")),
])
def test_a_limit_is_more_than_nothing(name, value):
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Limits(**{name: value})


def test_no_bubblewrap_no_walls(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    sandbox.refusal.cache_clear()
    try:
        assert "bubblewrap is not installed" in sandbox.refusal()
        assert sandbox.layers() == ()
        record = grade(alone("05"), "05", key=b"k" * 16)
    finally:
        sandbox.refusal.cache_clear()
    assert {e.verdict for e in record.exercises} == {"infra-error"} and record.again
    assert all("not installed" in e.words for e in record.exercises) and record.points == 0


def test_another_system_has_no_walls(monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    sandbox.refusal.cache_clear()
    try:
        assert "Linux" in sandbox.refusal() and "darwin" in sandbox.refusal()
    finally:
        sandbox.refusal.cache_clear()


def test_walls_that_do_not_stand_say_why(monkeypatch):
    monkeypatch.setattr(view, "CAPABILITIES", ())  # nobody may mount
    sandbox.refusal.cache_clear()
    try:
        words = sandbox.refusal()
        assert "Operation not permitted" in words or "not installed" in words
        assert "\n" not in words
    finally:
        sandbox.refusal.cache_clear()


def test_arguments_show_no_more_than_is_said():
    args = view.arguments()
    bound = [Path(args[i + 1]) for i, a in enumerate(args) if a in ("--ro-bind", "--dev-bind")]
    shown = [p for p in bound if not p.is_relative_to(view.PACKAGE)]
    for hidden in (view.ROOT, Path.home(), Path("/"), Path("/usr"), Path("/home"), Path("/etc")):
        assert hidden not in shown
    kept = [p.name for p in bound if p.is_relative_to(view.PACKAGE / "classroom/check/exercises")]
    assert kept == ["__init__.py"]
    assert "--unshare-net" in args and "--clearenv" in args and "--die-with-parent" in args
    writable = [args[i + 1] for i, a in enumerate(args) if a == "--bind"]
    assert writable == []


@pytest.mark.parametrize("machine", seccomp.MACHINES)
def test_the_filter_is_well_formed(machine):
    code = seccomp.program(machine)
    steps = [code[i:i + 8] for i in range(0, len(code), 8)]
    assert len(code) % 8 == 0 and len(steps) < 4_096
    for i, step in enumerate(steps):
        kind, yes, no = int.from_bytes(step[:2], "little"), step[2], step[3]
        if kind != seccomp.RETURN:
            assert i + 1 + max(yes, no) < len(steps)
    assert steps[-1][0] == seccomp.RETURN


def test_two_never_share_a_uid():
    (a, one), (b, two) = slot.take(), slot.take()
    with one, two:
        assert a != b and not slot.known(a) and not slot.known(b)
    again, lock = slot.take()
    with lock:
        assert again == a  # free again when its lock is closed


def test_a_uid_that_has_processes_is_not_taken(monkeypatch):
    monkeypatch.setattr(slot, "owned", lambda uid: [1] if uid == slot.UIDS[0] else [])
    uid, lock = slot.take()
    with lock:
        assert uid > slot.UIDS[0]


def test_no_uid_left(monkeypatch):
    monkeypatch.setattr(slot, "known", lambda uid: True)
    with pytest.raises(RuntimeError, match="no free uid"):
        slot.take()


def test_processes_are_seen_with_all_that_descend_from_them():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as parent:
        until = time.monotonic() + 10
        while len(tree(parent.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        seen = tree(parent.pid)
        assert len(seen) == 2 and seen[0].pid == parent.pid and seen[0].private > 2**20
        assert [p.pid for p in seen[1:]] == children(parent.pid)
        assert parent.pid in owned(os.getuid())
        parent.stdin.write(b"\n")
    assert look(parent.pid) is None and tree(parent.pid) == []


@pytest.mark.parametrize("status, verdict, words", [
    (None, "crashed", "ended"), (0, "crashed", "exit status 0"), (3 << 8, "crashed", "status 3"),
    (signal.SIGSEGV, "crashed", "SIGSEGV"), (signal.SIGXCPU, "timeout", "processor time"),
    (60, "crashed", "signal 60"),
])
def test_how_a_worker_ended(status, verdict, words):
    found = ending(status)
    assert found[0] == verdict and words in found[1]


# ---- with one: a forker takes seconds to start -----------------------------------------------


@pytest.fixture(scope="module")
def box():
    with lent() as box:
        yield box


def cell(line, source, seconds=10.0):
    request = {"do": "cell", "id": "a", "exercise": "05-1", "name": "sigma", "source": source,
               "seconds": seconds, "seed": 1}
    return line.ask(request, [], seconds + 1)[0]


def told(box, source, limits=LIMITS):
    """What a cell says in an exception's words."""
    line = Line(box, limits)
    try:
        line.setup(setup("05"))
        return json.loads(cell(line, source)["words"].removeprefix("raised Exception: ")
                          .partition(" in `")[0])
    finally:
        line.close()


SEEN = """
import json, os
raise Exception(json.dumps({expression}))
"""


@HERE
@pytest.mark.slow
@pytest.mark.parametrize("expression, expected", [
    ("sorted(os.listdir('/'))", None),
    ("[os.getresuid()[0] == 0, os.getgroups(), os.getpid(), os.getppid()]", [False, [], 2, 1]),
    ("sorted(p for p in os.listdir('/proc') if p.isdigit())", ["1", "2"]),
    ("len(os.listdir('/proc/self/fd'))", 6),  # three of nobody's, two pipes, and this listing's
    ("[l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapP', 'CapE'))]",
     ["0" * 16] * 2),
    ("[l.split()[1] for l in open('/proc/self/status') if l.startswith(('NoNew', 'Seccomp:'))]",
     ["1", "2"]),
    ("[os.path.exists(p) for p in ('/home', '/etc/passwd', '/sys', '/run', '/boot')]",
     [False] * 5),
    ("open('/proc/net/dev').read().count(':')", 1),  # the loopback device, and it is down
    ("os.environ.get('PATH', '') + os.environ.get('COURSEKIT_SECRET', '')", ""),
    ("os.uname().nodename", "answers"),
    ("os.listdir()", []),
    ("os.getcwd()", view.scratch()),
    ("os.statvfs('.').f_blocks * os.statvfs('.').f_frsize", LIMITS.tmp),
    ("sorted(os.listdir('/dev'))", ["full", "null", "random", "shm", "urandom", "zero"]),
])
def test_what_is_seen_inside(box, monkeypatch, expression, expected):
    monkeypatch.setenv("COURSEKIT_SECRET", "of the grader")
    found = told(box, SEEN.format(expression=expression))
    if expected is None:
        places = (view.PACKAGE, Path(sys.prefix), Path(sys.base_prefix), Path(view.scratch()))
        outer = {p.parts[1] for p in places}
        assert set(found) <= {"dev", "etc", "lib", "lib32", "lib64", "proc", "tmp", "usr"} | outer
    else:
        assert found == expected


@HERE
@pytest.mark.slow
def test_the_package_is_there_without_what_is_wanted(box):
    source = f"""
import json, os
from coursekit.classroom import check
from coursekit.classroom.check import exercises, verdict
root = {str(view.PACKAGE)!r}
around = sorted(os.listdir(os.path.dirname(root)))
raise Exception(json.dumps([exercises.labs(), os.listdir(root + '/classroom/check/exercises'),
                            sorted(os.listdir(root + '/grading')), os.listdir(root + '/labs'),
                            [n for n in around if n in ('solutions', 'tests', 'labs', '.git')]]))
"""
    labs, own, grading, given, around = told(box, source)
    assert (labs, own, given, around) == ([], ["__init__.py"], [], [])
    assert grading == sorted(view.KEPT["grading"])


@HERE
@pytest.mark.slow
def test_a_cells_own_end_is_noticed_at_once(box):
    line = Line(box, LIMITS)
    try:
        line.setup(setup("05"))
        start = time.monotonic()
        with pytest.raises(Ended) as end:
            cell(line, "import os; os._exit(9)", 60.0)
        assert time.monotonic() - start < 1.0
        assert (end.value.verdict, end.value.words[-1]) == ("crashed", "9")
    finally:
        line.close()
    assert box.usable and len(tree(box.process.pid)) == box.idle


@HERE
@pytest.mark.slow
def test_processes_are_bounded_for_each_worker(box):
    source = """
import json, os, time
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except OSError:
    pass
raise Exception(json.dumps(made))
"""
    for _ in range(2):  # the second has as many: the first one's are gone
        assert LIMITS.processes - 3 <= told(box, source) <= LIMITS.processes
    assert len(tree(box.process.pid)) == box.idle


@HERE
@pytest.mark.slow
def test_nothing_outlives_a_grader_that_is_killed(tmp_path):
    code = """
import sys, time
from coursekit.grading.line import Line
from coursekit.grading.sandbox import Limits, Sandbox
from coursekit.grading.trusted import setup
box = Sandbox()
line = Line(box, Limits())
line.setup(setup("05"))
print(box.process.pid, flush=True)
line.ask({"do": "cell", "id": "a", "exercise": "05-1", "name": "sigma", "seconds": 60.0, "seed": 1,
          "source": "import os, time\\nos.fork()\\nos.setsid()\\ntime.sleep(600)"}, [], 60.0)
"""
    grader = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True,
                              env={**os.environ, "TMPDIR": str(tmp_path)})
    with grader:
        outer = int(grader.stdout.readline())
        until = time.monotonic() + 20
        while len(tree(outer)) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        inside = [p.pid for p in tree(outer)]
        assert len(inside) == 6  # bubblewrap twice, forker, init, worker, its child
        grader.kill()
    until = time.monotonic() + 5
    while any(map(look, inside)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(map(look, inside)) and list(tmp_path.iterdir()) == []


@HERE
@pytest.mark.slow
def test_a_sandbox_that_is_killed_is_replaced_and_blames_nobody():
    with lent() as box:
        line = Line(box, LIMITS)
        line.setup(setup("05"))
        box.process.kill()
        with pytest.raises(Infra):
            cell(line, "while True: pass")
        line.close()
        assert not box.usable
        with pytest.raises(Infra, match="gone"):
            Line(box, LIMITS).setup(setup("05"))
    with lent() as other:
        assert other is not box and other.usable
        assert not other.uid or len(owned(other.uid)) == 0


@HERE
@pytest.mark.slow
def test_a_forker_that_does_not_come_up(monkeypatch):
    fails = [sys.executable, "-c", "raise SystemExit('x')"]
    monkeypatch.setattr(view, "python", lambda code: fails)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Infra, match="did not start: x"):
        Sandbox()
    assert len(os.listdir("/proc/self/fd")) == before


def as_somebody(*command):
    """The command as an ordinary user, who can read what this interpreter needs."""
    shown = [*view.interpreter(), view.ROOT]
    shut = [d for d in view.folders(shown) if not d.stat().st_mode & 1]
    opened = []
    for folder in shut:
        if not any(folder.is_relative_to(other) for other in shut if other != folder):
            inside = [p for p in shown if p.is_relative_to(folder)]
            opened += ["--tmpfs", str(folder), "--chmod", "0755", str(folder)]
            for parent in view.folders(inside):
                if parent.is_relative_to(folder) and parent != folder:
                    opened += ["--perms", "0755", "--dir", str(parent)]
            for path in inside:
                opened += ["--ro-bind", str(path), str(path)]
    return ["bwrap", "--dev-bind", "/", "/", *opened, "--cap-add", "ALL", "--",
            "setpriv", "--reuid", "47113", "--regid", "47113", "--clear-groups", *command]


@HERE
@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="an ordinary user already")
def test_walls_of_an_ordinary_user():
    told = ("import sys\nfrom coursekit.grading.trusted import grade\n"
            "sys.stdout.write(grade(sys.stdin.buffer.read(), '05', key=b'k' * 16).to_json())")
    if subprocess.run(as_somebody("unshare", "--user", "true"), capture_output=True,
                      check=False).returncode:
        pytest.skip("this system gives ordinary users no namespaces")
    content = alone("05", _05_1="import os\nos.kill(1, 9)\nos.abort()\n")
    done = subprocess.run(as_somebody(*view.python("exec(sys.argv[1])"), told), input=content,
                          capture_output=True, check=False, cwd="/", timeout=250,
                          env={"PATH": os.environ["PATH"], "HOME": "/tmp"})
    record = Record.from_json(done.stdout.decode())
    assert record.trusted and "uid" not in record.layers and "bubblewrap" in record.layers
    assert [e.verdict for e in record.exercises] == ["crashed", *["correct"] * 5]


def test_a_message_that_does_not_come():
    box = Sandbox.__new__(Sandbox)
    box.control, other = socket.socketpair()
    with other, box.control:
        assert box.message(0.01) is None
        other.sendall(b'{"status": 0}')
        assert box.message(1) == {"status": 0}
