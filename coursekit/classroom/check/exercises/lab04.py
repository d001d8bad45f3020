"""Lab 04: SDEdit with masks and repeats, and what its one knob costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import combinations, pairwise, product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.spec import Case, Exercise, Mistake, named
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.schedule import Schedule

SAMPLE, EDIT = "coursekit.diffusion.sample", "coursekit.edits.sdedit"
STUDY = (f"{EDIT}.edit", f"{EDIT}._enter", *(f"{SAMPLE}.{f}" for f in ("ddim", "ddpm", "_walk")))
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")
LOOSE = {"float64": 1e-8, "float32": 5e-3}  # over a path
TWICE = "t0 stands there twice: the times after it are strictly below it"
NO_T0 = "t0 itself is missing: the first hop begins at t0, wherever the path has its times"
CLEAN_ASKED = ("at t = 0 there is nothing to ask: the last hop ends there, and t0 = 0 needs no "
               "hop at all")


def uneven(g: np.random.Generator, n: int = 5) -> list[int]:
    """A path of n hops of any length, from the noisy end to 0; its times are 60 apart or more."""
    times = np.cumsum(g.integers(60, 140, n - 1)) + g.integers(0, 60)
    return [1000, *map(int, sorted(times, reverse=True)), 0]


def between(path: Sequence[int], i: int, g: np.random.Generator, low: float = 0.2,
            high: float = 0.8) -> int:
    """A time between path[i + 1] and path[i], at a share low..high of the way up."""
    return round(path[i + 1] + float(g.uniform(low, high)) * (path[i] - path[i + 1]))


def hops_from(path: Sequence[int], t0: int) -> list[int]:
    return sorted({t0} | {t for t in path if t < t0}, reverse=True)


# ---- 04-1 where the path is entered ------------------------------------------------------------


def enter_cases(g: np.random.Generator) -> Iterator[Case]:
    path = uneven(g, 6)
    yield Case("t0 between two times of the path", {"path": path, "t0": between(path, 2, g, 0.6)})
    yield Case("t0 is a time of the path", {"path": path, "t0": path[3]})
    yield Case("t0 at the noisy end", {"path": path, "t0": 1000})
    yield Case("t0 at zero", {"path": path, "t0": 0})
    yield Case("t0 below all hops but the last", {
        "path": path, "t0": between(path, 5, g, high=0.4)})


def nearest(path: Sequence[int], t0: int) -> list[int]:
    """The path from its time nearest to t0."""
    return [t for t in path if t <= min(path, key=lambda u: abs(u - t0))]


def shared(path: Sequence[int], t0: int) -> list[int]:
    """The last hops, as many as t0's share of the whole."""
    hops = len(path) - 1
    return list(path[hops - int(hops * t0 / path[0]):])


ENTER = Exercise(
    "04-1", "Where the path is entered", 1, 5, 2, "enter(path, t0)",
    public=enter_cases, wanted=hops_from, study=(f"{EDIT}.edit", f"{EDIT}._enter"),
    mistakes=(
        Mistake(TWICE, lambda path, t0: [t0, *[t for t in path if t <= t0]]),
        Mistake(NO_T0, lambda path, t0: [t for t in path if t <= t0]),
        Mistake(NO_T0, lambda path, t0: [t for t in path if t < t0]),
        Mistake("a time above t0 is there: the guide is noised to t0 and no further",
                lambda path, t0: [min(u for u in path if u >= t0), *(u for u in path if u < t0)]),
        Mistake("t0 was rounded to the nearest time of the path: the path is entered at t0 itself",
                nearest),
        Mistake("hops were counted: t0 is a time, and the hops of a path need not be even", shared),
        Mistake("only t0 and the end are left: all times of the path below t0 are walked",
                lambda path, t0: [t0, path[-1]]),
        Mistake("the whole path came back: it must be entered at t0", lambda path, t0: list(path)),
        Mistake("the times rise: a path falls from the noisy end",
                lambda path, t0: hops_from(path, t0)[::-1]),
        Mistake("the last time is missing: the walk ends where the path ends",
                lambda path, t0: hops_from(path, t0)[:-1]),
    ),
)


# ---- 04-2 the same noise elsewhere -------------------------------------------------------------


def same(source: Schedule, t0: int, target: Schedule) -> int:
    gaps = [abs(target.level(t) - source.level(t0)) for t in range(target.T + 1)]
    return min(range(len(gaps)), key=gaps.__getitem__)


def neighbours(source: Schedule, t0: int, target: Schedule) -> tuple[int, int]:
    """The target's last time that is cleaner than source at t0, and the next one."""
    noisier = next(t for t in range(target.T + 1) if target.level(t) < source.level(t0))
    return noisier - 1, noisier


