"""The commands: quick to answer, one line for a refusal, and the right exit code."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from coursekit import bench, cli, doctor, manifest, terminal


def call(capsys, *args):
    """Exit code, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as end:
        cli.main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return end.value.code or 0, out, err


def refused(capsys, *args):
    """The single line with which a command refuses."""
    code, out, err = call(capsys, *args)
    assert code == 2 and out == "" and err.count("\n") == 1 and err.startswith("coursekit: ")
    return err


# the package of this source tree also where it is not installed
ENVIRONMENT = os.environ | {"PYTHONPATH": str(cli.HOUSE.parent)}


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=ENVIRONMENT)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def recipe(monkeypatch, here):
    """Stands in for `coursekit train fake`; its `run` is set by the test."""
    monkeypatch.setattr(cli, "found", lambda folder: {"fake": here / "fake.py"})
    stand_in = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "coursekit.recipes.fake", stand_in)
    return stand_in


# ---- quick

COMMANDS = [["--help"], ["tuor"], ["tour", "--seed", "x"], ["tour", "--image", "no.png"],
            ["tour", "--device", "gpu"], ["bench", "nothing"], ["train", "nothing"]]


@pytest.mark.parametrize("args", COMMANDS, ids=" ".join)
def test_nothing_heavy_is_imported_to_answer(args):
    answer = python(
        "import atexit, sys\n"
        "heavy = ('torch', 'numpy', 'diffusers', 'transformers', 'matplotlib', 'skimage')\n"
        "atexit.register(lambda: print('HEAVY', [m for m in heavy if m in sys.modules]))\n"
        f"from coursekit.cli import main; main({args!r})")
    assert answer.stdout.splitlines()[-1] == "HEAVY []"
    assert answer.returncode == (0 if args == ["--help"] else 2)


@pytest.mark.parametrize("code, limit", [
    ("import coursekit", 0.3),
    ("from coursekit.cli import main; main(['--help'])", 0.7),
    ("from coursekit.cli import main; main(['tour', '--seed', 'x'])", 0.7),
], ids=["import", "help", "refusal"])
def test_answers_within_the_budget(code, limit):
    def seconds():  # of processor time: other programs on the machine do not count
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert min(seconds() for _ in range(3)) <= limit


# ---- help

def test_help_names_every_command(capsys):
    code, out, _ = call(capsys, "--help")
    assert code == 0 and all(name in out for name in ("tour", "bench", "train", "doctor"))
    assert call(capsys)[1] == out


