"""Lab 09: Prompt-to-Prompt, from the windows of hops to the controller."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.classroom.check.calls.lab09 import SIZES, steered
from coursekit.classroom.check.spec import Case, Exercise, Mistake

P2P, WORDS = "coursekit.edits.p2p", "coursekit.nets.words"
Window = tuple[float, float]
Words = list[str]
Places = list[int | None]


# ---- 09-1 windows ------------------------------------------------------------------------------


def share(g: np.random.Generator, S: int, low: float, high: float) -> float:
    """A share of S hops: a whole number of hops between a fifth and a half, and low..high more."""
    return float((g.integers(S // 5, S // 2) + g.uniform(low, high)) / S)


def window_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, S: int, window: Window, special: list) -> Case:
        return Case(what, {"S": S, "l": int(g.integers(9, 13)), "window": window,
                           "special": special})

    hops = [int(n) for n in g.integers(15, 40, 4)]
    yield case("the first hops", hops[0], (0.0, share(g, hops[0], 0.55, 0.9)), [])
    later = share(g, hops[1], 0.1, 0.2)
    yield case("a window that opens later", hops[1],
               (later, later + float(g.uniform(5.1, 5.25)) / hops[1]), [])
    short = [(S, k / 100) for S in (25, 50, 100) for k in range(1, 100)
             if math.floor(k / 100 * S) < round(k / 100 * S, 6) == S * k // 100]
    S, most = short[int(g.integers(len(short)))]
    yield case("a share that a float cannot hold", S, (0.0, most), [])
    first, *two = (int(n) for n in g.permutation(np.arange(2, 8))[:3])
    opens = share(g, hops[2], 0.1, 0.4)
    yield case("words with windows of their own", hops[2], (0.0, share(g, hops[2], 0.1, 0.4)), [
        ([first], (0.0, 2.3 / hops[2])), (two, (opens, opens + 4.3 / hops[2]))])
    yield case("one word alone", hops[3], (0.0, 0.0), [([first], (0.0, 1.0))])


def count(S: int, part: float) -> int:
    """How many of the first hops end before that share of all is over."""
    return int((torch.arange(1, S + 1) <= part * S + 1e-6).sum())


def gate(S: int, l: int, window: Window, special: Sequence, count: Callable = count,
         hop: Callable = lambda a, b, k: (k > a) & (k <= b),
         place: Callable = lambda j: j, join: Callable = lambda old, new: new) -> Tensor:
    """Hop number k = 1..S is open where the two counts say so; with parts to be altered."""
    def column(ends: Window) -> Tensor:
        first, final = (count(S, part) for part in ends)
        return hop(first, final, torch.arange(1, S + 1))

    columns = [column(window)] * l
    for tokens, ends in special:
        for j in map(place, tokens):
            columns[j] = join(columns[j], column(ends))
    return torch.stack(columns, 1)


def gated(**parts: Callable) -> Callable:
    return lambda S, l, window, special: gate(S, l, window, special, **parts)


WINDOW = Exercise(
    "09-1", "Windows", 1, 10, 2, "windows(S, l, window, special)",
    public=window_cases, wanted=gate, study=(f"{P2P}._hops", "coursekit.nets.injection.window"),
    mistakes=(
        Mistake("a product such as 0.58 * 50 falls just short of its whole number: add a little "
                "before you cut the fraction off",
                gated(count=lambda S, part: math.floor(part * S))),
        Mistake("the number of hops is rounded to the nearest: the fraction is cut off",
                gated(count=lambda S, part: round(part * S))),
        Mistake("the number of hops is rounded up: the fraction is cut off",
                gated(count=lambda S, part: math.ceil(part * S - 1e-9))),
        Mistake("one hop too many: a window of n hops from the start holds 0 to n - 1",
                gated(hop=lambda a, b, k: (k > a) & (k <= b + 1))),
        Mistake("a window is counted from the clean end: the first hops are the noisy ones",
                lambda *args: gate(*args).flip(0)),
        Mistake("a word's own window is added to the common one: it takes its place",
                gated(join=torch.logical_or)),
        Mistake("a word's own window and the common one must not both be asked for: it takes "
                "its place", gated(join=torch.logical_and)),
        Mistake("special has no effect: those tokens have windows of their own",
                gated(join=lambda old, new: old)),
        Mistake("where a window opens has no effect: before its first share it is closed",
                gated(hop=lambda a, b, k: k <= b)),
        Mistake("the second number is where a window ends: not how long it is",
                gated(hop=lambda a, b, k: (k > a) & (k <= a + b))),
        Mistake("open and closed have changed places", lambda *args: ~gate(*args)),
        Mistake("the positions were moved by one: they count the start token, which is 0",
                gated(place=lambda j: j - 1)),
        Mistake("the positions were moved by one: they count the start token, which is 0",
                gated(place=lambda j: j + 1)),
        Mistake("True and False are asked for, in a tensor of dtype bool",
                when=lambda got, wanted, args: isinstance(got, Tensor)
                and got.shape == wanted.shape and got.dtype != torch.bool),
    ),
)


# ---- 09-2 the new map --------------------------------------------------------------------------


def sides(g: np.random.Generator, b: int, n: int, l: int) -> tuple[np.ndarray, np.ndarray]:
    """Attention of source and target, (b, 2, n, l): shares that sum to 1."""
    M, M_target = g.dirichlet(np.full(l, 0.7), (2, b, 2, n))
    return M, M_target


def mapping(g: np.random.Generator, l: int, new: int, lost: int = 0) -> tuple[np.ndarray, ...]:
    """R, own: tokens in another order, one split in two, `new` without a source, `lost` columns
    with nothing at all. No column of R is its row."""
    R, own = np.zeros((l, l)), np.zeros(l)
    order, kinds = g.permutation(l), g.permutation(np.arange(1, l))
    R[order, np.roll(order, 1)] = 1
    R[:, kinds[0]] = R[:, kinds[1]] = (R[:, kinds[0]] + R[:, kinds[1]]) / 2
    own[kinds[2:2 + new]] = 1
    R[:, kinds[2:2 + new + lost]] = 0
    return R, own


def map_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, b: int, n: int, l: int, new: int, dtype: str, *, lost: int = 0,
             weigh: bool = False, closed: int = 0) -> Case:
        M, M_target = sides(g, b, n, l)
        R, own = mapping(g, l, new, lost)
        c, open_ = np.ones(l), np.ones(l, dtype=bool)
        if weigh:
            c = g.uniform(1.5, 3, l) * g.choice([1, -0.3], l)
        open_[g.permutation(l)[:closed]] = False
        return Case(f"{what}, {dtype}", {"M": M, "M_target": M_target, "R": R, "own": own, "c": c,
                                         "open_": open_}, dtype)

    yield case("a word for a word", 2, 4, 7, 0, "float64", lost=1)
    yield case("new words", 1, 6, 8, 3, "float32")
    yield case("words that weigh more or less", 2, 5, 6, 2, "float64", weigh=True)
    yield case("some windows closed", 1, 4, 9, 3, "float32", weigh=True, closed=4)
    yield case("all windows closed", 2, 3, 6, 1, "float64", weigh=True, closed=6)


def renewed(M: Tensor, M_target: Tensor, R: Tensor, own: Tensor, c: Tensor,
            open_: Tensor) -> Tensor:
    """By one matrix for both maps side by side, (2 l, l)."""
    gate = open_.to(c) * c
    keep = torch.diag(torch.where(open_, own * c, torch.ones_like(own)))
    return torch.cat([M, M_target], -1) @ torch.cat([R * gate, keep])


def new_map(join: Callable = lambda M, T, R, own, c: c * (M @ R + own * T),
            shut: Callable = lambda M, T, c: T,
            opened: Callable = lambda open_: open_) -> Callable:
    """The new map with one of its parts altered."""
    def wrong(M, M_target, R, own, c, open_):
        return torch.where(opened(open_), join(M, M_target, R, own, c), shut(M, M_target, c))
    return wrong


def unit_rows(x: Tensor) -> Tensor:
    return x / x.sum(-1, keepdim=True)


NEW_MAP = Exercise(
    "09-2", "The new map", 2, 10, 3, "edited(M, M_target, R, own, c, open_)",
    public=map_cases, wanted=renewed, study=(f"{P2P}.mixing", f"{P2P}._probs"),
    mistakes=(
        Mistake("R is applied the wrong way round: its rows are tokens of the source, its columns "
                "those of the target", new_map(lambda M, T, R, own, c: c * (M @ R.T + own * T))),
        Mistake("new words get nothing: where own is 1 they keep the target's map",
                new_map(lambda M, T, R, own, c: c * (M @ R))),
        Mistake("new words take the source's map at their place: they keep the target's",
                new_map(lambda M, T, R, own, c: c * (M @ R + own * M))),
        Mistake("the whole map of the target is added: only new words keep theirs",
                new_map(lambda M, T, R, own, c: c * (M @ R + T))),
        Mistake("the two maps have changed places: R is for the source's",
                new_map(lambda M, T, R, own, c: c * (T @ R + own * M))),
        Mistake("R is for the source's map: the target's is not mapped",
                new_map(lambda M, T, R, own, c: c * (T @ R + own * T))),
        Mistake("the source's map comes as it is: R says which token takes which",
                new_map(lambda M, T, R, own, c: c * torch.where(own > 0, T, M))),
        Mistake("a token that takes nothing is not always new: own says which ones are",
                new_map(lambda M, T, R, own, c: c * torch.where(R.sum(0) > 0, M @ R, T))),
        Mistake("c has no effect", new_map(lambda M, T, R, own, c: M @ R + own * T)),
        Mistake("c does not reach new words: it multiplies the whole new map",
                new_map(lambda M, T, R, own, c: c * (M @ R) + own * T)),
        Mistake("c reaches new words alone: it multiplies the whole new map",
                new_map(lambda M, T, R, own, c: M @ R + c * own * T)),
        Mistake("c multiplies the source's tokens: its numbers belong to the target's, after R",
                new_map(lambda M, T, R, own, c: (c * M) @ R + c * own * T)),
        Mistake("the rows were made to sum to one again: a word that weighs more takes nothing "
                "from the others", new_map(lambda M, T, R, own, c: unit_rows(
                    c * (M @ R + own * T)))),
        Mistake("the rows were made to sum to one again: a word that weighs more takes nothing "
                "from the others", lambda *args: unit_rows(renewed(*args))),
        Mistake("c multiplies closed tokens, too: outside its window a token is as it was",
                new_map(shut=lambda M, T, c: c * T)),
        Mistake("closed tokens take the source's map: outside its window a token keeps the "
                "target's", new_map(shut=lambda M, T, c: M)),
        Mistake("closed tokens get nothing: outside its window a token keeps the target's map",
                new_map(shut=lambda M, T, c: 0 * T)),
        Mistake("the windows have no effect: where open_ is False nothing changes",
                new_map(opened=torch.ones_like)),
        Mistake("open and closed have changed places", new_map(opened=torch.logical_not)),
    ),
)


# ---- 09-3 a word for a word --------------------------------------------------------------------


def swap_cases(g: np.random.Generator) -> Iterator[Case]:
    def some(n: int) -> list[int]:
        """Numbers of tokens, of which the first but one is two or three."""
        counts = [int(k) for k in g.choice([1, 1, 2], n)]
        return [counts[0], int(g.integers(2, 4)), *counts[2:]]

    def case(what: str, old: list[int], new: list[int], room: int) -> Case:
        l = max(sum(old), sum(new)) + 2 + room
        return Case(f"{what}, float32", {"old": old, "new": new, "l": l}, "float32")

    def swapped(n: int, at: dict[int, tuple[int, int]], what: str, room: int) -> Case:
        old = some(n)
        new = [at[i][1] if i in at else k for i, k in enumerate(old)]
        old = [at[i][0] if i in at else k for i, k in enumerate(old)]
        return case(what, old, new, room)

    rooms = [int(r) for r in g.integers(3, 6, 4)]
    yield swapped(5, {}, "as many tokens", rooms[0])
    yield swapped(5, {2: (1, int(g.integers(2, 5)))}, "more tokens for one", rooms[1])
    yield swapped(6, {3: (int(g.integers(3, 5)), 1)}, "one token for more", rooms[2])
    more = int(g.integers(4, 6))
    yield swapped(7, {2: (2, 3), 4: (1, more), 5: (3, 2)}, "three words exchanged", rooms[3])
    yield swapped(5, {3: (2, int(g.integers(4, 6)))}, "no room for padding", 0)


def block(i: int, j: int, even: Callable = torch.eye,
          uneven: Callable = lambda i, j: torch.full((i, j), 1 / j)) -> Tensor:
    return even(i) if i == j else uneven(i, j)


def swap_map(old: list[int], new: list[int], l: int, block: Callable = block,
             ends: Callable = torch.eye, pads: Callable = torch.eye, surplus: bool = True,
             start: int = 1) -> Tensor:
    """A block for the start, each word, the end and the padding, along a diagonal."""
    inside = [block(i, j) for i, j in zip(old, new, strict=True)]
    padding = (l - 1 - start - sum(counts) for counts in (old, new))
    R = torch.block_diag(ends(start), *inside, ends(1), pads(*padding)).double()
    if surplus:
        behind = torch.arange(l) > sum(old) + start
        R[behind & (R.sum(1) == 0), -1] = 1
    return R


def swapping(**parts: Callable) -> Callable:
    return lambda old, new, l: swap_map(old, new, l, **parts)


def uneven(fill: Callable) -> Callable:
    """The mapping with another block where a word's numbers of tokens differ."""
    return swapping(block=lambda i, j: block(i, j, uneven=fill))


