"""Lab 02: diffusion as a hierarchical VAE, from one jump of the forward process to bits/dim."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.compare import differ
from coursekit.classroom.check.spec import Case, Exercise, Mistake, named
from coursekit.diffusion import elbo, predict, sample
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.schedule import Schedule

LEVELS = "coursekit.diffusion.schedule.Schedule"
ADDERS = tuple(f"diffusers.schedulers.scheduling_{kind}.{kind.upper()}Scheduler.add_noise"
               for kind in ("ddpm", "ddim"))
TABLES = {"cosine": named("schedule", name="cosine"), "linear": named("schedule", name="linear")}
ROOTS = "a level is a share of variance: what multiplies a picture or a noise is its square root"
NEIGHBOURS = "this is the hop from t to t - 1: here s may be any earlier time, and takes its place"


def pair(g: np.random.Generator, low: int = 150, high: int = 900) -> tuple[int, int]:
    """Two times, not neighbours."""
    t = int(g.integers(low, high))
    return t, int(g.integers(20, t - 20))


def near(a: object, b: object, tolerance: float = 1e-4) -> bool:
    """Whether two values are the same to the precision of float32."""
    if isinstance(a, Tensor):
        a = a.detach().double()
    return differ(a, b, tolerance, "float64") is None


# ---- 02-1 one jump ---------------------------------------------------------------------------


def jump_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, shape: tuple, levels: str, dtype: str, low: int = 50) -> Case:
        x0, eps = g.standard_normal((2, *shape))
        t = np.sort(g.choice(np.arange(low, 951), shape[0], replace=False))[::-1]
        return Case(f"{what}, {dtype}", {"schedule": TABLES[levels], "x0": x0, "eps": eps,
                                         "t": t.copy()}, dtype)

    yield case("pictures", (3, 3, 4, 5), "cosine", "float64")
    yield case("points, as many as they have coordinates", (4, 4), "linear", "float64")
    yield case("pictures on the linear schedule", (2, 3, 4, 4), "linear", "float32")
    ends = case("the two ends of time", (2, 1, 3, 3), "linear", "float32")
    yield Case(ends.what, {**ends.args, "t": np.array([1000, 0])}, ends.dtype)


def scaled(signal: Callable, noise: Callable, at: Callable = lambda t: t) -> Callable:
    """A wrong jump: other factors from the level, or the level of other times."""
    def wrong(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        level = schedule.abar[at(t)].reshape(-1, *[1] * (x0.ndim - 1))
        return signal(level) * x0 + noise(level) * eps
    return wrong


def one_step(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    keep = (schedule.abar[t] / schedule.abar[t - 1]).reshape(-1, *[1] * (x0.ndim - 1))
    return keep.sqrt() * x0 + (1 - keep).sqrt() * eps


def along_last(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    return schedule.abar[t].sqrt() * x0 + (1 - schedule.abar[t]).sqrt() * eps


JUMP = Exercise(
    "02-1", "Any level in one jump", 1, 5, 2, "noised(schedule, x0, eps, t)",
    public=jump_cases, wanted=lambda schedule, x0, eps, t: schedule.noise(x0, eps, t),
    study=(f"{LEVELS}.noise", f"{LEVELS}.scales", *ADDERS),
    mistakes=(
        Mistake(ROOTS, scaled(lambda a: a, lambda a: 1 - a)),
        Mistake(ROOTS, scaled(lambda a: a, lambda a: (1 - a).sqrt())),
        Mistake(ROOTS, scaled(lambda a: a.sqrt(), lambda a: 1 - a)),
        Mistake("the noise gets what the root of the level leaves to one: it is the variances that "
                "add up to one", scaled(lambda a: a.sqrt(), lambda a: 1 - a.sqrt())),
        Mistake("signal and noise have changed places: at t = 0 the picture is clean",
                scaled(lambda a: (1 - a).sqrt(), lambda a: a.sqrt())),
        Mistake("the noise is taken off: it must be added",
                scaled(lambda a: a.sqrt(), lambda a: -(1 - a).sqrt())),
        Mistake("the picture keeps its full size: it must shrink, or the variance grows",
                scaled(lambda a: 1.0, lambda a: (1 - a).sqrt())),
        Mistake("the table is read one place off: abar[t] belongs to t, and abar[0] = 1",
                scaled(lambda a: a.sqrt(), lambda a: (1 - a).sqrt(), lambda t: t - 1)),
        Mistake("every item got the level of the first: each has a time of its own",
                scaled(lambda a: a.sqrt(), lambda a: (1 - a).sqrt(),
                       lambda t: t[:1].expand(len(t)))),
        Mistake("this is the noise of the one step from t - 1 to t: the level at t is the product "
                "of all steps up to it", one_step),
        Mistake("the levels were spread along the last axis: give them axes of length one, so that "
                "each meets its own item", along_last),
    ),
)


# ---- 02-2 the posterior ---------------------------------------------------------------------


def back_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, shape: tuple, levels: str, t: int, s: int, dtype: str) -> Case:
        x, x0 = g.standard_normal((2, *shape))
        return Case(f"{what}, {dtype}", {"schedule": TABLES[levels], "x": x, "x0": x0, "t": t,
                                         "s": s}, dtype)

    t = int(g.integers(30, 900))
    yield case("neighbours", (6, 2), "linear", t, t - 1, "float64")
    yield case("a long hop", (2, 3, 4, 4), "cosine", *pair(g), "float64")
    yield case("a long hop on the linear schedule", (6, 2), "linear", *pair(g), "float32")
    yield case("the hop that ends at the picture", (2, 3, 4, 4), "cosine",
               int(g.integers(5, 500)), 0, "float32")


def back(schedule: Schedule, x: Tensor, x0: Tensor, t: int, s: int) -> dict:
    """Mean and variance, the mean as the family's member whose noise has this variance."""
    var = schedule.beta_tilde(t, s)
    return {"mean": sample.posterior(schedule, x, x0, t, s, math.sqrt(var)), "variance": var}