def other_measure(source: Schedule, t0: int, target: Schedule) -> list[int]:
    """The nearest times where not the levels are compared."""
    measures = (lambda a: math.sqrt(1 / a - 1), math.log, lambda a: 1 / a, math.sqrt,
                lambda a: math.sqrt(1 - a))
    found = []
    for measure in measures:
        want = measure(source.level(t0))
        gaps = {t: abs(measure(target.level(t)) - want) for t in range(1, target.T + 1)}
        found.append(min(gaps, key=gaps.__getitem__))
    return found


@cache
def telling(T: int) -> dict[str, list[int]]:
    """Times of the linear schedule whose nearest time on a short one tells mistakes apart."""
    linear, rest = Schedule.linear(), Schedule.cosine(T)
    found: dict[str, list[int]] = {"cleaner": [], "noisier": [], "gap": []}
    for t0 in range(200, 700):
        nearest, (cleaner, _) = same(linear, t0, rest), neighbours(linear, t0, rest)
        others = other_measure(linear, t0, rest)
        if set(others) == {nearest}:
            found["cleaner" if nearest == cleaner else "noisier"].append(t0)
        elif nearest not in others[:2]:
            found["gap"].append(t0)
    return found


def same_cases(g: np.random.Generator) -> Iterator[Case]:
    T = int(g.integers(9, 14))
    coarse, found = named("schedule", name="cosine", T=T), telling(T)

    def case(what: str, source, t0: int, target) -> Case:
        return Case(what, {"source": source, "t0": int(t0), "target": target})

    yield case("to a short schedule, the cleaner time is nearer", LINEAR,
               g.choice(found["cleaner"]), coarse)
    yield case("to a short schedule, the noisier time is nearer", LINEAR,
               g.choice(found["noisier"]), coarse)
    yield case("to a short schedule, almost halfway", LINEAR, g.choice(found["gap"]), coarse)
    yield case("from linear to cosine", LINEAR, int(g.integers(250, 700)), COSINE)
    yield case("from a long schedule", named("schedule", name="cosine", T=4000),
               int(g.integers(1200, 3000)), LINEAR)
    yield case("t0 at zero", LINEAR, 0, COSINE)


def measured_otherwise(got: Any, wanted: int, args: dict) -> bool:
    return args["t0"] > 0 and got != wanted and got in other_measure(*args.values())


SAME = Exercise(
    "04-2", "The same noise on another schedule", 2, 10, 2, "same_noise(source, t0, target)",
    public=same_cases, wanted=same,
    mistakes=(
        Mistake("t0 came back: the same number is another noise on another schedule",
                lambda source, t0, target: t0),
        Mistake("the share of the way was kept: what counts is the level, not the number",
                lambda source, t0, target: round(t0 * target.T / source.T)),
        Mistake("source and target have changed places",
                lambda source, t0, target: same(target, min(t0, target.T), source)),
        Mistake("another measure was compared: the levels nearest to each other are asked for",
                when=measured_otherwise),
        Mistake("this is the noisier of two neighbours: the nearest may be the other one",
                lambda source, t0, target: neighbours(source, t0, target)[1]),
        Mistake("this is the cleaner of two neighbours: the nearest may be the other one",
                lambda source, t0, target: neighbours(source, t0, target)[0]),
        Mistake("off by one: level 0 is the clean picture, so place k of the table is time k",
                lambda source, t0, target: same(source, t0, target) - 1),
        Mistake("the level itself came back: the time that has it is asked for",
                lambda source, t0, target: source.level(t0)),
        Mistake("the level farthest away was chosen",
                lambda source, t0, target: target.T),
        Mistake("the gap has a sign: without abs the smallest is the most negative one",
                lambda source, t0, target: 0),
        Mistake("a whole number is asked for: int(..) makes one of a tensor",
                when=lambda got, wanted, args: isinstance(got, Tensor) and got.ndim == 0),
    ),
)


# ---- 04-3 SDEdit -------------------------------------------------------------------------------


def move(eps: Eps, schedule: Schedule, x: Tensor, t: int, s: int, z: Tensor,
         at: int | None = None) -> Tensor:
    """DDPM's hop from t to s, as a quiet hop whose noise was changed in part."""
    e, sd = eps(x, t if at is None else at), math.sqrt(schedule.beta_tilde(t, s))
    _, b = schedule.scales(s, x)
    clean = schedule.denoise(x, e, t)
    return schedule.noise(clean, e, s) + (math.sqrt(max(0.0, b**2 - sd**2)) - b) * e + sd * z


def walk(eps, schedule, guide, t0, path, z, noise, *, hops: Callable = hops_from,
         start: Callable = Schedule.noise, end: Callable | None = None,
         draw: Callable = lambda noise, i: noise[i], step: Callable = move) -> Tensor:
    """SDEdit with its parts exchangeable; end(schedule, x, guide, z, t, s) follows a hop."""
    times = hops(path, t0)
    x = start(schedule, guide, z, times[0])
    for i, (t, s) in enumerate(pairwise(times)):
        x = step(eps, schedule, x, t, s, draw(noise, i))
        x = x if end is None else end(schedule, x, guide, z, t, s)
    return x


