"""Lab 08: what guidance does to an inversion, and three ways to stay on the pivot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.calls.lab08 import SideBySide, Worded
from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.known import levels_of
from coursekit.classroom.check.spec import Case, Exercise, Mistake, named, uneven
from coursekit.diffusion import guided as ways
from coursekit.diffusion.inversion import Hop, replay
from coursekit.diffusion.predict import Eps, guided
from coursekit.diffusion.sample import State, ddim, invert, last, posterior
from coursekit.diffusion.schedule import Schedule

SAMPLE, INVERSION = "coursekit.diffusion.sample", "coursekit.diffusion.inversion"
WAYS = "coursekit.diffusion.guided"
STUDY = (
    *(f"{SAMPLE}.{f}" for f in ("ddim", "ddpm", "_walk", "invert", "_climb")),
    *(f"{INVERSION}.{f}" for f in ("ddim_line", "replay", "edit_friendly", "fixed_point",
                                   "_fixed_point", "_solve")),
    *(f"{WAYS}.{f}" for f in ("direct", "_direct", "null_text", "_null_text", "_descend")),
    "coursekit.diffusion.predict.guided", "coursekit.diffusion.predict.mixed",
    "coursekit.classroom.walks.plain",
    "diffusers.schedulers.scheduling_ddim.DDIMScheduler.step",
    "diffusers.schedulers.scheduling_ddim_inverse.DDIMInverseScheduler.step",
)
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")
LOOSE = {"float64": 1e-8, "float32": 5e-3}  # over a path
LEARNT = {"float64": 1e-6, "float32": 5e-3}  # Adam's own epsilon stands in the seventh digit


def step(schedule: Schedule, x: Tensor, e: Tensor, t: int, s: int) -> Tensor:
    """A deterministic hop from t to s, either way, with the noise e."""
    return schedule.noise(schedule.denoise(x, e, t), e, s)


close = partial(alike, double=1e-6, single=2e-3)


def gives(wrong: Callable, key: str) -> Callable:
    """Whether this one of several results is a wrong one's, and not the right one's."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        return not close(got[key], wanted[key]) and close(got[key], wrong(*args.values()))
    return when


def right(got: dict, wanted: dict) -> bool:
    """Whether all numbers agree, so that only how they were got can be wrong."""
    return all(close(got[k], v) for k, v in wanted.items() if " " not in k)


def more_often(got: dict, wanted: dict, args: dict) -> bool:
    return right(got, wanted) and len(got["times asked"]) > len(wanted["times asked"])


def no_tuple(got: object, wanted: dict, args: dict) -> bool:
    return got is not None and not isinstance(got, dict)


OFTEN = Mistake("the network is asked more often than needed: keep its answer", when=more_often)
SWAPPED = "the two ends of guidance have changed places: weight one is the conditional prediction"
END = "at level zero there is nothing to ask: ask where the hop begins going down, and at the " \
      "target time going up"


# ---- 08-1 there at one, back under w -----------------------------------------------------------


def trip_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, none, cond, levels, path: list[int], w: float, dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {
            "none": none, "cond": cond, "schedule": levels, "x": 0.7 * g.standard_normal((4, 3)),
            "path": path, "w": w}, dtype)

    def lines(name: str) -> list:
        return [named("linear", name=name, variance=float(g.uniform(*span)))
                for span in ((0.8, 1.2), (0.2, 0.4))]

    def clouds() -> list:
        return [named("mixture", seed=int(s), std=0.6) for s in g.integers(2**31, size=2)]

    yield case("three times the weight", *lines("linear"), LINEAR, [*uneven(g), 0],
               float(g.uniform(2.5, 3.5)), "float64")
    yield case("weight one", *clouds(), COSINE, [*uneven(g), 0], 1.0, "float32")
    yield case("a path that ends above zero", *clouds(), COSINE, uneven(g),
               float(g.uniform(1.6, 2.5)), "float64")
    yield case("a weight below one", *lines("cosine"), COSINE, [*uneven(g), 0],
               float(g.uniform(0.2, 0.6)), "float32")


def climbed(eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int]) -> list[Tensor]:
    """The states of plain inversion, noisy to clean."""
    return [state.x for state in invert(eps, schedule, x, path)][::-1]


def trip(none: Eps, cond: Eps, schedule: Schedule, x: Tensor, path: Sequence[int],
         w: float) -> dict:
    pivot = climbed(cond, schedule, x, path)
    back = last(ddim(guided(none, cond, w), schedule, pivot[0], path)).x
    return {"pivot": pivot, "back": back, "times asked": [*path[-2::-1], *path[:-1]]}


def way_up(make: Callable) -> Callable:
    """Another pivot, from none, cond, schedule, x, path, w."""
    return gives(make, "pivot")


