"""The walls: one sandbox for many submissions, one confined worker for each.

Bubblewrap gives an empty read-only root without network and ends with its parent; inside, the
forker gives each worker namespaces, a uid that owns nothing, limits and a filter of system calls.
From outside, line.py keeps the time and looks at the memory. Where this cannot be had, `refusal()`
says why, and only `unsafe=True` runs an answer: limited, but as the user who grades.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from coursekit.grading import seccomp, slot, view
from coursekit.grading.watch import children, tree

START_SECONDS, STOP_SECONDS = 300.0, 2.0
OURS = 3  # processes: bubblewrap outside and inside, and the forker


@dataclass(frozen=True)
class Limits:
    """What a submission may use; the seconds of a case come from its exercise.

    seconds    for a whole submission, imports apart.
    cell       seconds for an answer's cell to run, before any case.
    memory     bytes beyond those of a fresh worker, for all processes together.
    output     bytes on the real stdout and stderr.
    reply      bytes of one returned value.
    processes  processes and threads.
    tmp        bytes in /tmp, and in one file.
    files      files in /tmp.
    threads    that torch may use.
    """

    seconds: float = 300.0
    cell: float = 30.0
    memory: int = 2 * 2**30
    output: int = 16 * 2**20
    reply: int = 4 * 2**20
    processes: int = 64
    tmp: int = 64 * 2**20
    files: int = 4_096
    threads: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value}: accepted is more than 0")


class Infra(RuntimeError):
    """Something of ours failed, in one line: no verdict on anybody."""


@functools.cache
def refusal() -> str:
    """Why answers cannot be run safely here, in one line; empty if they can."""
    if sys.platform != "linux":
        return f"answers are walled in by Linux namespaces, and this system is {sys.platform}"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed: there is no command bwrap"
    try:
        done = probe()
    except (OSError, subprocess.TimeoutExpired) as problem:
        return f"bubblewrap does not start: {type(problem).__name__}"
    last = (done.stderr.strip().splitlines() or ["no word why"])[-1]
    return f"the walls do not stand here: {last[:200]}" if done.returncode else ""


def probe() -> subprocess.CompletedProcess:
    """Put the walls around nothing, once."""
    code = f"from coursekit.grading.forker import probe; probe({0 if os.getuid() else slot.PROBE})"
    with command(code, unsafe=False) as (args, fds):
        return subprocess.run(args, pass_fds=fds, env={}, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, check=False, timeout=START_SECONDS)


def layers() -> tuple[str, ...]:
    """The walls that stand here around an answer; () if there is a refusal."""
    if refusal():
        return ()
    own = ("uid",) if os.getuid() == 0 else ()
    calls = ("seccomp",) if seccomp.known() else ()
    return ("bubblewrap", "namespaces", *own, *calls, "rlimits", "memory watch")


@contextmanager
def command(code: str, *, unsafe: bool) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """The command that runs Python code behind the walls, and the descriptor it must be given."""
    if unsafe:
        yield view.python(code), ()
        return
    with tempfile.TemporaryFile() as told:  # so that no list of processes shows what is hidden
        told.write(b"".join(arg.encode() + b"\0" for arg in view.arguments()))
        told.seek(0)
        yield ["bwrap", "--args", str(told.fileno()), "--", *view.python(code)], (told.fileno(),)


class Sandbox:
    """A running forker, and the uid that its workers have, which no other sandbox shares."""

    def __init__(self, *, unsafe: bool = False) -> None:
        self.unsafe, self.broken = unsafe, False
        self.uid, self._lock = (0, None) if unsafe or os.getuid() else slot.take()
        self.control, theirs = socket.socketpair()
        self._words = tempfile.TemporaryFile()
        code = (f"from coursekit.grading.forker import main; "
                f"main({theirs.fileno()}, {not unsafe})")
        with theirs, command(code, unsafe=unsafe) as (args, fds):
            self.process = subprocess.Popen(
                args, pass_fds=(theirs.fileno(), *fds), stdin=subprocess.DEVNULL,
                env=view.environment(walled=False) if unsafe else {"PATH": os.defpath}, cwd="/",
                stdout=self._words, stderr=self._words,
                start_new_session=True)  # Ctrl-C is for those who can say what they stopped
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def _await(self) -> None:
        """Until the forker has imported all."""
        if self.message(START_SECONDS) != {"ready": True}:
            self._words.seek(0)
            lines = self._words.read(10_000).decode(errors="replace").strip().splitlines()
            raise Infra(f"the sandbox did not start: {(lines or ['no word why'])[-1][:200]}")
        processes = tree(self.process.pid)
        self.idle, self.base = len(processes), max((p.private for p in processes), default=0)
        if not self.unsafe and self.idle < OURS:
            raise Infra("this kernel's /proc does not list children: no memory could be watched")

    def message(self, seconds: float) -> dict | None:
        """The forker's next message; None if it is gone or says nothing in time."""
        if not select.select([self.control], [], [], seconds)[0]:
            return None
        data = self.control.recv(65_536)
        return json.loads(data) if data else None

    @property
    def usable(self) -> bool:
        return not self.broken and self.process.poll() is None

    def begin(self, limits: Limits, fds: list[int]) -> None:
        """Have a worker forked: requests come by fds[0], answers go by fds[1], talk by fds[2]."""
        job = {"uid": self.uid, "tmp": limits.tmp, "files": limits.files,
               "processes": limits.processes, "memory": limits.memory,
               "seconds": int(limits.seconds * (limits.threads + 1)) + 1}
        try:
            socket.send_fds(self.control, [json.dumps(job).encode() + b"\n"], fds)
        except OSError as problem:
            raise Infra(f"the sandbox is gone: {problem.strerror}") from None

    def end(self) -> None:
        """End the worker and all that it has started; everything, if that is not done in time."""
        with suppress(OSError):
            self.control.sendall(b"kill\n")
            if self.message(STOP_SECONDS) is not None and len(tree(self.process.pid)) <= self.idle:
                return
        self.close()

    def close(self) -> None:
        """End everything inside: bubblewrap's death is that of its namespace."""
        self.broken = True
        self.control.close()
        if not self.unsafe and self.process.poll() is None:  # else the forker ends its worker
            for pid in children(self.process.pid):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.process.kill()
        self.process.wait()
        self._words.close()
        if self._lock is not None:
            self._lock.close()


# ---- the sandboxes of this process -----------------------------------------------------------

_idle: list[Sandbox] = []
_lock, _owner = threading.Lock(), os.getpid()


@contextmanager
def lent(*, unsafe: bool = False) -> Iterator[Sandbox]:
    """A sandbox for one submission at a time: an idle one, or a new one."""
    global _owner
    with _lock:
        if _owner != os.getpid():  # what a parent process started is not ours to use
            _idle.clear()
            _owner = os.getpid()
        mine = next((s for s in _idle if s.unsafe == unsafe), None)
        if mine is not None:
            _idle.remove(mine)
    if mine is not None and not mine.usable:
        mine.close()
        mine = None
    mine = mine or Sandbox(unsafe=unsafe)
    try:
        yield mine
    finally:
        with _lock:
            if mine.usable:
                _idle.append(mine)


@atexit.register
def shut() -> None:
    """End the idle sandboxes of this process."""
    with _lock:
        while _idle and _owner == os.getpid():
            _idle.pop().close()