def edited(eps, schedule, guide, t0, path, z, noise) -> dict:
    return {"x": walk(eps, schedule, guide, t0, path, z, noise),
            "times asked": hops_from(path, t0)[:-1]}


def drawn(g: np.random.Generator, shape: tuple, path: list[int], runs: int = 0) -> dict:
    """Noise for a walk or for several: one hop more than is needed."""
    first = (runs, *shape) if runs else shape
    rows = (runs, len(path), *shape) if runs else (len(path), *shape)
    return {"path": path, "z": g.standard_normal(first), "noise": g.standard_normal(rows)}


def picture(g: np.random.Generator, shape: tuple) -> np.ndarray:
    return g.uniform(-0.9, 0.9, shape)


def edit_cases(g: np.random.Generator) -> Iterator[Case]:
    seed, small = int(g.integers(2**31)), (2, 1, 2, 3)

    def case(what: str, eps, levels, shape: tuple, t0: Callable, dtype: str) -> Case:
        path = uneven(g)
        noise = drawn(g, shape, path)
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": levels, "guide": picture(g, shape), "t0": t0(path), **noise},
            dtype)

    mixed = named("mixture", seed=seed)
    yield case("t0 between two times of the path", mixed, COSINE, small,
               lambda path: between(path, 1, g), "float64")
    yield case("t0 is a time of the path, linear schedule",
               named("linear", name="linear", variance=float(g.uniform(0.2, 0.6))), LINEAR, small,
               lambda path: path[2], "float64")
    # in float64: at the end of a cosine schedule x / sqrt(abar) leaves float32 three digits
    yield case("t0 at the noisy end", mixed, COSINE, small, lambda path: 1000, "float64")
    yield case("t0 at zero returns the guide", mixed, COSINE, small, lambda path: 0, "float64")
    yield case("pictures and a small network", named("unet", seed=seed), COSINE, (1, 3, 8, 8),
               lambda path: between(path, 2, g), "float32")


close = partial(alike, double=1e-6, single=2e-3)


