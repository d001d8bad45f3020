"""Runs an answer once: with a time limit, apart from everything it could disturb.

Nothing in this file knows what is wanted, so that it can stand on the untrusted side of a process
boundary. While an answer runs, the package's functions under study refuse to be called: by their
code and not by their name, so that an earlier `from .. import` refuses as well. A library that has
some and that nobody has loaded yet cannot be loaded meanwhile.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import inspect
import io
import random
import signal
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.calls import Task
from coursekit.classroom.check.known import build
from coursekit.classroom.check.spec import Case, NotDoneYet

CHARACTERS = 2_000  # of what an answer prints


class UnderStudy(RuntimeError):
    """Raised in the place of a function that the exercise asks for."""


class TooLong(BaseException):
    """Raised in an answer whose time is up; no Exception, so that a bare retry does not eat it."""


@dataclass
class Outcome:
    """What came of a call. kind: value, raised, not done, too long, under study, signature."""

    kind: str
    value: Any = None
    words: str = ""
    args: dict[str, Any] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    reseeded: bool = False
    printed: str = ""


def run(task: Task, answer: Any, case: Case, seed: int | None = None) -> Outcome:
    """Call the answer on a case; whatever it does, an Outcome comes back, or KeyboardInterrupt.

    seed  torch's global one while the answer runs: what it draws without being given a generator.
          A fresh one if None.
    """
    args, untouched = (build(case, case.dtype, task.known) for _ in range(2))
    misfit = fits(task, answer)
    if misfit:
        return Outcome("signature", words=misfit)
    call = task.call or (lambda f, *given: f(*given))
    given, heard = [args[name] for name in task.arguments], Ear()
    seeds = _Seeds(time.time_ns() % 2**62 if seed is None else seed)
    _warm(answer)
    try:
        with refusing(task.study) as asked, heard, seeds:
            if is_one_of(answer, asked.originals):
                raise UnderStudy(f"calls {task.name}")
            with limit(task.seconds):
                value = call(answer, *given)
                if inspect.isgenerator(value):
                    value = list(value)
        outcome = Outcome("value", value)
    except NotDoneYet:
        outcome = Outcome("not done")
    except UnderStudy as refused:
        outcome = Outcome("under study", words=str(refused))
    except TooLong:
        outcome = Outcome("too long", words=f"no answer after {task.seconds:g} s")
    except KeyboardInterrupt:  # the reader's own: it stops the check
        raise
    except BaseException as problem:  # an answer may raise anything, SystemExit too
        outcome = Outcome("raised", words=_said(problem, answer))
    if asked.deeds and outcome.kind != "under study":  # it asked, and hid the refusal
        outcome = Outcome("under study", words=asked.deeds[0])
    outcome.args, outcome.printed = untouched, heard.text
    outcome.changed = [n for n in args if not _same(args[n], untouched[n])]
    outcome.reseeded = seeds.reseeded
    return outcome


def fits(task: Task, answer: Any) -> str:
    """What keeps the answer from being called as asked, in words; empty if nothing does."""
    if not callable(answer):
        return f"came {type(answer).__name__}, wanted a function {task.signature}"
    try:
        inspect.signature(answer).bind(*task.arguments)
    except TypeError:
        return f"wanted {task.signature}, came {task.name}{inspect.signature(answer)}"
    except ValueError:  # builtins have no signature: let them try
        pass
    return ""


def _warm(answer: Any) -> None:
    """Load what torch loads at the first use of an optimiser, for seconds, before a clock runs."""
    code = _code(answer)
    if code and "optim" in _names(code):
        torch.optim.SGD([torch.zeros(1)], lr=0.0)


def _names(code: types.CodeType) -> set[str]:
    """What a function names, with the functions inside it."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _code(answer: Any) -> types.CodeType | None:
    """The code underneath an answer's wrappers; None for what is no plain function."""
    try:
        found = getattr(inspect.unwrap(answer), "__code__", None)
    except ValueError:  # it wraps itself
        return None
    return found if isinstance(found, types.CodeType) else None


def _said(problem: BaseException, answer: Any) -> str:
    """The exception in one line, with the line of the answer's code that it came from."""
    code = _code(answer)
    steps = traceback.extract_tb(problem.__traceback__)
    inside = [s for s in steps if code and s.filename == code.co_filename]
    source = f" in `{inside[-1].line.strip()}`" if inside and inside[-1].line else ""
    words = " ".join(str(problem).split())[:200]
    return f"raised {type(problem).__name__}: {words}{source}"


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and bool(
            ((a == b) | (a.isnan() & b.isnan())).all())
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "abar"):
        return torch.equal(a.abar, b.abar)
    return a == b if isinstance(a, (int, float, str, dict, type(None))) else True


# ---- stand-ins -------------------------------------------------------------------------------