def part(name: str, wrong: Callable) -> Callable:
    """A mistake in the mean or in the variance, whatever the other part is."""
    def when(got: object, wanted: dict, args: dict) -> bool:
        if not isinstance(got, dict) or near(got[name], wanted[name]):
            return False
        return near(got[name], wrong(*args.values()))
    return when


def weighed(x_weight: Callable, x0_weight: Callable) -> Callable:
    """A mean from the levels at t and s."""
    def wrong(schedule: Schedule, x: Tensor, x0: Tensor, t: int, s: int) -> Tensor:
        now, then = schedule.level(t), schedule.level(s)
        return x_weight(now, then) * x + x0_weight(now, then) * x0
    return wrong


def of_x(now: float, then: float) -> float:
    return math.sqrt(now / then) * (1 - then) / (1 - now)


def of_x0(now: float, then: float) -> float:
    return (then - now) / (1 - now) / math.sqrt(then)


BACK = Exercise(
    "02-2", "The step back that knows the answer", 3, 15, 4, "posterior(schedule, x, x0, t, s)",
    public=back_cases, wanted=back,
    study=("coursekit.diffusion.sample.posterior", "coursekit.diffusion.sample.sigma",
           f"{LEVELS}.beta_tilde", "diffusers.schedulers.scheduling_ddpm.DDPMScheduler.step"),
    mistakes=(
        Mistake("two things are asked for: return mean, variance",
                when=lambda got, wanted, args: not isinstance(got, dict)),
        Mistake("the variance is a float, one for the whole batch: it depends on t and s alone",
                when=lambda got, wanted, args: isinstance(got, dict)
                and isinstance(got["variance"], Tensor)),
        Mistake("this variance is that of the forward hop: whoever knows x_0 is surer than that",
                when=part("variance", lambda sch, x, x0, t, s: sch.beta(t, s))),
        Mistake("this is the deviation: the variance is asked for",
                when=part("variance", lambda sch, x, x0, t, s: math.sqrt(sch.beta_tilde(t, s)))),
        Mistake(NEIGHBOURS, when=part("variance", lambda sch, x, x0, t, s: sch.beta_tilde(t))),
        Mistake(NEIGHBOURS, when=part("variance", lambda sch, x, x0, t, s: sch.beta(t)
                                      * (1 - sch.level(s)) / (1 - sch.level(t)))),
        Mistake("the precisions were added, and the variance is one over their sum",
                when=part("variance", lambda sch, x, x0, t, s: 1 / sch.beta_tilde(t, s))),
        Mistake("variances do not add here, precisions do: two messages leave less doubt than one",
                when=part("variance", lambda sch, x, x0, t, s: sch.beta(t, s) * sch.level(s)
                          / sch.level(t) + 1 - sch.level(s))),
        Mistake("x and x0 have changed places in the mean",
                when=part("mean", lambda sch, x, x0, t, s: back(sch, x0, x, t, s)["mean"])),
        Mistake(ROOTS, when=part("mean", weighed(
            lambda now, then: of_x(now, then) * math.sqrt(now / then), of_x0))),
        Mistake(ROOTS, when=part("mean", weighed(
            of_x, lambda now, then: of_x0(now, then) * math.sqrt(then)))),
        Mistake("x0 keeps its full size in the mean: at level s it has shrunk",
                when=part("mean", weighed(
                    of_x, lambda now, then: of_x0(now, then) / math.sqrt(then)))),
        Mistake("the mean is not divided by the noise at t: for two equal messages the weights "
                "must give that message back", when=part("mean", weighed(
                    lambda now, then: of_x(now, then) * (1 - now),
                    lambda now, then: of_x0(now, then) * (1 - now)))),
        Mistake("the slope of the hop is missing in front of x", when=part("mean", weighed(
                    lambda now, then: of_x(now, then) / math.sqrt(now / then), of_x0))),
        Mistake("the weights of the two messages have changed places: the surer one counts for "
                "more", when=part("mean", weighed(
                    lambda now, then: (1 - now / then) / (1 - now) * math.sqrt(then / now),
                    lambda now, then: now * (1 - then) / (1 - now) / math.sqrt(then)))),
        Mistake("this keeps all the noise of x: the mean leaves room for the variance",
                when=part("mean", lambda sch, x, x0, t, s: sample.posterior(sch, x, x0, t, s, 0))),
        Mistake(NEIGHBOURS, when=part("mean", lambda sch, x, x0, t, s: back(sch, x, x0, t, t - 1)
                                      ["mean"])),
        Mistake("the message of x_0 about itself has variance zero, and one over that does not "
                "exist: multiply the fractions out, so that s = 0 works, too",
                raised="division by zero"),
    ),
)


