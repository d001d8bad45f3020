"""Lab 05: the family of DDIM, from one formula to the table of steps against noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.spec import Case, Exercise, Mistake, named
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import posterior
from coursekit.diffusion.sample import slerp as arc
from coursekit.diffusion.schedule import Schedule

HERE = "coursekit.diffusion.sample"
SAMPLERS = (f"{HERE}.ddim", f"{HERE}.ddpm", f"{HERE}._walk")
STEPS = (f"{HERE}.sigma", f"{HERE}.posterior", *SAMPLERS,
         "diffusers.schedulers.scheduling_ddim.DDIMScheduler.step")
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")
ETA_TWICE = "eta belongs once, in front of the root: not inside it and not squared"
NEIGHBOURS = ("this is the sigma of the neighbours t and t - 1: on a path, s takes the place of "
              "t - 1 inside sigma, too")


def pair(g: np.random.Generator, low: int = 150, high: int = 900) -> tuple[int, int]:
    """Two times, not neighbours."""
    t = int(g.integers(low, high))
    return t, int(g.integers(20, t - 20))


# ---- 05-1 sigma ------------------------------------------------------------------------------


def sigma(schedule: Schedule, t: int, s: int, eta: float) -> float:
    """eta times DDPM's deviation, by adding precisions: the law of x_s given x_0 is the prior."""
    if s == 0:
        return 0.0
    keep = schedule.level(t) / schedule.level(s)
    return eta / math.sqrt(1 / (1 - schedule.level(s)) + keep / (1 - keep))


def sigma_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, levels, t: int, s: int, eta: float) -> Case:
        return Case(what, {"schedule": levels, "t": t, "s": s, "eta": eta})

    yield case("a long hop, eta one", COSINE, *pair(g), 1.0)
    t = int(g.integers(3, 900))
    yield case("neighbours", COSINE, t, t - 1, float(g.uniform(0.3, 0.9)))
    yield case("a long hop on the linear schedule", LINEAR, *pair(g), float(g.uniform(0.3, 0.9)))
    yield case("eta zero", COSINE, *pair(g), 0.0)
    yield case("the hop that ends at level zero", LINEAR, int(g.integers(5, 500)), 0, 1.0)


