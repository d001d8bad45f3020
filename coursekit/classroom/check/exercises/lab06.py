"""Lab 06: from a picture to its code and back, by approximation and exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.spec import Case, Exercise, Mistake, named
from coursekit.diffusion.inversion import edict_invert
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.diffusion.schedule import Schedule

SAMPLE, INVERSION = "coursekit.diffusion.sample", "coursekit.diffusion.inversion"
LINES = (f"{INVERSION}.ddim_line",)
SCHEMES = (
    *LINES, *(f"{SAMPLE}.{f}" for f in ("ddim", "ddpm", "_walk", "invert", "_climb")),
    *(f"{INVERSION}.{f}" for f in ("edict", "edict_invert", "_edict_down", "_edict_up",
                                   "edit_friendly", "fixed_point", "_fixed_point", "_solve")),
    "coursekit.classroom.walks.plain",
    "diffusers.schedulers.scheduling_ddim.DDIMScheduler.step",
    "diffusers.schedulers.scheduling_ddim_inverse.DDIMInverseScheduler.step",
)
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")
LOOSE = {"float64": 1e-8, "float32": 5e-3}  # over a path
SOURCE = ("the network is asked at the time where the hop begins: on the way up, ask it about the "
          "old point at the target time")
AGAIN = "every hop begins at the first x again: each must go on from the last"
LIST = "a list of states came back: only the last one is asked for"

Hop = Callable[[Eps, Schedule, Tensor, int, int], Tensor]


def pair(g: np.random.Generator, low: int = 150, high: int = 900) -> tuple[int, int]:
    """Two times s < t, not neighbours."""
    t = int(g.integers(low, high))
    return int(g.integers(20, t - 20)), t


def uneven(g: np.random.Generator, n: int = 5) -> list[int]:
    """Times that fall, of any spacing, none of them 0."""
    return sorted(map(int, g.choice(np.arange(20, 900), n, replace=False)), reverse=True)


# ---- answers by their value --------------------------------------------------------------------


close = partial(alike, double=1e-7, single=3e-4)


def gives(wrong: Callable, key: str = "x") -> Callable:
    """Whether the answer's value is a wrong one's and not the right one's, whenever it asked."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        return not close(got[key], wanted[key]) and close(got[key], wrong(*args.values()))
    return when


def more_often(got: dict, wanted: dict, args: dict) -> bool:
    """Whether only the number of questions is wrong."""
    return len(got["times asked"]) > len(wanted["times asked"]) and all(
        close(got[key], wanted[key]) for key in wanted if key != "times asked")


def listed(got: dict, wanted: dict, args: dict) -> bool:
    return isinstance(got["x"], list)


def no_tuple(got: object, wanted: dict, args: dict) -> bool:
    return got is not None and not isinstance(got, dict)


OFTEN = Mistake("the network is asked more often than needed: keep its answer", when=more_often)


# ---- 06-1 the line of a hop --------------------------------------------------------------------


def line(schedule: Schedule, t: int, u: int) -> tuple[float, float]:
    """What a hop makes of a unit of x and of a unit of noise."""
    one, none = torch.ones(2, 1, dtype=torch.float64), torch.zeros(2, 1, dtype=torch.float64)
    def hop(x: Tensor, e: Tensor) -> float:
        return float(schedule.noise(schedule.denoise(x, e, t), e, u)[0, 0])
    return hop(one, none), hop(none, one)


def line_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, levels, t: int, u: int) -> Case:
        return Case(what, {"schedule": levels, "t": t, "u": u})

    yield case("a long hop down", COSINE, *pair(g)[::-1])
    yield case("a long hop up", COSINE, *pair(g))
    t = int(g.integers(30, 900))
    yield case("up to the neighbour, linear schedule", LINEAR, t, t + 1)
    yield case("down to level zero", LINEAR, int(g.integers(30, 700)), 0)
    yield case("up from level zero", COSINE, 0, int(g.integers(30, 700)))


def roots(schedule: Schedule, t: int) -> tuple[float, float]:
    return math.sqrt(schedule.level(t)), math.sqrt(1 - schedule.level(t))


def sloped(factor: Callable) -> Callable:
    """The line with another a, and b as it follows from that."""
    def wrong(schedule: Schedule, t: int, u: int) -> tuple[float, float]:
        (signal, noise), (then, left) = roots(schedule, t), roots(schedule, u)
        a = factor(signal, then)
        return a, left - noise * a
    return wrong