# ---- 02-3 three ways to say one prediction --------------------------------------------------

KINDS = ("eps", "x0", "v")
WAYS = (("eps", "x0"), ("x0", "v"), ("v", "eps"), ("eps", "v"), ("x0", "eps"), ("v", "x0"))
WORDS = {"eps": "noise", "x0": "picture", "v": "v"}


def said_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, said: str, asked: str, t: int, dtype: str, levels: str = "cosine",
             shape: tuple = (2, 3, 4, 4)) -> Case:
        out, x = g.standard_normal((2, *shape))
        return Case(f"{what}, {dtype}", {"schedule": TABLES[levels], "out": out, "x": x, "t": t,
                                         "said": said, "asked": asked}, dtype)

    for i, (said, asked) in enumerate(WAYS):
        kind, levels = (("float64", "linear"), ("float32", "cosine"))[i % 2]
        yield case(f"{WORDS[said]} to {WORDS[asked]}", said, asked, int(g.integers(150, 600)),
                   kind, levels)
    kind = str(g.choice(KINDS))
    yield case("asked for what was said", kind, kind, int(g.integers(150, 600)), "float64")
    yield case("v to picture at the last time", "v", "x0", 1000, "float32")


def told(schedule: Schedule, out: Tensor, x: Tensor, t: int, said: str, asked: str) -> Tensor:
    """By way of the package's noise, in float64."""
    noise = predict.to_eps(schedule, said, out, x, t)
    return predict.from_eps(schedule, asked, noise, x, t)


def turned(out: Tensor, x: Tensor, a: float, b: float, said: str, asked: str,
           sign: float = 1.0) -> Tensor:
    """The translation with scales a, b that need not be right; v = sign (a eps - b x0)."""
    rows = {"eps": (0.0, 1.0), "x0": (1.0, 0.0), "v": (-sign * b, sign * a), "x": (a, b)}
    (p, q), (r, w) = rows["x"], rows[said]  # x and out as mixtures of x0 and eps
    det = p * w - q * r
    x0, eps = (w * x - q * out) / det, (p * out - r * x) / det
    return rows[asked][0] * x0 + rows[asked][1] * eps


def mixed(scales: Callable, sign: float = 1.0, time: Callable = lambda t: t) -> Callable:
    def wrong(schedule: Schedule, out: Tensor, x: Tensor, t: int, said: str,
              asked: str) -> Tensor:
        level = schedule.level(time(t))
        return turned(out, x, *scales(math.sqrt(level), math.sqrt(1 - level)), said, asked, sign)
    return wrong


def only(said: str, asked: str, formula: Callable) -> Callable:
    """A mistake in one of the translations: formula of out, x, a, b."""
    def wrong(schedule: Schedule, out: Tensor, x: Tensor, t: int, given: str,
              want: str) -> Tensor:
        if (said, asked) != (given, want):
            raise ValueError("another translation")
        level = schedule.level(t)
        return formula(out, x, math.sqrt(level), math.sqrt(1 - level))
    return wrong


def magnified(got: object, wanted: Tensor, args: dict) -> bool:
    """Right but for rounding, where the signal is nearly gone."""
    return args["t"] == 1000 and isinstance(got, Tensor) and got.shape == wanted.shape and \
        0 < float((got - wanted).abs().max()) < 0.1