def gives(wrong: Callable) -> Callable:
    """Whether the answer's value is that of a wrong one and not the right one."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        return not close(got["x"], wanted["x"]) and close(got["x"], wrong(*args.values()))
    return when


def with_(**parts: Callable) -> Callable:
    return gives(lambda *args: walk(*args, **parts))


def above(path: Sequence[int], t0: int) -> list[int]:
    """The path from the first time at or above t0."""
    return [min(u for u in path if u >= t0), *(u for u in path if u < t0)]


def at_end(eps, schedule, x, t, s, z):
    return move(eps, schedule, x, t, s, z, at=max(s, 1))


def quiet(eps, schedule, x, t, s, z):
    e = eps(x, t)
    return schedule.noise(schedule.denoise(x, e, t), e, s)


def plain_sum(schedule: Schedule, guide: Tensor, z: Tensor, t: int) -> Tensor:
    return guide + math.sqrt(1 - schedule.level(t)) * z


def variances(schedule: Schedule, guide: Tensor, z: Tensor, t: int) -> Tensor:
    return schedule.level(t) * guide + (1 - schedule.level(t)) * z


LATE_ROWS = "the noise is counted along the whole path: the first hop that is walked takes noise[0]"
ASKED_END = "the network is asked at the time where the hop ends: ask where it begins"


def last_rows(eps, schedule, guide, t0, path, z, noise):
    """Noise counted along the path, also by the hops that are not walked."""
    skipped = len(path) - len(hops_from(path, t0))
    return walk(eps, schedule, guide, t0, path, z, noise, draw=lambda n, i: n[skipped + i])


def more_often(got: dict, wanted: dict, args: dict) -> bool:
    return len(got["times asked"]) > len(wanted["times asked"]) and close(got["x"], wanted["x"])


SDEDIT = Exercise(
    "04-3", "SDEdit", 3, 15, 4, "sdedit(eps, schedule, guide, t0, path, z, noise)",
    public=edit_cases, wanted=edited, study=STUDY, tolerance=LOOSE, seconds=8,
    mistakes=(
        Mistake("the walk begins at the clean guide: the guide must be noised to t0 first",
                when=with_(start=lambda sch, guide, z, t: guide)),
        Mistake("the walk begins at z alone: nothing of the guide is in it",
                when=with_(start=lambda sch, guide, z, t: z)),
        Mistake("the walk begins at z alone: nothing of the guide is in it",
                when=with_(start=lambda sch, guide, z, t: sch.scales(t, z)[1] * z)),
        Mistake("the whole path is walked: it must be entered at t0", when=with_(
            hops=lambda path, t0: list(path), start=lambda sch, guide, z, t: sch.noise(
                guide, z, t))),
        Mistake("the guide is noised to the beginning of the path: it must be noised to t0",
                when=gives(lambda eps, sch, guide, t0, path, z, noise: walk(
                    eps, sch, guide, t0, path, z, noise,
                    start=lambda sch, guide, z, t: sch.noise(guide, z, path[0])))),
        Mistake("the guide is noised to t0, but then the whole path is walked",
                when=gives(lambda eps, sch, guide, t0, path, z, noise: walk(
                    eps, sch, guide, t0, path, z, noise, hops=lambda path, t0: list(path),
                    start=lambda sch, guide, z, t: sch.noise(guide, z, t0)))),
        Mistake("the walk enters at a time of the path above t0: enter at t0 itself",
                when=gives(lambda eps, sch, guide, t0, path, z, noise: walk(
                    eps, sch, guide, t0, path, z, noise, hops=above,
                    start=lambda sch, guide, z, t: sch.noise(guide, z, t0)))),
        Mistake("the walk enters at a time of the path below t0: enter at t0 itself",
                when=gives(lambda eps, sch, guide, t0, path, z, noise: walk(
                    eps, sch, guide, t0, path, z, noise,
                    hops=lambda path, t0: [t for t in path if t <= t0],
                    start=lambda sch, guide, z, t: sch.noise(guide, z, t0)))),
        Mistake("the guide is not made smaller: its factor is the root of abar at t0",
                when=with_(start=plain_sum)),
        Mistake("these are the variances: guide and z are multiplied by their roots",
                when=with_(start=variances)),
        Mistake("guide and noise have changed places where the guide is noised",
                when=with_(start=lambda sch, guide, z, t: sch.noise(z, guide, t))),
        Mistake("one and the same noise is used in every hop: hop i takes noise[i]",
                when=with_(draw=lambda noise, i: noise[0])),
        Mistake("the noise of the guide is used in the hops as well: hop i takes noise[i]",
                when=gives(lambda eps, sch, guide, t0, path, z, noise: walk(
                    eps, sch, guide, t0, path, z, noise, draw=lambda noise, i: z))),
        Mistake("the noise is used from its end: hop i takes noise[i]",
                when=with_(draw=lambda noise, i: noise[-1 - i])),
        Mistake(LATE_ROWS, when=gives(last_rows)),
        Mistake("the first row of noise is left out: the first hop that is walked takes noise[0]",
                when=with_(draw=lambda noise, i: noise[i + 1])),
        Mistake("no fresh noise enters on the way down", when=with_(step=quiet)),
        Mistake("no fresh noise enters on the way down",
                when=with_(draw=lambda noise, i: 0 * noise[i])),
        Mistake("the last hop is not taken", when=with_(hops=lambda p, t0: hops_from(p, t0)[:-1])),
        Mistake("one hop leads from t0 to the end: the times between are left out",
                when=with_(hops=lambda path, t0: sorted({t0, 0}, reverse=True))),
        Mistake(ASKED_END, when=with_(step=at_end)),
        Mistake(CLEAN_ASKED, raised="t = 0 is outside"),
        Mistake("the network is asked more often than once a hop: keep its answer",
                when=more_often),
    ),
)


# ---- 04-4 the mask -----------------------------------------------------------------------------


def pasted(mask: Tensor, x: Tensor, other: Tensor) -> Tensor:
    """x where the mask (b, h, w) is True, elsewhere the other."""
    part = mask.unsqueeze(1).to(x.dtype)
    return part * x + (1 - part) * other


def keep(mask: Tensor, at: Callable = lambda t, s: s) -> Callable:
    """The kept part at the level that `at` says."""
    return lambda schedule, x, guide, z, t, s: pasted(mask, x, schedule.noise(guide, z, at(t, s)))


def masked_walk(eps, schedule, guide, mask, t0, path, z, noise, **parts) -> Tensor:
    return walk(eps, schedule, guide, t0, path, z, noise, **{"end": keep(mask), **parts})


def masked(eps, schedule, guide, mask, t0, path, z, noise) -> dict:
    return {"x": masked_walk(eps, schedule, guide, mask, t0, path, z, noise),
            "times asked": hops_from(path, t0)[:-1]}


def patch(g: np.random.Generator, b: int, h: int, w: int) -> np.ndarray:
    """A mask with both kinds in every item, no two items alike in a batch."""
    mask = g.random((b, h, w)) < 0.5
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    for i in range(b):
        mask[i, 0, 1 + i % (w - 1)] = i % 2 == 0
    return mask


def masked_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, levels, shape: tuple, mask: np.ndarray, t0: Callable,
             dtype: str) -> Case:
        path = uneven(g)
        noise = drawn(g, shape, path)
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": levels, "guide": picture(g, shape), "mask": mask,
            "t0": t0(path), **noise}, dtype)

    alike, linear = (named("tied", name=n, tie=float(g.uniform(0.7, 0.9)))
                     for n in ("cosine", "linear"))
    yield case("half of the pixels", alike, COSINE, (2, 3, 3, 4), patch(g, 2, 3, 4),
               lambda path: between(path, 1, g), "float64")
    yield case("half of the pixels, linear schedule", linear, LINEAR, (3, 1, 3, 3),
               patch(g, 3, 3, 3), lambda path: path[1], "float64")
    yield case("as many pictures as colours", alike, COSINE, (3, 3, 2, 4), patch(g, 3, 2, 4),
               lambda path: between(path, 1, g), "float32")
    yield case("t0 at zero returns the guide", alike, COSINE, (2, 1, 2, 3), patch(g, 2, 2, 3),
               lambda path: 0, "float64")
    yield case("pictures and a small network", named("unet", seed=int(g.integers(2**31))), COSINE,
               (1, 3, 8, 8), patch(g, 1, 8, 8), lambda path: between(path, 1, g), "float32")


def exactly(got: dict, wanted: dict, args: dict) -> str | None:
    """Kept pixels are the guide's bit for bit: nearly the same is not the same."""
    kept = (~args["mask"])[:, None].expand_as(args["guide"])
    if torch.equal(got["x"].double()[kept], args["guide"][kept]):
        return None
    return "kept pixels are near the guide's, but not the same bit for bit"


