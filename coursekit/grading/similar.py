"""Pairs of submissions that look alike, for a person to read side by side. No verdicts.

Winnowing (Schleimer, Wilkerson and Aiken 2003): of every run of K tokens a hash, of every window of
W hashes the least one is kept, so that any K + W - 1 tokens in common leave a trace. Names, numbers
and texts that a student may choose are made equal first, comments and layout go. What was handed
out does not count, nor what most of the class has; and what is left counts the more, the fewer have
it: with short exercises many write the same line, and only what is rare says something.
"""

from __future__ import annotations

import builtins
import keyword
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from coursekit.labs.source import tokens

K, W = 8, 5  # tokens of a run, runs of a window: 12 tokens in common are always seen
MOST = 20_000  # tokens of an answer that are looked at; a solution has some 100
COMMON = 0.5  # of the class: what more have does not count
LEAST_SHARE, LEAST_BITS = 0.4, 30.0  # of a pair that is listed
PAIRS = 200
BLOCK = 500  # students whose pairs with all others are counted at once
KNOWN = {*keyword.kwlist, *dir(builtins), "torch", "math", "numpy", "np"}
BASE, MIX = 0x9E3779B97F4A7C15, np.uint64(0xBF58476D1CE4E5B9)
Trace = tuple[str, int]  # exercise, hash


@dataclass(frozen=True)
class Pair:
    """Two students and what their answers have in common, beyond what most have.

    share      of what the one that has less wrote, 0..1, rare things counting more.
    bits       for the order of pairs: the sum of log2(students / those who have it) over all that
               is shared. Twice as much, or had by far fewer: more bits. It is no probability.
    exercises  exercise -> its own share, where anything is shared.
    verbatim   exercises that are the same letter for letter, comments and names included.
    """

    a: str
    b: str
    share: float
    bits: float
    exercises: Mapping[str, float]
    verbatim: tuple[str, ...] = ()


@dataclass(frozen=True)
class Alike:
    """The pairs that share most, of all that were found, among so many students."""

    pairs: tuple[Pair, ...]
    found: int
    students: int


def alike(answers: Mapping[str, Mapping[str, str]], given: Iterable[str],
          most: int = PAIRS) -> Alike:
    """Compare the answers of a class with each other.

    answers  student -> exercise -> text of the answer.
    given    texts that were handed out: blanks, setup cells, whatever anybody may have copied.
    """
    students, known = sorted(answers), set().union(*map(traces, given))
    kept = [{(id, trace) for id, text in answers[student].items()
             for trace in traces(text) - known} for student in students]
    bits = _bits(kept)
    kept = [{trace for trace in own if trace in bits} for own in kept]
    totals = np.array([_sum(own, bits) for own in kept])
    rows = sorted(_candidates(kept, bits, totals))
    pairs = []
    for _, i, j in rows[:most]:
        both = {id: answers[students[i]][id] for id in answers[students[i]]
                if answers[students[i]][id] == answers[students[j]].get(id)}
        same = tuple(sorted(id for id, text in both.items() if traces(text) - known))
        pairs.append(_pair(students[i], students[j], kept[i], kept[j], bits, same))
    return Alike(tuple(pairs), len(rows), len(students))


def traces(text: str) -> set[int]:
    """The winnowed hashes of a source, the same on every machine."""
    found = np.array([zlib.crc32(token.encode()) for token in islice(_plain(text), MOST)],
                     dtype=np.uint64)
    if len(found) < K:
        return set()
    powers = np.array([pow(BASE, K - 1 - j, 2**64) for j in range(K)], dtype=np.uint64)
    hashes = (np.lib.stride_tricks.sliding_window_view(found, K) * powers).sum(1, dtype=np.uint64)
    hashes = (hashes ^ (hashes >> np.uint64(31))) * MIX  # so that the least is any of them
    hashes ^= hashes >> np.uint64(29)
    windows = np.lib.stride_tricks.sliding_window_view(hashes, min(W, len(hashes)))
    return set(windows.min(1).tolist())


def _plain(text: str) -> Iterator[str]:
    """The tokens of a source, with what an author may choose made equal."""
    before = ""
    for kind, token in tokens(text):
        if kind in ("comment", "newline", "space"):
            continue
        if kind == "name" and token not in KNOWN and before != ".":
            token = "name"
        elif kind in ("number", "string"):
            token = kind
        yield token
        before = token


def _bits(kept: list[set[Trace]]) -> dict[Trace, float]:
    """What it says about two that both have a trace; none for what most have."""
    count: dict[Trace, int] = {}
    for own in kept:
        for trace in own:
            count[trace] = count.get(trace, 0) + 1
    most = max(2.0, COMMON * len(kept))  # in a class of three, two may copy
    return {trace: math.log2(max(len(kept), 4) / n) for trace, n in count.items() if n <= most}


def _sum(own: set[Trace], bits: Mapping[Trace, float]) -> float:
    return math.fsum(bits[trace] for trace in own)  # exact, so that no order matters


def _candidates(kept: list[set[Trace]], bits: Mapping[Trace, float],
                totals: np.ndarray) -> Iterator[tuple[float, int, int]]:
    """All pairs above the thresholds: minus the bits, and the two numbers."""
    who: dict[Trace, list[int]] = {}
    for i, own in enumerate(kept):
        for trace in own:
            who.setdefault(trace, []).append(i)
    shared_by = [(bits[trace], np.array(who[trace])) for trace in sorted(who)
                 if len(who[trace]) > 1]
    for low in range(0, len(kept), BLOCK):
        shared = np.zeros((min(BLOCK, len(kept) - low), len(kept)))
        for weight, holders in shared_by:
            begin, end = np.searchsorted(holders, (low, low + BLOCK))
            if begin < end:
                shared[np.ix_(holders[begin:end] - low, holders)] += weight
        least = LEAST_SHARE * np.minimum(totals[low:low + BLOCK, None], totals)
        for i, j in np.argwhere((shared >= LEAST_BITS) & (shared >= least)).tolist():
            if i + low < j:
                yield -round(float(shared[i, j]), 6), i + low, j


def _pair(a: str, b: str, own: set[Trace], other: set[Trace], bits: Mapping[Trace, float],
          verbatim: tuple[str, ...]) -> Pair:
    shared, exercises = own & other, {}
    for id in sorted({id for id, _ in shared}):
        of_a, of_b, both = ({t for t in part if t[0] == id} for part in (own, other, shared))
        exercises[id] = _share(both, of_a, of_b, bits)
    return Pair(a, b, _share(shared, own, other, bits), round(_sum(shared, bits), 1), exercises,
                verbatim)


def _share(both: set[Trace], a: set[Trace], b: set[Trace], bits: Mapping[Trace, float]) -> float:
    return round(_sum(both, bits) / min(_sum(a, bits), _sum(b, bits)), 3)