def way_back(none_cond: Callable = lambda none, cond, w: guided(none, cond, w),
             start: Callable = lambda x, pivot: pivot[0],
             path: Callable = lambda path: path) -> Callable:
    """Another way back from the right pivot."""
    def wrong(none, cond, schedule, x, given, w):
        pivot = climbed(cond, schedule, x, given)
        eps = none_cond(none, cond, w)
        return last(ddim(eps, schedule, start(x, pivot), path(given))).x
    return gives(wrong, "back")


def at_source(none, cond, schedule, x, path, w):
    """Up, but asked at the time where the hop begins."""
    states = [x]
    for s, t in pairwise(path[::-1]):
        states.append(step(schedule, states[-1], cond(states[-1], s), s, t))
    return states[::-1]


def again(eps: Eps, schedule: Schedule, x: Tensor, path: list[int]) -> Tensor:
    """Down, but asked at the time where the hop ends."""
    for t, s in pairwise(path):
        x = step(schedule, x, eps(x, s), t, s)
    return x


TRIP = Exercise(
    "08-1", "There at one, back under w", 2, 10, 3,
    "there_and_back(none, cond, schedule, x, path, w)",
    public=trip_cases, wanted=trip, study=STUDY, tolerance=LOOSE,
    mistakes=(
        Mistake("inversion is guided as well: the pivot is that of w = 1, with cond alone",
                when=way_up(lambda none, cond, sch, x, path, w: climbed(
                    guided(none, cond, w), sch, x, path))),
        Mistake("the pivot was made without the condition: it is made with cond alone",
                when=way_up(lambda none, cond, sch, x, path, w: climbed(none, sch, x, path))),
        Mistake("the pivot's states come clean to noisy: like the path, they begin at the noisy "
                "end", when=way_up(lambda none, cond, sch, x, path, w: climbed(
                    cond, sch, x, path)[::-1])),
        Mistake("the pivot lacks x itself: it has a state for every time of the path",
                when=way_up(lambda none, cond, sch, x, path, w: climbed(cond, sch, x, path)[:-1])),
        Mistake("only the code came: the pivot is the list of all states of the way up",
                when=lambda got, wanted, args: isinstance(got["pivot"], Tensor)),
        Mistake("on the way up the network is asked at the time where the hop begins: ask it about "
                "the old point at the target time", when=way_up(at_source)),
        Mistake(END, raised="t = 0 is outside"),
        Mistake("the way back begins at x: it must begin at the noisy end of the pivot",
                when=way_back(start=lambda x, pivot: x)),
        Mistake("w was kept from falling below one: there it guides like any other number",
                when=way_back(lambda none, cond, w: guided(none, cond, max(w, 1)))),
        Mistake("the way back is not guided: it is that of w = 1",
                when=way_back(lambda none, cond, w: cond)),
        Mistake("the way back never hears the condition",
                when=way_back(lambda none, cond, w: none)),
        Mistake(SWAPPED, when=way_back(lambda none, cond, w: guided(cond, none, w))),
        Mistake("this w is counted from the conditional prediction: here weight one is that "
                "prediction", when=way_back(lambda none, cond, w: guided(none, cond, 1 + w))),
        Mistake("w multiplies the whole conditional prediction: it multiplies the difference",
                when=way_back(lambda none, cond, w: lambda x, t: none(x, t) + w * cond(x, t))),
        Mistake("on the way back the last hop is not taken",
                when=way_back(path=lambda path: path[:-1])),
        Mistake("on the way back the network is asked at the time where the hop ends",
                when=gives(lambda none, cond, sch, x, path, w: again(
                    guided(none, cond, w), sch, climbed(cond, sch, x, path)[0], path), "back")),
        Mistake("all states of the way back came: only the last one is asked for",
                when=lambda got, wanted, args: isinstance(got["back"], list)),
        Mistake("two things are returned, in a tuple: pivot, back", when=no_tuple),
        OFTEN,
    ),
)


# ---- 08-2 the noise that is needed -------------------------------------------------------------


def need_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, cond, levels, name: str, w: float, dtype: str, down: int = 1) -> Case:
        s, t = sorted(uneven(g, 2, low=150))
        s, known = s * down, levels_of(name)
        x0, n = 0.7 * g.standard_normal((4, 3)), g.standard_normal((4, 3))
        x, goal = (math.sqrt(known.level(u)) * x0 + math.sqrt(1 - known.level(u)) * n
                   for u in (t, s))
        return Case(f"{what}, {dtype}", {
            "cond": cond, "schedule": levels, "x": x, "goal": goal + 0.05 * n[::-1], "t": t,
            "s": s, "w": w}, dtype)

    cloud = named("mixture", seed=int(g.integers(2**31)), std=0.6)
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield case("a large weight", straight, LINEAR, "linear", float(g.uniform(4, 8)), "float64")
    yield case("a weight near one", cloud, COSINE, "cosine", float(g.uniform(1.2, 1.5)), "float64")
    yield case("weight one", straight, LINEAR, "linear", 1.0, "float32")
    yield case("a weight below one", cloud, COSINE, "cosine", float(g.uniform(0.2, 0.6)),
               "float32")
    yield case("the hop to level zero", straight, LINEAR, "linear", float(g.uniform(2, 4)),
               "float64", 0)