LINE = Exercise(
    "06-1", "The line of a hop", 1, 10, 2, "line(schedule, t, u)",
    public=line_cases, wanted=line, study=LINES,
    mistakes=(
        Mistake("a is upside down: on the way to more noise x must shrink",
                sloped(lambda now, then: now / then)),
        Mistake("a is a ratio of roots: here the levels themselves were divided",
                sloped(lambda now, then: (then / now) ** 2)),
        Mistake("a divides by the root of abar_t, too: x must first be cleared of its old scale",
                sloped(lambda now, then: then)),
        Mistake("the noise that is already in x is scaled by a as well: b forgets that",
                lambda sch, t, u: (line(sch, t, u)[0], roots(sch, u)[1] - roots(sch, t)[1])),
        Mistake("b has the other sign: it is the noise wanted at u less what x brings along",
                lambda sch, t, u: (line(sch, t, u)[0], -line(sch, t, u)[1])),
        Mistake("b is made of deviations, which are roots of 1 - abar: here a root is missing",
                lambda sch, t, u: (line(sch, t, u)[0], 1 - sch.level(u)
                                   - line(sch, t, u)[0] * (1 - sch.level(t)))),
        Mistake("b takes off nothing: the noise that x brings along is counted twice",
                lambda sch, t, u: (line(sch, t, u)[0], roots(sch, u)[1])),
        Mistake("a and b have changed places: a, which multiplies x, comes first",
                lambda sch, t, u: line(sch, t, u)[::-1]),
        Mistake("this is the line from u to t: the hop goes from t to u",
                lambda sch, t, u: line(sch, u, t)),
        Mistake("two Python floats are asked for: float(..) makes one of a tensor with one number",
                when=lambda got, wanted, args: isinstance(got, (tuple, list))
                and any(isinstance(v, Tensor) for v in got)),
    ),
)


# ---- 06-2 one hop up ---------------------------------------------------------------------------


def climb(eps: Eps, schedule: Schedule, x: Tensor, s: int, t: int, at: int | None = None) -> Tensor:
    e = eps(x, t if at is None else max(at, 1))
    return schedule.noise(schedule.denoise(x, e, s), e, t)


def climb_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, shape: tuple, levels, s: int, t: int, dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {"eps": eps, "schedule": levels, "s": s, "t": t,
                                         "x": g.standard_normal(shape)}, dtype)

    def ordered(c: Case) -> Case:
        return Case(c.what, {k: c.args[k] for k in ("eps", "schedule", "x", "s", "t")}, c.dtype)

    seed, points = int(g.integers(2**31)), (6, 2)
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield ordered(case("a constant predictor", named("constant", value=float(g.uniform(0.3, 0.9))),
                       points, COSINE, *pair(g), "float64"))
    yield ordered(case("a long hop", straight, points, LINEAR, *pair(g), "float64"))
    yield ordered(case("up from level zero", named("mixture", seed=seed), points, COSINE, 0,
                       int(g.integers(100, 700)), "float32"))
    yield ordered(case("a small network on pictures", named("unet", seed=seed), (2, 3, 8, 8),
                       COSINE, *pair(g), "float32"))


def drawn(coefficients: Callable) -> Callable:
    """The hop with other coefficients, from those of the way up."""
    def wrong(eps, schedule, x, s, t):
        A, B = line(schedule, s, t)
        mine = coefficients(A, B, schedule, s, t)
        return mine[0] * x + mine[1] * eps(x, t)
    return wrong