def test_help_lists_programs_by_their_first_line_without_importing(monkeypatch, tmp_path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/__init__.py").write_text("")
    (tmp_path / "recipes/my_model.py").write_text('"""Learns a thing.\n\nMore."""\n1 / 0\n')
    monkeypatch.setattr(cli, "HOUSE", tmp_path)
    assert cli.menu("recipes") == "NAME is one of\n\nmy-model: Learns a thing."


def test_every_program_says_what_it_is_for():
    for folder in ("recipes", "bench"):
        for line in cli.menu(folder).split("\n\n")[1:]:
            assert re.fullmatch(r"[a-z0-9-]+: .{10,}", line), line


# ---- refusals

def test_unknown_words_list_what_is_accepted(capsys):
    assert "tour, bench, train" in refused(capsys, "tuor")
    assert "--seed, --device" in refused(capsys, "tour", "--sed", "1")
    assert "'nothing'" in refused(capsys, "train", "nothing")
    assert "'nothing'" in (line := refused(capsys, "bench", "nothing")) and "startup" in line
    assert "NAME" in refused(capsys, "train")


@pytest.mark.parametrize("args, words", [
    (["tour", "--seed", "x"], "'--seed': 'x'; accepted is a whole number 0.."),
    (["tour", "--seed", "-1"], "'--seed': '-1'; accepted is a whole number 0.."),
    (["tour", "--device", "gpu"], "device='gpu' is not known: accepted are cpu, cuda, cuda:N, mps"),
    (["tour", "--image", "no.png"], "path='no.png': there is no such file"),
    (["tour", "--image", "."], "path='.': not a file"),
    (["tour", "--out", "taken"], "--out='taken'"),
    (["tour", "--out", "taken/below"], "is a file; accepted is a folder"),
    (["train", "fake", "--steps", "0"], "'--steps': '0'; accepted is a whole number 1.."),
    (["train", "fake", "--minutes", "nan"], "'--minutes': 'nan'; accepted is a number 0.01.."),
    (["train", "fake", "--data", "nowhere"], "--data='nowhere': there is no such folder"),
    (["train", "fake", "--from", "nobody"], "source='nobody' is not known"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_bad_arguments_are_refused_before_anything_is_written(capsys, recipe, here, args, words):
    (here / "taken").write_text("a file")
    assert words in refused(capsys, *args)
    assert [p.name for p in here.iterdir()] == ["taken"]


def test_a_picture_of_the_wrong_size_is_refused(capsys, here):
    Image.new("RGB", (1, 1)).save("dot.png")
    assert "too small (1x1)" in refused(capsys, "tour", "--image", "dot.png")


def test_a_device_that_is_not_here_is_refused(capsys, here, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "'cuda:7' is not available here" in refused(capsys, "tour", "--device", "cuda:7")


def test_no_permission_for_the_target_is_refused(capsys, here, monkeypatch):
    monkeypatch.setattr(cli.os, "access", lambda path, mode: False)  # root may write anywhere
    assert "no permission to write" in refused(capsys, "tour", "--out", "new")


# ---- what goes wrong later

def raising(problem):
    def run(*_, **__):
        raise problem
        yield
    return run


@pytest.mark.parametrize("problem, words", [
    (OSError(28, "No space left on device", "x.png"), "the disk is full.*'x.png'"),
    (OSError(27, "File too large", "x.png"), "the disk is full or a quota.*'x.png'"),
    (PermissionError(13, "Permission denied", "x.png"), "no permission for 'x.png'"),
    (FileNotFoundError(2, "No such file or directory", "x.png"), "No such file.*'x.png'"),
    (RuntimeError("PytorchStreamWriter failed writing file"), "the disk is full"),
])
def test_trouble_with_the_disk_is_one_line(capsys, recipe, problem, words):
    recipe.run = raising(problem)
    assert re.search(words, refused(capsys, "train", "fake"))


def test_our_refusals_are_one_line_but_defects_keep_their_trace(capsys, recipe):
    def refuses(*_, **__):
        manifest.path("nothing")  # raises in the package
        yield
    recipe.run = refuses
    assert "name='nothing' is not shipped" in refused(capsys, "train", "fake")
    for problem in (ValueError("a defect"), KeyError("a defect"), RuntimeError("a defect")):
        recipe.run = raising(problem)
        with pytest.raises(type(problem)):
            cli.main(["train", "fake"])


SLOW_RECIPE = """
import sys, time
from types import SimpleNamespace
from coursekit import cli
def run(out, **options):
    try:
        print("running", flush=True)
        time.sleep(60)
        yield
    finally:
        print("closed", flush=True)
cli.found = lambda folder: {"fake": cli.HOUSE / "fake.py"}
sys.modules["coursekit.recipes.fake"] = SimpleNamespace(run=run)
cli.main(["train", "fake", "--out", "x"])
"""


def test_ctrl_c_is_one_line_and_130(here):
    child = subprocess.Popen([sys.executable, "-c", SLOW_RECIPE], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert child.stdout.readline() == "running\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=30)
    assert child.returncode == 130 and out == "closed\n"
    assert err == ("coursekit: stopped by Ctrl-C: coursekit train fake --out x goes on from the "
                   "last checkpoint\n")


# ---- what the commands do

def test_train_hands_its_arguments_over_and_shows_updates(capsys, recipe, here, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.0)
    (here / "photos").mkdir()
    seen = {}

    def run(out, **options):
        seen.update(out=out, **options)
        for step in range(4):
            yield SimpleNamespace(step=step, steps=4, images=8 * step + 5, loss=1 / max(step, 1),
                                  images_per_second=20.0, seconds=1.0)
    recipe.run = run
    code, out, err = call(capsys, "train", "fake", "--data", "photos", "--steps", 4, "--seed", 3,
                          "--no-resume", "--tiny")
    assert code == 0 and "output/fake" in out
    assert "preparing  5 pictures  20 images/s" in err
    assert "step 2  50%  loss 0.5000  20 images/s" in err
    assert seen == {"out": cli.Path("output/fake"), "data": cli.Path("photos"), "steps": 4,
                    "minutes": None, "start": None, "resume": False, "device": "cpu", "seed": 3,
                    "tiny": True}


def test_only_the_first_of_several_processes_speaks(capsys, recipe, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.0)
    recipe.run = lambda out, **options: (SimpleNamespace(
        step=1, steps=1, images=8, loss=1.0, images_per_second=20.0, seconds=1.0) for _ in "x")
    assert call(capsys, "train", "fake") == (0, "", "")


def test_the_package_runs_as_a_module():
    answer = subprocess.run([sys.executable, "-m", "coursekit", "train", "nothing"],
                            capture_output=True, text=True, env=ENVIRONMENT)
    assert answer.returncode == 2 and answer.stderr.startswith("coursekit: NAME='nothing'")


def test_tour_shows_sections_and_names_the_page(capsys, here, monkeypatch):
    Image.effect_noise((16, 16), 50).save("me.png")
    seen = []

    def run(out, seed, device, image):
        seen.extend([out, seed, device, image])
        yield SimpleNamespace(section="noising", done=1, total=2)
    monkeypatch.setitem(sys.modules, "coursekit.tour", SimpleNamespace(run=run))
    code, out, _ = call(capsys, "tour", "--seed", 5, "--out", "there", "--image", "me.png")
    assert code == 0 and re.search(r"took \d+ s. Open there.index.html", out)
    assert seen == [cli.Path("there"), 5, "cpu", cli.Path("me.png")]


ROWS = [bench.Row("fast", 2.0, 4.0, "ms", "lower", 9), bench.Row("alone", 5, None, "s", "lower", 1)]


@pytest.fixture
def table(monkeypatch):
    stand_in = SimpleNamespace(rows=lambda *, seed, device: iter(ROWS))
    monkeypatch.setattr(cli, "found", lambda folder: {"fake": cli.HOUSE / "fake.py"})
    monkeypatch.setitem(sys.modules, "coursekit.bench.fake", stand_in)


def test_bench_prints_a_table_or_json(capsys, table):
    code, out, _ = call(capsys, "bench", "fake")
    assert code == 0 and re.search(r"fast\W+2\W+4\W+ms\W+0\.5\W+lower\W+9", out)
    code, out, _ = call(capsys, "bench", "fake", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0] == {"name": "fast", "ours": 2.0, "peer": 4.0, "unit": "ms", "ratio": 0.5,
                       "better": "lower", "n": 9}
    assert rows[1]["ratio"] is None and code == 0


def test_a_bench_that_breaks_off_shows_what_it_has_measured(capsys, table, monkeypatch):
    def rows(*, seed, device):
        yield ROWS[0]
        raise KeyboardInterrupt
    monkeypatch.setattr(sys.modules["coursekit.bench.fake"], "rows", rows)
    code, out, err = call(capsys, "bench", "fake")
    assert code == 130 and "fast" in out and "alone" not in out and "not complete" in err


def test_rows_refuse_what_json_cannot_say():
    with pytest.raises(ValueError, match="better='faster'"):
        bench.Row("x", 1.0, 1.0, "s", "faster", 1)
    with pytest.raises(ValueError, match="peer=nan"):
        bench.Row("x", 1.0, float("nan"), "s", "lower", 1)


def test_medians_interleave_and_turn_the_order_round(monkeypatch):
    clock, calls = iter(range(1000)), []
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))

    def slow():
        calls.append("b")
        for _ in range(10):
            next(clock)
    assert bench.medians(lambda: calls.append("a"), slow, n=3) == [1, 11]
    assert "".join(calls) == "ab" + "ab" + "ba" + "ab"
    with pytest.raises(ValueError, match="n=0"):
        bench.medians(n=0)


def test_doctor_finds_nothing_wrong_with_a_sound_machine(capsys):
    findings = {f.what: f for f in doctor.examine()}
    assert {"coursekit", "Python", "torch", "memory", "disk", "cpu"} <= findings.keys()
    assert findings["torch"].value == torch.__version__.partition("+")[0]
    assert not any(f.fix for f in findings.values() if f.what not in ("memory", "disk"))


def test_doctor_says_the_one_line_that_fixes_packages(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda: [
        "not-there-at-all>=2", "numpy>=99", "pillow", 'other>=1; extra == "test"'])
    code, out, _ = call(capsys, "doctor")
    assert code == 1
    assert 'pip install "not-there-at-all>=2" "numpy>=99"' in out.splitlines()


def test_doctor_reports_a_damaged_model(monkeypatch, tmp_path):
    (tmp_path / "manifest.json").write_text('{"judge": {"card.md": "0000"}}')
    monkeypatch.setattr(manifest, "WEIGHTS", tmp_path)
    finding = list(doctor.examine())[-1]
    assert finding.value == "damaged" and "card.md is missing" in finding.fix


def test_freeze_says_what_is_missing(capsys, here):
    (here / "model").mkdir()
    assert "no card.md" in refused(capsys, "freeze", "model", "mine")
