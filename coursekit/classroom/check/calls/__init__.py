"""How answers are called: all that the side which runs one must know of an exercise.

One file a lab (lab05.py for 05-1, 05-2, ..); a lab whose answers are simply called needs none.

    CALLS   exercise -> what is done with the answer: (answer, *args) -> values
    KNOWN   exercise -> more kinds of `Named` things, kind -> builder(dtype, **numbers)

Nothing in this folder knows what is wanted or imports what does, so that it can be given to a
process that runs other people's code and holds no exercise.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Task:
    """What must be known of exercise NN-k to run an answer, and no more.

    signature  what the answer must define, "sigma(schedule, t, s, eta)"; called by position.
    study      dotted names of the functions that refuse to be called while it runs.
    seconds    time limit of a case.
    call       what is done with the answer, or None: it is just called.
    known      kinds of `Named` things beyond those of known.py.
    """

    id: str
    signature: str
    study: tuple[str, ...] = ()
    seconds: float = 5.0
    call: Callable[..., Any] | None = None
    known: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name that the answer cell must define."""
        return self.signature.partition("(")[0]

    @property
    def arguments(self) -> list[str]:
        return self.signature.partition("(")[2].rstrip(")").split(", ")

    @property
    def lab(self) -> str:
        return self.id[:2]


def watched(verb: Callable[..., Any], site: Any, *given: Tensor) -> tuple[Any, str]:
    """What a verb gives for a layer, and whether it wrote into the tensors it was given."""
    before = [part.clone() for part in given]
    got = verb(site, *given)
    return got, "as it was" if all(map(torch.equal, given, before)) else "written into"


def task(id: str, signature: str, study: Iterable[str], seconds: float) -> Task:
    """The task from plain data, with the call and the kinds that stand in this folder."""
    call, known = None, {}
    if Path(__file__).with_name(f"lab{id[:2]}.py").is_file():
        lab = importlib.import_module(f"{__name__}.lab{id[:2]}")
        call, known = lab.CALLS.get(id), lab.KNOWN.get(id, {})
    return Task(id, signature, tuple(study), seconds, call, known)
