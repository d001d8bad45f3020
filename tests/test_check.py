"""The checks: every wrong answer is told its mistake, every right one passes, nothing escapes.

Wrong and right answers lie in tests/mutants/, one file an exercise: `wrong_*` is rejected with the
words of its docstring, `right_*` is accepted. With every seed of the full measurement:
`COURSEKIT_SEEDS=20 pytest tests/test_check.py -m slow`, half an hour; a plain run takes a few.
"""

import contextlib
import functools
import importlib
import importlib.util
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from coursekit.classroom import check
from coursekit.classroom.check import board, calls
from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.exercises import exercise, exercises, labs
from coursekit.classroom.check.known import build
from coursekit.classroom.check.run import refusing
from coursekit.classroom.check.spec import Case, Exercise, Mistake
from coursekit.classroom.check.verdict import examine
from coursekit.diffusion.schedule import Schedule

MUTANTS = Path(__file__).parent / "mutants"
HOME = Path(calls.__file__).parent
QUICK, SEEDS = 1, int(os.environ.get("COURSEKIT_SEEDS", "3"))


def answers(id: str, kind: str) -> dict:
    """The answers of that kind, "wrong" or "right", to an exercise."""
    path = MUTANTS / f"ex{id.replace('-', '_')}.py"
    if not path.is_file():
        return {}
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {n: f for n, f in vars(module).items() if n.startswith(f"{kind}_")}


def loaded() -> list:
    """The exercises of all labs that can be imported: another lab's fault must not hide these."""
    found = []
    for lab in labs():
        try:
            found += exercises(lab)
        except Exception:  # said by test_every_lab_has_its_exercises
            continue
    return found


ALL = loaded()


def every(kind: str) -> list:
    return [pytest.param(e, f, id=f"{e.id}-{name}")
            for e in ALL for name, f in answers(e.id, kind).items()]


def rejected(e, answer, seeds) -> None:
    for seed in seeds:
        report = examine(e, answer, seed)
        assert not report.done, f"seed {seed}: accepted"
        said = [report.likely, *(v.words for v in report.verdicts if not v.ok)]
        assert any(" ".join(answer.__doc__.split()) in words for words in said), (seed, said)
        assert report.points < e.points


def accepted(e, answer, seeds) -> None:
    for seed in seeds:
        for hidden in (False, True):
            report = examine(e, answer, seed, hidden=hidden)
            assert report.done and report.points == e.points, "\n".join(report.lines())
            assert not re.search(r"\d\.\d|\d[eE][-+]?\d", "\n".join(report.lines()))


@pytest.mark.parametrize("lab", labs())
def test_every_lab_has_its_exercises(lab):
    for e in exercises(lab):
        assert len(answers(e.id, "wrong")) >= 5, f"{e.id}: at least five wrong answers"
        assert len(answers(e.id, "right")) >= 2, f"{e.id}: at least two right ones"
        assert all(f.__doc__ for f in answers(e.id, "wrong").values())
        dtypes = {c.dtype for seed in (0, 1) for c in e.cases(seed)}
        floating = any(getattr(v, "dtype", None) == float for c in e.cases(0)
                       for v in c.args.values())
        assert not floating or len(dtypes) == 2, f"{e.id}: both float32 and float64"
        assert [c.what for c in e.cases(0)] == [c.what for c in e.cases(1)]
        with refusing(e.study):  # every name under study is there
            pass


@pytest.mark.parametrize(("e", "answer"), every("wrong"))
def test_wrong(e, answer):
    rejected(e, answer, range(1 if "for_ever" in answer.__name__ else QUICK))


@pytest.mark.parametrize(("e", "answer"), every("right"))
def test_right(e, answer):
    accepted(e, answer, range(QUICK))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("e", "answer"), every("wrong"))
def test_wrong_over_many_seeds(e, answer):
    rejected(e, answer, range(100, 101 if "for_ever" in answer.__name__ else 100 + SEEDS))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("e", "answer"), every("right"))