def sigma_hidden(g: np.random.Generator) -> Iterator[Case]:
    yield from sigma_cases(g)
    for T in (10, 4000):
        levels = named("schedule", name="cosine", T=T)
        t, s = int(g.integers(T // 2 + 1, T)), int(g.integers(1, T // 2))
        yield Case(f"a schedule of {T} times", {"schedule": levels, "t": t, "s": s,
                                                "eta": float(g.uniform(0.1, 1))})


def variance(schedule: Schedule, t: int, s: int) -> float:
    return sigma(schedule, t, s, 1.0) ** 2


SIGMA = Exercise(
    "05-1", "The noise of a hop", 1, 5, 2, "sigma(schedule, t, s, eta)",
    public=sigma_cases, hidden=sigma_hidden, wanted=sigma,
    study=(f"{HERE}.sigma", "coursekit.diffusion.schedule.Schedule.beta_tilde"),
    mistakes=(
        Mistake("a square root is missing: this is a variance, sigma is a deviation",
                lambda sch, t, s, eta: eta * variance(sch, t, s)),
        Mistake(ETA_TWICE, lambda sch, t, s, eta: math.sqrt(eta * variance(sch, t, s))),
        Mistake(ETA_TWICE, lambda sch, t, s, eta: eta * sigma(sch, t, s, eta)),
        Mistake("eta has no effect", lambda sch, t, s, eta: sigma(sch, t, s, 1.0)),
        Mistake("this is sqrt(beta), the noise of the forward step: the posterior's is smaller by "
                "the first root", lambda sch, t, s, eta: eta * math.sqrt(sch.beta(t, s))),
        Mistake(NEIGHBOURS, lambda sch, t, s, eta: sigma(sch, t, t - 1, eta)),
        Mistake("the levels of t and s have changed places in the first root",
                lambda sch, t, s, eta: eta * sch.beta(t, s) / sigma(sch, t, s, 1.0)),
        Mistake("the second root holds the ratio of the two levels, not one level alone",
                lambda sch, t, s, eta: eta * math.sqrt(1 - sch.level(s))),
    ),
)


# ---- 05-2 the mean of the generalised posterior ---------------------------------------------


def mean_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, shape: tuple, levels, t: int, s: int, share: float, dtype: str) -> Case:
        level = (Schedule.cosine() if levels is COSINE else Schedule.linear()).level(s)
        x, x0 = g.standard_normal((2, *shape))
        sd = math.sqrt(share * (1 - level))
        while share == 1 and 1 - level - sd**2 >= 0:  # so that the room rounds to below zero
            sd = math.nextafter(sd, 2)
        return Case(f"{what}, {dtype}", {"schedule": levels, "x": x, "x0": x0, "t": t, "s": s,
                                         "sd": sd}, dtype)

    pictures, points = (2, 3, 4, 4), (6, 2)
    yield case("a long hop", pictures, COSINE, *pair(g), float(g.uniform(0.3, 0.7)), "float64")
    t = int(g.integers(30, 900))
    yield case("neighbours", points, LINEAR, t, t - 1, float(g.uniform(0.3, 0.7)), "float32")
    yield case("no fresh noise", pictures, COSINE, *pair(g), 0.0, "float32")
    yield case("nothing but fresh noise", points, COSINE, *pair(g), 1.0, "float64")


def mean(schedule: Schedule, x: Tensor, x0: Tensor, t: int, s: int, sd: float) -> Tensor:
    return posterior(schedule, x, x0, t, s, sd)


def told(schedule: Schedule, x: Tensor, x0: Tensor, t: int) -> Tensor:
    """The noise in x, told x0."""
    return (x - math.sqrt(schedule.level(t)) * x0) / math.sqrt(1 - schedule.level(t))


def drew(got: Tensor, wanted: Tensor, args: dict) -> bool:
    """Whether noise came on top of the mean: an error of size sd that x and x0 do not explain."""
    error = (got.double() - wanted).flatten()
    known = torch.stack([args["x"].flatten(), args["x0"].flatten()], 1)
    rest = error - known @ torch.linalg.lstsq(known, error[:, None]).solution[:, 0]
    return args["sd"] > 0 and 0.4 < float(rest.norm()) / len(rest) ** 0.5 / args["sd"] < 2


MEAN = Exercise(
    "05-2", "The generalised posterior", 2, 10, 3, "posterior_mean(schedule, x, x0, t, s, sd)",
    public=mean_cases, wanted=mean, study=STEPS,
    tolerance={"float64": 1e-7, "float32": 1e-4},  # all fresh: the root of 1e-16 is 1e-8
    mistakes=(
        Mistake("sd stands under the root as it is: its square is a variance, as 1 - abar is",
                lambda sch, x, x0, t, s, sd: math.sqrt(sch.level(s)) * x0
                + math.sqrt(max(0, 1 - sch.level(s) - sd)) * told(sch, x, x0, t)),
        Mistake("the fresh noise is not taken off the old: the root must shrink as sd grows",
                lambda sch, x, x0, t, s, sd: posterior(sch, x, x0, t, s, 0.0)),
        Mistake("what multiplies the old noise is a root: variances subtract, deviations do not",
                lambda sch, x, x0, t, s, sd: math.sqrt(sch.level(s)) * x0
                + (1 - sch.level(s) - sd**2) * told(sch, x, x0, t)),
        Mistake("x0 is scaled by the square root of its level, not by the level",
                lambda sch, x, x0, t, s, sd: posterior(sch, x, x0, t, s, sd)
                + (sch.level(s) - math.sqrt(sch.level(s))) * x0),
        Mistake("x0 keeps its full size: at level s it is smaller",
                lambda sch, x, x0, t, s, sd: posterior(sch, x, x0, t, s, sd)
                + (1 - math.sqrt(sch.level(s))) * x0),
        Mistake("the old noise is not divided by its deviation at t: it must have variance one",
                lambda sch, x, x0, t, s, sd: math.sqrt(sch.level(s)) * x0
                + math.sqrt(1 - sch.level(s) - sd**2) * math.sqrt(1 - sch.level(t))
                * told(sch, x, x0, t)),
        Mistake("to find the noise in x, take off x0 as it stands in x: scaled to level t",
                lambda sch, x, x0, t, s, sd: math.sqrt(sch.level(s)) * x0
                + math.sqrt(1 - sch.level(s) - sd**2) * (x - x0) / math.sqrt(1 - sch.level(t))),
        Mistake("t and s have changed places",
                lambda sch, x, x0, t, s, sd: math.sqrt(sch.level(t)) * x0
                + math.sqrt(1 - sch.level(t) - sd**2) * told(sch, x, x0, s)),
        Mistake("this is a sample: the mean alone is asked for, without fresh noise", when=drew),
        Mistake("all noise may be fresh: then the root is of zero, which may round to just below. "
                "Keep it at zero or above", raised="math domain error"),
        Mistake("all noise may be fresh: then the root is of zero, which may round to just below. "
                "Keep it at zero or above",
                when=lambda got, wanted, args: bool(got.isnan().all())
                and abs(1 - args["schedule"].level(args["s"]) - args["sd"] ** 2) < 1e-9),
    ),
)


# ---- 05-3 one step ----------------------------------------------------------------------------


def predicted(eps: Eps, schedule: Schedule, x: Tensor, t: int) -> tuple[Tensor, Tensor]:
    e = eps(x, t)
    return e, schedule.denoise(x, e, t)


def move(eps: Eps, schedule: Schedule, x: Tensor, t: int, s: int, eta: float,
         z: Tensor) -> Tensor:
    sd = sigma(schedule, t, s, eta)
    return posterior(schedule, x, predicted(eps, schedule, x, t)[1], t, s, sd) + sd * z


def stepped(eps, schedule, x, t, *rest) -> dict:
    return {"x": move(eps, schedule, x, t, *rest), "times asked": [t]}


def step_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, shape: tuple, levels, t: int, s: int, eta: float,
             dtype: str) -> Case:
        x, z = g.standard_normal((2, *shape))
        return Case(f"{what}, {dtype}", {"eps": eps, "schedule": levels, "x": x, "t": t, "s": s,
                                         "eta": eta, "z": z}, dtype)

    seed, points = int(g.integers(2**31)), (6, 2)
    constant = named("constant", value=float(g.uniform(0.3, 0.9)))
    yield case("a constant predictor, eta zero", constant, points, COSINE, *pair(g), 0.0,
               "float64")
    yield case("a mixture of Gaussians, eta one", named("mixture", seed=seed, name="linear"),
               points, LINEAR, *pair(g), 1.0, "float64")
    t = int(g.integers(30, 900))
    yield case("neighbours", named("mixture", seed=seed), points, COSINE, t, t - 1,
               float(g.uniform(0.3, 0.9)), "float32")
    yield case("a small network on pictures", named("unet", seed=seed), (2, 3, 8, 8), COSINE,
               *pair(g), float(g.uniform(0.3, 0.9)), "float32")