def leading(schedule: Schedule, x: Tensor, goal: Tensor, t: int, s: int) -> Tensor:
    """The noise of the hop from x to the goal, by a hop with none and one with a unit of it."""
    none = step(schedule, x, torch.zeros_like(x), t, s)
    unit = step(schedule, x, torch.ones_like(x), t, s)
    return (goal - none) / (unit - none)


def need(cond: Eps, schedule: Schedule, x: Tensor, goal: Tensor, t: int, s: int,
         w: float) -> dict:
    e_c = cond(x, t)
    found = e_c if w == 1 else (w * e_c - leading(schedule, x, goal, t, s)) / (w - 1)
    return {"result": found, "times asked": [t]}


def other(formula: Callable, star: Callable = leading) -> Callable:
    """Another formula of e_c, the noise of the hop, and w."""
    def wrong(cond, schedule, x, goal, t, s, w):
        if w == 1:
            raise ValueError("there nothing is divided")
        return formula(cond(x, t), star(schedule, x, goal, t, s), w)
    return gives(wrong, "result")


def slope(schedule: Schedule, t: int, s: int) -> tuple[float, float]:
    """a and b of a hop, by what it makes of ones."""
    one = torch.ones(1, 1, dtype=torch.float64)
    return (float(step(schedule, one, 0 * one, t, s)), float(step(schedule, 0 * one, one, t, s)))


NEED = Exercise(
    "08-2", "The noise that is needed", 2, 10, 3, "needed(cond, schedule, x, goal, t, s, w)",
    public=need_cases, wanted=need, study=STUDY, tolerance={"float64": 1e-8, "float32": 5e-3},
    mistakes=(
        Mistake("this is the noise of the hop: what must guidance begin with, to end there?",
                when=other(lambda e, star, w: star)),
        Mistake("this is the conditional prediction: with it guidance does nothing, and the hop "
                "misses the goal by what plain inversion misses", when=other(
                    lambda e, star, w: e)),
        Mistake("the difference has the wrong sign: put your result into guidance and look "
                "whether the noise of the hop comes out",
                when=other(lambda e, star, w: e - (e - star) / (w - 1))),
        Mistake("the difference is divided by w: what stands over the conditional prediction has "
                "the weight w - 1", when=other(lambda e, star, w: e + (e - star) / w)),
        Mistake("the difference is multiplied by w - 1: it is divided",
                when=other(lambda e, star, w: e + (w - 1) * (e - star))),
        Mistake("the difference is added to the noise of the hop: it is added to the conditional "
                "prediction", when=other(lambda e, star, w: star + (e - star) / (w - 1))),
        Mistake("the conditional end was solved for: the free end is the other one",
                when=other(lambda e, star, w: e + (star - e) / w)),
        Mistake("the noise of the hop is goal - x over b: x must first be multiplied by a",
                when=other(lambda e, star, w: e + (e - star) / (w - 1),
                           lambda sch, x, goal, t, s: (goal - x) / slope(sch, t, s)[1])),
        Mistake("the noise of the hop is not divided by b",
                when=other(lambda e, star, w: e + (e - star) / (w - 1),
                           lambda sch, x, goal, t, s: goal - slope(sch, t, s)[0] * x)),
        Mistake("the hop was taken the other way: it goes from x at t down to the goal at s",
                when=other(lambda e, star, w: e + (e - star) / (w - 1),
                           lambda sch, x, goal, t, s: leading(sch, x, goal, s, t))),
        Mistake("at weight one nothing is divided: there the conditional prediction is asked for",
                when=lambda got, wanted, args: args["w"] == 1 and isinstance(
                    got["result"], Tensor) and not bool(got["result"].isfinite().all())),
        Mistake("at weight one nothing is divided: there the conditional prediction is asked for",
                raised="division by zero"),
        Mistake("the network is asked about the goal: ask about x, at the time t",
                when=gives(lambda cond, sch, x, goal, t, s, w: (w * cond(goal, t) - leading(
                    sch, x, goal, t, s)) / (w - 1), "result")),
        Mistake("the network is asked at the time where the hop ends: ask at t",
                when=lambda got, wanted, args: got["times asked"] == [args["s"]]),
        Mistake(END, raised="t = 0 is outside"), OFTEN,
    ),
)


