"""The untrusted side: runs the cells of one submission and calls its answers.

Whatever happens in this process is the student's doing: nothing here decides anything, and nothing
here knows what is wanted. Requests come in by one pipe and are answered by another; each answer
carries the nonce of its request. What an answer prints goes elsewhere.
"""

from __future__ import annotations

import fcntl
import gc
import importlib
import linecache
import os
import random
import re
import sys
import traceback
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coursekit.classroom.check import NotDoneYet, calls
from coursekit.classroom.check.run import Ear, Outcome, TooLong, limit, run
from coursekit.grading import protocol
from coursekit.grading.protocol import Encoder, Unplain

USED = ("coursekit.classroom.show", "coursekit.nets.unet", "coursekit.portraits",
        "coursekit.pretrained")  # by the setup cells of labs and by known.py
MAGIC = re.compile(r"^(\s*)(?:[%!?].*|.*\?\s*)$")
PLACES = (20, 120)  # where the pipes end up among the descriptors


def prepare() -> None:
    """Import what every submission needs, once, in the process that forks the workers."""
    here = Path(calls.__file__).parent
    for name in (*USED, *(f"{calls.__name__}.{p.stem}" for p in sorted(here.glob("lab??.py")))):
        importlib.import_module(name)
    torch.optim.SGD([torch.zeros(1)], lr=0.0)  # its first use imports for seconds
    gc.collect()
    gc.freeze()  # so that a worker's collector does not write into every shared page


def main(requests: int, replies: int) -> None:
    """Answer requests until their pipe is closed."""
    requests, replies = moved(requests), moved(replies)
    os.register_at_fork(after_in_child=lambda: (os.close(requests), os.close(replies)))
    desk = Desk()
    while True:
        try:
            header, blocks = protocol.receive(requests)
        except EOFError:
            return
        seeded(header["seed"])
        reply, out = getattr(desk, f"do_{header['do']}")(header, blocks)
        protocol.send(replies, protocol.pack({**reply, "nonce": header["nonce"]}, out))


def moved(fd: int) -> int:
    """The same pipe under a number that cannot be guessed, closed in programs that are started."""
    new = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, random.SystemRandom().randrange(*PLACES))
    os.close(fd)
    return new


def seeded(seed: int) -> None:
    """Every global generator from one seed: equal submissions give equal records."""
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed % 2**32).get_state())
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())


class Desk:
    """The one namespace in which all cells run, and the answers that were taken from it."""

    def __init__(self) -> None:
        module = types.ModuleType("__main__")
        sys.modules["__main__"] = module
        self.space, self.answers = module.__dict__, {}
        self.space["display"] = lambda *shown, **how: None  # notebooks have it

    def do_setup(self, header: dict, _: list[bytes]) -> tuple[dict, list[bytes]]:
        """Run the lab's own first cells."""
        torch.set_num_threads(header["threads"])
        for id, source in header["cells"]:
            with Ear():
                exec(compiled(source, id)[0], self.space)
        return {"kind": "done"}, []

    def do_cell(self, header: dict, _: list[bytes]) -> tuple[dict, list[bytes]]:
        """Run an answer's cell and keep what it defines under the name that was asked for."""
        id, name, magic, words, kind = header["id"], header["name"], 0, "", "done"
        before = self.space.get(name, self)
        try:
            code, magic = compiled(header["source"], id)
            with Ear(), limit(header["seconds"]):
                exec(code, self.space)
        except NotDoneYet:
            kind = "not done"
        except TooLong:
            kind = "too long"
        except SyntaxError as problem:
            kind, words = "raised", f"SyntaxError: {problem.msg}, line {problem.lineno}"
        except BaseException as problem:  # a cell may raise anything, SystemExit too
            kind, words = "raised", said(problem, id)
        after = self.space.get(name, self)
        defined = after is not self and (kind == "done" or after is not before)
        if defined:
            self.answers[header["exercise"]] = after
        return {"kind": kind, "words": words, "magic": magic, "defined": defined}, []

    def do_case(self, header: dict, blocks: list[bytes]) -> tuple[dict, list[bytes]]:
        """Call an answer on a case."""
        task = calls.task(*header["task"])
        case = protocol.decode_case(header["case"], blocks)
        try:
            outcome = run(task, self.answers[task.id], case, header["seed"])
        except KeyboardInterrupt:  # there is nobody at a keyboard
            outcome = Outcome("raised", words="raised KeyboardInterrupt")
        encoder = Encoder(header["most"])
        reply = {"kind": outcome.kind, "words": outcome.words, "changed": outcome.changed,
                 "reseeded": outcome.reseeded, "printed": outcome.printed}
        try:
            return {**reply, "value": encoder.encode(outcome.value)}, encoder.blocks
        except Unplain as odd:
            return {**reply, "odd": str(odd)}, []


def compiled(source: str, id: str) -> tuple[types.CodeType, int]:
    """The code of a cell and how many lines of magic were left out; SyntaxError if it is none."""
    name, left = f"<{id}>", 0
    try:
        code = compile(source, name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as problem:
        lines = source.split("\n")
        plain = [MAGIC.sub(r"\1pass", line) for line in lines]
        left = sum(a != b for a, b in zip(lines, plain, strict=True))
        if not left or source.lstrip().startswith("%%"):
            raise SyntaxError(str(problem)) if type(problem) is ValueError else problem
        source = "\n".join(plain)
        code = compile(source, name, "exec", dont_inherit=True)
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    return code, left


def said(problem: BaseException, id: str) -> str:
    """What a cell raised, in one line, with the line of the cell that it came from."""
    steps = [s for s in traceback.extract_tb(problem.__traceback__) if s.filename == f"<{id}>"]
    source = f" in `{steps[-1].line.strip()}`" if steps and steps[-1].line else ""
    words: Any = " ".join(str(problem).split())[:200]
    return f"raised {type(problem).__name__}: {words}{source}"
