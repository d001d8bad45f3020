"""Those who grade: processes of this machine, or the workers of a Dask cluster.

Both have `room`, the number of submissions that may be under way, and `submit`, which gives a
future of concurrent.futures for (result, seconds). Here, a thread drives a process of its own: one
that dies takes one submission with it, which is tried again, and what runs in one cannot hold up
the others, as threads of one interpreter would. The function that grades runs in that process, a
student's code in the sandbox that it starts.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any

PATIENCE = 1_800.0  # seconds for a submission; the grader's own deadlines are far below
LEAVE_SECONDS = 10.0  # for a process without work to close its sandbox
AHEAD = 2  # submissions for each thread of a cluster, so that none waits for the network
FIND_SECONDS = 20.0  # for a scheduler to answer


class Lost(RuntimeError):
    """The one who graded is gone or failed: nothing is known of the submission."""


def timed(function: Callable[..., Any], args: tuple, options: dict) -> tuple[Any, float]:
    """What a function gives, and the seconds it took."""
    begun = time.perf_counter()
    result = function(*args, **options)
    return result, time.perf_counter() - begun


# ---- processes of this machine ---------------------------------------------------------------


class Local:
    """`jobs` processes, each started when there is work for it, and kept."""

    def __init__(self, jobs: int) -> None:
        self.room = jobs
        self._threads = ThreadPoolExecutor(jobs, "grading")
        self._idle: queue.SimpleQueue[Process | None] = queue.SimpleQueue()
        for _ in range(jobs):
            self._idle.put(None)
        self._live: set[Process] = set()
        self._door, self._open = threading.Lock(), True

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Future:
        return self._threads.submit(self._drive, (function, args, options))

    def _drive(self, job: tuple) -> tuple[Any, float]:
        process = self._idle.get()
        try:
            process = process or self._start()
            return process.do(job)
        except BaseException:
            if process is not None:
                process.kill()
                self._live.discard(process)
            process = None
            raise
        finally:
            self._idle.put(process)

    def _start(self) -> Process:
        with self._door:
            if not self._open:
                raise Lost("grading was stopped")
            process = Process()
            self._live.add(process)
        return process

    def close(self) -> None:
        """End every process: at once those that are at work, the others in peace."""
        with self._door:
            self._open = False
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in list(self._live):
            process.leave()
        self._threads.shutdown(wait=True)


class Process:
    """A process that grades, and the line to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that are held
        self.line, theirs = context.Pipe()
        self.busy = False
        self._process = context.Process(target=serve, args=(theirs,))
        with deaf():
            self._process.start()
        theirs.close()

    def do(self, job: tuple) -> tuple[Any, float]:
        """Have a job done; Lost if it cannot be, and then the process is to be killed."""
        self.busy = True
        try:
            self.line.send(job)
            if not self.line.poll(PATIENCE):
                raise Lost(f"the process that graded said nothing for {PATIENCE:g} s")
            problem, result = self.line.recv()
        except (EOFError, OSError):
            raise Lost("the process that graded ended") from None
        if problem:
            raise Lost(problem)
        self.busy = False
        return result

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def leave(self) -> None:
        """Let it end by itself where it has nothing to do."""
        if not self.busy:
            self.line.close()
            self._process.join(LEAVE_SECONDS)
        self.kill()


@contextmanager
def deaf() -> Iterator[None]:
    """What is started inside does not hear Ctrl-C until `serve` has said what it is to do then."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # its start would end the silence
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(line: Connection) -> None:
    """The life of a process that grades: jobs come in until the line or its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"  # before torch is loaded: the processes share the cores
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = line.recv()
        except EOFError:
            return
        try:
            answer = "", timed(*job)
        except Exception as problem:  # a defect of ours is no verdict on anybody
            answer = f"{type(problem).__name__}: {problem}", None
        line.send(answer)


def _end_with_parent() -> None:
    """A kill of the parent leaves nobody at work: the sandbox ends with this process."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


# ---- a cluster -------------------------------------------------------------------------------


class Cluster:
    """The workers of a Dask cluster. A worker that is lost has its submissions taken by others."""

    def __init__(self, address: str) -> None:
        try:
            from dask import config
            from distributed import Client
        except ImportError:
            raise ValueError("--dask needs the package distributed: "
                             "pip install 'coursekit[grading]'") from None
        if address.startswith("tls:") and not config.get("distributed.comm.tls.ca-file", None):
            raise ValueError(f"--dask={address!r}: Dask's configuration names no certificates, "
                             "accepted are distributed.comm.tls.ca-file, .client.cert, .client.key")
        try:
            self.client = Client(address, timeout=FIND_SECONDS, set_as_default=False)
        except (OSError, TimeoutError, ValueError, TypeError) as problem:
            words = " ".join(str(problem).split())[:200]
            raise ValueError(f"--dask={address!r}: there is no scheduler ({words})") from None
        self.address = address
        self._pool: Executor = self.client.get_executor(pure=False)  # equal bytes may be two tries

    @property
    def room(self) -> int:
        """Twice as many as there are threads; workers come and go."""
        try:
            return max(1, AHEAD * sum(self.client.nthreads().values()))
        except OSError:
            raise self._gone() from None

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> Future:
        if self.client.status != "running":
            raise self._gone()
        return self._pool.submit(timed, function, args, options)

    def _gone(self) -> ConnectionError:
        return ConnectionError(errno.ENOTCONN, "the scheduler is gone", self.address)

    def everywhere(self, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """What a function gives on each worker."""
        return self.client.run(function, *args)

    def close(self) -> None:
        """Forget what is under way and leave the cluster as it is."""
        if self.client.status == "running":
            self._pool.shutdown(wait=False)
        self.client.close()