HOP = Exercise(
    "06-2", "One hop up", 2, 10, 3, "hop_up(eps, schedule, x, s, t)",
    public=climb_cases, study=SCHEMES,
    wanted=lambda eps, sch, x, s, t: {"x": climb(eps, sch, x, s, t), "times asked": [t]},
    tolerance={"float64": 1e-9, "float32": 5e-4},
    mistakes=(
        Mistake(SOURCE, when=gives(lambda eps, sch, x, s, t: climb(eps, sch, x, s, t, at=s))),
        Mistake(SOURCE, when=lambda got, wanted, args: close(got["x"], wanted["x"])
                and got["times asked"] == [max(1, args["s"])]),
        Mistake(SOURCE, raised="t = 0 is outside"),
        Mistake("this is the hop down: on the way up t is where the hop ends",
                when=gives(drawn(lambda A, B, sch, s, t: line(sch, t, s)))),
        Mistake("the noise has the wrong sign: on the way up it is added",
                when=gives(drawn(lambda A, B, sch, s, t: (A, -B)))),
        Mistake("the coefficient of the noise is that of the way down: take the whole line from s "
                "to t", when=gives(drawn(lambda A, B, sch, s, t: (A, line(sch, t, s)[1])))),
        Mistake("the coefficient of the noise is that of the way down: take the whole line from s "
                "to t", when=gives(drawn(lambda A, B, sch, s, t: (A, -line(sch, t, s)[1])))),
        Mistake("x keeps its size: on the way up its signal must shrink",
                when=gives(drawn(lambda A, B, sch, s, t: (1, B)))),
        Mistake("all the noise of level t is added: a part of it is in x already",
                when=gives(drawn(lambda A, B, sch, s, t: (A, roots(sch, t)[1])))),
        Mistake("x is taken for a clean picture: it stands at level s and has noise in it",
                when=gives(drawn(lambda A, B, sch, s, t: roots(sch, t)))),
        OFTEN,
    ),
)


# ---- 06-3 up the path --------------------------------------------------------------------------


def path_cases(g: np.random.Generator) -> Iterator[dict]:
    """What the cases of several exercises have in common: words, predictor, levels, x, path."""
    def case(what: str, eps, levels, shape: tuple, path: list[int], dtype: str) -> dict:
        return {"what": f"{what}, {dtype}", "dtype": dtype, "eps": eps, "schedule": levels,
                "x": 0.7 * g.standard_normal(shape), "path": path}

    seed, times = int(g.integers(2**31)), uneven(g)
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield case("nine even hops", straight, LINEAR, (5, 3), list(range(900, -1, -100)), "float64")
    yield case("uneven hops", named("mixture", seed=seed), COSINE, (5, 3), [*times, 0], "float64")
    yield case("a path that ends above zero", straight, LINEAR, (4, 3), times, "float64")
    yield case("pictures and a small network", named("unet", seed=seed), COSINE, (2, 3, 8, 8),
               [*times[1:], 0], "float32")


def along(g: np.random.Generator, *more: dict) -> Iterator[Case]:
    """The cases of a path, each with further arguments."""
    for i, given in enumerate(path_cases(g)):
        what, dtype = given.pop("what"), given.pop("dtype")
        yield Case(what, given | (more[i] if more else {}), dtype)


def code_cases(g: np.random.Generator) -> Iterator[Case]:
    yield from along(g)


def code(eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int]) -> dict:
    return {"x": last(invert(eps, schedule, x, path)).x, "times asked": list(path[-2::-1])}


def over(hop: Hop = climb, path: Callable = lambda p: p[::-1]) -> Callable:
    """The walk with its hop or its path altered."""
    def wrong(eps, schedule, x, given, *_):
        for s, t in pairwise(path(list(given))):
            x = hop(eps, schedule, x, s, t)
        return x
    return wrong


def at_source(eps, schedule, x, s, t):
    return climb(eps, schedule, x, s, t, at=s)


def as_given(eps, schedule, x, path, *_):
    """Hops up, but over the path from its noisy end."""
    for t, s in pairwise(path):
        x = climb(eps, schedule, x, s, t)
    return x


def drawn_down(eps, schedule, x, path, *_):
    return last(ddim(eps, schedule, x, path)).x


def backwards(got: dict, wanted: dict, args: dict) -> bool:
    """Whether only the order of the questions is the other way round: factors commute."""
    return close(got["x"], wanted["x"]) and got["times asked"] == wanted["times asked"][::-1]


NOISY_FIRST = "the path is walked from its noisy end: inversion begins at its last time"
UP = (Mistake(NOISY_FIRST, when=gives(as_given)), Mistake(NOISY_FIRST, when=backwards))
DOWN = Mistake("this is sampling: the walk goes down the path, inversion goes up",
               when=gives(drawn_down))