def masks(mask: Callable = lambda m: m, **parts: Callable) -> Callable:
    """A masked walk with another mask, or with parts that are made from the mask."""
    def wrong(eps, schedule, guide, given, t0, path, z, noise):
        made = {k: (v(mask(given)) if k == "end" else v) for k, v in parts.items()}
        return masked_walk(eps, schedule, guide, mask(given), t0, path, z, noise, **made)
    return gives(wrong)


def paste_last(mask: Tensor) -> Callable:
    return lambda sch, x, guide, z, t, s: pasted(mask, x, guide) if s == 0 else x


def early(mask: Tensor) -> Callable:
    """The kept part put back before the hop and not after it: what comes is that hop's own."""
    return lambda schedule, x, guide, z, t, s: x if s == 0 else keep(mask)(
        schedule, x, guide, z, t, s)


def rows_of_mask(eps, schedule, guide, mask, t0, path, z, noise):
    """The mask spread over items as if its first axis were the colours."""
    def end(sch, x, guide, z, t, s):
        return torch.where(mask, x, sch.noise(guide, z, s))
    return walk(eps, schedule, guide, t0, path, z, noise, end=end)


def other_noise(eps, schedule, guide, mask, t0, path, z, noise):
    """The kept part with each hop's own fresh noise."""
    rows = iter(noise)
    return masked_walk(eps, schedule, guide, mask, t0, path, z, noise,
                       end=lambda sch, x, guide, z, t, s: pasted(
                           mask, x, sch.noise(guide, next(rows), s)))


SWAPPED = "the mask is the wrong way round: True is where the picture may change"
MASKED = Exercise(
    "04-4", "SDEdit with a mask", 4, 20, 4,
    "masked(eps, schedule, guide, mask, t0, path, z, noise)",
    public=masked_cases, wanted=masked, study=STUDY, tolerance=LOOSE, seconds=8,
    judge=exactly,
    mistakes=(
        Mistake(SWAPPED, when=masks(torch.logical_not)),
        Mistake("the mask has no effect", when=masks(torch.ones_like)),
        Mistake("the whole guide comes back: where the mask is True, what was walked belongs",
                when=lambda got, wanted, args: args["t0"] > 0 and close(got["x"], args["guide"])),
        Mistake("the kept part is put back at the level where the hop began: it belongs at the "
                "level that the hop has reached", when=masks(
                    end=lambda mask: keep(mask, at=lambda t, s: t))),
        Mistake("the kept part is put back at the level where the hop began: it belongs at the "
                "level that the hop has reached", when=masks(
                    end=lambda mask: keep(mask, at=lambda t, s: t if s else 0))),
        Mistake("the kept part is put back clean in every hop: the network then sees two levels "
                "of noise in one picture", when=masks(
                    end=lambda mask: keep(mask, at=lambda t, s: 0))),
        Mistake("the kept part is put back at the end only: the network must see it in every hop",
                when=masks(end=paste_last)),
        Mistake("after the last hop the kept part is not put back: there it is the clean guide",
                when=masks(end=early)),
        Mistake("the kept part is put back at level t0 in every hop: its noise must fall with the "
                "walk", when=gives(lambda eps, sch, guide, mask, t0, path, z, noise: masked_walk(
                    eps, sch, guide, mask, t0, path, z, noise, end=keep(mask, lambda t, s: t0)))),
        Mistake("the kept part is put back with the noise of the hop: it must be z, always",
                when=gives(other_noise)),
        Mistake("the mask's first axis met the colours: (b, h, w) needs an axis of length one for "
                "the channels", when=gives(rows_of_mask)),
        Mistake("the mask's first axis met the colours: (b, h, w) needs an axis of length one for "
                "the channels", raised="must match the size of tensor"),
        Mistake("pixels outside the mask are no zeros: they are the guide's", when=masks(
            end=lambda mask: lambda sch, x, guide, z, t, s: pasted(mask, x, 0 * x))),
        Mistake("a boolean tensor knows no minus: ~mask is its opposite", raised="bool tensor"),
        Mistake("blending by sums may round: torch.where chooses, and keeps every bit",
                when=lambda got, wanted, args: close(got["x"], wanted["x"])
                and exactly(got, wanted, args) is not None),
        Mistake("one and the same noise is used in every hop: hop i takes noise[i]",
                when=masks(draw=lambda noise, i: noise[0])),
        Mistake(CLEAN_ASKED, raised="t = 0 is outside"),
        Mistake("the network is asked more often than once a hop: keep its answer",
                when=more_often),
    ),
)