def noisy(outer: Callable[[float], float], inner: Callable[[float], float]) -> Callable:
    """The step with sigma altered, in front of z and under the root."""
    def wrong(eps, schedule, x, t, s, eta, z):
        sd = sigma(schedule, t, s, eta)
        x0 = predicted(eps, schedule, x, t)[1]
        return posterior(schedule, x, x0, t, s, inner(sd)) + outer(sd) * z
    return wrong


def moved(change: Callable) -> Callable:
    """The step with its predicted picture altered after the noise was read off."""
    def wrong(eps, schedule, x, t, s, eta, z):
        x0 = predicted(eps, schedule, x, t)[1]
        extra = math.sqrt(schedule.level(s)) * (change(schedule, x0, t, s) - x0)
        return move(eps, schedule, x, t, s, eta, z) + extra
    return wrong


def more_often(got: dict, wanted: dict, args: dict) -> bool:
    return len(got["times asked"]) > len(wanted["times asked"])


def old_sigma(eps, schedule, x, t, s, eta, z):
    sd = sigma(schedule, t, t - 1, eta)
    return posterior(schedule, x, predicted(eps, schedule, x, t)[1], t, s, sd) + sd * z


def asked_at_target(eps, schedule, x, t, s, eta, z):
    return move(lambda x, _: eps(x, max(s, 1)), schedule, x, t, s, eta, z)


