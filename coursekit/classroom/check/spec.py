"""What an exercise is: one specification, from which its checks, points and diagnoses come.

A case is plain arrays and numbers, so that it can be sent to another process; what cannot be sent
(a network, a schedule) is a `Named` thing that both sides build for themselves. What a right answer
returns is computed by the side that judges, when it judges: nothing here holds an expected array.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from coursekit.classroom.check.calls import Task, task

Cases = Callable[[np.random.Generator], Iterator["Case"]]
DTYPES = ("float64", "float32")


class NotDoneYet(NotImplementedError):
    """Raised where an answer has not been written yet."""

    def __init__(self, words: str = "write your answer in place of this line") -> None:
        super().__init__(words)


@dataclass(frozen=True)
class Named:
    """Something that both sides build: a kind of `known.py` or of the exercise, and its numbers."""

    kind: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def named(kind: str, **numbers: Any) -> Named:
    """named("mixture", seed=3) reads better than the class."""
    return Named(kind, numbers)


def uneven(g: np.random.Generator, n: int = 5, low: int = 20, high: int = 900) -> list[int]:
    """Times that fall, 30 or more apart, none of them 0."""
    while True:
        times = sorted(map(int, g.choice(np.arange(low, high), n, replace=False)), reverse=True)
        if min(a - b for a, b in pairwise(times)) >= 30:
            return times


def hops(share: float, S: int) -> int:
    """How many of S hops a share is, cut off; 0.58 of 50 are 29."""
    return math.floor(share * S + 1e-9)


@dataclass(frozen=True)
class Case:
    """Arguments for one call of the answer.

    what   fixed words for the verdict line: no numbers with a point, nothing drawn at random.
    args   argument = a number, a word, a list of such, a numpy array, or something `Named`;
           floating arrays reach the answer as torch tensors of `dtype`, others as they are.
    dtype  "float64" or "float32".
    """

    what: str
    args: Mapping[str, Any]
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype: {self.dtype!r} is not one of {', '.join(DTYPES)}")


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer and the words that help whoever gave it.

    words   what is likely wrong, without the answer itself.
    wrong   the wrong formula, with the exercise's arguments (tensors in float64); of several
            results in a dict it may give the first alone.
    when    or a predicate (got, wanted, args) -> bool on what came back.
    raised  or a pattern in what was raised, e.g. "math domain error".
    """

    words: str
    wrong: Callable[..., Any] | None = None
    when: Callable[[Any, Any, Mapping[str, Any]], bool] | None = None
    raised: str = ""


def says(key: str, but: Any) -> Callable[[Any, Any, Mapping[str, Any]], bool]:
    """Whether the check has seen something else than `but` under that name."""
    return lambda got, wanted, args: isinstance(got, dict) and got.get(key, but) != but


def no_dict(got: Any, wanted: Any, args: Mapping[str, Any]) -> bool:
    """Whether something came that the check could not look into."""
    return got is not None and not isinstance(got, dict)


@dataclass(frozen=True)
class Exercise:
    """All that is known about exercise NN-k.

    signature  what the answer must define, "sigma(schedule, t, s, eta)"; called by position.
    public     seeded generator -> the cases of the check; always the same number, in fixed words.
    wanted     what a right answer returns for the arguments of a case (tensors in float64).
    hidden     further cases for grading; the public ones with other numbers if left out.
    mistakes   known wrong answers, the likeliest first.
    study      dotted names of the functions that the answer re-invents: they refuse to be called
               while it runs. Classes are refused at construction.
    judge      words for what is wrong although the value agrees, or None: (got, wanted, args).
    tolerance  allowed |got - wanted| / (1 + |wanted|), by dtype.
    seconds    time limit of a case.

    What is done with an answer that is not just called, and kinds of `Named` things of its own,
    stand in calls/: they are needed where an answer runs, and must not know what is wanted.
    """

    id: str
    title: str
    difficulty: int
    minutes: int
    points: int
    signature: str
    public: Cases
    wanted: Callable[..., Any]
    hidden: Cases | None = None
    mistakes: tuple[Mistake, ...] = ()
    study: tuple[str, ...] = ()
    judge: Callable[[Any, Any, Mapping[str, Any]], str | None] | None = None
    tolerance: Mapping[str, float] = field(
        default_factory=lambda: {"float64": 1e-9, "float32": 1e-4})
    seconds: float = 5.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d\d-\d", self.id):
            raise ValueError(f"id: {self.id!r} is not of the form NN-k")
        if not 1 <= self.difficulty <= 5 or self.minutes < 1 or self.points < 1:
            raise ValueError(f"{self.id}: difficulty is 1..5, minutes and points are >= 1")
        if not re.fullmatch(r"\w+\(\w+(, \w+)*\)", self.signature):
            raise ValueError(f"{self.id}: signature {self.signature!r} is not 'name(a, b)'")

    @cached_property
    def task(self) -> Task:
        """What the side that runs an answer must know of it."""
        return task(self.id, self.signature, self.study, self.seconds)

    @property
    def name(self) -> str:
        """The name that the answer cell must define."""
        return self.task.name

    @property
    def arguments(self) -> list[str]:
        return self.task.arguments

    @property
    def lab(self) -> str:
        return self.task.lab

    @property
    def head(self) -> str:
        """The line that stands under the exercise's title in the notebook."""
        return f"Difficulty {self.difficulty} of 5 · {self.minutes} minutes · {self.points} points"

    def cases(self, seed: int, *, hidden: bool = False) -> list[Case]:
        """The public or the hidden cases with the numbers of a seed."""
        generator = np.random.default_rng(seed)
        cases = list((self.hidden if hidden and self.hidden else self.public)(generator))
        for case in cases:
            if list(case.args) != self.arguments:
                raise TypeError(f"{self.id}: case {case.what!r} has {', '.join(case.args)}, "
                                f"expected {', '.join(self.arguments)}")
        return cases
