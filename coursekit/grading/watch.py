"""Looks at processes from outside, by /proc: how many there are and what memory they hold."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process at one moment.

    private  bytes of memory that no file backs, shared anonymous memory included.
    """

    pid: int
    private: int
    threads: int


def tree(root: int) -> list[Process]:
    """A process and all that descends from it; orphans count with the first of their namespace."""
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        seen = look(pid)
        if seen:
            found.append(seen)
            waiting += children(pid)
    return found


def look(pid: int) -> Process | None:
    """A process, None if it is no more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    held = sum(int(words[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in words)
    return Process(pid, held * 1024, int(words["Threads"]))


def children(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
    return found


def waited(pid: int) -> float:
    """Seconds for which a process's threads were ready to run and had no processor; 0 if unknown."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1])
    return total / 1e9


def owned(uid: int) -> list[int]:
    """The processes of a user, wherever they hang."""
    found = []
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                found.append(int(name))
    return found