# ---- 08-3 the offsets of direct inversion ------------------------------------------------------


def around(g: np.random.Generator, path: Sequence[int], shape: tuple[int, ...],
           name: str) -> list[np.ndarray]:
    """States as an inversion leaves them: one picture, one noise, a little beside the line."""
    x0, n, known = 0.7 * g.standard_normal(shape), g.standard_normal(shape), levels_of(name)
    return [math.sqrt(known.level(t)) * x0 + math.sqrt(1 - known.level(t)) * n
            + 0.1 * g.standard_normal(shape) for t in path]


def offset_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, name: str, path: list[int], dtype: str, *shape: int) -> Case:
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": named("schedule", name=name),
            "pivot": around(g, path, shape, name), "path": path}, dtype)

    seed = int(g.integers(2**31))
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield case("uneven hops", straight, "linear", [*uneven(g), 0], "float64", 4, 3)
    yield case("one hop", named("mixture", seed=seed), "cosine", uneven(g, 2), "float32", 5, 2)
    yield case("a path that ends above zero", named("mixture", seed=seed), "cosine", uneven(g),
               "float64", 5, 3)
    yield case("pictures and a small network", named("unet", seed=seed), "cosine",
               [*uneven(g, 3), 0], "float32", 2, 3, 8, 8)


def states(pivot: Sequence[Tensor], path: Sequence[int]) -> list[State]:
    return [State(t, x) for t, x in zip(path, pivot, strict=True)]


def offsets(eps: Eps, schedule: Schedule, pivot: Sequence[Tensor], path: Sequence[int]) -> dict:
    hops = list(ways.direct(eps, schedule, states(pivot, path)))
    return {"result": [hop.noise for hop in hops[1:]], "times asked": list(path[:-1])}


def missed(d: Callable) -> Callable:
    """Other offsets, from the hops: d(now, then, t, s, eps, schedule), then as they come."""
    def wrong(eps, schedule, pivot, path):
        hops = zip(pairwise(pivot), pairwise(path), strict=True)
        return [d(*xs, *times, eps, schedule) for xs, times in hops]
    return gives(wrong, "result")


def landed(now: Tensor, then: Tensor, t: int, s: int, eps: Eps, schedule: Schedule) -> Tensor:
    e = eps(now, t)
    x0 = schedule.denoise(now, e, t)
    return posterior(schedule, now, x0, t, s, 0.0)


def drifting(eps, schedule, pivot, path):
    """The sampler is left to itself: its misses add up."""
    walk = [s.x for s in ddim(eps, schedule, pivot[0], path)]
    return [goal - x for goal, x in zip(pivot[1:], walk[1:], strict=True)]


def upwards(now, then, t, s, eps, schedule):
    return now - step(schedule, then, eps(then, t), s, t)


OFFSETS = Exercise(
    "08-3", "Keep the miss", 2, 10, 3, "offsets(eps, schedule, pivot, path)",
    public=offset_cases, wanted=offsets, study=STUDY, tolerance={"float64": 1e-9, "float32": 1e-3},
    mistakes=(
        Mistake("the sampler walks on from where it landed: each hop begins on the pivot, so that "
                "d is the miss of that hop alone", when=gives(drifting, "result")),
        Mistake("the offset has the wrong sign: it is added to where the hop lands, to be on the "
                "pivot", when=missed(lambda *hop: landed(*hop) - hop[1])),
        Mistake("this is where the hop lands: the offset is what is missing from there",
                when=missed(landed)),
        Mistake("these are the differences of the pivot's states: let the sampler take the hop, "
                "and compare where it lands", when=missed(lambda now, then, *_: then - now)),
        Mistake("the network is asked about where the hop ends: ask about the state in which it "
                "begins", when=missed(lambda now, then, t, s, eps, sch: then - step(
                    sch, now, eps(then, t), t, s))),
        Mistake("the hop is taken upwards: the sampler goes down, from noisy to clean",
                when=missed(upwards)),
        Mistake("the offsets come clean to noisy: like the path, they begin at the noisy end",
                when=lambda got, wanted, args: isinstance(got["result"], list)
                and not close(got["result"], wanted["result"])
                and close(got["result"][::-1], wanted["result"])),
        Mistake("one offset a hop is asked for: there is none for the state in which the path "
                "begins", when=lambda got, wanted, args: isinstance(got["result"], list)
                and len(got["result"]) == len(args["pivot"])),
        Mistake("a list is asked for, with an offset for each hop",
                when=lambda got, wanted, args: isinstance(got["result"], (Tensor, dict, tuple))),
        Mistake(END, raised="t = 0 is outside"), OFTEN,
    ),
)