def test_right_over_many_seeds(e, answer, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        accepted(e, answer, range(100, 100 + SEEDS))
    finally:
        torch.set_num_threads(before)


# ---- the fence: what an answer may do, and what comes of it ----------------------------------


def cases(g):
    yield Case("ones", {"x": g.standard_normal((3, 2)), "n": 2})
    yield Case("more", {"x": g.standard_normal((4, 2)), "n": 3}, "float32")


TIMES = Exercise("99-1", "Times", 1, 1, 2, "times(x, n)", public=cases,
                 wanted=lambda x, n: n * x, study=(f"{__name__}.library",), seconds=1.0,
                 mistakes=(Mistake("that is a sum", lambda x, n: x + n),))


def library(x, n):
    return n * x


def words(answer) -> str:
    report = examine(TIMES, answer, 1)
    assert not report.done
    return "\n".join(report.lines())


def raises(problem):
    def answer(x, n):
        raise problem
    return answer


def for_ever(x, n):
    while True:
        try:
            time.sleep(0.01)
        except Exception:
            pass


def swallowed(x, n):
    with contextlib.suppress(Exception):
        return library(x, n)
    return n * x


class Odd(torch.Tensor):
    pass


once = []


def in_itself(x, n):
    raise ValueError("too bad")


in_itself.__wrapped__ = in_itself


def first_time_only(x, n):
    once.append(1)
    return n * x if len(once) <= 2 else x


BAD = {
    "value": (lambda x, n: x + n, "that is a sum"),
    "raises": (raises(ValueError("too bad")), "raised ValueError: too bad"),
    "exits": (raises(SystemExit(0)), "raised SystemExit"),
    "base": (raises(BaseException("deep")), "raised BaseException: deep"),
    "loops": (for_ever, "no answer after 1 s"),
    "none": (lambda x, n: None, "is there a return"),
    "dots": (lambda x, n: ..., "came ellipsis"),
    "nan": (lambda x, n: x * float("nan"), "6 of 6 values are NaN"),
    "inf": (lambda x, n: x / 0, "values are NaN or infinite"),
    "broadcasts": (lambda x, n: (n * x)[:1], "came float64 tensor (1, 2), wanted float64 tensor"),
    "extra axis": (lambda x, n: (n * x)[None], "an axis of length one too many"),
    "flattened": (lambda x, n: (n * x).flatten(), "came float64 tensor (6,), wanted float64"),
    "transposed": (lambda x, n: (n * x).T, "the two last axes are the other way round"),
    "dtype": (lambda x, n: (n * x).double(), "must keep the dtype"),
    "numpy": (lambda x, n: (n * x).numpy(), "came numpy array float64 (3, 2)"),
    "list": (lambda x, n: (n * x).tolist(), "came list of 3"),
    "subclass": (lambda x, n: (n * x).as_subclass(Odd), "(Odd)"),
    "parameter": (lambda x, n: torch.nn.Parameter(n * x), "(Parameter)"),
    "meta": (lambda x, n: (n * x).to("meta"), "cannot be read"),
    "sparse": (lambda x, n: (n * x).to_sparse(), "cannot be read"),
    "in place": (lambda x, n: x.mul_(n), "it changes its argument x in place"),
    "reseeds": (lambda x, n: (torch.manual_seed(0), n * x)[1], "torch's global generator"),
    "unchanged": (lambda x, n: x, "the argument x comes back unchanged"),
    "zeros": (lambda x, n: 0 * x, "the result is zero everywhere"),
    "sign": (lambda x, n: -n * x, "the sign is the other way round"),
    "factor": (lambda x, n: 1.7 * n * x, "off by one and the same factor"),
    "offset": (lambda x, n: n * x + 0.3, "off by one and the same amount"),
    "no function": (3, "came int, wanted a function times(x, n)"),
    "arguments": (lambda x: x, "wanted times(x, n), came times(x)"),
    "library": (library, "own refuses"),
    "wraps": (lambda x, n: library(x, n), "own refuses"),
    "partial": (functools.partial(library), "own refuses"),
    "decorated": (functools.wraps(library)(lambda x, n: n * x), "own refuses"),
    "wraps itself": (in_itself, "raised ValueError: too bad"),
    "copied": (types.FunctionType(library.__code__, {}), "own refuses"),
    "swallows": (swallowed, "own refuses"),
    "first time only": (first_time_only, "a second call with the same arguments"),
    "left over": (lambda x, n: undefined * x, "must hold or import all that it uses"),  # noqa: F821
}


@pytest.mark.parametrize(("answer", "said"), BAD.values(), ids=BAD)
def test_a_bad_answer_is_told_what_it_is(answer, said):
    assert said in words(answer)


def test_an_answer_cannot_load_a_library_under_study(tmp_path, monkeypatch):
    """Unless somebody else has: then it is told when it calls the function."""
    (tmp_path / "elsewhere.py").write_text("def times(x, n):\n    return n * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    e = replace(TIMES, study=("elsewhere.times",))

    def calls_it(x, n):
        from elsewhere import times
        return times(x, n)

    def hides_it(x, n):
        with contextlib.suppress(Exception):
            return calls_it(x, n)
        return n * x

    def said(answer):
        return "\n".join(examine(e, answer, 1).lines())

    finders = list(sys.meta_path)
    assert "it imports elsewhere" in said(calls_it) and "it imports elsewhere" in said(hides_it)
    assert "elsewhere" not in sys.modules and sys.meta_path == finders
    assert examine(e, lambda x, n: n * x, 1).done
    assert calls_it(2, 3) == 6
    assert "it calls times" in said(calls_it) and "it calls times" in said(hides_it)
    monkeypatch.delitem(sys.modules, "elsewhere")


def test_an_optimiser_is_loaded_before_the_clock_runs(monkeypatch):
    running = []
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, **kwargs: running.append(
        0 < signal.getitimer(signal.ITIMER_REAL)[0] <= TIMES.seconds))

    def optimised(x, n):
        def inner():
            return torch.optim
        return n * x if inner() else None

    assert examine(TIMES, lambda x, n: n * x, 1).done and running == []
    assert examine(TIMES, optimised, 1).done and set(running) == {False}


def test_what_formulas_warn_of_is_not_said(capsys):
    def loud(x, n):
        warnings.warn("careful", stacklevel=1)
        return x + n

    e = replace(TIMES, wanted=lambda x, n: loud(x, n) * 0 + n * x,
                mistakes=(Mistake("that is a sum", loud),))
    with warnings.catch_warnings(action="error"):
        assert "that is a sum" in "\n".join(examine(e, lambda x, n: x + n, 1).lines())
        assert examine(e, lambda x, n: n * x, 1).done
    assert capsys.readouterr() == ("", "")


def test_a_wrong_formula_may_give_the_first_of_several_results():
    wrong = (Mistake("that is a sum", lambda x, n: x + n),)
    e = replace(TIMES, mistakes=wrong, wanted=lambda x, n: {"x": n * x, "asked": [n]})
    both = examine(e, lambda x, n: {"x": x + n, "asked": [n]}, 1)
    assert both.likely == "that is a sum"
    other = examine(e, lambda x, n: {"x": n * x, "asked": [n, n]}, 1)
    assert not other.done and other.likely == ""


def test_a_good_answer_passes_and_everything_is_as_before():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)

    def answer(x, n):
        torch.rand(7)
        torch.set_default_dtype(torch.float64)
        print("much", file=sys.stderr)
        with warnings.catch_warnings(action="always"):
            warnings.warn("careful", stacklevel=1)
        return n * x

    report = examine(TIMES, answer, 1)
    assert report.done and report.points == 2
    assert torch.equal(torch.rand(2), expected) and torch.get_default_dtype() == torch.float32
    assert library(2, 3) == 6
    with pytest.raises(ZeroDivisionError), refusing(TIMES.study):
        raise ZeroDivisionError
    assert library(2, 3) == 6