# ---- 04-5 repeats ------------------------------------------------------------------------------


def again(eps, schedule, guide, mask, t0, path, z, noise, *, start: Callable = lambda x, guide: x,
          runs: Callable = lambda K: range(K), hop_rows: Callable = lambda noise, k: noise[k],
          first: Callable = lambda z, k: z[k], area: Callable = lambda m, k: m) -> Tensor:
    x = guide
    for k in runs(len(z)):
        x = masked_walk(eps, schedule, start(x, guide), area(mask, k), t0, path, first(z, k),
                        hop_rows(noise, k))
    return x


def repeated(*args) -> dict:
    eps, _, _, _, t0, path, z, _ = args
    return {"x": again(*args), "times asked": hops_from(path, t0)[:-1] * len(z)}


def repeat_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, levels, K: int, dtype: str, shape: tuple = (2, 1, 3, 4),
             whole: bool = False) -> Case:
        path = uneven(g, 4)
        t0 = between(path, 1, g)
        mask = patch(g, shape[0], *shape[2:]) | whole
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": levels, "guide": picture(g, shape), "mask": mask, "t0": t0,
            **drawn(g, shape, path, runs=K)}, dtype)

    alike, linear = (named("tied", name=n, tie=float(g.uniform(0.7, 0.9)))
                     for n in ("cosine", "linear"))
    yield case("three runs", alike, COSINE, 3, "float64")
    yield case("two runs on the whole picture", alike, COSINE, 2, "float32", whole=True)
    yield case("two runs, linear schedule", linear, LINEAR, 2, "float64")
    yield case("one run", alike, COSINE, 1, "float64")


def repeats_with(**parts: Callable) -> Callable:
    return gives(lambda *args: again(*args, **parts))


REPEATS = Exercise(
    "04-5", "Repeats", 2, 10, 2, "repeated(eps, schedule, guide, mask, t0, path, z, noise)",
    public=repeat_cases, wanted=repeated, study=STUDY, tolerance=LOOSE, seconds=8,
    judge=exactly,
    mistakes=(
        Mistake("every run begins at the guide: it must begin at the result of the run before",
                when=repeats_with(start=lambda x, guide: guide)),
        Mistake("one run too few", when=repeats_with(runs=lambda K: range(K - 1))),
        Mistake("one run too few", when=repeats_with(runs=lambda K: range(1, K))),
        Mistake("only the first run is there", when=repeats_with(runs=lambda K: range(1))),
        Mistake("the guide is drowned by the same z in every run: run k takes z[k]",
                when=repeats_with(first=lambda z, k: z[0])),
        Mistake("the hops of every run use the same noise: run k takes noise[k]",
                when=repeats_with(hop_rows=lambda noise, k: noise[0])),
        Mistake("z is used from its end: run k takes z[k]",
                when=repeats_with(first=lambda z, k: z[-1 - k])),
        Mistake("z and noise are used from their ends: run k takes z[k] and noise[k]",
                when=repeats_with(runs=lambda K: range(K)[::-1])),
        Mistake("the mask is forgotten after the first run", when=repeats_with(
            area=lambda mask, k: mask if k == 0 else torch.ones_like(mask))),
        Mistake("the mask has no effect",
                when=repeats_with(area=lambda mask, k: torch.ones_like(mask))),
        Mistake(SWAPPED, when=repeats_with(area=lambda mask, k: ~mask)),
        Mistake("the runs are averaged: each must go on from the one before",
                when=gives(lambda *args: torch.stack([again(*args, start=lambda x, guide: guide,
                           runs=lambda K, k=k: [k]) for k in range(len(args[6]))]).mean(0))),
    ),
)


# ---- 04-6 a measure of realism -----------------------------------------------------------------


def kernel(u: Tensor, v: Tensor, power: int = 3, one: float = 1.0, share: bool = True) -> float:
    return (float(u @ v) / (len(u) if share else 1) + one) ** power


def kid(a: Tensor, b: Tensor, *, cross: float = 2.0, **form: Any) -> float:
    """The mean over the pairs of distinct features, pair by pair."""
    def among(x: Tensor) -> float:
        values = [kernel(u, v, **form) for u, v in combinations(x, 2)]
        return sum(values) / len(values)

    values = [kernel(u, v, **form) for u, v in product(a, b)]
    return among(a) + among(b) - cross * sum(values) / len(values)