STEP = Exercise(
    "05-3", "One step of the family", 2, 10, 3, "step(eps, schedule, x, t, s, eta, z)",
    public=step_cases, wanted=stepped, study=STEPS,
    tolerance={"float64": 1e-9, "float32": 5e-4},
    mistakes=(
        Mistake("no fresh noise is added: sigma times z is missing",
                noisy(lambda sd: 0.0, lambda sd: sd)),
        Mistake("fresh noise comes on top of all the old: take its variance off under the root",
                noisy(lambda sd: sd, lambda sd: 0.0)),
        Mistake("z is multiplied by the variance: its factor is the deviation",
                noisy(lambda sd: sd**2, lambda sd: sd)),
        Mistake("eta has no effect on the step", lambda eps, sch, x, t, s, eta, z:
                move(eps, sch, x, t, s, 0.0, z)),
        Mistake("eta has no effect on the step", lambda eps, sch, x, t, s, eta, z:
                move(eps, sch, x, t, s, 1.0, z)),
        Mistake(NEIGHBOURS, old_sigma),
        Mistake("the network is asked at s: the noise to read is that in x, at t",
                asked_at_target),
        Mistake("the predicted picture is not divided by the root of abar_t",
                moved(lambda sch, x0, t, s: math.sqrt(sch.level(t)) * x0)),
        Mistake("the predicted picture is not scaled to level s",
                moved(lambda sch, x0, t, s: x0 / math.sqrt(sch.level(s)))),
        Mistake("this is the predicted clean picture: it must go back to level s",
                lambda eps, sch, x, t, s, eta, z: predicted(eps, sch, x, t)[1]),
        Mistake("t and s have changed places", lambda eps, sch, x, t, s, eta, z:
                posterior(sch, x, predicted(eps, sch, x, s)[1], s, t, 0.0)),
        Mistake("the network is asked more often than once: keep its answer", when=more_often),
    ),
)


# ---- 05-4 the sampler ---------------------------------------------------------------------------


def walk(eps: Eps, schedule: Schedule, x: Tensor, path: Sequence[int], eta: float,
         noise: Tensor) -> dict:
    """Where the walk ends, and the times at which the network was asked."""
    return {"x": along()(eps, schedule, x, path, eta, noise), "times asked": list(path[:-1])}


def walk_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, levels, shape: tuple, path: list[int], eta: float,
             dtype: str, more: int = 0) -> Case:
        x, *noise = g.standard_normal((len(path) + more, *shape))
        return Case(f"{what}, {dtype}", {"eps": eps, "schedule": levels, "x": x, "path": path,
                                         "eta": eta, "noise": np.stack(noise)}, dtype)

    seed = int(g.integers(2**31))
    times = sorted(map(int, g.choice(np.arange(20, 980), 5, replace=False)), reverse=True)
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield case("ten even hops, eta zero", straight, LINEAR, (5, 2), list(range(1000, -1, -100)),
               0.0, "float64")
    yield case("uneven hops, eta one", named("mixture", seed=seed), COSINE, (5, 2), [*times, 0],
               1.0, "float64")
    yield case("more noise than hops", named("mixture", seed=seed), COSINE, (5, 2), [*times, 0],
               float(g.uniform(0.3, 0.9)), "float32", more=3)
    yield case("a path that ends above zero", straight, LINEAR, (4, 2), times, 0.5, "float64")
    yield case("pictures and a small network", named("unet", seed=seed), COSINE, (1, 3, 8, 8),
               [*times[2:], 0], 0.5, "float32")