MIXTURE = "v is a mixture of noise and picture: x is neither of the two"
UNDIVIDED = "a division is missing: solve x_t = .. for what is asked, to the end"
SAID = Exercise(
    "02-3", "Three ways to say one prediction", 2, 15, 4,
    "translate(schedule, out, x, t, said, asked)",
    public=said_cases, wanted=told,
    study=("coursekit.diffusion.predict.to_eps", "coursekit.diffusion.predict.from_eps",
           "coursekit.diffusion.predict.target", f"{LEVELS}.denoise"),
    mistakes=(
        Mistake("out comes back as it is: whenever `said` and `asked` differ, it must be "
                "translated", when=lambda got, wanted, args: args["said"] != args["asked"]
                and near(got, args["out"])),
        Mistake(MIXTURE, only("eps", "v", lambda out, x, a, b: a * out - b * x)),
        Mistake(MIXTURE, only("x0", "v", lambda out, x, a, b: a * x - b * out)),
        Mistake("`said` and `asked` have changed places: out is what `said` names",
                lambda sch, out, x, t, said, asked: told(sch, out, x, t, asked, said)),
        Mistake("the sign of v is the other way round: v has a minus before the picture",
                mixed(lambda a, b: (a, b), -1.0)),
        Mistake(ROOTS, mixed(lambda a, b: (a * a, b * b))),
        Mistake("the two scales have changed places: the root of the level belongs to the picture",
                mixed(lambda a, b: (b, a))),
        Mistake("the level is read one place off: abar[t] belongs to t, and abar[0] = 1",
                mixed(lambda a, b: (a, b), time=lambda t: t - 1)),
        Mistake("out was taken for the noise whatever `said` says",
                lambda sch, out, x, t, said, asked: told(sch, out, x, t, "eps", asked)),
        Mistake("out was taken for v whatever `said` says",
                lambda sch, out, x, t, said, asked: told(sch, out, x, t, "v", asked)),
        Mistake("the noise comes back whatever `asked` says",
                lambda sch, out, x, t, said, asked: told(sch, out, x, t, said, "eps")),
        Mistake("the picture comes back whatever `asked` says",
                lambda sch, out, x, t, said, asked: told(sch, out, x, t, said, "x0")),
        Mistake("v comes back whatever `asked` says",
                lambda sch, out, x, t, said, asked: told(sch, out, x, t, said, "v")),
        Mistake(UNDIVIDED, only("eps", "x0", lambda out, x, a, b: x - b * out)),
        Mistake(UNDIVIDED, only("x0", "eps", lambda out, x, a, b: x - a * out)),
        Mistake("at t = 1000 almost no signal is left, and to divide by its root magnifies every "
                "rounding: from v there is a way to the picture without any division",
                when=magnified),
    ),
)


# ---- 02-4 gamma -----------------------------------------------------------------------------


def weight_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, levels: str, t: int, s: int, share: float | None) -> Case:
        table = (Schedule.cosine if levels == "cosine" else Schedule.linear)()
        sd = math.sqrt(table.beta_tilde(t, s) * share if share else 1 - table.level(s))
        return Case(what, {"schedule": TABLES[levels], "t": t, "s": s, "sd": sd})

    t = int(g.integers(30, 900))
    yield case("neighbours, the posterior's own deviation", "linear", t, t - 1, 1.0)
    yield case("a long hop, the posterior's own deviation", "cosine", *pair(g), 1.0)
    yield case("a long hop, less noise", "linear", *pair(g, 150, 600), float(g.uniform(0.2, 0.6)))
    yield case("a long hop, little noise", "cosine", *pair(g), float(g.uniform(0.02, 0.05)))
    yield case("all noise is fresh", "cosine", *pair(g), None)


def roots(schedule: Schedule, t: int, s: int, sd: float) -> tuple[float, float]:
    """What the two means have of the noise's error: by the picture, and by the noise kept."""
    return (math.sqrt(schedule.level(s) / elbo.snr(schedule, t)),
            math.sqrt(max(0, 1 - schedule.level(s) - sd**2)))


def bracket(formula: Callable) -> Callable:
    """A wrong weight from the two roots and sd."""
    return lambda schedule, t, s, sd: formula(*roots(schedule, t, s, sd), sd)


def weight(schedule: Schedule, t: int, s: int, sd: float) -> float:
    return bracket(lambda a, b, sd: ((a - b) / sd) ** 2 / 2)(schedule, t, s, sd)


def printed(schedule: Schedule, t: int, s: int, sd: float) -> float:
    """DDPM's own formula for its weight, with any deviation."""
    beta = schedule.beta(t, s)
    return beta**2 / (2 * sd**2 * (1 - beta) * (1 - schedule.level(t)))