# ---- 08-4 source and target --------------------------------------------------------------------


def edit_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, path: list[int], name: str, b: int, dtype: str) -> Case:
        shape = b, 2, 3
        return Case(f"{what}, {dtype}", {
            "eps": named("side_by_side", seed=int(g.integers(2**31)), name=name),
            "schedule": named("schedule", name=name), "code": g.standard_normal(shape),
            "path": path, "d": [0.4 * g.standard_normal(shape) for _ in path[1:]]}, dtype)

    yield case("uneven hops, two pictures", [*uneven(g), 0], "cosine", 2, "float64")
    yield case("a path that ends above zero", uneven(g), "linear", 2, "float32")
    yield case("one picture", [*uneven(g, 3), 0], "linear", 1, "float64")
    yield case("two hops, four pictures", [*uneven(g, 2, 200), 0], "cosine", 4, "float32")


def edit(eps: SideBySide, schedule: Schedule, code: Tensor, path: Sequence[int],
         d: Sequence[Tensor], shares: tuple[float, float] = (1.0, 0.0)) -> dict:
    """By the package's replay, with a share of each offset for the upper rows and the lower."""
    both = torch.cat([code, code])
    hops = [Hop(path[0], both)] + [Hop(t, both, None, torch.cat([share * miss for share in shares]))
                                   for t, miss in zip(path[1:], d, strict=True)]
    source, target = last(replay(eps, schedule, hops)).x.chunk(2)
    return {"source": source, "target": target, "rows asked": [len(both)] * len(d),
            "times asked": list(path[:-1])}


def changed(offsets: Callable = lambda d: d, share: float = 0.0, key: str = "source") -> Callable:
    """The walk with other offsets, or with a share of them for the target."""
    return gives(lambda eps, sch, code, path, d: edit(eps, sch, code, path, offsets(d),
                                                      (1.0, share))[key], key)


def below(eps, schedule, code, path, d):
    """The source is taken for the lower rows."""
    return edit(eps, schedule, code, path, d, (0.0, 1.0))["target"]


def before(eps, schedule, code, path, d):
    """Each offset is added before its hop."""
    x = torch.cat([code, code])
    for (t, s), miss in zip(pairwise(path), d, strict=True):
        x = x + torch.cat([miss, 0 * miss])
        x = step(schedule, x, eps(x, t), t, s)
    return x.chunk(2)[0]


def alone(eps, schedule, code, path, d):
    """The target is drawn beside a source that does not know of its offsets."""
    return edit(eps, schedule, code, path, [0 * miss for miss in d])["target"]


def at_last(eps, schedule, code, path, d):
    return edit(eps, schedule, code, path, [0 * miss for miss in d])["source"] + d[-1]


EDIT = Exercise(
    "08-4", "Source and target side by side", 3, 15, 4, "edit(eps, schedule, code, path, d)",
    public=edit_cases, wanted=edit, study=STUDY, tolerance=LOOSE,
    mistakes=(
        Mistake("the target gets the offsets, too: they belong to the source alone",
                when=changed(share=1.0, key="target")),
        Mistake("the offsets have no effect: without them the source leaves its pivot",
                when=changed(lambda d: [0 * miss for miss in d])),
        Mistake("the offsets are taken off: they are added",
                when=changed(lambda d: [-miss for miss in d])),
        Mistake("the offsets are used in the wrong order: d[0] belongs to the first hop from the "
                "noisy end", when=changed(lambda d: d[::-1])),
        Mistake("the first offset is used at every hop: each hop has one of its own",
                when=changed(lambda d: [d[0]] * len(d))),
        Mistake("an offset is added before its hop: it is what is missing after it",
                when=gives(before, "source")),
        Mistake("only the last offset is added, at the end: each must be there before the next "
                "hop begins", when=gives(at_last, "source")),
        Mistake("the target is right only beside a source that was put back: both walk together, "
                "offsets and all", when=gives(alone, "target")),
        Mistake("the sources were put below: they are the upper rows, the targets stand below",
                when=gives(below, "source")),
        Mistake("source and target have changed places: the source comes first",
                when=lambda got, wanted, args: not close(got["source"], wanted["source"])
                and close(got["source"], wanted["target"])),
        Mistake("the network is asked about source and target apart: one call with both, the "
                "sources first", when=lambda got, wanted, args: len(got["rows asked"])
                > len(wanted["rows asked"])),
        Mistake("the network is asked about source and target apart: one call with both, the "
                "sources first", raised="accepted is (2 b, 2, 3)"),
        Mistake("two things are returned, in a tuple: source, target", when=no_tuple),
        Mistake(END, raised="accepted is an int in 1..1000"),
    ),
)