CODE = Exercise(
    "06-3", "Up the path", 2, 10, 3, "encode(eps, schedule, x, path)",
    public=code_cases, wanted=code, study=SCHEMES, tolerance=LOOSE, seconds=8,
    mistakes=(
        *UP, DOWN,
        Mistake("the first hop up is not taken", when=gives(over(path=lambda p: p[-2::-1]))),
        Mistake("the last hop up is not taken", when=gives(over(path=lambda p: p[:0:-1]))),
        Mistake(SOURCE, when=gives(over(at_source))),
        Mistake(SOURCE, raised="t = 0 is outside"),
        Mistake(AGAIN, when=gives(lambda eps, sch, x, path: climb(eps, sch, x, path[1], path[0]))),
        Mistake("one hop leads from the clean end to the noisy one: the times between are left out",
                when=gives(lambda eps, sch, x, path: climb(eps, sch, x, path[-1], path[0]))),
        Mistake("each hop goes from t - 1 to t: it must begin at the last time of the path",
                when=gives(over(lambda eps, sch, x, s, t: climb(eps, sch, x, t - 1, t)))),
        Mistake(LIST, when=listed),
        OFTEN,
    ),
)


# ---- 06-4 there and back -----------------------------------------------------------------------


def decibels(x: Tensor, back: Tensor, peak: float = 4.0) -> Tensor:
    """One number an item, by the norm of its error."""
    return 20 * torch.log10(math.sqrt(peak * x[0].numel()) / (x - back).flatten(1).norm(dim=1))


def trip(eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int]) -> dict:
    up = last(invert(eps, schedule, x, path)).x
    back = last(ddim(eps, schedule, up, path)).x
    return {"code": up, "back": back, "psnr": decibels(x, back),
            "times asked": [*path[-2::-1], *path[:-1]]}


def trip_cases(g: np.random.Generator) -> Iterator[Case]:
    yield from along(g)


def returned(back: Callable) -> Callable:
    return gives(lambda eps, sch, x, path: back(eps, sch, x, path,
                                                last(invert(eps, sch, x, path)).x), "back")


def descent(hop: Hop) -> Callable:
    def wrong(eps, schedule, x, path, up):
        for t, s in pairwise(path):
            up = hop(eps, schedule, up, t, s)
        return up
    return wrong


def stuck(eps, schedule, x, path, up):
    """Down with the noise that the code shows."""
    return last(ddim(lambda _, t: eps(up, t), schedule, up, path)).x