ROUNDED = ("all noise may be fresh: then the root is of zero, which may round to just below. Keep "
           "it at zero or above")
WEIGHT = Exercise(
    "02-4", "What an error in the noise costs", 2, 10, 3, "gamma(schedule, t, s, sd)",
    public=weight_cases, wanted=weight,
    study=("coursekit.diffusion.elbo.gamma", "coursekit.diffusion.elbo.snr",
           f"{LEVELS}.beta_tilde"),
    tolerance={"float64": 1e-6, "float32": 1e-4},  # all fresh: the root of 1e-16 is 1e-8
    mistakes=(
        Mistake("the half is missing", bracket(lambda a, b, sd: (a - b) ** 2 / sd**2)),
        Mistake("sd is a deviation: the bracket is divided by twice the variance",
                bracket(lambda a, b, sd: (a - b) ** 2 / (2 * sd))),
        Mistake("the division by the variance is missing: this is half the squared distance of the "
                "means", bracket(lambda a, b, sd: (a - b) ** 2 / 2)),
        Mistake("the bracket is not squared", bracket(lambda a, b, sd: (a - b) / (2 * sd**2))),
        Mistake("this is one everywhere, as in L_simple: the bound has a weight of its own for "
                "each hop", lambda sch, t, s, sd: 1.0),
        Mistake("the two parts of the bracket pull against each other: it is a difference",
                bracket(lambda a, b, sd: (a + b) ** 2 / (2 * sd**2))),
        Mistake("the difference of the squares is not the square of the difference",
                bracket(lambda a, b, sd: abs(a * a - b * b) / (2 * sd**2))),
        Mistake("the second root must shrink as sd grows: fresh noise takes the old one's place",
                lambda sch, t, s, sd: (roots(sch, t, s, 0)[0] - roots(sch, t, s, 0)[1]) ** 2
                / (2 * sd**2)),
        Mistake("under the second root stands sd as it is: its square is a variance",
                lambda sch, t, s, sd: (roots(sch, t, s, 0)[0] - math.sqrt(
                    max(0, 1 - sch.level(s) - sd))) ** 2 / (2 * sd**2)),
        Mistake("DDPM's short formula is this weight only where sd is the posterior's own "
                "deviation", printed),
        Mistake("this is the weight of the picture's error: the noise's differs by the "
                "signal-to-noise ratio at t",
                lambda sch, t, s, sd: weight(sch, t, s, sd) * elbo.snr(sch, t)),
        Mistake("the levels of t and s have changed places",
                lambda sch, t, s, sd: (math.sqrt(sch.level(t) / elbo.snr(sch, s)) - math.sqrt(
                    max(0, 1 - sch.level(t) - sd**2))) ** 2 / (2 * sd**2)),
        Mistake(NEIGHBOURS, lambda sch, t, s, sd: (math.sqrt(sch.level(t - 1) / elbo.snr(sch, t))
                - math.sqrt(max(0, 1 - sch.level(t - 1) - sd**2))) ** 2 / (2 * sd**2)),
        Mistake("the first root lacks the ratio of noise to signal at t",
                lambda sch, t, s, sd: (math.sqrt(sch.level(s)) - roots(sch, t, s, sd)[1]) ** 2
                / (2 * sd**2)),
        Mistake(ROUNDED, raised="math domain error"),
        Mistake(ROUNDED, when=lambda got, wanted, args: isinstance(got, complex)
                or isinstance(got, float) and math.isnan(got)),
    ),
)


# ---- 02-5 a matching term -------------------------------------------------------------------


def term_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, shape: tuple, levels: str, t: int, s: int, ratio: float,
             dtype: str) -> Case:
        table = (Schedule.cosine if levels == "cosine" else Schedule.linear)()
        x0 = g.standard_normal(shape)
        guess = x0 + 0.5 * g.standard_normal(shape)
        return Case(f"{what}, {dtype}", {
            "schedule": TABLES[levels], "x0": x0, "guess": guess, "t": t, "s": s,
            "var": ratio * table.beta_tilde(t, s)}, dtype)

    yield case("the posterior's own variance", (3, 3, 4, 4), "cosine", *pair(g), 1.0, "float64")
    yield case("a wider step", (3, 3, 4, 4), "cosine", *pair(g), float(g.uniform(1.5, 3)),
               "float64")
    t = int(g.integers(100, 900))
    yield case("neighbours", (6, 2), "linear", t, t - 1, float(g.uniform(1.5, 3)), "float64")
    yield case("a narrower step on the linear schedule", (2, 3, 4, 4), "linear",
               *pair(g, 150, 600), float(g.uniform(0.3, 0.6)), "float32")