def test_what_an_answer_prints_is_kept_for_its_failure_only(capsys):
    def loud(x, n):
        print("x is", n)
        return x

    assert "(it printed: x is 2)" in words(loud)
    assert capsys.readouterr() == ("", "")


def test_the_time_limit_without_signals():
    """In a thread, as on Windows, an exception thrown in from outside takes the timer's place."""
    found = []
    thread = threading.Thread(target=lambda: found.append(words(for_ever)))
    thread.start()
    thread.join(20)
    assert found and "no answer after 1 s" in found[0] and "left out" in found[0]


def test_a_running_clock_goes_on():
    rang = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    outer = signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        words(for_ever)
        time.sleep(0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)
    assert rang


# ---- what is said ------------------------------------------------------------------------------


def test_ex_says_a_line_a_case_and_returns_whole_points(capsys):
    def sigma(schedule, t, s, eta):
        now, then = schedule.level(t), schedule.level(s)
        return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))

    board.clear()
    assert check.ex("05-1", sigma) == 2
    assert capsys.readouterr().out == (
        "05-1 1/5 a long hop, eta one: ok\n05-1 2/5 neighbours: ok\n"
        "05-1 3/5 a long hop on the linear schedule: ok\n05-1 4/5 eta zero: ok\n"
        "05-1 5/5 the hop that ends at level zero: ok\n"
        "05-1: 5 of 5 cases, 2 of 2 points, done\n")
    assert check.done("05-1") and not check.done("05-1", "05-2")
    assert capsys.readouterr().out == "this cell waits for 05-2\n"
    assert check.ex("05-2", lambda *args: raises(check.NotDoneYet())(1, 2)) == 0
    assert capsys.readouterr().out == "05-2: not done yet, 0 of 3 points\n"
    check.summary()
    said = capsys.readouterr().out
    assert said.startswith("lab 05 [###.................] 1 of 6 done, 2 of 20 points\n05-1  done ")
    assert "05-2  left " in said and "05-3  untried " in said
    assert not re.search(r"\d\.\d", said)
    board.clear()