@dataclass
class Asked:
    """What an answer did of what it may not, and the code of the functions that were replaced."""

    deeds: list[str] = field(default_factory=list)
    originals: list[types.CodeType] = field(default_factory=list)

    def refuse(self, deed: str) -> None:
        self.deeds.append(deed)
        raise UnderStudy(deed)


_now: Asked | None = None


def stopped() -> None:
    """Called by a stand-in; its own name is that of the function it stands for."""
    (_now or Asked()).refuse(f"calls {sys._getframe(1).f_code.co_name}")


def _stand_in(*args, **kwargs):
    from coursekit.classroom.check.run import stopped
    stopped()


@dataclass
class _Gate:
    """Stands before Python's own finders and refuses to load these libraries."""

    asked: Asked
    libraries: set[str] = field(default_factory=set)

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in self.libraries:
            self.asked.refuse(f"imports {name}, which has it")


@contextmanager
def refusing(study: tuple[str, ...]) -> Iterator[Asked]:
    """Inside, calling a function under study raises UnderStudy; afterwards all is as it was."""
    global _now
    before, _now, replaced = _now, Asked(), []
    gate = _Gate(_now)
    sys.meta_path.insert(0, gate)
    try:
        for name in study:
            function = _find(name)
            if function is None:
                gate.libraries.add(name.partition(".")[0])
                continue
            if any(function is f for f, _ in replaced):
                continue
            replaced.append((function, function.__code__))
            _now.originals.append(function.__code__)
            function.__code__ = _stand_in.__code__.replace(co_name=function.__qualname__)
        yield _now
    finally:
        sys.meta_path.remove(gate)
        for function, code in replaced:
            function.__code__ = code
        _now = before


def _find(name: str) -> types.FunctionType | None:
    """The function of that dotted name; None for a library that nobody has imported."""
    parts = name.split(".")
    if parts[0] != "coursekit" and parts[0] not in sys.modules:
        return None
    for i in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:i]))
        except ImportError:
            continue
        for part in parts[i:]:
            found = inspect.getattr_static(found, part)
            found = getattr(found, "__func__", found)  # class methods and static methods
        found = found.__init__ if isinstance(found, type) else inspect.unwrap(found)
        if not isinstance(found, types.FunctionType) or found.__code__.co_freevars:
            raise TypeError(f"study: {name} is no plain function or class")
        return found
    raise ValueError(f"study: {name} is not there")


def is_one_of(answer: Any, codes: list[types.CodeType]) -> bool:
    """Whether the answer is one of these functions, a partial, a wrapper or a copy of one."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    answer = getattr(answer, "__func__", answer)
    code = _code(answer)
    return code in codes or code is not None and code.co_code == _stand_in.__code__.co_code


# ---- the world around the answer -------------------------------------------------------------


class Ear(io.TextIOBase):
    """Keeps the beginning of what an answer prints or warns; the check's own lines stay clean."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[:max(0, CHARACTERS - len(self.text))]
        return len(text)

    def __enter__(self) -> Ear:
        self._held = (redirect_stdout(self), redirect_stderr(self), warnings.catch_warnings())
        for manager in self._held:
            manager.__enter__()
        return self

    def __exit__(self, *problem: object) -> None:
        for manager in reversed(self._held):
            manager.__exit__(None, None, None)


class _Seeds:
    """Puts every global generator and setting back, and sees whether torch's was seeded anew."""

    def __init__(self, mark: int) -> None:
        self.mark, self.reseeded = mark, False

    def __enter__(self) -> None:
        self.python, self.numpy = random.getstate(), np.random.get_state()
        self.dtype, self.grad = torch.get_default_dtype(), torch.is_grad_enabled()
        self.fork = torch.random.fork_rng(devices=[])
        self.fork.__enter__()
        torch.set_rng_state(torch.Generator().manual_seed(self.mark).get_state())

    def __exit__(self, *problem: object) -> None:
        self.reseeded = torch.initial_seed() != self.mark
        self.fork.__exit__(None, None, None)
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        torch.set_default_dtype(self.dtype)
        torch.set_grad_enabled(self.grad)


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise TooLong inside when the time is up, and again twice a second until it is obeyed.

    A timer signal where there is one and this is the main thread (a Jupyter kernel on Linux and
    macOS); elsewhere an exception thrown in from another thread, which waits for Python code: a
    long call into a library ends first.
    """
    if hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread():
        yield from _by_signal(seconds)
    else:
        yield from _by_thread(seconds)


def _by_signal(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise TooLong

    begun, handler = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, again = signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:  # somebody else's clock was running: it goes on
            spent = time.monotonic() - begun
            signal.setitimer(signal.ITIMER_REAL, max(left - spent, 1e-3), again)


def _by_thread(seconds: float) -> Iterator[None]:
    here, done = ctypes.c_ulong(threading.get_ident()), threading.Event()

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            ctypes.pythonapi.PyThreadState_SetAsyncExc(here, ctypes.py_object(TooLong))
            wait = 0.5

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(here, None)  # one that came a moment too late