def official(old: list[int], new: list[int], l: int, ahead: int = 0) -> Tensor:
    """After the last word of another number of tokens, one pointer serves both sentences."""
    R, i, j = torch.zeros(l, l, dtype=torch.float64), 0, 0
    last = max((k for k, (a, b) in enumerate(zip(old, new, strict=True)) if a != b), default=-1)
    for k, (a, b) in enumerate(zip([1, *old], [1, *new], strict=True)):
        if k - 1 <= last:
            R[i:i + a, j:j + b] = block(a, b).double()
            i, j = i + a, j + b
    first = i if ahead else j
    places = range(first, first + l - max(i, j))
    R[places, places] = 1
    return R


def first_only(i: int, j: int) -> Tensor:
    out = torch.zeros(i, j)
    out[:, 0] = 1
    return out


def straight(i: int, j: int) -> Tensor:
    return torch.eye(i, j)


def by_place(old: list[int], new: list[int], l: int) -> Tensor:
    """Padding stands for the padding at its own place."""
    R = swap_map(old, new, l, pads=torch.zeros, surplus=False)
    places = range(max(sum(old), sum(new)) + 2, l)
    R[places, places] = 1
    R[R.sum(1) == 0, -1] = 1
    return R


def same_words(got: Tensor, wanted: Tensor, args: dict) -> bool:
    """Whether the rows of start and words are right."""
    n = sum(args["old"]) + 1
    return isinstance(got, Tensor) and got.shape == wanted.shape and bool(
        torch.allclose(got[:n].double(), wanted[:n], atol=1e-4))


