"""Inside bubblewrap, before any answer: imports once, then forks a worker for each submission.

Only trusted code runs here, and it knows nothing that an answer might want. Each worker gets its
own process, mount, IPC and network namespaces, its own small /tmp, the rights of nobody, limits,
and the filter of system calls; it ends with all that it started. Importing torch takes seconds, a
fork a few hundredths: that is why this process is there.

    forker -> init (first in the new process namespace: waits, reports, ends all) -> worker

The other side sends a line of JSON and three pipes for a job, and "kill"; it gets "ready" once and
for each job the worker's exit status, when nothing of it is left.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import selectors
import signal
import socket
import struct
import sys
import traceback
from typing import NoReturn

from coursekit.grading import seccomp

NEW_MOUNTS, NEW_IPC, NEW_PROCESSES, NEW_NETWORK = 0x20000, 0x08000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, PRIVATE, RECURSIVE = 2, 4, 8, 1 << 18, 1 << 14
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 4, 38
CAPABILITIES = 0x20080522  # the version of capset's structure
FAILED = 70  # exit status where the walls did not come up
KILL = b"kill"
OWN = 3  # processes of ours that count for the same user, where there is no uid to spare


def main(control: int, walled: bool) -> None:
    """Serve jobs from a socket until it is closed."""
    sock = socket.socket(fileno=control)
    from coursekit.grading import worker

    worker.prepare()
    if walled and len(os.listdir("/proc/self/task")) > 1:
        raise RuntimeError("a library has started threads, and a process with threads cannot fork")
    sock.sendall(json.dumps({"ready": True}).encode())
    while True:
        data, fds, _, _ = socket.recv_fds(sock, 65_536, 3)
        if not data:
            return
        lines = [line for line in data.splitlines() if line != KILL]  # one that came too late
        if not lines:
            continue
        job = json.loads(lines[-1])
        init, report = start(job, fds, walled, worker.main)
        for fd in fds:
            os.close(fd)
        status = attend(sock, init, report, walled)
        sock.sendall(json.dumps({"status": status}).encode())


def probe(uid: int) -> None:
    """Put up the same walls around a process that does nothing; raises if they do not stand."""
    job = {"uid": uid, "tmp": 2**20, "files": 100, "processes": 8, "memory": 2**30,
           "seconds": 10}
    fds = [os.open(os.devnull, os.O_RDWR), os.open(os.devnull, os.O_RDWR), os.dup(2)]
    init, report = start(job, fds, True, lambda *_: None)
    told = os.read(report, 4)
    os.waitpid(init, 0)
    if told != bytes(4):
        raise OSError(f"a process behind the walls ended with {told.hex() or 'no word'}")


def start(job: dict, fds: list[int], walled: bool, work) -> tuple[int, int]:
    """Fork a worker behind its walls: the pid of its init, and a pipe that tells its status."""
    libc = ctypes.CDLL(None, use_errno=True)
    report, tell = os.pipe()
    if walled:
        own = os.open("/proc/self/ns/pid", os.O_RDONLY)
        checked(libc.unshare(NEW_PROCESSES), "process namespace")
    init = os.fork()
    if init == 0:
        try:
            first(libc, job, fds, tell, walled, work)
        except BaseException:
            os.write(fds[2], traceback.format_exc().encode())
        finally:
            os._exit(FAILED)
    if walled:
        checked(libc.setns(own, NEW_PROCESSES), "own process namespace")
        os.close(own)
    os.close(tell)
    return init, report


def attend(sock: socket.socket, init: int, report: int, walled: bool) -> int | None:
    """Wait for a worker's end, or end it when asked: its wait status, None if it was ended."""
    with selectors.DefaultSelector() as wait:
        wait.register(sock, selectors.EVENT_READ)
        wait.register(report, selectors.EVENT_READ)
        ready = {key.fileobj for key, _ in wait.select()}
    if report not in ready:
        sock.recv(4096)
        if not walled and os.getpgid(init) == init:
            os.killpg(init, signal.SIGKILL)
        os.kill(init, signal.SIGKILL)  # the first of a namespace takes all others with it
    told = os.read(report, 4)
    os.close(report)
    os.waitpid(init, 0)
    return struct.unpack("i", told)[0] if told else None


def checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


# ---- in the new process namespace ------------------------------------------------------------


def first(libc: ctypes.CDLL, job: dict, fds: list[int], tell: int, walled: bool, work) -> NoReturn:
    """The first process: puts up walls, forks the worker, waits, tells its status and ends all."""
    os.setsid()
    if walled:
        enclose(libc, job)
    worker = os.fork()
    if worker == 0:
        try:
            os.close(tell)
            become(libc, job, fds, walled)
            work(*fds[:2])
            os._exit(0)
        except BaseException:
            os.write(2, traceback.format_exc().encode())
        finally:
            os._exit(FAILED)
    for fd in fds:
        os.close(fd)
    if walled:
        shed(libc)
        checked(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")
    while True:
        pid, status = os.wait()  # orphans of the worker's, too
        if pid == worker:
            break
    os.write(tell, struct.pack("i", status))
    os.killpg(0, signal.SIGKILL)  # where there is no namespace that would end with this process
    os._exit(0)


def enclose(libc: ctypes.CDLL, job: dict) -> None:
    """Own mounts, IPC and network: a /proc of this namespace alone, an empty folder with limits."""
    checked(libc.unshare(NEW_MOUNTS | NEW_IPC | NEW_NETWORK), "namespaces")
    options = f"size={job['tmp']},nr_inodes={job['files']},mode=1777".encode()
    scratch = os.environ["HOME"].encode()
    for source, place, kind, flags, said in (
            (None, b"/", None, PRIVATE | RECURSIVE, None),
            (b"proc", b"/proc", b"proc", NOSUID | NODEV | NOEXEC, None),
            (b"tmpfs", scratch, b"tmpfs", NOSUID | NODEV, options)):
        checked(libc.mount(source, place, kind, ctypes.c_ulong(flags), said), f"mount of {place}")


def become(libc: ctypes.CDLL, job: dict, fds: list[int], walled: bool) -> None:
    """Turn this process into one that may run an answer: no rights, limits, three pipes."""
    silent = os.open(os.devnull, os.O_RDONLY)
    os.dup2(silent, 0)
    os.dup2(fds[2], 1)
    os.dup2(fds[2], 2)
    if sys.platform == "linux":
        with open("/proc/self/oom_score_adj", "w") as score:  # the kernel's first choice
            score.write("1000")
    bound(job, walled)
    if walled:
        os.chdir(os.environ["HOME"])
        if os.getuid() == 0 and job["uid"]:
            os.setgroups([])
            os.setresgid(*[job["uid"]] * 3)
            os.setresuid(*[job["uid"]] * 3)
        shed(libc)
        checked(libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), "dumpable")
        checked(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new rights")
        if seccomp.known():
            seccomp.shut(libc)
    low, high = sorted(fds[:2])
    os.closerange(3, low)
    os.closerange(low + 1, high)
    os.closerange(high + 1, 65_536)


def shed(libc: ctypes.CDLL) -> None:
    """Give up every capability of this process."""
    head = ctypes.create_string_buffer(struct.pack("Ii", CAPABILITIES, 0))
    checked(libc.capset(head, ctypes.create_string_buffer(24)), "capabilities")


def bound(job: dict, walled: bool) -> None:
    """Limits that no process started from here can raise."""
    limits = {"CORE": 0, "CPU": job["seconds"], "FSIZE": job["tmp"], "NOFILE": 128,
              "MSGQUEUE": 0, "MEMLOCK": 0}
    if walled:  # elsewhere it would count all that the user runs
        limits["NPROC"] = job["processes"] + (0 if job["uid"] else OWN)
    mapped = address_space()
    if mapped:  # what is mapped already does not count
        limits["AS"] = mapped + job["memory"]
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}", None)
        if kind is not None:
            hard = resource.getrlimit(kind)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (value, value))


def address_space() -> int:
    """Bytes mapped by this process, 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0