# ---- 08-5 a hop of null-text -------------------------------------------------------------------


def descend(eps: Worded, cond: Tensor, null: Tensor, schedule: Schedule, x: Tensor, goal: Tensor,
            t: int, s: int, w: float, lr: float, updates: int, enough: float, *,
            signal: Callable = lambda miss: miss.square().mean(), adam: tuple = (0.9, 0.999),
            flip: float = 1.0, held: bool = False, guide: Callable | None = None,
            ) -> tuple[Tensor, Tensor, list[float]]:
    """Adam written out (Kingma & Ba 2015, algorithm 1): the embedding, where it leads, the losses.

    held  Adam is begun anew at each update, which leaves the signs of the gradient.
    """
    with torch.no_grad():
        e_c = eps(x, t, cond)
    guide = guide or (lambda e: (1 - w) * e + w * e_c)
    first, second, losses = torch.zeros_like(null), torch.zeros_like(null), []
    for k in range(1, updates + 1):
        point = null.detach().requires_grad_()
        with torch.enable_grad():
            loss = signal(step(schedule, x, guide(eps(x, t, point)), t, s) - goal)
            losses.append(float(loss.detach()))
            if losses[-1] < enough:
                break
            slope = torch.autograd.grad(loss, point)[0]
        if held:
            null = null - lr * slope / (slope.abs() + 1e-8)
            continue
        first = adam[0] * first + (1 - adam[0]) * slope
        second = adam[1] * second + (1 - adam[1]) * slope * slope
        size = (second / (1 - adam[1]**k)).sqrt() + 1e-8
        null = null - flip * lr * first / (1 - adam[0]**k) / size
    null = null.detach()
    return null, step(schedule, x, guide(eps(x, t, null)), t, s), losses


def null_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, w: float, updates: int, dtype: str, b: int = 1, stop: int = -1) -> Case:
        levels, seed = levels_of("linear"), int(g.integers(2**31))
        s, t = sorted(uneven(g, 2, low=200, high=800))
        cond, null = g.standard_normal((2, 1, 3, 5))
        x0, n = 0.5 * g.standard_normal((b, 2, 3)), g.standard_normal((b, 2, 3))
        x, goal = (math.sqrt(levels.level(u)) * x0 + math.sqrt(1 - levels.level(u)) * n
                   for u in (t, s))
        lr, enough = float(g.uniform(0.01, 0.02)), 0.0
        if stop >= 0:  # a loss that is reached after so many updates, and not before
            rounded = [torch.from_numpy(v).float().double() for v in (cond, null, x, goal)]
            net = Worded(torch.float64, seed)
            losses = descend(net, *rounded[:2], levels, *rounded[2:], t, s, w, lr, updates, 0.0)[2]
            enough = math.sqrt(losses[stop] * losses[stop - 1]) if stop else 1.5 * losses[0]
        return Case(f"{what}, {dtype}", {
            "eps": named("worded", seed=seed), "cond": cond, "null": null, "schedule": LINEAR,
            "x": x, "goal": goal, "t": t, "s": s, "w": w, "lr": lr, "updates": updates,
            "enough": enough}, dtype)

    yield case("one update", float(g.uniform(3, 6)), 1, "float64")
    yield case("several updates, two pictures", float(g.uniform(3, 6)), 6, "float64", 2)
    yield case("a loss that is enough after some", float(g.uniform(3, 6)), 9, "float32", 2, stop=4)
    yield case("a loss that is enough at once", float(g.uniform(3, 6)), 5, "float64", 2, stop=0)
    yield case("weight one", 1.0, 4, "float32")


def learn(eps: Worded, cond: Tensor, null: Tensor, schedule: Schedule, x: Tensor, goal: Tensor,
          t: int, *more: Any) -> dict:
    found = descend(eps, cond, null, schedule, x, goal, t, *more)
    return {"null": found[0], "x": found[1], "times asked": [t], "graph left": []}


def descended(key: str = "null", **how: Any) -> Callable:
    """The hop with a part of the descent altered."""
    return gives(lambda *args: descend(*args, **how)[key == "x"], key)


def with_updates(change: Callable, enough: Callable = lambda v: v) -> Callable:
    return gives(lambda *a: descend(*a[:-2], change(a[-2]), enough(a[-1]))[0], "null")


def plain_descent(*args: Any) -> Tensor:
    """Gradient descent without Adam."""
    eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough = args
    for _ in range(updates):
        point = null.detach().requires_grad_()
        with torch.enable_grad():
            e = (1 - w) * eps(x, t, point) + w * eps(x, t, cond)
            loss = (step(schedule, x, e, t, s) - goal).square().mean()
        if float(loss.detach()) < enough:
            break
        null = null - lr * torch.autograd.grad(loss, point)[0]
    return null.detach()