def term(schedule: Schedule, x0: Tensor, guess: Tensor, t: int, s: int, var: float) -> Tensor:
    return elbo.matching(schedule, x0, guess, t, s, var_p=var)


def kl(formula: Callable, q: Callable = Schedule.beta_tilde) -> Callable:
    """A wrong KL from the squared distance of the means, the variance of q and that of the step;
    formula's result is summed over each item."""
    def wrong(schedule: Schedule, x0: Tensor, guess: Tensor, t: int, s: int,
              var: float) -> Tensor:
        gap = of_x0(schedule.level(t), schedule.level(s)) * (x0 - guess)
        return formula(gap.square(), q(schedule, t, s), var).flatten(1).sum(1)
    return wrong


def once(schedule: Schedule, x0: Tensor, guess: Tensor, t: int, s: int, var: float) -> Tensor:
    """The variances' part counted once and not for each number."""
    ratio = schedule.beta_tilde(t, s) / var
    return kl(lambda gap, q, p: gap / p / 2)(schedule, x0, guess, t, s, var) + (
        ratio - 1 - math.log(ratio)) / 2


EQUAL = ("the variances' own part is missing: the distance of the means is all only where the "
         "step's variance is the posterior's")
TERM = Exercise(
    "02-5", "A matching term", 3, 10, 3, "matching(schedule, x0, guess, t, s, var)",
    public=term_cases, wanted=term,
    study=("coursekit.diffusion.elbo.matching", "coursekit.diffusion.mhvae.gaussian_kl",
           "coursekit.diffusion.sample.posterior", f"{LEVELS}.beta_tilde"),
    mistakes=(
        Mistake("one number for each item is asked for: sum over all axes but the first",
                when=lambda got, wanted, args: isinstance(got, Tensor) and got.ndim == 0),
        Mistake("one number for each item is asked for: sum over all axes but the first",
                when=lambda got, wanted, args: isinstance(got, Tensor) and got.ndim > 1),
        Mistake("this is the mean over an item's numbers: a KL adds up over them",
                lambda sch, x0, guess, t, s, var: term(sch, x0, guess, t, s, var)
                / x0[0].numel()),
        Mistake(EQUAL, kl(lambda gap, q, p: gap / p / 2)),
        Mistake(EQUAL, kl(lambda gap, q, p: gap / q / 2)),
        Mistake("the variances' part was counted once: each number of the item pays it", once),
        Mistake("the half is missing",
                lambda sch, x0, guess, t, s, var: 2 * term(sch, x0, guess, t, s, var)),
        Mistake("the two laws have changed places: what is averaged over is the posterior, and "
                "its variance stands above", kl(
                    lambda gap, q, p: (p / q - 1 - math.log(p / q) + gap / q) / 2)),
        Mistake("the distance of the means is divided by the posterior's variance: it counts in "
                "units of the model's step", kl(
                    lambda gap, q, p: (q / p - 1 - math.log(q / p) + gap / q) / 2)),
        Mistake("the sign of the logarithm is the other way round: with equal means and variances "
                "nothing is left, and with others never less than nothing", kl(
                    lambda gap, q, p: (q / p - 1 + math.log(q / p) + gap / p) / 2)),
        Mistake("the one is not taken off: two equal laws must cost nothing", kl(
                    lambda gap, q, p: (q / p - math.log(q / p) + gap / p) / 2)),
        Mistake("the distance of the means is not squared", kl(
                    lambda gap, q, p: (q / p - 1 - math.log(q / p) + gap.sqrt() / p) / 2)),
        Mistake("`var` is a variance already: it is not squared", kl(
                    lambda gap, q, p: (q / p**2 - 1 - math.log(q / p**2) + gap / p**2) / 2)),
        Mistake("the pictures' distance is not yet that of the means: x0 and guess enter the means "
                "with a weight", lambda sch, x0, guess, t, s, var: kl(
                    lambda gap, q, p: (q / p - 1 - math.log(q / p)) / 2 + 0 * gap)(
                        sch, x0, guess, t, s, var)
                + (x0 - guess).square().flatten(1).sum(1) / (2 * var)),
        Mistake("q is the posterior, told x_0: its variance is smaller than that of the forward "
                "hop", kl(lambda gap, q, p: (q / p - 1 - math.log(q / p) + gap / p) / 2,
                          Schedule.beta)),
        Mistake("these are bits: here nats are asked for",
                lambda sch, x0, guess, t, s, var: term(sch, x0, guess, t, s, var) / math.log(2)),
        Mistake(NEIGHBOURS, lambda sch, x0, guess, t, s, var: term(sch, x0, guess, t, t - 1, var)),
    ),
)


# ---- 02-6 the whole bound -------------------------------------------------------------------