def every_pair(x: Tensor, y: Tensor) -> float:
    values = [kernel(u, v) for u, v in product(x, y)]
    return sum(values) / len(values)


def biased(a: Tensor, b: Tensor) -> float:
    return every_pair(a, a) + every_pair(b, b) - 2 * every_pair(a, b)


def short(a: Tensor, b: Tensor) -> float:
    """The diagonal is left out of the sum, but not of the count."""
    def among(x: Tensor) -> float:
        return 2 * sum(kernel(u, v) for u, v in combinations(x, 2)) / len(x) ** 2

    return among(a) + among(b) - 2 * every_pair(a, b)


def halved(a: Tensor, b: Tensor) -> float:
    """Each pair counted once and divided as if it had been counted twice."""
    def among(x: Tensor) -> float:
        return sum(kernel(u, v) for u, v in combinations(x, 2)) / (len(x) * (len(x) - 1))

    return among(a) + among(b) - 2 * every_pair(a, b)


def loose(a: Tensor, b: Tensor) -> float:
    """The diagonal is in the sum, but not in the count."""
    def among(x: Tensor) -> float:
        return every_pair(x, x) * len(x) / (len(x) - 1)

    return among(a) + among(b) - 2 * every_pair(a, b)


def divided_by_rows(a: Tensor, b: Tensor) -> float:
    def k(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / len(x) + 1) ** 3

    def among(x: Tensor) -> Tensor:
        return (k(x, x).sum() - k(x, x).trace()) / (len(x) * (len(x) - 1))

    return float(among(a) + among(b) - 2 * k(a, b).mean())


def off_cross(a: Tensor, b: Tensor) -> float:
    """Pairs of the same place left out across the sets, too."""
    apart = [kernel(u, v) for (i, u), (j, v) in product(enumerate(a), enumerate(b)) if i != j]
    return kid(a, b, cross=0.0) - 2 * sum(apart) / len(apart)


def kid_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, a: np.ndarray, b: np.ndarray, dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {"a": a, "b": b}, dtype)

    def sets(m: int, count: int, n: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
        return g.normal(0.3, 1, (m, n)), g.normal(0.3 + shift, 1, (count, n))

    yield case("two sets of unequal size", *sets(4, 7, 5, float(g.uniform(0.3, 0.6))), "float64")
    yield case("two sets far apart", *sets(6, 3, 4, 1.2), "float64")
    a, _ = sets(5, 5, 8, 0.0)
    yield case("one set twice, in another order", a, a[g.permutation(5)], "float32")  # below zero
    yield case("the smallest sets", *sets(2, 2, 3, 0.5), "float64")


BELOW = "without bias the estimate may be below zero, and is returned as it is"
KID = Exercise(
    "04-6", "A measure of realism", 3, 15, 3, "kid(a, b)",
    public=kid_cases, wanted=kid,
    mistakes=(
        Mistake(BELOW, lambda a, b: max(0.0, kid(a, b))),
        Mistake("without bias the estimate may be below zero: this is its absolute value, or the "
                "sign is the other way round", lambda a, b: abs(kid(a, b))),
        Mistake("a feature was paired with itself: inside a set only distinct pairs count", biased),
        Mistake("distinct pairs are summed, but divided by the number of all pairs: m of them are "
                "not there", short),
        Mistake("the diagonal is in the sum, but not in the count: take the pairs of a feature "
                "with itself out", loose),
        Mistake("each pair is counted once, but divided as if it were counted twice", halved),
        Mistake("the cross term belongs there twice", lambda a, b: kid(a, b, cross=1.0)),
        Mistake("the cross term is added: it must be taken off",
                lambda a, b: kid(a, b, cross=-2.0)),
        Mistake("the cross term is missing", lambda a, b: kid(a, b, cross=0.0)),
        Mistake("the inner product is not divided by the length n of a feature",
                lambda a, b: kid(a, b, share=False)),
        Mistake("the one in the kernel is missing", lambda a, b: kid(a, b, one=0.0)),
        Mistake("the third power is missing", lambda a, b: kid(a, b, power=1)),
        Mistake("the power is three, not two", lambda a, b: kid(a, b, power=2)),
        Mistake("the inner product is divided by the number of features, not by their length",
                divided_by_rows),
        Mistake("the cross term leaves out pairs of the same place: across two sets all pairs "
                "count", off_cross),
        Mistake("a tensor with one number in it is no float: float(..) makes it one",
                when=lambda got, wanted, args: isinstance(got, Tensor) and got.ndim == 0),
    ),
)


# ---- 04-7 realism against faithfulness -----------------------------------------------------------


def rows(eps, schedule, guides, levels, path, z, noise, realism, *,
         far: Callable = lambda x, guides, noisy: float((x - guides).norm()) / math.sqrt(x.numel()),
         real: Callable = lambda score, x, guides: score(x), carry: bool = False,
         draw: Callable = lambda noise, i: noise) -> list[tuple[float, float]]:
    found, start = [], guides
    for i, t0 in enumerate(levels):
        x = walk(eps, schedule, start, t0, path, z, draw(noise, i))
        start = x if carry else guides
        noisy = schedule.noise(guides, z, t0)
        found.append((far(x, guides, noisy), real(realism, x, guides)))
    return found


def curve(*args) -> dict:
    _, _, _, levels, path, *_ = args
    asked_at = [t for t0 in levels for t in hops_from(path, t0)[:-1]]
    return {"rows": rows(*args), "times asked": asked_at}


def curve_cases(g: np.random.Generator) -> Iterator[Case]:
    seed = int(g.integers(2**31))

    def case(what: str, eps, levels, times: Callable, dtype: str) -> Case:
        path, shape = uneven(g, 4), (3, 2, 2, 3)
        noise = drawn(g, shape, path)
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": levels, "guides": picture(g, shape), "levels": times(path),
            **noise, "realism": named("spread")}, dtype)

    mixed = named("mixture", seed=seed)
    yield case("three levels", mixed, COSINE,
               lambda path: [between(path, i, g) for i in (2, 1, 0)], "float64")
    yield case("levels that fall, zero among them", named("linear", name="linear", variance=0.3),
               LINEAR, lambda path: [path[1], path[2], 0], "float64")
    yield case("two levels", mixed, COSINE, lambda path: [path[2], between(path, 1, g)], "float32")