@pytest.mark.parametrize("a, b, same", [
    (torch.tensor([1 + 1e-6], dtype=torch.float64), torch.ones(1, dtype=torch.float64), True),
    (torch.tensor([1 + 1e-4], dtype=torch.float64), torch.ones(1, dtype=torch.float64), False),
    (torch.tensor([1 + 1e-4]), torch.ones(1, dtype=torch.float64), True),
    (torch.ones(1), torch.ones(2), False), (torch.ones(1, requires_grad=True), torch.ones(1), True),
    ([torch.ones(1), 2.0], (torch.ones(1), 2.0), True), ([2.0], [2.0, 2.0], False),
    (2.0, 2, False), (None, torch.ones(1), False), (float("nan"), 2.0, False)])
def test_two_values_are_alike_but_for_rounding(a, b, same):
    assert alike(a, b, double=1e-5, single=1e-3) is same


@pytest.mark.parametrize("id", ["05-9", "77-1", "", None, 5])
def test_an_unknown_id_is_said_and_worth_nothing(id, capsys):
    assert check.ex(id, library) == 0
    assert "accepted are" in capsys.readouterr().out


def test_the_same_seed_gives_the_same_numbers(capsys):
    for seed in (4, 4, 5):
        check.ex("05-2", lambda schedule, x, x0, t, s, sd: x0, seed=seed)
    a, b, c = capsys.readouterr().out.split("points; the same numbers again")[:3]
    assert b.endswith(a[a.index("largest"):]) and not c.endswith(a[a.index("largest"):])


def test_interrupting_a_check_is_no_error(capsys):
    assert check.ex("05-1", lambda *args: raises(KeyboardInterrupt())(1, 2)) == 0
    assert capsys.readouterr().out == "05-1: stopped, 0 points\n"


def test_what_is_wanted_of_a_step_is_what_diffusers_does():
    import diffusers

    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=False,
                                        set_alpha_to_one=True, prediction_type="epsilon")
    scheduler.set_timesteps(50)
    levels = Schedule.from_diffusers(scheduler)
    x, e, z = torch.randn(3, 2, 3, 4, 4, dtype=torch.float64)
    for t, s in ((521, 501), (981, 961), (21, 1)):
        theirs = scheduler.step(e, t - 1, x, eta=0.7, variance_noise=z).prev_sample
        ours = exercise("05-3").wanted(lambda x, t: e, levels, x, t, s, 0.7, z)["x"]
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        assert exercise("05-1").wanted(levels, t, s, 0.7) == pytest.approx(
            0.7 * float(scheduler._get_variance(t - 1, s - 1)) ** 0.5, rel=1e-5)


def given(id, seed) -> list:
    """The arguments of an exercise's first case, in float64."""
    e = exercise(id)
    return list(build(e.cases(seed)[0], "float64", e.task.known).values())


@pytest.mark.parametrize("seed", range(3))
def test_what_is_wanted_of_text_to_image_is_what_open_clip_and_the_package_do(seed):
    from open_clip import ClipLoss
    from torch.nn.functional import normalize

    from coursekit.classroom.check.calls.lab07 import TIMES, starts
    from coursekit.diffusion.predict import guided
    from coursekit.nets.clip import directional_loss
    from coursekit.nets.wordmaps import look

    close = functools.partial(torch.testing.assert_close, check_dtype=False, rtol=1e-5, atol=1e-6)
    pictures, texts, log_scale = given("07-1", seed)
    close(exercise("07-1").wanted(pictures, texts, log_scale),
          ClipLoss()(normalize(pictures), normalize(texts), log_scale.exp()))
    x, reference, source, target = (normalize(v, dim=-1) for v in given("07-3", seed))
    close(exercise("07-3").wanted(x, reference, source, target)["loss"],
          directional_loss(x, reference, target - source))
    eps, cond, null, w = given("07-5", seed)
    ends = (lambda x, t, text=text: eps(x, t, text.repeat(len(x), 1, 1)) for text in (null, cond))
    close(exercise("07-5").wanted(eps, cond, null, w)["predictor"],
          guided(*ends, w)(starts(cond)[0], TIMES[0]))
    q, k, words, size = given("07-6", seed)
    join = torch.tensor([[float(i in word) for word in words] for i in range(k.shape[2])])
    close(exercise("07-6").wanted(q, k, words, size), look(q, k, join, size))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_wanted_of_low_rank_updates_is_what_the_package_does(seed):
    from coursekit.classroom.check.calls.lab11 import draws, read
    from coursekit.diffusion.predict import target
    from coursekit.nets.lora import Factors, Lora, LoRALinear, mix

    close = functools.partial(torch.testing.assert_close, check_dtype=False, rtol=1e-5, atol=1e-6)
    layer, r, alpha, generator = given("11-4", seed)
    draw = draws(layer.seed + 2, torch.float64)  # the factors that the check fills in
    A, B = 0.5 * draw(r, layer.in_features), 0.5 * draw(layer.out_features, r)
    close(exercise("11-4").wanted(layer, r, alpha, generator)["output"],
          LoRALinear(layer, Factors(A, B, alpha))(read(layer)[0]))
    net, schedule, prediction, x0, times, noises, lr = given("11-5", seed)
    clean = x0.expand_as(noises[0])
    out = net(schedule.noise(clean, noises[0], times[0]), times[0])
    loss = (out - target(schedule, prediction, clean, noises[0], times[0])).square().mean()
    said = exercise("11-5").wanted(net, schedule, prediction, x0, times, noises, lr)["losses"]
    assert said[0] == pytest.approx(loss.item(), rel=1e-5)
    for case in exercise("11-6").cases(seed):
        first, second, u, q = args = build(case, "float64", {}).values()
        exact = mix(*(Lora({"x": Factors(*part)}) for part in (first, second)), u).delta("x")
        update = exercise("11-6").wanted(*args)["update"]
        left = 0 if q is None else torch.linalg.svdvals(exact)[q:].square().sum()
        close((exact - update).square().sum(), torch.as_tensor(left).double())