SWAP = Exercise(
    "09-3", "A word for a word", 3, 15, 4, "mapper(old, new, l)",
    public=swap_cases, wanted=swap_map,
    study=tuple(f"{WORDS}.{f}" for f in ("swap", "refine", "_frame")),
    mistakes=(
        Mistake("after a word with another number of tokens, the two sentences need two pointers: "
                "here the later words are counted along the target alone", official),
        Mistake("after a word with another number of tokens, the two sentences need two pointers: "
                "here the later words are counted along the source alone",
                lambda old, new, l: official(old, new, l, 1)),
        Mistake("this is the identity: tokens of later words move when a word has more of them",
                lambda old, new, l: torch.eye(l, dtype=torch.float64)),
        Mistake("rows and columns have changed places: rows are tokens of the source",
                lambda old, new, l: swap_map(old, new, l).T),
        Mistake("each new token takes all of the old word: the shares of a source token sum to one",
                uneven(torch.ones)),
        Mistake("the share is one over the number of old tokens: divide by that of the new ones",
                uneven(lambda i, j: torch.full((i, j), 1 / i))),
        Mistake("the share is divided by both numbers: by that of the new tokens alone",
                uneven(lambda i, j: torch.full((i, j), 1 / (i * j)))),
        Mistake("only the first new token gets something: all of them share the old word",
                uneven(first_only)),
        Mistake("tokens of unequal numbers were paired one to one, the rest left out: they share",
                uneven(straight)),
        Mistake("words of as many tokens are spread, too: there each token stands for its own",
                swapping(block=lambda i, j: torch.full((i, j), 1 / j))),
        Mistake("everything stands one place too early: position 0 is the start token",
                swapping(start=0)),
        Mistake("the start and the end stand for themselves, too", swapping(
            ends=lambda n: torch.zeros(n, n))),
        Mistake("the padding is left out: the k-th token of it stands for the k-th", swapping(
            pads=torch.zeros, surplus=False)),
        Mistake("padding that the source has more of goes nowhere: it goes to the last place, so "
                "that every row sums to one", swapping(surplus=False)),
        Mistake("padding is paired by its place: by its number after the end", by_place),
        Mistake("all padding goes to the last place: the k-th token of it stands for the k-th",
                swapping(pads=torch.zeros)),
        Mistake("the words are right, what follows them is not: the end stands for the end, and "
                "padding for padding, counted from there", when=same_words),
    ),
)