def curves(**parts: Any) -> Callable:
    def when(got: dict, wanted: dict, args: dict) -> bool:
        return not close(got["rows"], wanted["rows"]) and close(
            got["rows"], rows(*args.values(), **parts))
    return when


def mean_of_items(x: Tensor, guides: Tensor, noisy: Tensor) -> float:
    return float((x - guides).flatten(1).square().mean(1).sqrt().mean())


TRADEOFF = Exercise(
    "04-7", "Realism against faithfulness", 2, 10, 3,
    "tradeoff(eps, schedule, guides, levels, path, z, noise, realism)",
    public=curve_cases, wanted=curve, study=STUDY, seconds=8,
    tolerance={"float64": 1e-6, "float32": 1e-3},
    mistakes=(
        Mistake("a level goes on where the one before it ended: each must begin at the guides",
                when=curves(carry=True)),
        Mistake("the two numbers of a row have changed places: the distance comes first",
                when=lambda got, wanted, args: not close(got["rows"], wanted["rows"]) and close(
                    got["rows"], [(b, a) for a, b in wanted["rows"]])),
        Mistake("this is the mean of squares: its root is missing", when=curves(
            far=lambda x, guides, noisy: float((x - guides).square().mean()))),
        Mistake("this is the mean of absolute differences: the root of the mean square is asked "
                "for", when=curves(far=lambda x, guides, noisy: float((x - guides).abs().mean()))),
        Mistake("the squares are summed: their mean is asked for", when=curves(
            far=lambda x, guides, noisy: float((x - guides).norm()))),
        Mistake("the distances of the pictures are averaged: one root over all values is asked for",
                when=curves(far=mean_of_items)),
        Mistake("the distance is that to the noised guides: it must be that to the guides",
                when=curves(far=lambda x, guides, noisy: float((x - noisy).square().mean()) ** 0.5)
                ),
        Mistake("the realism is that of the guides: it must be that of the results",
                when=curves(real=lambda score, x, guides: score(guides))),
        Mistake("the realism is that of the difference: it must be that of the results",
                when=curves(real=lambda score, x, guides: score(x - guides))),
        Mistake("every level has other noise: a fair comparison uses the same z and noise",
                when=curves(draw=lambda noise, i: noise[i:])),
        Mistake("two columns came back: a list of pairs is asked for, one for each level",
                when=lambda got, wanted, args: isinstance(got["rows"], (list, tuple)) and close(
                    [list(v) for v in got["rows"] if isinstance(v, (list, tuple))],
                    [list(v) for v in zip(*wanted["rows"], strict=True)])
                and len(got["rows"]) == 2 != len(wanted["rows"])),
        Mistake("a pair is a tuple (far, real): here it is a list",
                when=lambda got, wanted, args: isinstance(got["rows"], list) and bool(got["rows"])
                and isinstance(got["rows"][0], list)),
        Mistake("both numbers of a pair are floats: float(..) makes one of a tensor",
                when=lambda got, wanted, args: isinstance(got["rows"], list) and any(
                    isinstance(v, Tensor) for row in got["rows"]
                    if isinstance(row, (list, tuple)) for v in row)),
        Mistake(CLEAN_ASKED, raised="t = 0 is outside"),
    ),
)

EXERCISES = (ENTER, SAME, SDEDIT, MASKED, REPEATS, KID, TRADEOFF)
