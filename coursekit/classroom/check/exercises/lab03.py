"""Lab 03: the parts of a network, its loss, an update, and ancestral sampling."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from coursekit.classroom.check.calls.lab03 import inputs, seeded
from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.spec import Case, Exercise, Mistake, named
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.schedule import Schedule

NET, SAMPLE = "coursekit.nets.unet", "coursekit.diffusion.sample"
SAMPLERS = (f"{SAMPLE}.ddpm", f"{SAMPLE}.ddim", f"{SAMPLE}._walk", f"{SAMPLE}.posterior",
            "diffusers.schedulers.scheduling_ddpm.DDPMScheduler.step")
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")


# ---- 03-1 the embedding of the time ----------------------------------------------------------


def hands(t: Tensor, speeds: Sequence[float]) -> Tensor:
    """cos, then sin, of every time at every speed; as points on a circle."""
    turned = torch.exp(1j * torch.outer(t.double(), torch.tensor(speeds, dtype=torch.float64)))
    return torch.cat([turned.real, turned.imag], 1)


def speeds(dim: int, over: int | None = None, base: float = 1e4) -> list[float]:
    return [base ** -(k / (over or dim // 2)) for k in range(dim // 2)]


def embedding(t: Tensor, dim: int) -> Tensor:
    return hands(t, speeds(dim))


def embedding_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, t: Any, dim: int) -> Case:
        return Case(what, {"t": np.array(t, np.int64), "dim": dim}, "float32")

    yield case("a batch of times", g.integers(1, 1001, 6), 2 * int(g.integers(6, 12)))
    yield case("the two ends", [1, 1000], 64)
    yield case("one time", g.integers(300, 900, 1), 2 * int(g.integers(3, 6)))
    yield case("one speed only", g.integers(1, 1001, 4), 2)


def woven(t: Tensor, dim: int) -> Tensor:
    return embedding(t, dim).unflatten(1, (2, -1)).mT.flatten(1)


EMBED = Exercise(
    "03-1", "Clocks for the time", 1, 5, 2, "time_embedding(t, dim)",
    public=embedding_cases, wanted=embedding, tolerance={"float64": 2e-3, "float32": 2e-3},
    study=(f"{NET}.time_embedding", "diffusers.models.embeddings.get_timestep_embedding"),
    mistakes=(
        Mistake("sines and cosines have changed places",
                lambda t, dim: embedding(t, dim).roll(dim // 2, 1)),
        Mistake("cosines and sines are interwoven: all cosines come first", woven),
        Mistake("the exponent grows in n equal parts of one: it is divided by n, not by n - 1",
                lambda t, dim: hands(t, speeds(dim, dim // 2 - 1))),
        Mistake("the exponent is divided by dim: there are only half as many speeds",
                lambda t, dim: hands(t, speeds(dim, dim))),
        Mistake("the hands get faster: the exponent must be negative",
                lambda t, dim: hands(t, [1 / v for v in speeds(dim)])),
        Mistake("the time is divided by T: the embedding takes steps, 1 to 1000",
                lambda t, dim: embedding(t / 1000, dim)),
        Mistake("the time is counted from 0: it comes as 1 to T and goes in as it is",
                lambda t, dim: embedding(t - 1, dim)),
        Mistake("a turn is counted as one: the angle is speed times time, without 2 pi",
                lambda t, dim: embedding(2 * math.pi * t, dim)),
        Mistake("only half is there: cosines and sines, side by side",
                when=lambda got, wanted, args: got.shape == (len(args["t"]), args["dim"] // 2)),
        Mistake("times along the first axis, entries along the second: cosines and sines stand "
                "side by side", when=lambda got, wanted, args: got.numel() == wanted.numel()
                and got.shape != wanted.shape),
        Mistake("every time meets every speed: one of the two needs an axis of length one",
                raised="size of tensor a"),
    ),
)


# ---- 03-2 the time turns every channel up or down --------------------------------------------


def standard(h: Tensor, groups: int, weight: Tensor | None = None,
             bias: Tensor | None = None) -> Tensor:
    """Group norm by its definition, in float64."""
    flat = h.flatten(1).view(len(h), groups, -1)
    var, mean = torch.var_mean(flat, 2, correction=0, keepdim=True)
    unit = ((flat - mean) * (var + 1e-5).rsqrt()).view_as(h)
    if weight is None:
        return unit
    return torch.einsum("bchw,c->bchw", unit, weight) + bias.view(1, -1, 1, 1)


def turned(h: Tensor, both: Tensor) -> Tensor:
    """h with a volume and an offset a channel; both (b, 2c)."""
    c = h.shape[1]
    return h + torch.einsum("bchw,bc->bchw", h, both[:, :c]) + both[:, c:].view(len(h), c, 1, 1)


def modulated(h: Tensor, emb: Tensor, norm: nn.GroupNorm, time: nn.Linear) -> Tensor:
    return turned(_normed(h, norm), emb @ time.weight.T + time.bias)


def _normed(h: Tensor, norm: nn.GroupNorm) -> Tensor:
    return standard(h, norm.num_groups, norm.weight, norm.bias)


def modulate_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, b: int, c: int, groups: int, d: int, dtype: str, size: float = 1) -> Case:
        seed = int(g.integers(2**31))
        return Case(f"{what}, {dtype}", {
            "h": size * g.standard_normal((b, c, 3, 5)) + g.standard_normal((b, c, 1, 1)),
            "emb": g.standard_normal((b, d)),
            "norm": named("norm", seed=seed, channels=c, groups=groups),
            "time": named("projection", seed=seed + 1, channels=c, time_dim=d)}, dtype)

    yield case("two pictures, eight channels", 2, 8, 2, 6, "float64")
    yield case("as many groups as channels", 3, 4, 4, 7, "float32")
    yield case("one group, loud pictures", 2, 6, 1, 9, "float64", float(g.uniform(5, 9)))
    yield case("one picture", 1, 12, 4, 16, "float32")


def turned_by(both: Callable[[Tensor], Tensor]) -> Callable:
    """The modulation with what the projection gives altered."""
    return lambda h, emb, norm, time: turned(_normed(h, norm), both(time(emb)))


def bare_scale(h: Tensor, emb: Tensor, norm: nn.GroupNorm, time: nn.Linear) -> Tensor:
    return modulated(h, emb, norm, time) - _normed(h, norm)


def half(both: Tensor, kept: int) -> Tensor:
    """Scales alone or shifts alone, the others zero."""
    parts = both.unflatten(1, (2, -1)).clone()
    parts[:, 1 - kept] = 0
    return parts.flatten(1)


MODULATE = Exercise(
    "03-2", "The time turns the volume", 2, 10, 3, "modulate(h, emb, norm, time)",
    public=modulate_cases, wanted=modulated, study=(f"{NET}.AdaGN.forward",),
    tolerance={"float64": 1e-8, "float32": 1e-3},
    mistakes=(
        Mistake("a scale of zero must change nothing: the factor is one more than the scale",
                bare_scale),
        Mistake("scale and shift have changed places: the first half of time(emb) is the scale",
                turned_by(lambda both: both.roll(both.shape[1] // 2, 1))),
        Mistake("scales and shifts do not alternate in time(emb): the first half are scales",
                turned_by(lambda both: both.unflatten(1, (-1, 2)).mT.flatten(1))),
        Mistake("the shift is left out", turned_by(lambda both: half(both, 0))),
        Mistake("the scale is left out", turned_by(lambda both: half(both, 1))),
        Mistake("the time has no effect", lambda h, emb, norm, time: _normed(h, norm)),
        Mistake("h is not normalised", lambda h, emb, norm, time: turned(h, time(emb))),
        Mistake("normalised too late: norm undoes what the time did before it",
                lambda h, emb, norm, time: _normed(turned(h, time(emb)), norm)),
        Mistake("norm has a weight and a bias of its own: call it, and nothing else",
                lambda h, emb, norm, time: turned(standard(h, norm.num_groups), time(emb))),
        Mistake("emb goes into the layer as it is: no silu here",
                lambda h, emb, norm, time: turned(_normed(h, norm),
                                                  time(nn.functional.silu(emb)))),
        Mistake("(b, c) does not meet (b, c, h, w): a number for each picture and channel needs "
                "two more axes of length one", raised="size of tensor a"),
    ),
)


# ---- 03-3 the residual block ------------------------------------------------------------------


def layers(channels: int, time_dim: int, groups: int) -> nn.ModuleDict:
    """What a block holds, by name."""
    def conv() -> nn.Conv2d:
        return nn.Conv2d(channels, channels, 3, padding=1)

    return nn.ModuleDict({
        "norm1": nn.GroupNorm(groups, channels), "conv1": conv(), "conv2": conv(),
        "norm2": nn.GroupNorm(groups, channels), "time": nn.Linear(time_dim, 2 * channels)})


SILU, LINE = nn.functional.silu, (lambda h: h)


def block(first: Callable = SILU, second: Callable = SILU, skip: float = 1, early: bool = False,
          late: bool = False, blind: bool = False, before: Callable = LINE) -> Callable:
    """What is wanted of a block whose parts are altered."""
    def wanted(channels: int, time_dim: int, groups: int) -> dict:
        seed, x, emb = inputs(channels, time_dim, groups)
        parts = seeded(layers(channels, time_dim, groups), seed, torch.float64)
        names = {name: "x".join(map(str, p.shape)) for name, p in sorted(parts.named_parameters())}
        emb = before(emb)

        def shaped(h: Tensor, name: str, timed: bool) -> Tensor:
            if timed and not blind:
                return modulated(h, emb, parts[name], parts["time"])
            return _normed(h, parts[name])

        y = parts["conv1"](first(shaped(x, "norm1", early)))
        y = parts["conv2"](second(shaped(y, "norm2", not early and not late)))
        if late:
            y = turned(y, emb @ parts["time"].weight.T + parts["time"].bias)
        return {"layers": names, "of float32": "float32", "a fresh block": skip * x,
                "drawn weights": y + skip * x}
    return wanted


def as_filled(wrong: Callable) -> Callable:
    """A wrong block recognised by what it makes of drawn weights, however it begins."""
    def when(got: dict, wanted: dict, args: Mapping[str, Any]) -> bool:
        ours, end = got["drawn weights"], wrong(*args.values())["drawn weights"]
        return not near(ours, wanted["drawn weights"]) and near(ours, end)
    return when


near = partial(alike, double=1e-6, single=1e-6)


def never_still(got: dict, wanted: dict, args: Mapping[str, Any]) -> bool:
    still, drawn = (near(got[k], wanted[k]) for k in ("a fresh block", "drawn weights"))
    return drawn and not still


def block_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, groups: int, wide: int) -> Case:
        return Case(what, {"channels": groups * wide, "time_dim": int(g.integers(5, 90)),
                           "groups": groups})

    yield case("two groups", 2, int(g.integers(2, 9)))
    yield case("four groups", 4, int(g.integers(2, 5)))
    yield case("one group", 1, int(g.integers(4, 17)))


NOT_ZERO = ("a fresh block must give back x: the last convolution starts at zero, its weight and "
            "its bias")
BLOCK = Exercise(
    "03-3", "The residual block", 3, 15, 4, "ResBlock(channels, time_dim, groups)",
    public=block_cases, wanted=block(), tolerance={"float64": 1e-8, "float32": 1e-3},
    study=(f"{NET}.ResBlock.forward", f"{NET}.AdaGN.forward",
           "diffusers.models.resnet.ResnetBlock2D.forward"),
    mistakes=(
        Mistake("x is not added at the end: without it this is no residual block",
                when=as_filled(block(skip=0))),
        Mistake("both silu are missing", when=as_filled(block(LINE, LINE))),
        Mistake("the first silu is missing", when=as_filled(block(first=LINE))),
        Mistake("the second silu is missing", when=as_filled(block(second=LINE))),
        Mistake("another bend than silu", when=as_filled(block(torch.relu, torch.relu))),
        Mistake("another bend than silu", when=as_filled(block(nn.functional.gelu,
                                                               nn.functional.gelu))),
        Mistake("the time comes in at norm1: it belongs to norm2", when=as_filled(
            block(early=True))),
        Mistake("the time comes in after conv2: it belongs to norm2", when=as_filled(
            block(late=True))),
        Mistake("the time has no effect", when=as_filled(block(blind=True))),
        Mistake("emb goes into the layer as it is: no silu here",
                when=as_filled(block(before=SILU))),
        Mistake(NOT_ZERO, when=never_still),
        Mistake("norm1, norm2, conv1, conv2 and time are the layers' names, each with weight and "
                "bias", when=lambda got, wanted, args: got["layers"] != wanted["layers"]),
        Mistake("layers are made in __init__, after super().__init__(), and used in forward",
                raised="has no attribute"),
        Mistake("layers are made in __init__, after super().__init__(), and used in forward",
                raised="before Module.__init__() call"),
        Mistake("forward(self, x, emb) is not there, or under another name",
                raised='missing the required "forward" function'),
        Mistake("shapes do not fit: a convolution of 3 x 3 shrinks the map unless it is padded by "
                "one, and what is (b, c) needs two more axes to meet (b, c, h, w)",
                raised="size of tensor a"),
    ),
)


# ---- 03-4 the loss ----------------------------------------------------------------------------


def loss_args(g: np.random.Generator, shape: tuple[int, ...], rounds: int = 0) -> dict:
    """Pictures, times and noise, with an axis of rounds in front if there are any."""
    full = (rounds, *shape) if rounds else shape
    x0 = g.uniform(-1, 1, full) + g.uniform(-0.5, 0.5)
    return {"x0": x0, "t": g.integers(1, 1001, full[:-len(shape) + 1]),
            "eps": g.standard_normal(full)}


def loss_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, levels, shape: tuple[int, ...], goal: str, dtype: str) -> Case:
        net = named("denoiser", size=float(g.uniform(0.2, 0.7)))
        return Case(f"{what}, {dtype}", {"net": net, "schedule": levels, **loss_args(g, shape),
                                         "goal": goal}, dtype)

    pictures, points = (4, 3, 4, 5), (7, 2)
    yield case("pictures, the noise is the goal", COSINE, pictures, "eps", "float64")
    yield case("pictures, v is the goal", LINEAR, pictures, "v", "float32")
    yield case("points, v is the goal", COSINE, points, "v", "float64")
    yield case("points, the clean ones are the goal", LINEAR, points, "x0", "float32")


def rotated(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """x_t and v: x0 and eps turned by one angle."""
    angle = schedule.abar[t].sqrt().acos().view(-1, *[1] * (x0.ndim - 1))
    turn = torch.polar(torch.ones_like(angle), angle) * torch.complex(x0, eps)
    return turn.real, turn.imag  # cos x0 - sin eps, sin x0 + cos eps


def sides(schedule: Schedule, x0: Tensor, eps: Tensor, t: Tensor,
          goal: str) -> tuple[Tensor, Tensor]:
    """What the network is given and what it should say."""
    noisy, _ = rotated(schedule, x0, -eps, t)
    return noisy, {"eps": eps, "x0": x0, "v": -rotated(schedule, x0, -eps, t)[1]}[goal]


def squared(off: Tensor) -> Tensor:
    return off.square().mean()


def scored(measure: Callable = squared, given: Callable = lambda x_t, x0, eps, a, b: x_t,
           target: Callable | None = None, ask: Callable = lambda t: t) -> Callable:
    """What is wanted of a loss whose parts are altered; a, b = sqrt(abar), sqrt(1 - abar)."""
    def wanted(net, schedule, x0, t, eps, goal) -> dict:
        level = schedule.abar[t].view(-1, *[1] * (x0.ndim - 1))
        a, b = level.sqrt(), (1 - level).sqrt()
        noisy, says = sides(schedule, x0, eps, t, goal)
        if target:
            says = target(x0, eps, a, b, goal, says)
        value = measure(net(given(noisy, x0, eps, a, b), ask(t)) - says)
        return {"loss": value.detach(), "gradient": torch.autograd.grad(value, net.size)[0],
                "times asked": net.times}
    return wanted


def of_v(change: Callable) -> Callable:
    """A target altered where v is the goal."""
    return scored(target=lambda x0, eps, a, b, goal, says:
                  change(x0, eps, a, b) if goal == "v" else says)


ONE_TIME = "every picture has a time of its own: t[i] belongs to picture i"
LOSS = Exercise(
    "03-4", "The simple loss", 2, 10, 3, "training_loss(net, schedule, x0, t, eps, goal)",
    public=loss_cases, wanted=scored(),
    study=("coursekit.diffusion.train._loss", "coursekit.diffusion.train.train",
           "coursekit.diffusion.predict.target", "coursekit.diffusion.predict.from_eps"),
    tolerance={"float64": 1e-9, "float32": 5e-4},
    mistakes=(
        Mistake("the sum of the squares: the loss is their mean",
                scored(lambda off: off.square().sum())),
        Mistake("summed over a picture: the loss is the mean over all numbers",
                scored(lambda off: off.square().flatten(1).sum(1).mean())),
        Mistake("absolute differences: their minimiser is a median, the square's is the mean",
                scored(lambda off: off.abs().mean())),
        Mistake("a root is taken: the loss is the mean square itself",
                scored(lambda off: off.square().mean().sqrt())),
        Mistake("the network is given clean pictures: it must see noisy ones",
                scored(given=lambda x_t, x0, eps, a, b: x0)),
        Mistake("the noisy picture lacks its roots: abar is a variance",
                scored(given=lambda x_t, x0, eps, a, b: a * a * x0 + b * b * eps)),
        Mistake("signal and noise have changed places in the noisy picture",
                scored(given=lambda x_t, x0, eps, a, b: b * x0 + a * eps)),
        Mistake("the picture keeps its full size: noise is put on top of it",
                scored(given=lambda x_t, x0, eps, a, b: x0 + b * eps)),
        Mistake("goal has no effect: the target is always the noise",
                scored(target=lambda x0, eps, a, b, goal, says: eps)),
        Mistake("v has the other sign", of_v(lambda x0, eps, a, b: b * x0 - a * eps)),
        Mistake("v is a difference, not a sum", of_v(lambda x0, eps, a, b: a * eps + b * x0)),
        Mistake("the two factors of v have changed places",
                of_v(lambda x0, eps, a, b: b * eps - a * x0)),
        Mistake("the factors of v are roots", of_v(lambda x0, eps, a, b:
                                                   a * a * eps - b * b * x0)),
        Mistake("the network is asked at t - 1: our networks count from 1 to T, as t does",
                scored(ask=lambda t: t - 1)),
        Mistake(ONE_TIME, lambda net, sch, x0, t, eps, goal: scored()(
            net, sch, x0, t[:1].expand(len(t)), eps, goal)),
        Mistake("no gradient reaches the network: leave out no_grad, detach, item and float",
                raised="does not require grad"),
        Mistake("no gradient reaches the network: leave out no_grad, detach, item and float",
                when=lambda got, wanted, args: not isinstance(got["loss"], Tensor)),
        Mistake("one number is wanted, over all pictures of the batch",
                when=lambda got, wanted, args: isinstance(got["loss"], Tensor)
                and got["loss"].ndim > 0),
        Mistake("the network takes the times as they come: whole numbers, one a picture",
                raised="accepted is an int64 tensor"),
        Mistake("the network is asked more often than once",
                when=lambda got, wanted, args: len(got["times asked"]) > 1),
    ),
)


# ---- 03-5 one update --------------------------------------------------------------------------


def update_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, levels, shape: tuple[int, ...], goal: str, dtype: str) -> Case:
        net = named("denoiser", size=float(g.uniform(0.2, 0.7)))
        return Case(f"{what}, {dtype}", {
            "net": net, "optimiser": named("descent", lr=float(g.uniform(0.1, 0.3))),
            "schedule": levels, **loss_args(g, shape, rounds=3), "goal": goal}, dtype)

    yield case("three updates, pictures", COSINE, (4, 3, 4, 5), "v", "float64")
    yield case("three updates, points", LINEAR, (7, 2), "eps", "float32")


def descended(held: float = 0, lag: int = 0, rate: float = 1, after: bool = False) -> Callable:
    """What is wanted of updates; held: share of the old gradients, lag: updates that come late."""
    def wanted(net, descent, schedule, x0, t, eps, goal) -> dict:
        said, slope, due = [], torch.zeros_like(net.size), []
        for batch in zip(x0, t, eps, strict=True):
            found = scored()(net, schedule, *batch, goal)
            slope = held * slope + found["gradient"]
            due.append(slope)
            with torch.no_grad():
                if len(due) > lag:
                    net.size -= rate * descent.keywords["lr"] * due[-1 - lag]
            again = scored()(net, schedule, *batch, goal)["loss"]
            said.append(float(again if after else found["loss"]))
        return {"losses": said, "weights": net.size.detach().clone()}
    return wanted


def left_behind(wrong: Callable) -> Callable:
    """A wrong update recognised by the weights it leaves, whatever it returns."""
    def when(got: dict, wanted: dict, args: Mapping[str, Any]) -> bool:
        end, ours = wrong(*args.values())["weights"], got["weights"].double()
        return not torch.allclose(ours, wanted["weights"], 1e-5, 1e-5) and torch.allclose(
            ours, end, 1e-5, 1e-5)
    return when


UPDATE = Exercise(
    "03-5", "One update", 2, 10, 2, "update(net, optimiser, schedule, x0, t, eps, goal)",
    public=update_cases, wanted=descended(), study=LOSS.study,
    tolerance={"float64": 1e-9, "float32": 1e-3},
    mistakes=(
        Mistake("old gradients are still there and add up: clear them before each backward pass",
                when=left_behind(descended(held=1))),
        Mistake("the weights have not moved: the slope must be worked out, and the optimiser told "
                "to step while it is there", when=left_behind(descended(rate=0))),
        Mistake("each step uses the slope of the update before: work it out first",
                when=left_behind(descended(lag=1))),
        Mistake("the weights go uphill", when=left_behind(descended(rate=-1))),
        Mistake("the loss is wanted as a Python float: a tensor would keep its whole graph alive",
                when=lambda got, wanted, args: any(isinstance(v, Tensor) for v in got["losses"])),
        Mistake("nothing is returned: is there a return at the end?",
                when=lambda got, wanted, args: None in got["losses"]),
        Mistake("the loss was worked out anew after the step: return the one from before it",
                descended(after=True)),
    ),
)


# ---- 03-6 one ancestral step -------------------------------------------------------------------


def pair(g: np.random.Generator, low: int = 150, high: int = 900) -> tuple[int, int]:
    """Two times, not neighbours."""
    t = int(g.integers(low, high))
    return t, int(g.integers(20, t - 20))


def guessed(eps: Eps, schedule: Schedule, x: Tensor, t: int, clip: float | None) -> Tensor:
    found = schedule.denoise(x, eps(x, t), t)
    return found if clip is None else found.clip(-clip, clip)


def fused(schedule: Schedule, x: Tensor, x0: Tensor, t: int, s: int) -> tuple[Tensor, float]:
    """Mean and variance of x_s by Bayes: two opinions, each with its precision."""
    if s == 0:
        return x0, 0.0
    then, keep = schedule.level(s), schedule.level(t) / schedule.level(s)
    prior, seen = 1 / (1 - then), keep / (1 - keep)
    mean = prior * math.sqrt(then) * x0 + seen * x / math.sqrt(keep)
    return mean / (prior + seen), 1 / (prior + seen)


def hop(eps: Eps, schedule: Schedule, x: Tensor, t: int, s: int, z: Tensor,
        clip: float | None) -> Tensor:
    mean, variance = fused(schedule, x, guessed(eps, schedule, x, t, clip), t, s)
    return mean + math.sqrt(variance) * z


def stepped(eps, schedule, x, t, *rest) -> dict:
    return {"x": hop(eps, schedule, x, t, *rest), "times asked": [t]}


def step_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, shape: tuple, levels, t: int, s: int, clip: float | None,
             dtype: str) -> Case:
        x, z = g.standard_normal((2, *shape))
        return Case(f"{what}, {dtype}", {"eps": eps, "schedule": levels, "x": x, "t": t, "s": s,
                                         "z": z, "clip": clip}, dtype)

    seed, points = int(g.integers(2**31)), (12, 2)
    t = int(g.integers(200, 900))
    yield case("neighbours, no clipping", named("constant", value=float(g.uniform(0.3, 0.9))),
               points, LINEAR, t, t - 1, None, "float64")
    yield case("a long hop, no clipping", named("mixture", seed=seed), points, COSINE, *pair(g),
               None, "float64")
    yield case("pictures and a small network, clipped", named("unet", seed=seed), (2, 3, 8, 8),
               COSINE, *pair(g, 500), float(g.uniform(0.4, 0.8)), "float32")
    yield case("the first hop of a cosine schedule, clipped", named("mixture", seed=seed), points,
               COSINE, 1000, int(g.integers(800, 950)), float(g.uniform(0.4, 0.8)), "float64")
    yield case("the last hop, clipped", named("mixture", seed=seed, name="linear"), points,
               LINEAR, int(g.integers(30, 300)), 0, float(g.uniform(0.4, 0.8)), "float32")


def loose(noise: Callable[[Schedule, int, int], float]) -> Callable:
    """The step with another factor before z."""
    def wrong(eps, schedule, x, t, s, z, clip):
        mean, _ = fused(schedule, x, guessed(eps, schedule, x, t, clip), t, s)
        return mean + noise(schedule, t, s) * z
    return wrong


def weighed(of_x0: Callable, of_x: Callable) -> Callable:
    """The step with other weights before x0 and x; they get then, now, keep = now / then."""
    def wrong(eps, schedule, x, t, s, z, clip):
        now, then = schedule.level(t), schedule.level(s)
        guess = guessed(eps, schedule, x, t, clip)
        levels = (then, now, now / then)
        return of_x0(*levels) * guess + of_x(*levels) * x + math.sqrt(
            fused(schedule, x, guess, t, s)[1]) * z
    return wrong


def right_x0(then: float, now: float, keep: float) -> float:
    return math.sqrt(then) * (1 - keep) / (1 - now)


def right_x(then: float, now: float, keep: float) -> float:
    return math.sqrt(keep) * (1 - then) / (1 - now)


def next_door(eps, schedule, x, t, s, z, clip):
    """beta_t of the neighbours in a hop to s."""
    beta, now, then = schedule.beta(t), schedule.level(t), schedule.level(s)
    mean = (math.sqrt(then) * beta * guessed(eps, schedule, x, t, clip)
            + math.sqrt(1 - beta) * (1 - then) * x) / (1 - now)
    return mean + math.sqrt(beta * (1 - then) / (1 - now)) * z


def clipped_late(eps, schedule, x, t, s, z, clip):
    y = hop(eps, schedule, x, t, s, z, None)
    return y if clip is None else y.clip(-clip, clip)


NEIGHBOURS = ("this is the beta of the neighbours t and t - 1: on a longer hop it is one minus "
              "the ratio of the two levels")
STEP = Exercise(
    "03-6", "One ancestral step", 3, 15, 4, "ancestral_step(eps, schedule, x, t, s, z, clip)",
    public=step_cases, wanted=stepped, study=SAMPLERS,
    tolerance={"float64": 1e-8, "float32": 1e-3},
    mistakes=(
        Mistake("no fresh noise is added", loose(lambda sch, t, s: 0.0)),
        Mistake("z is multiplied by a variance: its factor is the deviation",
                loose(lambda sch, t, s: sch.beta_tilde(t, s))),
        Mistake("z has the deviation sqrt(beta), that of the forward step: the posterior's is "
                "smaller, and zero in the last hop",
                loose(lambda sch, t, s: math.sqrt(sch.beta(t, s)))),
        Mistake("z has the deviation sqrt(beta), that of the forward step: the posterior's is "
                "smaller, and zero in the last hop",
                loose(lambda sch, t, s: math.sqrt(sch.beta(t, s)) if s else 0.0)),
        Mistake("z comes in at full size", loose(lambda sch, t, s: 1.0)),
        Mistake("z comes in at full size", loose(lambda sch, t, s: float(s > 0))),
        Mistake(NEIGHBOURS, next_door),
        Mistake("the predicted picture is not clipped", lambda eps, sch, x, t, s, z, clip:
                hop(eps, sch, x, t, s, z, None)),
        Mistake("the predicted picture is clipped to 1 whatever clip says",
                lambda eps, sch, x, t, s, z, clip: hop(eps, sch, x, t, s, z, clip and 1.0)),
        Mistake("the result is clipped: only the predicted picture is", clipped_late),
        Mistake("clip belongs on both sides: values below -clip are left", lambda eps, sch, x, t,
                s, z, clip: hop(lambda x, t: (x - math.sqrt(sch.level(t)) * sch.denoise(
                    x, eps(x, t), t).clamp(max=clip)) / math.sqrt(1 - sch.level(t)),
                    sch, x, t, s, z, None)),
        Mistake("the weights of x0 and x have changed places", weighed(right_x, right_x0)),
        Mistake("the weight of x0 holds the root of abar_s",
                weighed(lambda then, now, keep: then * (1 - keep) / (1 - now), right_x)),
        Mistake("the weight of x holds the root of alpha",
                weighed(right_x0, lambda then, now, keep: keep * (1 - then) / (1 - now))),
        Mistake("the weight of x0 holds the level of s, not that of t",
                weighed(lambda then, now, keep: math.sqrt(now) * (1 - keep) / (1 - now), right_x)),
        Mistake("both weights are divided by 1 - abar_t",
                weighed(lambda *levels: right_x0(*levels) * (1 - levels[1]),
                        lambda *levels: right_x(*levels) * (1 - levels[1]))),
        Mistake("the network is asked at s: the noise to read is that in x, at t",
                lambda eps, sch, x, t, s, z, clip:
                hop(lambda x, _: eps(x, max(s, 1)), sch, x, t, s, z, clip)),
        Mistake("the network is asked at s: the noise to read is that in x, at t",
                raised="t = 0 is outside"),
        Mistake("this is the predicted clean picture: it must go back to level s",
                lambda eps, sch, x, t, s, z, clip: guessed(eps, sch, x, t, clip)),
        Mistake("clip may be None: then nothing is clipped", raised="NoneType"),
        Mistake("clip may be None: then nothing is clipped",
                raised="At least one of 'min' or 'max' must not be None"),
        Mistake("the network is asked more often than once: keep its answer",
                when=lambda got, wanted, args: len(got["times asked"]) > 1),
    ),
)


# ---- 03-7 the sampler ---------------------------------------------------------------------------


def path_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, eps, levels, shape: tuple, path: list[int], clip: float | None,
             dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {
            "eps": eps, "schedule": levels, "x": g.standard_normal(shape), "path": path,
            "draw": named("tap", seed=int(g.integers(2**31))), "clip": clip}, dtype)

    seed, clip = int(g.integers(2**31)), float(g.uniform(0.4, 0.8))
    times = sorted(map(int, g.choice(np.arange(20, 980), 5, replace=False)), reverse=True)
    straight = named("linear", name="linear", variance=float(g.uniform(0.2, 0.6)))
    yield case("ten even hops", straight, LINEAR, (5, 2), list(range(1000, -1, -100)), None,
               "float64")
    yield case("uneven hops, clipped", named("mixture", seed=seed), COSINE, (5, 2), [*times, 0],
               clip, "float64")
    yield case("a path that ends above zero", straight, LINEAR, (4, 2), times, None, "float32")
    yield case("pictures and a small network", named("unet", seed=seed), COSINE, (1, 3, 8, 8),
               [*times[2:], 0], clip, "float32")


def walk(path: Callable = list, clip: Callable = lambda c: c, to: Callable = hop,
         fresh: bool = True) -> Callable:
    """What is wanted of a walk whose parts are altered."""
    def wanted(eps, schedule, x, times, draw, bound) -> dict:
        states, kept = [x], None
        for t, s in pairwise(path(times)):
            kept = draw(x) if fresh or kept is None else kept
            states.append(to(eps, schedule, states[-1], t, s, kept, clip(bound)))
        return {"states": states, "times asked": list(eps.times)}
    return wanted


def ends(wrong: Callable) -> Callable:
    """A wrong walk recognised by where it ends, however it got there."""
    def when(got: dict, wanted: dict, args: Mapping[str, Any]) -> bool:
        last, ours = wanted["states"][-1], got["states"]
        if not isinstance(ours, list) or torch.allclose(ours[-1].double(), last, 1e-4, 1e-4):
            return False
        end = wrong(*args.values())["states"][-1]
        return bool(torch.allclose(ours[-1].double(), end, 1e-4, 1e-4))
    return when


def one_by_one(eps, schedule, x, path, draw, clip) -> dict:
    for t in path[:-1]:
        x = hop(eps, schedule, x, t, t - 1, draw(x), clip)
    return {"states": [x]}


def from_the_start(eps, schedule, x, path, draw, clip) -> dict:
    *_, z = (draw(x) for _ in path[1:])
    return {"states": [hop(eps, schedule, x, path[-2], path[-1], z, clip)]}


def same_end(got: dict, wanted: dict, args: Mapping[str, Any]) -> bool:
    return torch.allclose(got["states"][-1].double(), wanted["states"][-1], 1e-4, 1e-4)


WALK = Exercise(
    "03-7", "The sampler", 3, 10, 2, "sample(eps, schedule, x, path, draw, clip)",
    public=path_cases, wanted=walk(), study=SAMPLERS,
    tolerance={"float64": 1e-8, "float32": 5e-3}, seconds=8,
    mistakes=(
        Mistake("the end alone came back: all states are wanted, in a list that begins with x",
                when=lambda got, wanted, args: isinstance(got["states"], Tensor)
                and got["states"].shape == args["x"].shape),
        Mistake("the states stand in one tensor: a list is wanted, one tensor a time of the path",
                when=lambda got, wanted, args: isinstance(got["states"], Tensor)
                and len(got["states"]) == len(args["path"])),
        Mistake("x is missing: it is the first state of the list, at level path[0]",
                when=lambda got, wanted, args: len(got["states"]) == len(args["path"]) - 1
                and same_end(got, wanted, args)),
        Mistake("every state in the list is the same tensor: a step must make a new one",
                when=lambda got, wanted, args: len({v.data_ptr() for v in got["states"]}) == 1
                and len(got["states"]) > 1),
        Mistake("the last hop of the path is not taken", when=ends(walk(path=lambda p: p[:-1]))),
        Mistake("the first hop of the path is not taken", when=ends(walk(path=lambda p: p[1:]))),
        Mistake("one and the same noise is used in every hop: draw anew for each",
                when=ends(walk(fresh=False))),
        Mistake("fresh noise never enters", when=ends(walk(to=lambda eps, sch, x, t, s, z, clip:
                                                           hop(eps, sch, x, t, s, 0 * z, clip)))),
        Mistake("each step goes from t to t - 1: it must reach the next time of the path",
                when=ends(one_by_one)),
        Mistake(NEIGHBOURS, when=ends(walk(to=next_door))),
        Mistake("every hop begins at the first x again: each must go on from the last",
                when=ends(from_the_start)),
        Mistake("clip has no effect", when=ends(walk(clip=lambda c: None))),
        Mistake("the network is asked at the time where the hop ends: ask where it begins",
                when=ends(walk(to=lambda eps, sch, x, t, s, z, clip: hop(
                    lambda x, _: eps(x, max(s, 1)), sch, x, t, s, z, clip)))),
        Mistake("the network is asked at the time where the hop ends: ask where it begins",
                raised="t = 0 is outside"),
        Mistake("the network is asked more often than once a hop",
                when=lambda got, wanted, args: len(got["times asked"]) > len(wanted["times asked"])
                and same_end(got, wanted, args)),
    ),
)

EXERCISES = (EMBED, MODULATE, BLOCK, LOSS, UPDATE, STEP, WALK)