# ---- 09-4 words in common ----------------------------------------------------------------------

POOL = ("photo of the man woman cat fox with in on curly short red blue hat glasses beach snow "
        "smiling old young hair shirt wide round black").split()


@lru_cache(64)
def alignments(old: tuple[str, ...], new: tuple[str, ...]) -> tuple[int, int, tuple]:
    """The most pairs there can be, in how many ways, and one of them: by its first pair."""
    @lru_cache(None)
    def after(i: int, j: int) -> tuple[int, int, tuple]:
        best, ways, found = 0, 1, ()
        for m in range(i, len(old)):
            for n in range(j, len(new)):
                if old[m] == new[n]:
                    most, some, rest = after(m + 1, n + 1)
                    if most + 1 > best:
                        best, ways, found = most + 1, 0, ((m, n), *rest)
                    ways += some * (most + 1 == best)
        return best, ways, found

    return after(0, 0)


def common(old: Words, new: Words) -> Places:
    partner = {j: i for i, j in alignments(tuple(old), tuple(new))[2]}
    return [partner.get(j) for j in range(len(new))]


def common_cases(g: np.random.Generator) -> Iterator[Case]:
    def drawn(n: int) -> Words:
        return [str(word) for word in g.permutation(POOL)[:n]]

    def case(what: str, make: Callable, differs: Sequence[Callable]) -> Case:
        while True:  # until there is one best way, and these ways are not it
            old, new = make()
            if alignments(tuple(old), tuple(new))[1] == 1 and all(
                    f(old, new) != common(old, new) for f in differs):
                return Case(what, {"old": old, "new": new})

    def articles(words: Words) -> Words:
        """A sentence with "a" at three places."""
        out = list(words)
        for at in sorted(g.permutation(np.arange(len(out)))[:3], reverse=True):
            out.insert(int(at), "a")
        return out

    def added() -> tuple[Words, Words]:
        words = drawn(9)
        old = articles(words[:6])
        new = list(old)
        for word, at in zip([*words[6:], "a"], g.integers(1, 6, 4), strict=True):
            new.insert(int(at), word)
        return old, new

    def fewer() -> tuple[Words, Words]:
        old = articles(drawn(7))
        gone = g.permutation(np.arange(1, len(old) - 1))[:3]
        return old, [word for i, word in enumerate(old) if i not in gone]

    def exchanged() -> tuple[Words, Words]:
        words = drawn(9)
        old = articles(words[:6])
        new = list(old)
        new[int(g.integers(2, 4))], new[-2] = words[6:8]
        new.insert(1, words[8])
        return old, new

    def turned() -> tuple[Words, Words]:
        one, two, late, a, b, c, x, y, z = drawn(9)
        return [a, b, "a", c, one, two, late], [late, one, two, a, x, b, y, "a", z, c]

    yield case("words added", added, [by_index, by_position])
    yield case("words left out", fewer, [by_index, by_position])
    yield case("words exchanged", exchanged, [by_index, by_position])
    yield case("a part put first", turned, [greedy, blocks])
    words = drawn(10)
    yield Case("nothing in common", {"old": words[:5], "new": words[5:]})