def along(path: Callable = list, noise: Callable = list, to: Callable = move) -> Callable:
    """The walk with its path, its noise or its step altered."""
    def wrong(eps, schedule, x, times, eta, draws):
        for (t, s), z in zip(pairwise(path(times)), noise(list(draws)), strict=False):
            x = to(eps, schedule, x, t, s, eta, z)
        return x
    return wrong


def every_time(eps, schedule, x, path, eta, noise):
    """Steps from t to t - 1 at the times of the path."""
    for t, z in zip(path[:-1], noise, strict=False):
        x = move(eps, schedule, x, t, t - 1, eta, z)
    return x


LONGER = "noise may have more rows than the path has hops: take the first ones and leave the rest"
WALK = Exercise(
    "05-4", "The sampler", 3, 15, 4, "sample(eps, schedule, x, path, eta, noise)",
    public=walk_cases, wanted=walk, study=STEPS,
    tolerance={"float64": 1e-8, "float32": 5e-3}, seconds=8,
    mistakes=(
        Mistake("the last hop of the path is not taken", along(path=lambda p: p[:-1])),
        Mistake("the first hop of the path is not taken",
                along(path=lambda p: p[1:], noise=lambda n: n[1:])),
        Mistake("one and the same noise is used in every hop: hop i takes noise[i]",
                along(noise=lambda n: [n[0]] * len(n))),
        Mistake("the noise is used from its end: hop i takes noise[i]",
                along(noise=lambda n: n[::-1])),
        Mistake(LONGER, raised="zip() argument"), Mistake(LONGER, raised="index out of range"),
        Mistake("each step goes from t to t - 1: it must reach the next time of the path",
                every_time),
        Mistake(NEIGHBOURS, along(to=old_sigma)),
        Mistake("the walk begins at the noise: it must begin at x",
                lambda e, sch, x, path, eta, noise: along()(e, sch, noise[0], path, eta, noise)),
        Mistake("fresh noise never enters: eta has no effect",
                along(noise=lambda n: [0 * z for z in n])),
        Mistake("fresh noise never enters: eta has no effect",
                along(to=lambda e, sch, x, t, s, eta, z: move(e, sch, x, t, s, 0.0, z))),
        Mistake("fresh noise comes on top of all the old: take its variance off under the root",
                along(to=noisy(lambda sd: sd, lambda sd: 0.0))),
        Mistake("the network is asked at the time where the hop ends: ask where it begins",
                along(to=asked_at_target)),
        Mistake("the network is asked at the time where the hop ends: ask where it begins",
                raised="t = 0 is outside"),
        Mistake("every hop begins at the first x again: each must go on from the last",
                lambda e, sch, x, path, eta, noise: move(e, sch, x, path[-2], path[-1], eta,
                                                         noise[len(path) - 2])),
        Mistake("the network is asked more often than once a hop: keep its answer",
                when=more_often),
    ),
)


# ---- 05-5 between two codes ------------------------------------------------------------------


def fan(g: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """n pairs in the plane, of any length and well apart: near 0 and pi every formula is rough."""
    start, apart = g.uniform(0, 2 * np.pi, n), g.uniform(0.3, 2.8, n) * g.choice((-1, 1), n)
    a, b = (np.stack([np.cos(angle), np.sin(angle)], 1) for angle in (start, start + apart))
    return a * g.uniform(0.5, 3, (n, 1)), b * g.uniform(0.5, 3, (n, 1))


def arc_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, a: np.ndarray, b: np.ndarray, share: float, dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {"a": a, "b": b, "share": share}, dtype)

    yield case("pictures of noise", *g.standard_normal((2, 3, 3, 4, 4)),
               float(g.uniform(0.2, 0.4)), "float64")
    yield case("a few vectors in the plane", *fan(g, 5), float(g.uniform(0.6, 0.8)), "float64")
    yield case("vectors of unequal length", *(g.standard_normal((2, 2, 3, 4, 4))
                                              * np.array([1.0, 3.0]).reshape(2, 1, 1, 1, 1)),
               float(g.uniform(0.2, 0.4)), "float32")
    yield case("one end", *g.standard_normal((2, 2, 3, 4, 4)), 1.0, "float32")
    a = g.standard_normal((2, 3, 4, 4))
    yield case("twice the same code", a, a.copy(), float(g.uniform(0.2, 0.4)), "float32")
    a, b = g.standard_normal((2, 4, 3, 2))
    b[2] = a[2]
    yield case("one equal pair among others", a, b, float(g.uniform(0.2, 0.4)), "float64")