def unconditional(*args: Any) -> Tensor:
    """The predictor alone is led to the goal, without guidance."""
    return descend(*args, guide=lambda e: e)[0]


def ends_changed(*args: Any) -> Tensor:
    eps, cond, _, _, x, _, t, _, w = args[:9]
    e_c = eps(x, t, cond).detach()
    return descend(*args, guide=lambda e: e_c + w * (e - e_c))[0]


def one_early(*args: Any) -> Tensor:
    """Where the embedding before the last update leads."""
    updates = args[-2]
    found = [descend(*args[:-2], k, args[-1]) for k in range(updates + 1)]
    moved = [i for i in range(1, updates + 1) if not torch.equal(found[i][0], found[i - 1][0])]
    return found[moved[-1] - 1][1] if moved else found[0][1]


def tape(got: dict, wanted: dict, args: dict) -> bool:
    return right(got, wanted) and bool(got["graph left"])


TAPE = Mistake("a result still carries the graph that made it, and with it the memory of all "
               "that follows: detach it", when=tape)
AGAIN = Mistake("the prompt is asked about in every update: it does not depend on the embedding, "
                "so ask once, before them", when=more_often)

NULL = Exercise(
    "08-5", "One hop of null-text", 4, 20, 4,
    "null_hop(eps, cond, null, schedule, x, goal, t, s, w, lr, updates, enough)",
    public=null_cases, wanted=learn, study=STUDY, tolerance=LEARNT,
    seconds=8,
    mistakes=(
        Mistake("the embedding goes uphill: the gradient is taken off",
                when=descended(flip=-1.0)),
        Mistake("the embedding does not move: is it a copy with requires_grad_, and the one that "
                "Adam holds?", when=with_updates(lambda n: 0)),
        Mistake("this is plain gradient descent: Adam is asked for",
                when=gives(plain_descent, "null")),
        Mistake("Adam is begun anew at each update: it has a memory, and begins anew at each hop",
                when=descended(held=True)),
        Mistake("one update too few is made", when=with_updates(lambda n: n - 1)),
        Mistake("one update too many is made", when=with_updates(lambda n: n + 1)),
        Mistake("the loss does not end the updates where it should: before each of them its mean "
                "over all values, no sum, is compared with what is enough",
                when=with_updates(lambda n: n, lambda v: 0.0)),
        Mistake("the loss is a root: the mean of the squares is asked for",
                when=descended(signal=lambda miss: miss.square().mean().sqrt())),
        Mistake("the hop is not guided: its noise is that of guidance, and only one end of it "
                "moves", when=gives(unconditional, "null")),
        Mistake(SWAPPED, when=gives(ends_changed, "null")),
        Mistake("x is where the embedding led before the last update: take the hop again with the "
                "last one", when=gives(one_early, "x")),
        Mistake("x is the goal: return where the embedding leads, which is only near it",
                when=gives(lambda *a: a[5], "x")),
        Mistake("x has not moved: return where the hop leads", when=gives(lambda *a: a[4], "x")),
        Mistake("no gradient reaches the embedding: detach, data and no_grad cut it off",
                raised="does not require grad"),
        Mistake("no gradient reaches the embedding: it must be asked for with requires_grad_ "
                "before the network sees it", raised="appears to not have been used"),
        Mistake("two things are returned, in a tuple: null, x", when=no_tuple),
        TAPE, AGAIN,
    ),
)


# ---- 08-6 null-text over the path --------------------------------------------------------------


def walk_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, path: list[int], w: float, updates: int, dtype: str,
             near: float = 0.0) -> Case:
        seed, levels = int(g.integers(2**31)), levels_of("linear")
        cond, null = g.standard_normal((2, 1, 3, 5))
        net = Worded(torch.float64, seed)
        none, told = (lambda x, t, text=torch.from_numpy(text): net(x, t, text)
                      for text in (null, cond))
        x = torch.from_numpy(0.5 * g.standard_normal((1, 2, 3)))
        pivot = climbed(told, levels, x, path)
        if near:  # beside the states of guided sampling itself, as far at every hop
            walk = [state.x for state in ddim(guided(none, told, w), levels, pivot[0], path)]
            off = torch.from_numpy(g.standard_normal((len(path), 1, 2, 3)))
            off = near * off / off.square().mean((1, 2, 3), keepdim=True).sqrt()
            pivot[1:] = [x + by for x, by in zip(walk[1:], off[1:], strict=True)]
        return Case(f"{what}, {dtype}", {
            "eps": named("worded", seed=seed), "cond": cond, "null": null, "schedule": LINEAR,
            "pivot": [state.numpy() for state in pivot], "path": path, "w": w,
            "updates": updates}, dtype)

    yield case("four hops", [*uneven(g, 4, 100), 0], float(g.uniform(3, 5)), 6, "float64")
    yield case("a path that ends above zero", uneven(g, 4, 100), float(g.uniform(3, 5)), 3,
               "float32")
    yield case("a pivot that guidance hardly misses", [*uneven(g, 5, 60), 0],
               float(g.uniform(1.15, 1.25)), 8, "float64", 0.006)
    yield case("no update", [*uneven(g, 3, 100), 0], float(g.uniform(2, 3)), 0, "float64")