def by_index(old: Words, new: Words) -> Places:
    return [old.index(word) if word in old else None for word in new]


def by_last(old: Words, new: Words) -> Places:
    return [{word: i for i, word in enumerate(old)}.get(word) for word in new]


def by_position(old: Words, new: Words) -> Places:
    return [j if j < len(old) and old[j] == word else None for j, word in enumerate(new)]


def greedy(old: Words, new: Words) -> Places:
    """Each word takes the next one like it that is still to come."""
    out, at = [], 0
    for word in new:
        found = old[at:].index(word) + at if word in old[at:] else None
        out.append(found)
        at = at if found is None else found + 1
    return out


def blocks(old: Words, new: Words) -> Places:
    """The longest run first, then on both sides of it."""
    out: Places = [None] * len(new)
    for a, b, n in difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
        out[b:b + n] = range(a, a + n)
    return out


def both_ends(old: Words, new: Words) -> Places:
    """What the two begin and end with alike."""
    least = min(len(old), len(new))
    front = next((i for i in range(least) if old[i] != new[i]), least)
    back = next((i for i in range(least - front) if old[-1 - i] != new[-1 - i]), least - front)
    out: Places = [None] * len(new)
    out[:front] = range(front)
    out[len(new) - back:] = range(len(old) - back, len(old))
    return out


def replaced(old: Words, new: Words) -> Places:
    """Words in the place of others stand for them, too."""
    out, pairs = common(old, new), [(-1, -1)]
    pairs += [(i, j) for j, i in enumerate(out) if i is not None] + [(len(old), len(new))]
    for (i, j), (m, n) in zip(pairs[:-1], pairs[1:], strict=True):
        for step in range(1, min(m - i, n - j)):
            out[j + step] = i + step
    return out


def minus(old: Words, new: Words) -> list[int]:
    return [-1 if i is None else i for i in common(old, new)]


def as_pairs(got: Any, wanted: Any, args: dict) -> bool:
    return isinstance(got, list) and any(isinstance(i, (tuple, list)) for i in got)


COMMON = Exercise(
    "09-4", "Words in common", 3, 20, 3, "aligned(old, new)",
    public=common_cases, wanted=common,
    study=tuple(f"{WORDS}.{f}" for f in ("common", "refine", "swap")),
    mistakes=(
        Mistake("each word takes the first one like it, wherever that stands: the places must "
                "grow, and no word serves twice", by_index),
        Mistake("each word takes the last one like it, wherever that stands: the places must "
                "grow, and no word serves twice", by_last),
        Mistake("words are compared place by place: after one that is new, all are moved",
                by_position),
        Mistake("each word takes the next one like it that is left: now and then it pays to leave "
                "a word out, and to have more pairs later", greedy),
        Mistake("the longest run is taken first, as difflib does: many short ones can be more "
                "words", blocks),
        Mistake("only what the sentences begin and end with alike is found: there can be pairs "
                "between new words", both_ends),
        Mistake("a word in the place of another one is paired with it: in a refinement it is new",
                replaced),
        Mistake("a new word has None: -1 would be the last word of the source", minus),
        Mistake("the places count the start token, which is 0: here they begin with the first word",
                lambda old, new: [i if i is None else i + 1 for i in common(old, new)]),
        Mistake("the two sentences have changed places: one entry for each word of the new one is "
                "asked for", lambda old, new: common(new, old)),
        Mistake("one entry for each word of the new sentence is asked for, a place or None",
                when=as_pairs),
        Mistake("one entry for each word of the new sentence is asked for, a place or None",
                when=lambda got, wanted, args: isinstance(got, list) and got == [
                    i for i in wanted if i is not None] != wanted),
        Mistake("nothing is found: where words agree, the pair must be counted",
                when=lambda got, wanted, args: isinstance(got, list) and got != wanted
                and set(got) == {None}),
    ),
)


# ---- 09-5 where it may change ------------------------------------------------------------------


