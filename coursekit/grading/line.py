"""The line to one worker: a request, its answer in time, and what ended the worker if none comes.

The worker is not believed. An answer that nobody asked for, or without the nonce of its request, is
tampering; time, memory and output are measured here; what it prints is counted and thrown away.

Time is that of a clock, less what the worker was kept waiting for a processor: on a busy machine an
answer has as long as on an idle one. One that has started processes of its own gets nothing extra.
"""

from __future__ import annotations

import math
import os
import secrets
import select
import selectors
import signal
import time
from typing import Any

from coursekit.grading.protocol import Broken, Reader, pack
from coursekit.grading.sandbox import Infra, Limits, Sandbox
from coursekit.grading.watch import Process, tree, waited

TICK = 0.05  # seconds between two looks at the memory
STRETCH = 10.0  # times its limit is the longest that an answer may take by the clock
PIECE = 2**16
FIRST_SECONDS = 60.0  # for the lab's own cells


class Ended(Exception):
    """What ended a worker: one of the record's verdicts, and words."""

    def __init__(self, verdict: str, words: str) -> None:
        super().__init__(verdict, words)
        self.verdict, self.words = verdict, words


class Line:
    """A fresh worker. After an Ended or an Infra only `close` may be called."""

    def __init__(self, sandbox: Sandbox, limits: Limits) -> None:
        self.sandbox, self.limits = sandbox, limits
        self.reader = Reader(limits.reply + PIECE)  # arrays have headers of their own
        self.status: int | None = None
        self.worker, self.usual = 0, []
        self.heard, self.words, self.looked = 0, b"", 0.0
        theirs, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        self.noise, noise = os.pipe()
        for fd in (self.requests, self.replies, self.noise):
            os.set_blocking(fd, False)
        self.gone = True  # until one has begun
        try:
            sandbox.begin(limits, [theirs, replies, noise])
            self.gone = False
        finally:
            for fd in (theirs, replies, noise):
                os.close(fd)
            if self.gone:
                self.close()

    def setup(self, cells: list[tuple[str, str]]) -> None:
        """Run the lab's own cells; no answer has run yet, so that a failure is ours."""
        header = {"do": "setup", "cells": cells, "threads": self.limits.threads, "seed": 0}
        try:
            self.ask(header, [], FIRST_SECONDS)
        except Ended as end:
            said = (self.words.decode(errors="replace").strip().splitlines() or [end.words])[-1]
            raise Infra(f"a worker did not come up: {said[:200]}") from None
        self.usual = self.crowd()
        self.worker = self.usual[-1].pid if self.usual else 0

    def ask(self, header: dict[str, Any], blocks: list[bytes], seconds: float,
            most: float = math.inf) -> tuple[dict[str, Any], list[bytes]]:
        """The answer to a request: header and blocks. Raises Ended.

        seconds  that the worker may take; most: by the clock, however busy the machine is.
        """
        nonce, clock = secrets.token_hex(16), Clock(self, seconds, most)
        self.quiet()
        self.out = memoryview(pack({**header, "nonce": nonce}, blocks))
        with selectors.DefaultSelector() as wait:
            for fd in (self.replies, self.noise, self.sandbox.control):
                wait.register(fd, selectors.EVENT_READ)
            wait.register(self.requests, selectors.EVENT_WRITE)
            while True:
                found = self._frame()
                if found is not None:
                    if found[0].pop("nonce", None) != nonce:
                        raise Ended("tampered", "an answer came that was not asked for")
                    return found
                if self.gone:
                    raise Ended(*ending(self.status))
                if clock.over():
                    raise Ended("timeout", "")  # whoever asked knows what the time was
                self._turn(wait, TICK)

    def quiet(self) -> None:
        """Ended if something has come that nobody asked for."""
        self._read()
        if self.reader.held:
            raise Ended("tampered", "bytes came that were not asked for")

    def _turn(self, wait: selectors.BaseSelector, seconds: float) -> None:
        """Wait for something to happen, once, and see to it."""
        ready = {key.fileobj for key, _ in wait.select(seconds)}
        if self.requests in ready and not self._write():
            wait.unregister(self.requests)
        if self.noise in ready and not self._listen():
            wait.unregister(self.noise)
        if self.replies in ready and not self._read():
            wait.unregister(self.replies)
        if self.sandbox.control in ready:
            self._bury()
        if time.monotonic() - self.looked > TICK:
            self._weigh()

    def _write(self) -> bool:
        """Send more of the request; False when there is no more."""
        try:
            self.out = self.out[os.write(self.requests, self.out[:PIECE]):]
        except BlockingIOError:
            return True
        except BrokenPipeError:  # nobody reads: the end of the time will come
            return False
        return bool(self.out)

    def _frame(self) -> tuple[dict[str, Any], list[bytes]] | None:
        try:
            return self.reader.frame()
        except Broken as odd:
            raise Ended("tampered", f"an answer came that is none: {odd}") from None

    def _read(self) -> bool:
        """Take in some of what has come; False at the end of the pipe."""
        try:
            piece = os.read(self.replies, PIECE)
            self.reader.feed(piece)
        except BlockingIOError:
            return True
        except Broken as odd:
            raise Ended("tampered", f"an answer came that is none: {odd}") from None
        return bool(piece)

    def _listen(self) -> bool:
        """Count what was printed and forget it, but for the beginning; False at the end."""
        piece = os.read(self.noise, PIECE)
        self.heard += len(piece)
        self.words = (self.words + piece)[:4_096]
        if self.heard > self.limits.output:
            raise Ended("output-limit", f"wrote more than {self.limits.output} bytes to the screen")
        return bool(piece)

    def _bury(self) -> None:
        """The worker and all of its are gone: take in what came before."""
        message = self.sandbox.message(0)
        if message is None:
            raise Infra("the sandbox is gone")
        self.gone, self.status = True, message["status"]
        for take, fd in ((self._read, self.replies), (self._listen, self.noise)):
            while select.select([fd], [], [], 0)[0] and take():
                pass

    def _weigh(self) -> None:
        self.looked = time.monotonic()
        held = sum(max(0, p.private - self.sandbox.base) for p in self.crowd())
        if held > self.limits.memory:
            raise Ended("memory", f"took more than {self.limits.memory // 2**20} MB of memory")

    def crowd(self) -> list[Process]:
        """The processes of this worker, and the sandbox's own."""
        return tree(self.sandbox.process.pid)

    def littered(self) -> bool:
        """Whether the answers have left processes or threads that go on."""
        now, torch = self.crowd(), self.limits.threads - 1  # torch keeps the threads it may have
        return len(now) > len(self.usual) or \
            sum(p.threads for p in now) > sum(p.threads for p in self.usual) + torch

    def close(self) -> None:
        """End the worker, and close the line."""
        if not self.gone:
            self.sandbox.end()
        for fd in (self.requests, self.replies, self.noise):
            os.close(fd)


class Clock:
    """The time that a request may take."""

    def __init__(self, line: Line, seconds: float, most: float) -> None:
        self.line, self.seconds, self.most = line, seconds, min(STRETCH * seconds, most)
        self.begun, self.waited = time.monotonic(), waited(line.worker)

    def over(self) -> bool:
        spent = time.monotonic() - self.begun
        if spent < min(self.seconds, self.most):
            return False
        if spent >= self.most or self.line.littered():
            return True
        return spent - (waited(self.line.worker) - self.waited) >= self.seconds


def ending(status: int | None) -> tuple[str, str]:
    """Verdict and words for the way in which a worker ended by itself."""
    if status is None:
        return "crashed", "ended its process"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return "timeout", "used up its processor time"
        known = {s.value: s.name for s in signal.Signals}
        return "crashed", f"ended by the signal {known.get(number, number)}"
    return "crashed", f"left its process with exit status {os.WEXITSTATUS(status)}"
