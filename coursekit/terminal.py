"""What the commands say: a progress bar, and one line for whatever went wrong."""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from typer.exceptions import TyperException

HOUSE = Path(__file__).parent
LOG_SECONDS = 30.0  # a line this often where there is no terminal to draw a bar in
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
# torch and safetensors write by themselves and raise their own errors
DISK_FULL_WORDS = ("No space left", "os error 28", "PytorchStreamWriter failed", "unexpected pos")


def chief() -> bool:
    """Whether this process speaks: the first of those that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def bar() -> Iterator[Callable[..., None]]:
    """A progress bar with the time left, on stderr; gives show(text, done, total, detail)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
               TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[detail]}"))
    said = time.perf_counter()
    progress = Progress(*columns, console=Console(stderr=True), disable=not chief())
    task = progress.add_task("", total=None, detail="")

    def show(text: str, done: float, total: float | None, detail: str = "") -> None:
        nonlocal said
        progress.start()  # at the first call, so that an early refusal stays one line
        progress.update(task, description=text, completed=done, total=total, detail=detail)
        silent = progress.disable or progress.console.is_terminal
        if not silent and time.perf_counter() - said > LOG_SECONDS:
            said = time.perf_counter()
            share = f"{done / total:.0%}  " if total else ""
            progress.console.print(f"{text}  {share}{detail}")

    try:
        yield show
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def ctrl_c(what_stays: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        complain(f"stopped by Ctrl-C: {what_stays}")
        raise typer.Exit(130) from None


def number(kind: type, low: float, high: float) -> Callable[[str], Any]:
    """A parser for int or float within low..high that says the range when it refuses."""
    what = f"a whole number {low}..{high}" if kind is int else f"a number {low:g}..{high:g}"

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise typer.BadParameter(f"{text!r}; accepted is {what}")
        return value

    parse.__name__ = "INTEGER" if kind is int else "FLOAT"
    return parse


def target_folder(path: Path) -> Path:
    """The folder to write to, refused at once where it cannot be made; it is not made here."""
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise ValueError(f"--out='{path}': '{there}' is a file; accepted is a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"--out='{path}': no permission to write to '{there}'")
    return path


def complain(line: str) -> None:
    typer.echo(f"coursekit: {' '.join(line.split())}", err=True)


def accepted(refusal: TyperException) -> str:
    """What would have been accepted where an unknown command or option was given."""
    command = getattr(getattr(refusal, "ctx", None), "command", None)
    if refusal.message.startswith("No such command"):
        return f" Accepted are {', '.join(command.commands)}."
    if refusal.message.startswith("No such option"):
        return f". Accepted are {', '.join(o for p in command.params for o in p.opts)}."
    return ""


def explain(problem: Exception) -> str | None:
    """One line for what a user can put right; None for a defect of ours, which needs its trace."""
    if isinstance(problem, OSError):
        where = f"'{problem.filename}'" if problem.filename else "the output folder"
        if problem.errno in DISK_FULL:
            return f"the disk is full or a quota is reached: {where} was not written"
        if problem.errno in FORBIDDEN:
            return f"no permission for {where}"
        return f"{problem.strerror or problem}: {where}"
    if any(words in str(problem) for words in DISK_FULL_WORDS):
        return "the disk is full: the last file was not written"
    if isinstance(problem, (TypeError, ValueError)) and raised_here(problem.__traceback__):
        return str(problem)
    return None


def raised_here(trace: TracebackType | None) -> bool:
    """Whether the innermost frame is this package's: its refusals are worded for the user."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and Path(trace.tb_frame.f_code.co_filename).is_relative_to(HOUSE)