def measured(number: Callable) -> Callable:
    """Whether both walks are right and the number is a wrong one: number(x, back, code)."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        good = close(got["back"], wanted["back"]) and not close(got["psnr"], wanted["psnr"])
        value = number(args["x"], wanted["back"], wanted["code"])
        # the number of a float32 answer is right to a few digits only
        return good and isinstance(got["psnr"], Tensor) and got["psnr"].shape == value.shape and \
            torch.allclose(got["psnr"].double(), value, 1e-3, 1e-2)
    return when


TRIP = Exercise(
    "06-4", "There and back", 3, 15, 4, "round_trip(eps, schedule, x, path)",
    public=trip_cases, wanted=trip, tolerance=LOOSE, seconds=8,
    study=(*SCHEMES, "coursekit.classroom.metrics.psnr"),
    mistakes=(
        Mistake("on the way down the network is asked at the time where the hop ends: where it "
                "begins, point and time are both known", when=returned(descent(
                    lambda eps, sch, x, t, s: climb(eps, sch, x, t, s, at=s)))),
        Mistake("at level zero there is nothing to ask: going up, ask at the target time; going "
                "down, where the hop begins", raised="t = 0 is outside"),
        Mistake("the way back begins at x: it must begin at the code",
                when=returned(lambda eps, sch, x, path, up: last(ddim(eps, sch, x, path)).x)),
        Mistake("on the way back the last hop is not taken",
                when=returned(lambda eps, sch, x, path, up: last(ddim(eps, sch, up, path[:-1])).x)
                ),
        Mistake("on the way back the first hop is not taken",
                when=returned(lambda eps, sch, x, path, up: last(ddim(eps, sch, up, path[1:])).x)),
        Mistake("on the way back the line is that of the way up",
                when=returned(descent(lambda eps, sch, x, t, s: sch.noise(sch.denoise(
                    x, eps(x, t), s), eps(x, t), t)))),
        Mistake("on the way back the network is asked about the code on every hop: ask about where "
                "the walk stands", when=returned(stuck)),
        Mistake("on the way back every hop begins at the code: each must go on from the last",
                when=returned(lambda eps, sch, x, path, up: last(ddim(eps, sch, up, path[-2:])).x)
                ),
        Mistake("code and way back have changed places: the code comes first",
                when=lambda got, wanted, args: close(got["code"], wanted["back"])
                and not close(wanted["code"], wanted["back"])),
        Mistake("pictures lie between -1 and 1: their range is not 1",
                when=measured(lambda x, back, up: decibels(x, back, 1.0))),
        Mistake("the range stands over a squared error, and must be squared as well",
                when=measured(lambda x, back, up: decibels(x, back, 2.0))),
        Mistake("ten times the logarithm belongs to squares: this takes the root of the error",
                when=measured(lambda x, back, up: decibels(x, back) / 2)),
        Mistake("ten times the logarithm belongs to squares: this takes the root of the error",
                when=measured(lambda x, back, up: decibels(x, back, 16.0) / 2)),
        Mistake("twenty times the logarithm belongs to roots: this is twice the decibels",
                when=measured(lambda x, back, up: 2 * decibels(x, back))),
        Mistake("the logarithm has another base: decibels have base ten",
                when=measured(lambda x, back, up: math.log(10) * decibels(x, back))),
        Mistake("the logarithm has another base: decibels have base ten",
                when=measured(lambda x, back, up: math.log2(10) * decibels(x, back))),
        Mistake("the ratio is upside down: more decibels mean less error",
                when=measured(lambda x, back, up: -decibels(x, back))),
        Mistake("this compares the code with x: the error is that of the way back",
                when=measured(lambda x, back, up: decibels(x, up))),
        Mistake("this compares the code with the way back: the error is that of the way back "
                "against x", when=measured(lambda x, back, up: decibels(up, back))),
        Mistake("squared errors are summed: their mean is asked for",
                when=measured(lambda x, back, up: decibels(x, back, 4 / x[0].numel()))),
        Mistake("one number an item is asked for, shape (b,): all axes but the first are averaged",
                when=lambda got, wanted, args: close(got["back"], wanted["back"])
                and not (isinstance(got["psnr"], Tensor)
                         and got["psnr"].shape == wanted["psnr"].shape)),
        Mistake("one number an item is asked for, shape (b,): all axes but the first are averaged",
                when=measured(lambda x, back, up: decibels(x[None], back[None]).expand(len(x)))),
        Mistake(SOURCE, when=gives(over(at_source), "code")),
        Mistake("three things are returned, in a tuple: code, back, psnr", when=no_tuple),
        OFTEN,
    ),
)


# ---- 06-5 solve the equation -------------------------------------------------------------------


def root(eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int], rounds: int,
         length: float) -> dict:
    """Every hop by its rounds: the guess goes a part of the way to the hop that its noise makes."""
    for s, t in pairwise(path[::-1]):
        guess = x
        for _ in range(rounds):
            e = eps(guess, t)
            guess = torch.lerp(guess, schedule.noise(schedule.denoise(x, e, s), e, t), length)
        x = guess
    return {"x": x, "times asked": [t for t in path[-2::-1] for _ in range(rounds)]}


def root_cases(g: np.random.Generator) -> Iterator[Case]:
    part, rounds = float(g.uniform(0.4, 0.7)), int(g.integers(3, 6))
    yield from along(g, {"rounds": rounds, "length": 1.0}, {"rounds": rounds, "length": part},
                     {"rounds": 1, "length": 1.0}, {"rounds": 2, "length": part})


def solved(change: Callable) -> Callable:
    """The rounds with one of them altered: change(G, guess, x, length) -> the next guess."""
    def wrong(eps, schedule, x, path, rounds, length):
        for s, t in pairwise(path[::-1]):
            guess = x
            for _ in range(rounds):
                def G(start, by, s=s, t=t):
                    e = eps(by, t)
                    return schedule.noise(schedule.denoise(start, e, s), e, t)
                guess = change(G, guess, x, length)
            x = guess
        return x
    return wrong


def counted(rounds: Callable, length: Callable = lambda k: k) -> Callable:
    return lambda eps, sch, x, path, k, part: root(eps, sch, x, path, rounds(k), length(part))["x"]


def scaled_first(eps, schedule, x, path, rounds, length):
    """The first guess is the scaled x, not x."""
    for s, t in pairwise(path[::-1]):
        A, B = line(schedule, s, t)
        start, x = x, A * x
        for _ in range(rounds):
            x = torch.lerp(x, A * start + B * eps(x, t), length)
    return x


def tipped(eps, schedule, x, path, rounds, length):
    """The rounds of the right hops, from the noisy end of the path."""
    for t, s in pairwise(path):
        x = root(eps, schedule, x, [t, s], rounds, length)["x"]
    return x


def late(eps, schedule, x, path, rounds, length):
    """Every question is asked at the time where the hop begins."""
    for s, t in pairwise(path[::-1]):
        start = x
        for _ in range(rounds):
            e = eps(x, max(s, 1))
            x = torch.lerp(x, schedule.noise(schedule.denoise(start, e, s), e, t), length)
    return x


SOLVE = Exercise(
    "06-5", "Solve the equation", 4, 15, 4, "solve(eps, schedule, x, path, rounds, length)",
    public=root_cases, wanted=root, study=SCHEMES, tolerance=LOOSE, seconds=8,
    mistakes=(
        Mistake("x_s moves along with the guess: in the equation of a hop it stands still, only "
                "the guess inside the network changes",
                when=gives(solved(lambda G, guess, x, k: torch.lerp(guess, G(guess, guess), k)))),
        Mistake("the network is asked about x_s in every round: ask about the newest guess",
                when=gives(solved(lambda G, guess, x, k: torch.lerp(guess, G(x, x), k)))),
        Mistake("length is on the wrong side: it is the share of the way towards G",
                when=gives(solved(lambda G, guess, x, k: torch.lerp(G(x, guess), guess, k)))),
        Mistake("length has no effect: a round goes a part of the way only",
                when=gives(counted(lambda k: k, lambda part: 1.0))),
        Mistake("the step starts at x_s in every round: it starts at the newest guess",
                when=gives(solved(lambda G, guess, x, k: torch.lerp(x, G(x, guess), k)))),
        Mistake("length times G is added to the whole guess: add a part of the way from the guess "
                "to G", when=gives(solved(lambda G, guess, x, k: guess + k * G(x, guess)))),
        Mistake("the rounds have no effect: each hop makes as many as rounds says",
                when=gives(counted(lambda k: 1))),
        Mistake("one round too few is made on every hop", when=gives(counted(lambda k: k - 1))),
        Mistake("one round too many is made on every hop", when=gives(counted(lambda k: k + 1))),
        Mistake("the first guess was scaled: it must be x_s as it is, so that one full round is "
                "plain inversion", when=gives(scaled_first)),
        Mistake(SOURCE, when=gives(late)),
        Mistake(SOURCE, raised="t = 0 is outside"),
        Mistake(NOISY_FIRST, when=gives(tipped)), Mistake(NOISY_FIRST, when=backwards), DOWN,
        Mistake(LIST, when=listed),
        Mistake("the network is asked more often than once a round: keep its answer",
                when=more_often),
    ),
)


# ---- 06-6 EDICT undone -------------------------------------------------------------------------


def twins(eps: Eps, schedule: Schedule, x: Tensor, y: Tensor, s: int, t: int, p: float) -> dict:
    found = last(edict_invert(eps, schedule, x, [t, s], y, p))
    return {"x": found.x, "y": found.y, "times asked": [t, t]}


def twin_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, shape: tuple, levels, s: int, t: int, p: float, dtype: str) -> Case:
        x, y = g.standard_normal((2, *shape))
        return Case(f"{what}, {dtype}", {"eps": eps, "schedule": levels, "x": x, "y": y, "s": s,
                                         "t": t, "p": p}, dtype)

    seed, p = int(g.integers(2**31)), float(g.uniform(0.7, 0.95))
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield case("no blending", named("mixture", seed=seed), (5, 2), COSINE, *pair(g), 1.0,
               "float64")
    yield case("blended", straight, (5, 2), LINEAR, *pair(g), p, "float64")
    yield case("blended, up from level zero", named("mixture", seed=seed), (5, 2), COSINE, 0,
               int(g.integers(100, 600)), p, "float64")
    yield case("pictures and a small network", named("unet", seed=seed), (2, 3, 8, 8), COSINE,
               *pair(g, high=600), p, "float32")


def unblend(x: Tensor, y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    y = y / p + (1 - 1 / p) * x
    return x / p + (1 - 1 / p) * y, y


def unmove(eps: Eps, schedule: Schedule, x: Tensor, y: Tensor, s: int, t: int,
           at: int | None = None) -> tuple[Tensor, Tensor]:
    def freed(u: Tensor, other: Tensor) -> Tensor:
        return climb(lambda _, time: eps(other, time), schedule, u, s, t, at)
    y = freed(y, x)
    return freed(x, y), y


def undone(blend: Callable = unblend, move: Callable = unmove) -> Callable:
    """The hop undone with one of its two halves altered."""
    def wrong(eps, schedule, x, y, s, t, p):
        return move(eps, schedule, *blend(x, y, p), s, t)
    return wrong


def both(wrong: Callable) -> Callable:
    def when(got: dict, wanted: dict, args: dict) -> bool:
        mine, right = ((d["x"], d["y"]) for d in (got, wanted))
        return not close(mine, right) and close(mine, tuple(wrong(*args.values())))
    return when


def x_first(eps, schedule, x, y, s, t):
    return unmove(eps, schedule, y, x, s, t)[::-1]


def at_once(eps, schedule, x, y, s, t):
    """Both by what the other shows now."""
    freed = [climb(lambda _, time, o=other: eps(o, time), schedule, u, s, t)
             for u, other in ((x, y), (y, x))]
    return tuple(freed)


def alone(eps, schedule, x, y, s, t):
    return climb(eps, schedule, x, s, t), climb(eps, schedule, y, s, t)


def upside_down(eps, schedule, x, y, s, t):
    """Solved for the old state, but with the line of the way up."""
    a, b = line(schedule, t, s)
    y = a * y + b * eps(x, t)
    return a * x + b * eps(y, t), y


def on_down(eps, schedule, x, y, s, t):
    """The hop down, once more."""
    a, b = line(schedule, t, s)
    x = a * x + b * eps(y, t)
    return x, a * y + b * eps(x, t)


def blended(x: Tensor, y: Tensor, p: float) -> tuple[Tensor, Tensor]:
    x = torch.lerp(y, x, p)
    return x, torch.lerp(x, y, p)


TWINS = Exercise(
    "06-6", "EDICT undone", 4, 20, 4, "twins_up(eps, schedule, x, y, s, t, p)",
    public=twin_cases, wanted=twins, study=SCHEMES,
    tolerance={"float64": 1e-8, "float32": 2e-3},
    mistakes=(
        Mistake("the blending is not undone", when=both(undone(blend=lambda x, y, p: (x, y)))),
        Mistake("the blending is undone in the order in which it was done: what was done last is "
                "undone first", when=both(undone(blend=lambda x, y, p: unblend(y, x, p)[::-1]))),
        Mistake("x and y are un-blended at once: one of them must be free before it can free the "
                "other", when=both(undone(blend=lambda x, y, p: (
                    x / p + (1 - 1 / p) * y, y / p + (1 - 1 / p) * x)))),
        Mistake("this blends once more: the blending must be undone",
                when=both(undone(blend=blended))),
        Mistake("the blending is undone without its division by p", when=both(undone(
            blend=lambda x, y, p: (x - (1 - p) * (y - (1 - p) * x), y - (1 - p) * x)))),
        Mistake("the blending came after the move, so it must be undone before it",
                when=both(lambda eps, sch, x, y, s, t, p: unblend(*unmove(eps, sch, x, y, s, t),
                                                                  p))),
        Mistake("x is freed first: y was moved last, so y must be freed first",
                when=both(undone(move=x_first))),
        Mistake("x is freed by what y shows now: it was moved by what y showed before y's own move",
                when=both(undone(move=at_once))),
        Mistake("each twin is moved by its own noise: it must be the noise that the other shows",
                when=both(undone(move=alone))),
        Mistake("the line is that from s to t: to undo the hop down, solve its own equation, with "
                "the line from t to s", when=both(undone(move=upside_down))),
        Mistake("this moves the twins further down: the move must be undone",
                when=both(undone(move=on_down))),
        Mistake("the network is asked at s: the hop down asked it at t", when=both(
            undone(move=lambda eps, sch, x, y, s, t: unmove(eps, sch, x, y, s, t, at=s)))),
        Mistake("the network is asked at s: the hop down asked it at t",
                raised="t = 0 is outside"),
        Mistake("the twins have changed places: x comes first",
                when=lambda got, wanted, args: close((got["y"], got["x"]),
                                                     (wanted["x"], wanted["y"]))),
        Mistake("two things are returned, in a tuple: x and y", when=no_tuple),
        OFTEN,
    ),
)

EXERCISES = (LINE, HOP, CODE, TRIP, SOLVE, TWINS)