def blend_cases(g: np.random.Generator) -> Iterator[Case]:
    def maps(b: int, size: tuple[int, int]) -> np.ndarray:
        """A few spots on a ground that is not black, brighter in one picture than in another."""
        h, w = size
        out = g.uniform(0.1, 0.18, (b, h, w))
        for row in out:
            for at in g.permutation(h * w)[:max(2, h * w // 20)]:
                row.flat[at] = g.uniform(0.25, 1)
        return out * np.linspace(0.5, 1.8, b).reshape(b, 1, 1)

    def case(what: str, b: int, size: tuple[int, int], factor: int, k: float, dtype: str,
             differs: Sequence[Callable]) -> Case:
        shape = (b, 3, factor * size[0], factor * size[1])
        z, z_target = g.standard_normal((2, *shape))
        while True:  # until no value is near the threshold, and these ways give another mask
            M, M_target = maps(b, size) / float(g.uniform(2.5, 4)), maps(b, size)
            share = np.concatenate([x / x.max((1, 2), keepdims=True) for x in (M, M_target)])
            args = *map(torch.from_numpy, (z, z_target, M, M_target)), k
            right = blended(*args)["mask"]
            if np.abs(share - k).min() > 1e-3 and not any(
                    torch.equal(wrong(*args), right) for wrong in differs) or k == 1:
                break
        return Case(f"{what}, {dtype}", {"z": z, "z_target": z_target, "M": M,
                                         "M_target": M_target, "k": k}, dtype)

    yield case("latents twice as large", 2, (6, 7), 2, float(g.uniform(0.28, 0.34)), "float64",
               (from_lowest, smooth, later, added))
    yield case("four times as large", 2, (7, 5), 4, float(g.uniform(0.2, 0.33)), "float32",
               (from_lowest, later, added))
    yield case("maps of their size", 3, (8, 8), 1, float(g.uniform(0.4, 0.5)), "float64",
               (from_lowest,))
    yield case("threshold one", 2, (5, 6), 2, 1.0, "float32", ())


def spread(M: Tensor, reach: int = 1) -> Tensor:
    """The largest of a map's neighbours, by laying moved copies on top of each other."""
    wide = F.pad(M, (reach,) * 4, value=float(M.min()) - 1)
    h, w = M.shape[1:]
    moved = [wide[:, y:y + h, x:x + w] for y in range(2 * reach + 1) for x in range(2 * reach + 1)]
    return torch.stack(moved).amax(0)


def enlarged(M: Tensor, z: Tensor) -> Tensor:
    factor = z.shape[2] // M.shape[1]
    return M.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def bright(M: Tensor, k: float) -> Tensor:
    return M > k * M.flatten(1).amax(1).view(-1, 1, 1)


def masked(M: Tensor, z: Tensor, k: float, wide: Callable = spread, bright: Callable = bright,
           large: Callable = enlarged) -> Tensor:
    return large(bright(wide(M), k), z)[:, None]


def mixture(mask: Tensor, z: Tensor, z_target: Tensor) -> Tensor:
    return torch.where(mask.expand_as(z), z_target, z)


def blended(z: Tensor, z_target: Tensor, M: Tensor, M_target: Tensor, k: float) -> dict:
    mask = masked(M, z, k) | masked(M_target, z, k)
    return {"mask": mask, "latents": mixture(mask, z, z_target)}


def mask_by(join: Callable = torch.logical_or, **parts: Callable) -> Callable:
    """The mask with one of its parts altered."""
    def wrong(z, z_target, M, M_target, k):
        return join(*(masked(side, z, k, **parts) for side in (M, M_target)))
    return wrong


def later(z: Tensor, z_target: Tensor, M: Tensor, M_target: Tensor, k: float) -> Tensor:
    """Spread at the size of the latents."""
    pair = (bright(spread(enlarged(side, z)), k)[:, None] for side in (M, M_target))
    return torch.logical_or(*pair)


def smooth(z: Tensor, z_target: Tensor, M: Tensor, M_target: Tensor, k: float) -> Tensor:
    pair = (bright(F.interpolate(spread(side)[:, None], z.shape[2:], mode="bilinear")[:, 0],
                   k)[:, None] for side in (M, M_target))
    return torch.logical_or(*pair)


def added(z: Tensor, z_target: Tensor, M: Tensor, M_target: Tensor, k: float) -> Tensor:
    return masked(M + M_target, z, k)


def from_lowest(*args: Any) -> Tensor:
    return mask_by(bright=lambda M, k: bright(M - M.amin((1, 2), keepdim=True), k))(*args)


def mask_right(latents: Callable) -> Callable:
    """Whether the mask is right and the latents are others: latents(mask, z, z_target)."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        value = latents(wanted["mask"], args["z"], args["z_target"])
        return torch.equal(got["mask"], wanted["mask"]) and torch.allclose(
            got["latents"].double(), value, 1e-4, 1e-4) and not torch.allclose(
            value, wanted["latents"])
    return when


BLEND = Exercise(
    "09-5", "Where it may change", 3, 15, 4, "blend(z, z_target, M, M_target, k)",
    public=blend_cases, wanted=blended,
    study=tuple(f"coursekit.nets.blend.{f}" for f in ("blend_mask", "Seen.mask")) + (f"{P2P}._pair",
                                                                                  f"{P2P}.pair"),
    mistakes=(
        Mistake("two things are returned, in a tuple: mask, latents",
                when=lambda got, wanted, args: got is not None and not isinstance(got, dict)),
        Mistake("the maps are not spread: each place takes the largest of its neighbours first",
                mask_by(wide=lambda M: M)),
        Mistake("the maps are spread after they were enlarged: then three rows are less than one "
                "of the map", later),
        Mistake("the maps are spread too far: only the eight neighbours count",
                mask_by(wide=lambda M: spread(M, 2))),
        Mistake("the neighbours are averaged: their largest is asked for",
                mask_by(wide=lambda M: F.avg_pool2d(M[:, None], 3, 1, 1)[:, 0])),
        Mistake("the maps are enlarged smoothly: each place is repeated", smooth),
        Mistake("the threshold is a share of the highest value: not a value",
                mask_by(bright=lambda M, k: M > k)),
        Mistake("the threshold is a share of the highest value: not of the mean",
                mask_by(bright=lambda M, k: M > k * M.mean((1, 2), keepdim=True))),
        Mistake("the threshold is a share of the highest value: not of the way from the lowest",
                from_lowest),
        Mistake("the highest value is that of the whole batch: each picture has its own",
                mask_by(bright=lambda M, k: M > k * M.max())),
        Mistake("at the threshold itself nothing may change: above it, not from it on",
                mask_by(bright=lambda M, k: M >= k * M.amax((1, 2), keepdim=True))),
        Mistake("what is bright for source and target both may change: for one of them is enough",
                mask_by(torch.logical_and)),
        Mistake("only the source's map is used", mask_by(lambda a, b: a)),
        Mistake("only the target's map is used: where the old thing was must change, too",
                mask_by(lambda a, b: b)),
        Mistake("the maps are added before they meet the threshold: each has its own highest value",
                added),
        Mistake("the mask is turned about: True is where the target may differ",
                mask_by(lambda a, b: ~(a | b))),
        Mistake("the mask is right, the latents are mixed the wrong way round: where it is False "
                "they are the source's", when=mask_right(lambda m, z, t: mixture(m, t, z))),
        Mistake("the mask is right, the latents are the target's as they came",
                when=mask_right(lambda m, z, t: t)),
        Mistake("the mask is right, what lies outside of it is zero: there it is the source's",
                when=mask_right(lambda m, z, t: m * t)),
        Mistake("the mask is right, the target is added to the source: it takes its place",
                when=mask_right(lambda m, z, t: z + m * t)),
        Mistake("True and False are asked for, in a mask of dtype bool",
                when=lambda got, wanted, args: isinstance(got["mask"], Tensor)
                and got["mask"].shape == wanted["mask"].shape and got["mask"].dtype != torch.bool),
        Mistake("the mask has one channel, which stands for all: (b, 1, h, w)",
                when=lambda got, wanted, args: isinstance(got["mask"], Tensor)
                and got["mask"].shape != wanted["mask"].shape),
    ),
)


# ---- 09-6 the controller -----------------------------------------------------------------------


def controller_cases(g: np.random.Generator) -> Iterator[Case]:
    own_map = SIZES["itself"][0] * SIZES["itself"][1]

    def case(what: str, b: int, dtype: str, *, words: bool = True, itself: bool = True,
             largest: int = own_map) -> Case:
        S, l = int(g.integers(6, 9)), int(g.integers(7, 10))
        i = int(g.integers(1, S - 2))
        R, own = mapping(g, l, 2)
        open_ = np.zeros((S, l), dtype=bool)
        open_[:i + 1] = words  # shut from the next hop on, or not opened before
        open_[i + 1:] = not words
        few = g.permutation(l)
        open_[i, few[:2]] = open_[0, few[2:4]] = False
        own_hops = np.arange(S) <= i if itself else np.arange(S) > i
        return Case(f"{what}, {dtype}", {
            "i": i, "b": b, "R": R, "own": own, "c": g.uniform(0.5, 2, l), "open_": open_,
            "itself": own_hops, "largest": largest}, dtype)

    yield case("one picture, all windows open", 1, "float64")
    yield case("the window of words alone", 2, "float32", itself=False)
    yield case("three pictures", 3, "float64", largest=12)
    yield case("the picture's own window alone", 2, "float32", words=False)
    yield case("maps of any size", 2, "float64", largest=16)


def verbs(source: Callable = lambda A, b: A[len(A) - 2 * b:len(A) - b],
          rows: Callable = lambda b: slice(-b, None), hop: Callable = lambda i: i,
          new: Callable = renewed, parts: str = "qk",
          fits: Callable = lambda size, largest: math.prod(size) <= largest,
          opens: Callable = lambda itself, i: bool(itself[i]),
          shut: Callable = lambda open_: not open_.any(),
          cross: Callable = lambda is_cross: not is_cross) -> Callable:
    """A controller with one of its parts altered: rows (b, ..) are put where `rows` says."""
    def put(A: Tensor, value: Tensor, b: int) -> Tensor:
        out = A.clone()
        out[rows(b)] = value
        return out

    def controller(i, b, R, own, c, open_, itself, largest):
        gate = open_[hop(i)]

        def qkv(site, q, k, v):
            taken = dict(zip("qkv", (q, k, v), strict=True))
            if cross(site.is_cross) and fits(site.size, largest) and opens(itself, hop(i)):
                taken |= {p: put(taken[p], source(taken[p], b), b) for p in parts}
            return tuple(taken.values())

        def probs(site, A):
            if shut(gate):
                return A
            return put(A, new(source(A, b), A[rows(b)], R, own, c, gate), b)

        return qkv, probs
    return controller


def controlled(**parts: Callable | str) -> Callable:
    """What is seen of such a controller, by the check's own questions."""
    return lambda *args: steered(verbs(**parts), *args)


def swapped_rows(b: int) -> slice:
    return slice(-2 * b, -b)


def unchanged(*maps: Tensor) -> Tensor:
    return maps[1]


CONTROLLER = Exercise(
    "09-6", "The controller", 5, 25, 4, "controller(i, b, R, own, c, open_, itself, largest)",
    public=controller_cases, wanted=controlled(),
    study=tuple(f"{P2P}.{f}" for f in ("_probs", "_qkv", "_maps", "mixing", "paired", "pair",
                                       "edit")),
    mistakes=(
        Mistake("the source is read from the first rows: those of the negative text come first, so "
                "count from the end", controlled(source=lambda A, b: A[:b])),
        Mistake("source and target have changed places: the last b rows are the target's",
                controlled(source=lambda A, b: A[len(A) - b:], rows=swapped_rows)),
        Mistake("the rows of the negative text are edited, too: guidance needs them as they are",
                lambda *args: steered(both_halves, *args)),
        Mistake("every picture takes the attention of the first source: each target has its own",
                controlled(source=lambda A, b: A[len(A) - 2 * b:len(A) - 2 * b + 1])),
        Mistake("windows are read at hop 0: at hop i", controlled(hop=lambda i: 0)),
        Mistake("windows are read one hop too late: at hop i", controlled(hop=lambda i: i + 1)),
        Mistake("the values were taken over, too: the target looks where the source looks, and "
                "sees its own", controlled(parts="qkv")),
        Mistake("of self-attention only the queries were taken over: the keys as well",
                controlled(parts="q")),
        Mistake("of self-attention only the keys were taken over: the queries as well",
                controlled(parts="k")),
        Mistake("a map of just `largest` pixels counts, too: at most, not less than",
                controlled(fits=lambda size, largest: math.prod(size) < largest)),
        Mistake("self-attention is not taken over", controlled(parts="")),
        Mistake("the window of self-attention has no effect",
                controlled(opens=lambda itself, i: True)),
        Mistake("the window of self-attention is turned about",
                controlled(opens=lambda itself, i: not itself[i])),
        Mistake("`largest` is a number of pixels, h times w: not of rows",
                controlled(fits=lambda size, largest: size[0] <= largest)),
        Mistake("maps of any size were taken over: only those of at most `largest` pixels",
                controlled(fits=lambda size, largest: True)),
        Mistake("queries of attention to words were taken over: qkv leaves those layers alone",
                controlled(cross=lambda is_cross: True)),
        Mistake("queries of attention to words were taken over, self-attention was not: the other "
                "way round", controlled(cross=lambda is_cross: is_cross)),
        Mistake("the attention to words is the target's own: where a window is open it is the new "
                "map", controlled(new=unchanged)),
        Mistake("the new map is that of source and source: new words keep the target's",
                controlled(new=lambda M, T, *rest: renewed(M, M, *rest))),
        Mistake("the windows of words have no effect", controlled(
            new=lambda M, T, R, own, c, gate: renewed(M, T, R, own, c, torch.ones_like(gate)),
            shut=lambda gate: False)),
        Mistake("the factors c have no effect", controlled(
            new=lambda M, T, R, own, c, gate: renewed(M, T, R, own, torch.ones_like(c), gate))),
        Mistake("what came was written into: whoever has kept it finds the edited map there, so "
                "make a new tensor", when=lambda got, wanted, args: any(
                    value == "written into" for value in got.values() if isinstance(value, str))),
        Mistake("qkv always gives three tensors in a tuple, also where nothing changes",
                when=lambda got, wanted, args: "qkv gives" in got),
        Mistake("probs always gives A or a map in its place, also where nothing changes",
                when=lambda got, wanted, args: got["attention to words"] is None),
        Mistake("without guidance there are 2b rows, with it 4b: count from the end, by b",
                raised="not enough values to unpack"),
        Mistake("all rows come back, the unedited ones first",
                when=lambda got, wanted, args: any(
                    isinstance(got.get(name), Tensor) and got[name].shape != value.shape
                    for name, value in wanted.items() if isinstance(value, Tensor))),
        Mistake("two functions are returned, in a tuple: qkv, probs",
                when=lambda got, wanted, args: got is not None and not isinstance(got, dict)),
    ),
)


def both_halves(i, b, R, own, c, open_, itself, largest):
    """The right controller on each half of the rows."""
    qkv, probs = verbs()(i, b, R, own, c, open_, itself, largest)

    def halved(verb: Callable, *parts: Tensor) -> Any:
        n = max(1, len(parts[0]) // (2 * b))
        found = [verb(*some) for some in zip(*(part.chunk(n) for part in parts), strict=True)]
        if isinstance(found[0], tuple):
            return tuple(map(torch.cat, zip(*found, strict=True)))
        return torch.cat(found)

    return (lambda site, *parts: halved(lambda *some: qkv(site, *some), *parts),
            lambda site, A: halved(lambda some: probs(site, some), A))


EXERCISES = (WINDOW, NEW_MAP, SWAP, COMMON, BLEND, CONTROLLER)