def test_finer_maps_count_less_as_in_diffusers():
    from coursekit.classroom.check.exercises.lab11 import rising

    theirs = torch.logspace(-1, 0, 13, dtype=torch.float64)  # of ControlNetModel, in guess mode
    assert [rising(k, 12) for k in range(13)] == pytest.approx(theirs.tolist())


def child(code, path=HOME.parents[3]) -> str:
    """What a fresh interpreter prints that finds the package in that folder."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          cwd=path, env=os.environ | {"PYTHONPATH": str(path)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_checks_or_how_answers_are_called_imports_no_exercise():
    said = child("import importlib, pathlib, sys; from coursekit.classroom.check import calls; "
                 "labs = sorted(pathlib.Path(calls.__file__).parent.glob('lab*.py')); "
                 "[importlib.import_module(f'{calls.__name__}.{p.stem}') for p in labs]; "
                 "print(len(labs), [m for m in sys.modules if '.exercises.lab' in m])")
    assert said == f"{len(list(HOME.glob('lab*.py')))} []\n" and len(labs()) >= 6


def test_an_answer_runs_where_there_is_no_exercise(tmp_path):
    """What grading sends to the side that runs answers: the package without exercises/lab*.py."""
    shutil.copytree(HOME.parents[2], tmp_path / "coursekit", ignore=lambda folder, names: [
        n for n in names if n == "weights" or n.endswith(".npz")
        or Path(folder).name == "exercises" and n != "__init__.py"])
    e = exercise("05-4")
    plain = {"id": e.id, "signature": e.signature, "study": list(e.study), "seconds": e.seconds}
    code = f"""
import coursekit
from coursekit.classroom import check
from coursekit.classroom.check import calls, run
from coursekit.classroom.check.exercises import labs
from coursekit.classroom.check.spec import Case, named
task = calls.task(**{plain})
args = {{"eps": named("constant"), "schedule": named("schedule"), "x": 1.0, "path": [9, 0],
         "eta": 0.0, "noise": 2.0}}
found = run.run(task, lambda eps, schedule, x, path, eta, noise: x + noise, Case("one", args))
print(coursekit.__file__, labs(), task.name, found.kind, found.value)
check.ex("05-4", print)
"""
    said = child(code, tmp_path)
    assert said.startswith(str(tmp_path)) and "accepted are" in said
    assert "[] sample value {'x': 3.0, 'times asked': []}" in said


def test_a_task_from_plain_data_is_the_exercise_s_own():
    for e in ALL:
        assert calls.task(e.id, e.signature, list(e.study), e.seconds) == e.task
    assert calls.task("99-1", "f(x)", (), 1.0).call is None
    assert [i for lab in labs() for i in kept(lab)] == []


def kept(lab) -> list:
    """Ids in calls/ that belong to no exercise."""
    if not (HOME / f"lab{lab}.py").is_file():
        return []
    module = importlib.import_module(f"{calls.__name__}.lab{lab}")
    return sorted({*module.CALLS, *module.KNOWN} - {e.id for e in exercises(lab)})