def null_text(eps: Worded, cond: Tensor, null: Tensor, schedule: Schedule,
              pivot: Sequence[Tensor], path: Sequence[int], w: float, updates: int) -> dict:
    run = list(ways.null_text(lambda text: lambda x, t: eps(x, t, text),
                              lambda x, t: eps(x, t, cond), schedule, states(pivot, path), null,
                              w, updates))
    return {"nulls": [state.null for state in run[1:]], "x": run[-1].x,
            "times asked": list(path[:-1]), "graph left": []}


def walked(start: Callable = lambda x, on_pivot: x, begin: Callable = lambda null, first: null,
           goal: Callable = lambda pivot, i: pivot[i + 1],
           lr: Callable = lambda share: 0.01 * (1 - share / 2),
           enough: Callable = lambda share: 1e-5 + 1e-3 * share) -> Callable:
    """The embeddings of a walk with one of its parts altered."""
    def wrong(eps, cond, null, schedule, pivot, path, w, updates):
        x, first, found = pivot[0], null, []
        for i, (t, s) in enumerate(pairwise(path)):
            share = i / (len(path) - 1)
            null, x, _ = descend(eps, cond, begin(null, first), schedule, start(x, pivot[i]),
                                 goal(pivot, i), t, s, w, lr(share), updates, enough(share))
            found.append(null)
        return found
    return gives(wrong, "nulls")


def unhelped(eps, cond, null, schedule, pivot, path, w, updates):
    """The way back with the first embedding at every hop."""
    both = guided(lambda x, t: eps(x, t, null), lambda x, t: eps(x, t, cond), w)
    return last(ddim(both, schedule, pivot[0], path)).x


WALK = Exercise(
    "08-6", "Null-text down the path", 4, 15, 3,
    "null_text(eps, cond, null, schedule, pivot, path, w, updates)",
    public=walk_cases, wanted=null_text, study=STUDY, tolerance=LEARNT, seconds=8,
    mistakes=(
        Mistake("each hop begins on the pivot: it begins where the last hop landed, so that the "
                "next embedding can repair what is left",
                when=walked(start=lambda x, on_pivot: on_pivot)),
        Mistake("each hop begins with the embedding of the empty text: it begins with that of the "
                "hop before", when=walked(begin=lambda null, first: first)),
        Mistake("the goal is the state where the hop begins: it is the one where it ends",
                when=walked(goal=lambda pivot, i: pivot[i])),
        Mistake("every hop aims at the picture: its goal is the pivot's state where it ends",
                when=walked(goal=lambda pivot, i: pivot[-1])),
        Mistake("the rate is the same at every hop: it falls to a half",
                when=walked(lr=lambda share: 0.01)),
        Mistake("the rate falls to zero: it falls to a half",
                when=walked(lr=lambda share: 0.01 * (1 - share))),
        *(Mistake("the losses do not end the updates where they should: what is enough grows from "
                  "hop to hop", when=walked(enough=bound))
          for bound in (lambda share: 1e-5, lambda share: 0.0)),
        Mistake("the embeddings come clean to noisy: like the path, they begin at the noisy end",
                when=lambda got, wanted, args: isinstance(got["nulls"], list)
                and not close(got["nulls"], wanted["nulls"])
                and close(got["nulls"][::-1], wanted["nulls"])),
        Mistake("the embedding with which the walk began is in the list: there is one for each "
                "hop", when=lambda got, wanted, args: isinstance(got["nulls"], list)
                and len(got["nulls"]) == len(args["path"])),
        Mistake("only the last embedding came: a list is asked for, with one for each hop",
                when=lambda got, wanted, args: isinstance(got["nulls"], Tensor)),
        Mistake("x is the picture: return where the walk ends, which is only near it",
                when=gives(lambda *a: a[4][-1], "x")),
        Mistake("x was drawn with the first embedding: the walk uses the one that it has found at "
                "each hop", when=gives(unhelped, "x")),
        Mistake("two things are returned, in a tuple: nulls, x", when=no_tuple),
        TAPE, AGAIN,
    ),
)

EXERCISES = (TRIP, NEED, OFFSETS, EDIT, NULL, WALK)