def weighed(angle: Callable) -> Callable:
    """The arc with another angle."""
    def wrong(a, b, share):
        phi = angle(a, b)
        phi = phi.view(-1, *[1] * (a.ndim - 1)) if phi.ndim < a.ndim else phi
        return (((1 - share) * phi).sin() * a + (share * phi).sin() * b) / phi.sin()
    return wrong


def cosine(a: Tensor, b: Tensor) -> Tensor:
    u, v = (w.flatten(1) for w in (a, b))
    return ((u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))).clamp(-1, 1)


def undivided(a: Tensor, b: Tensor, share: float) -> Tensor:
    sin = cosine(a, b).acos().sin().view(-1, *[1] * (a.ndim - 1))
    return arc(a, b, share) * sin


def unit(a: Tensor, b: Tensor, share: float) -> Tensor:
    na, nb = (v.flatten(1).norm(dim=1).view(-1, *[1] * (v.ndim - 1)) for v in (a, b))
    return arc(a / na, b / nb, share)


def chord(a: Tensor, b: Tensor, share: float) -> Tensor:
    return (1 - share) * a + share * b


def equal(args: dict) -> Tensor:
    """Which items have two equal codes."""
    return (args["a"] == args["b"]).flatten(1).all(1)


def straight_for_all(got: Tensor, wanted: Tensor, args: dict) -> bool:
    some = bool(equal(args).any()) and not equal(args).all()
    return some and torch.allclose(got.double(), chord(*args.values()), 1e-4, 1e-4)


ARC = Exercise(
    "05-5", "The arc between two codes", 3, 15, 4, "slerp(a, b, share)",
    public=arc_cases, wanted=lambda a, b, share: arc(a, b, share), study=(f"{HERE}.slerp",),
    tolerance={"float64": 1e-9, "float32": 1e-3},
    mistakes=(
        Mistake("one pair of equal codes makes a straight line of all items: decide for each item",
                when=straight_for_all),
        Mistake("this is the straight line, which loses the deviation in the middle", chord),
        Mistake("a and b have changed places: share 0 is a, share 1 is b",
                lambda a, b, share: arc(a, b, 1 - share)),
        Mistake("the division by sin(phi) is missing", undivided),
        Mistake("the whole batch was taken as one vector: every item has an angle of its own",
                weighed(lambda a, b: cosine(a[None], b[None]).acos())),
        Mistake("the angle was taken along the last axis: one item, all its axes, is one vector",
                weighed(lambda a, b: torch.cosine_similarity(a, b, -1).acos().unsqueeze(-1))),
        Mistake("the angle was taken along axis 1 only: one item, all its axes, is one vector",
                weighed(lambda a, b: torch.cosine_similarity(a, b, 1).acos().unsqueeze(1))),
        Mistake("the codes were scaled to length one: only the angle needs that, the result does "
                "not", unit),
        Mistake("the cosine stands in the place of the angle: arccos is missing", weighed(cosine)),
        Mistake("the product of the lengths is missing under the cosine", weighed(
            lambda a, b: (a.flatten(1) * b.flatten(1)).sum(1).clamp(-1, 1).acos())),
        Mistake("two equal codes have the angle zero, and sin(phi) cannot be divided by: there "
                "the straight line is right, and rounding may push the cosine past one",
                when=lambda got, wanted, args: bool(got[equal(args)].isnan().any())),
    ),
)