def bound_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps: object, levels: str, shape: tuple, path: list[int],
             dtype: str) -> Case:
        drawn = np.clip(0.35 * g.standard_normal(shape), -1, 1)
        grid = np.round((drawn + 1) * 127.5) / 127.5 - 1
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": TABLES[levels], "x0": grid, "path": path,
            "noise": g.standard_normal((len(path) - 1, *shape))}, dtype)

    seed = int(g.integers(2**31))
    straight = named("linear", name="linear", variance=float(g.uniform(0.1, 0.2)))
    times = sorted(map(int, g.choice(np.arange(20, 700), 4, replace=False)), reverse=True)
    yield case("ten even hops", straight, "linear", (5, 2), list(range(1000, -1, -100)), "float64")
    yield case("uneven hops from below the top", named("mixture", seed=seed), "cosine", (5, 2),
               [*times, 0], "float64")
    yield case("two hops", straight, "linear", (3, 4), [*times[1:3], 0], "float32")
    yield case("pictures and a small network", named("unet", seed=seed), "cosine", (2, 3, 8, 8),
               [*times[1:], 0], "float32")


def parts(eps: Eps, schedule: Schedule, x0: Tensor, path: Sequence[int],
          noise: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
    """Prior, matching terms and decoder, nats (b,)."""
    top, middle = elbo.prior(schedule, x0, path[0]), []
    for (t, s), drawn in zip(pairwise(path), noise, strict=False):
        x = schedule.noise(x0, drawn, t)
        clean = schedule.denoise(x, eps(x, t), t)
        if s:
            middle.append(elbo.matching(schedule, x0, clean, t, s))
    width = math.sqrt(schedule.beta_tilde(path[-3], path[-2]))
    return top, middle, -elbo.discretised(x0, clean, width).flatten(1).sum(1)


def paid(eps: Eps, schedule: Schedule, x0: Tensor, path: Sequence[int],
         noise: Tensor) -> dict:
    top, middle, bottom = parts(eps, schedule, x0, path, noise)
    return {"bits": elbo.bits_per_dim(top + sum(middle) + bottom, x0[0].numel()),
            "times asked": list(path[:-1])}


def value(wrong: Callable) -> Callable:
    """A wrong bound recognised by its value, however it asked."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        fine = 1e-4 if getattr(got["bits"], "dtype", None) == torch.float32 else 1e-8
        if near(got["bits"], wanted["bits"], fine):
            return False
        return near(got["bits"], wrong(*args.values()), fine)
    return when


def summed(total: Callable) -> Callable:
    """Wrong bits from the three parts and the number of numbers."""
    return value(lambda eps, sch, x0, path, noise: total(
        *parts(eps, sch, x0, path, noise), x0[0].numel() * math.log(2)))


def altered(eps: Callable = lambda e, sch, path: e, noise: Callable = lambda n: n) -> Callable:
    """Wrong bits from another prediction or another noise."""
    return value(lambda e, sch, x0, path, n: paid(eps(e, sch, path), sch, x0, path, noise(n))
                 ["bits"])


def decoded(width: Callable) -> Callable:
    """Wrong bits from another deviation of the decoder."""
    def wrong(eps: Eps, schedule: Schedule, x0: Tensor, path: list[int], noise: Tensor) -> Tensor:
        top, middle, _ = parts(eps, schedule, x0, path, noise)
        x = schedule.noise(x0, noise[len(path) - 2], path[-2])
        clean = schedule.denoise(x, eps(x, path[-2]), path[-2])
        bottom = -elbo.discretised(x0, clean, width(schedule, path)).flatten(1).sum(1)
        return elbo.bits_per_dim(top + sum(middle) + bottom, x0[0].numel())
    return value(wrong)


def at_top(eps: Eps, schedule: Schedule, x0: Tensor, path: list[int], noise: Tensor) -> Tensor:
    _, middle, bottom = parts(eps, schedule, x0, path, noise)
    total = elbo.prior(schedule, x0) + sum(middle) + bottom
    return elbo.bits_per_dim(total, x0[0].numel())


def unweighted(eps: Eps, schedule: Schedule, x0: Tensor, path: list[int],
               noise: Tensor) -> Tensor:
    """Squared errors of the noise in the place of the matching terms."""
    top, _, bottom = parts(eps, schedule, x0, path, noise)
    for (t, s), drawn in zip(pairwise(path), noise, strict=False):
        if s:
            error = eps(schedule.noise(x0, drawn, t), t) - drawn
            top = top + error.square().flatten(1).sum(1)
    return elbo.bits_per_dim(top + bottom, x0[0].numel())


BOUND = Exercise(
    "02-6", "The whole bound, in bits", 4, 20, 4, "bits_per_dim(eps, schedule, x0, path, noise)",
    public=bound_cases, wanted=paid, seconds=8,
    study=("coursekit.diffusion.elbo.terms", "coursekit.diffusion.elbo.prior",
           "coursekit.diffusion.elbo.matching", "coursekit.diffusion.elbo.bits_per_dim",
           "coursekit.diffusion.mhvae.gaussian_kl", "coursekit.diffusion.sample.posterior",
           f"{LEVELS}.beta_tilde"),
    tolerance={"float64": 1e-8, "float32": 1e-3},
    mistakes=(
        Mistake("one number for each item is asked for, not one for the batch",
                when=lambda got, wanted, args: isinstance(got["bits"], Tensor)
                and got["bits"].ndim == 0),
        Mistake("these are nats for each number: a bit is log 2 nats",
                when=summed(lambda a, b, c, k: (a + sum(b) + c) * math.log(2) / k)),
        Mistake("a bit is log 2 nats, which is less than one: in bits the number is larger",
                when=summed(lambda a, b, c, k: (a + sum(b) + c) * math.log(2) ** 2 / k)),
        Mistake("these are bits for a whole item: divide by how many numbers it has",
                when=summed(lambda a, b, c, k: (a + sum(b) + c) / math.log(2))),
        Mistake("this was divided by the numbers of the whole batch: those of one item count",
                when=value(lambda eps, sch, x0, path, noise:
                           paid(eps, sch, x0, path, noise)["bits"] / len(x0))),
        Mistake("the sign is the other way round: this is the bound on log p, and bits are what "
                "it costs", when=summed(lambda a, b, c, k: -(a + sum(b) + c) / k)),
        Mistake("the prior belongs to the time at which the path begins, which need not be T",
                when=value(at_top)),
        Mistake("the prior's term is missing", when=summed(lambda a, b, c, k: (sum(b) + c) / k)),
        Mistake("the decoder's term is missing, the one of the last hop",
                when=summed(lambda a, b, c, k: (a + sum(b)) / k)),
        Mistake("the matching terms are missing", when=summed(lambda a, b, c, k: (a + c) / k)),
        Mistake("the decoder's log probability has the wrong sign: what is unlikely costs much",
                when=summed(lambda a, b, c, k: (a + sum(b) - c) / k)),
        Mistake("the first matching term is missing",
                when=summed(lambda a, b, c, k: (a + sum(b[1:]) + c) / k)),
        Mistake("the last matching term is missing: only the hop that ends at 0 is the decoder's",
                when=summed(lambda a, b, c, k: (a + sum(b[:-1]) + c) / k)),
        Mistake("the matching terms are averaged: a bound adds them up",
                when=summed(lambda a, b, c, k: (a + sum(b) / len(b) + c) / k)),
        Mistake("the noise is used from its end: hop i takes noise[i]",
                when=altered(noise=lambda n: n.flip(0))),
        Mistake("one and the same noise is used in every hop: hop i takes noise[i]",
                when=altered(noise=lambda n: n[:1].expand_as(n))),
        Mistake("the errors of the noise were added up without their weights: that is L_simple, "
                "which bounds nothing", when=value(unweighted)),
        Mistake("the network's answer is a noise: translate it into the picture it believes in",
                when=altered(eps=lambda e, sch, path: lambda x, t: (
                    x - math.sqrt(sch.level(t)) * e(x, t)) / math.sqrt(1 - sch.level(t)))),
        Mistake("the decoder is given a variance: it asks for the deviation", when=decoded(
            lambda sch, path: sch.beta_tilde(path[-3], path[-2]))),
        Mistake("the decoder's deviation is that of the last hop but one: the hop that ends at 0 "
                "has none of its own", when=decoded(
                    lambda sch, path: math.sqrt(1 - sch.level(path[-2])))),
        Mistake("the decoder's deviation is the posterior's, not that of the forward hop",
                when=decoded(lambda sch, path: math.sqrt(sch.beta(path[-3], path[-2])))),
        Mistake("the network is asked at the time where the hop ends: ask where it begins",
                when=altered(eps=lambda e, sch, path: lambda x, t: e(
                    x, max(1, dict(pairwise(path))[t])))),
        Mistake("the network is asked at the time where the hop ends: ask where it begins",
                raised="t = 0 is outside"),
        Mistake("the network is asked more often than once a hop: keep its answer",
                when=lambda got, wanted, args: len(got["times asked"]) > len(wanted["times asked"])
                and near(got["bits"], wanted["bits"], 1e-3)),
    ),
)

EXERCISES = (JUMP, BACK, SAID, WEIGHT, TERM, BOUND)