# ---- 05-6 the table -----------------------------------------------------------------------------

Score = Callable[[Tensor], float]


def grid(eps: Eps, schedule: Schedule, x: Tensor, noise: Tensor, etas: Sequence[float],
         counts: Sequence[int], score: Score) -> list[list[float]]:
    return [[score(walk(eps, schedule, x, schedule.trailing(S), eta, noise)["x"])
             for S in counts] for eta in etas]


def grid_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, levels, n: int, etas: list[float], counts: list[int],
             dtype: str) -> Case:
        x, *noise = g.standard_normal((max(counts) + 1, n, 2))
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": levels, "x": x, "noise": np.stack(noise), "etas": etas,
            "counts": counts, "score": named("spread")}, dtype)

    seed, eta = int(g.integers(2**31)), float(g.uniform(0.3, 0.7))
    yield case("two etas, three counts", named("mixture", seed=seed), COSINE, 20, [0.0, 1.0],
               [2, 5, 10], "float64")
    yield case("one cell", named("linear", name="linear", variance=0.3), LINEAR, 20, [eta], [4],
               "float64")
    yield case("three etas, falling counts", named("mixture", seed=seed, name="linear"), LINEAR,
               20, [1.0, eta, 0.0], [8, 3], "float32")


def cells(path: Callable = lambda sch, S: sch.trailing(S), noise: Callable = lambda n, S: n,
          etas: Callable = list) -> Callable:
    """The table with its paths, its noise or its etas altered."""
    def wrong(eps, schedule, x, draws, given, counts, score):
        return [[score(walk(eps, schedule, x, path(schedule, S), eta, noise(draws, S))["x"])
                 for S in counts] for eta in etas(given)]
    return wrong


def carried_on(eps, schedule, x, noise, etas, counts, score):
    rows = []
    for eta in etas:
        rows.append([])
        for S in counts:
            x = walk(eps, schedule, x, schedule.trailing(S), eta, noise)["x"]
            rows[-1].append(score(x))
    return rows


GRID = Exercise(
    "05-6", "The table of steps against noise", 4, 20, 4,
    "sweep(eps, schedule, x, noise, etas, counts, score)",
    public=grid_cases, wanted=grid, study=STEPS, seconds=8,
    tolerance={"float64": 1e-6, "float32": 1e-3},
    mistakes=(
        Mistake("rows and columns have changed places: one row for each eta",
                lambda *args: [list(c) for c in zip(*grid(*args), strict=True)]),
        Mistake("one flat list: a list of rows is asked for, one row for each eta",
                when=lambda got, wanted, args: isinstance(got, list) and got
                and not isinstance(got[0], list)),
        Mistake("a cell goes on where the one before it ended: each must begin at the same x",
                carried_on),
        Mistake("the noise is taken from its end: hop i takes noise[i]",
                cells(noise=lambda n, S: n[-S:])),
        Mistake("the noise is used backwards: hop i takes noise[i]",
                cells(noise=lambda n, S: n[:S].flip(0))),
        Mistake("eta has no effect on the table", cells(etas=lambda e: [0.0] * len(e))),
        Mistake("eta has no effect on the table", cells(etas=lambda e: [1.0] * len(e))),
        Mistake("the path is not trailing(S), which begins at T",
                cells(path=lambda sch, S: sch.leading(S))),
        Mistake("a path of S hops has S + 1 times: these walks are one hop short",
                cells(path=lambda sch, S: sch.trailing(S)[:-1])),
        Mistake("the score is that of the x at the start", lambda eps, sch, x, noise, etas,
                counts, score: [[score(x) for _ in counts] for _ in etas]),
        Mistake("each cell is a float: the score of its samples",
                when=lambda got, wanted, args: isinstance(got, list)
                and bool(got) and isinstance(got[0], list)
                and any(isinstance(v, Tensor) for row in got for v in row)),
    ),
)

EXERCISES = (SIGMA, MEAN, STEP, WALK, ARC, GRID)
