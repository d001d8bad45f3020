"""Lab 11: a zero convolution, a control, guidance with a hint; LoRA, its fit, and mixtures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coursekit.classroom.check.calls.lab11 import (
    Hinted,
    Learner,
    Trunk,
    adapted,
    asked,
    fitted,
    held,
)
from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.spec import (
    Case,
    Exercise,
    Mistake,
    hops,
    named,
    no_dict,
    says,
    uneven,
)
from coursekit.diffusion.schedule import Schedule

NETS = "coursekit.nets"
GRADIENTS = ("torch.autograd.grad", "torch.autograd.backward", "torch.nn.grad.conv2d_input",
             "torch.nn.grad.conv2d_weight")
LORA = tuple(f"{NETS}.lora.{f}" for f in ("LoRALinear.forward", "Lora.delta", "Lora.fresh",
                                          "applied", "merge", "mix", "_side_by_side"))
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")


def seed(g: np.random.Generator) -> int:
    return int(g.integers(2**31))


near = partial(alike, double=1e-4, single=1e-4)


def only(name: str, wrong: Callable) -> Callable:
    """Whether that one of several results is wrong(**args)."""
    def when(got: Any, wanted: dict, args: dict) -> bool:
        return isinstance(got, dict) and not near(got[name], wanted[name]) and near(
            got[name], wrong(**args))
    return when


# ---- 11-1 a zero convolution -------------------------------------------------------------------


def zero_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, n: int, c: int, o: int, side: tuple[int, int], dtype: str,
             size: float = 1.0) -> Case:
        return Case(f"{what}, {dtype}", {
            "h": g.standard_normal((n, c, *side)), "W": size * g.standard_normal((o, c)),
            "b": size * g.standard_normal(o), "g": g.standard_normal((n, o, *side))}, dtype)

    yield case("a fresh one", 2, 3, 4, (3, 5), "float64", 0.0)
    yield case("one place of one picture", 1, 3, 2, (1, 1), "float32")
    yield case("as many channels out as in", 2, 4, 4, (2, 3), "float64")
    yield case("three pictures, after a step", 3, 5, 2, (4, 3), "float32", 0.1)


def by_torch(h: Tensor, W: Tensor, b: Tensor, g: Tensor) -> dict[str, Tensor]:
    """The convolution and its gradients, by torch's own."""
    with torch.enable_grad():
        given = [v.detach().requires_grad_() for v in (W, b, h)]
        y = F.conv2d(given[2], given[0][:, :, None, None], given[1])
        dW, db, dh = torch.autograd.grad(y, given, g)
    return {"y": y.detach(), "dW": dW, "db": db, "dh": dh}


def over(h: Tensor, g: Tensor) -> Tensor:
    """What comes back times what goes in, at every place: (n, h, w, o, c)."""
    return g.movedim(1, -1)[..., None] * h.movedim(1, -1)[..., None, :]


def to_all(W: Tensor, x: Tensor) -> Tensor:
    return F.conv2d(x, W[:, :, None, None])


NOT_W = "the weight's gradient"
ZERO = Exercise(
    "11-1", "A weight of zero that learns", 2, 10, 3, "zero_convolution(h, W, b, g)",
    public=zero_cases, wanted=by_torch, study=GRADIENTS,
    mistakes=(
        Mistake("four tensors are returned, in a tuple: y, dW, db, dh", when=no_dict),
        Mistake("y: the bias is missing", when=only("y", lambda h, W, b, g: to_all(W, h))),
        Mistake("y: W is turned about: its rows are the channels that come out",
                when=only("y", lambda h, W, b, g: to_all(W.T, h) + b[:, None, None])),
        Mistake(f"{NOT_W} is zero where W is: it does not contain W",
                when=only("dW", lambda h, W, b, g: 0 * W)),
        Mistake(f"{NOT_W} does not contain W: it is what comes back times what goes in",
                when=only("dW", lambda h, W, b, g: W * over(h, g).sum((0, 1, 2)))),
        Mistake(f"{NOT_W} is a mean over places and pictures: it is the sum",
                when=only("dW", lambda h, W, b, g: over(h, g).mean((0, 1, 2)))),
        Mistake(f"{NOT_W} is a mean over pictures: it is the sum",
                when=only("dW", lambda h, W, b, g: over(h, g).sum((1, 2)).mean(0))),
        Mistake(f"{NOT_W} is a mean over places: it is the sum",
                when=only("dW", lambda h, W, b, g: over(h, g).mean((1, 2)).sum(0))),
        Mistake(f"{NOT_W} is that of the first picture: all pictures count",
                when=only("dW", lambda h, W, b, g: over(h, g)[0].sum((0, 1)))),
        Mistake(f"{NOT_W} is that of each picture by itself: pictures are summed up",
                when=only("dW", lambda h, W, b, g: over(h, g).sum((1, 2)))),
        Mistake(f"{NOT_W} is turned about: it has the shape of W",
                when=only("dW", lambda h, W, b, g: over(h, g).sum((0, 1, 2)).T)),
        Mistake(f"{NOT_W} mixes places: what comes back at a place meets what went in there",
                when=only("dW", lambda h, W, b, g: g.sum((2, 3)).T @ h.sum((2, 3)))),
        Mistake(f"{NOT_W} mixes pictures and places: what comes back at a place meets what went "
                "in there", when=only("dW", lambda h, W, b, g: torch.outer(
                    g.sum((0, 2, 3)), h.sum((0, 2, 3))))),
        Mistake("the bias's gradient is a mean: it is the sum of what comes back",
                when=only("db", lambda h, W, b, g: g.mean((0, 2, 3)))),
        Mistake("the bias's gradient is a mean over pictures: it is the sum of what comes back",
                when=only("db", lambda h, W, b, g: g.sum((2, 3)).mean(0))),
        Mistake("the bias's gradient is that of each picture by itself: pictures are summed up",
                when=only("db", lambda h, W, b, g: g.sum((2, 3)))),
        Mistake("the bias's gradient is one number: each channel has its own",
                when=lambda got, wanted, args: got["db"].numel() == 1 < wanted["db"].numel()),
        Mistake("the bias's gradient does not contain b",
                when=only("db", lambda h, W, b, g: b * g.sum((0, 2, 3)))),
        Mistake("the input's gradient goes through W turned about: from what comes out to what "
                "goes in", when=only("dh", lambda h, W, b, g: to_all(W, g))),
        Mistake("the input's gradient contains W: with W zero nothing passes on",
                when=only("dh", lambda h, W, b, g: g)),
        Mistake("the input's gradient contains W: with W zero nothing passes on",
                when=only("dh", lambda h, W, b, g: to_all(torch.ones_like(W.T), g))),
        Mistake("the input's gradient is zero only while W is: it contains W, whatever W is now",
                when=only("dh", lambda h, W, b, g: 0 * h)),
        Mistake("the input's gradient has no bias in it",
                when=only("dh", lambda h, W, b, g: to_all(W.T, g - b[:, None, None]))),
        Mistake("the input's gradient has no bias in it",
                when=only("dh", lambda h, W, b, g: to_all(W.T, g + b[:, None, None]))),
        *(Mistake("gradients point uphill: the minus belongs to the step",
                  when=only(name, lambda h, W, b, g, name=name: -by_torch(h, W, b, g)[name]))
          for name in ("dW", "db", "dh")),
    ),
)


# ---- 11-2 a control of our own -----------------------------------------------------------------


def held_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, widths: Sequence[int], hints: int, dtype: str, frozen: bool) -> Case:
        return Case(f"{what}, {dtype}", {
            "net": named("trunk", seed=seed(g), widths=list(widths), frozen=frozen),
            "hint_channels": hints}, dtype)

    yield case("three skips", [6] * 4, 3, "float64", False)
    yield case("a network that is frozen already", [5] * 3, 1, "float32", True)
    yield case("a width for each skip", [4, 6, 5, 7], 2, "float64", False)
    yield case("two skips, five channels of hint", [6] * 3, 5, "float32", False)


def nothing(inside: int, out: int) -> nn.Conv2d:
    conv = nn.Conv2d(inside, out, 1)
    for p in conv.parameters():
        p.data.zero_()
    return conv


class Beside(nn.Module):
    """A control whose parts may be altered: where the hint comes in, what is added, and how."""

    def __init__(self, net: Trunk, hint_channels: int, *,
                 enters: Callable = lambda part, x, hint, s: part.input(x) + hint,
                 trunk: Callable = lambda h, hint: h, order: Callable = lambda found: found,
                 add: Callable = lambda skip, r, s, last: skip + s * r,
                 whole: Callable = lambda out, plain, s: out,
                 last: Callable = lambda part, h, t: part.middle(h, t),
                 source: Callable = lambda copy, net: copy) -> None:
        super().__init__()
        self.net, self.copy = net, deepcopy(net.encoder)
        self.enter = nothing(hint_channels, net.widths[0])
        self.leave = nn.ModuleList(nothing(c, c) for c in net.widths)
        self.requires_grad_(True)
        self.net.requires_grad_(False)
        self.parts = enters, trunk, order, add, whole, last, source

    def forward(self, x: Tensor, t: int, hint: Tensor, strength: float = 1.0) -> Tensor:
        enters, trunk, order, add, whole, last, source = self.parts

        def climb(part: nn.Module, h: Tensor) -> list[Tensor]:
            found = [h]
            for block in part.blocks:
                found.append(block(found[-1], t))
            return found[1:]

        z = self.enter(hint)
        ours = climb(self.net.encoder, trunk(self.net.encoder.input(x), z))
        ours.append(self.net.encoder.middle(ours[-1], t))
        twin = source(self.copy, self.net.encoder)
        theirs = climb(twin, enters(self.copy, x, z, strength))
        theirs.append(last(twin, theirs[-1], t))
        found = order([joint(m) for joint, m in zip(self.leave, theirs, strict=True)])
        *skips, h = (add(a, r, strength, k == len(found) - 1)
                     for k, (a, r) in enumerate(zip(ours, found, strict=True)))
        return whole(self.net.decoder(h, skips, t), lambda: self.net(x, t), strength)


def beside(**parts: Any) -> Callable:
    """What is seen of a control with altered parts."""
    return lambda net, n: held(lambda net, n: Beside(net, n, **parts), net, n)


def as_filled(wrong: Callable) -> Callable:
    """A wrong control recognised by what comes out with drawn weights, however it begins."""
    def when(got: Any, wanted: dict, args: dict) -> bool:
        names = [name for name in ("output", "weaker") if not near(got[name], wanted[name])]
        if not names:
            return False
        end = wrong(**args)
        return all(near(got[name], end[name]) for name in names)
    return when


def wired(**parts: Any) -> Callable:
    made = beside(**parts)
    return as_filled(lambda net, hint_channels: made(net, hint_channels))


def not_zero(got: Any, wanted: dict, args: dict) -> bool:
    return any("not zero" in words for words in (got["enter"], *got["leave"]))


BEFORE = "the copy sees the noisy picture and the hint: Z(c) is added to what its input gives"
HELD = Exercise(
    "11-2", "A control of your own", 4, 25, 4, "Controlled(net, hint_channels)",
    public=held_cases, wanted=beside(), tolerance={"float64": 1e-8, "float32": 1e-3},
    study=tuple(f"{NETS}.hinted.{f}" for f in ("Copy.forward", "Controlled.forward", "zero_conv")),
    mistakes=(
        Mistake("every joint begins at zero, its weight and its bias, so that a fresh control "
                "changes nothing", when=not_zero),
        Mistake("a joint is a convolution of 1x1 with a bias",
                when=lambda got, wanted, args: got["enter"] != wanted["enter"]
                or len(got["leave"]) == len(wanted["leave"]) and got["leave"] != wanted["leave"]),
        Mistake("the middle has a joint of its own: one more than there are skips",
                when=lambda got, wanted, args: len(got["leave"]) == len(wanted["leave"]) - 1),
        Mistake("the copy is the trunk itself: what it learns, the trunk forgets, so copy the "
                "weights as well", when=says("the trunk's own weights", "as they were")),
        Mistake("the trunk is not frozen: its weights take gradients",
                when=says("trunk weights with a gradient", 0)),
        Mistake("the copy does not learn: a copy of what is frozen is frozen, until it is told "
                "otherwise", when=lambda got, wanted, args: got["gradient of copy.input"] is None
                and got["numbers that learn"] < wanted["numbers that learn"]),
        Mistake("something else than the copy of the encoder and the joints learns, or not all "
                "of them", when=lambda got, wanted, args: got["numbers that learn"]
                != wanted["numbers that learn"] and got["gradient of copy.input"] is not None
                and not got["trunk weights with a gradient"]),
        Mistake("the residuals carry no gradient: the copy must learn through the frozen decoder",
                when=lambda got, wanted, args: near(got["output"], wanted["output"])
                and got["gradient of leave[0]"] is None),
        Mistake("the copy carries no gradient: only the trunk is frozen",
                when=lambda got, wanted, args: near(got["output"], wanted["output"])
                and got["numbers that learn"] == wanted["numbers that learn"]
                and got["gradient of copy.input"] is None
                and got["gradient of leave[0]"] is not None),
        Mistake("the hint enters the trunk, too: the copy alone sees it",
                when=wired(trunk=torch.add)),
        Mistake("the hint enters the trunk: the copy sees it",
                when=wired(trunk=torch.add, enters=lambda part, x, z, s: part.input(x))),
        Mistake("the hint has no effect", when=wired(enters=lambda part, x, z, s: part.input(x))),
        Mistake(BEFORE, when=wired(enters=lambda part, x, z, s: z)),
        Mistake(BEFORE, when=wired(enters=lambda part, x, z, s: part.input(0 * x) + z)),
        Mistake("the strength multiplies the hint, too: the residuals alone",
                when=wired(enters=lambda part, x, z, s: part.input(x) + s * z)),
        Mistake("the strength multiplies the hint: it multiplies the residuals",
                when=wired(enters=lambda part, x, z, s: part.input(x) + s * z,
                           add=lambda a, r, s, last: a + r)),
        Mistake("the strength has no effect", when=wired(add=lambda a, r, s, last: a + r)),
        Mistake("the strength multiplies the skips as well: the residuals alone",
                when=wired(add=lambda a, r, s, last: s * (a + r))),
        Mistake("the strength mixes two outputs: it multiplies the residuals",
                when=wired(add=lambda a, r, s, last: a + r,
                           whole=lambda out, plain, s: torch.lerp(plain(), out, s))),
        Mistake("skips are mixed with residuals: these are added", when=wired(
            add=lambda a, r, s, last: torch.lerp(a, r, s))),
        Mistake("the strength is missing at the middle",
                when=wired(add=lambda a, r, s, last: a + (1 if last else s) * r)),
        Mistake("the residual of the middle is missing",
                when=wired(add=lambda a, r, s, last: a if last else a + s * r)),
        Mistake("the residuals of the skips are missing",
                when=wired(add=lambda a, r, s, last: a + s * r if last else a)),
        Mistake("the residuals take the place of the skips: they are added",
                when=wired(add=lambda a, r, s, last: s * r)),
        Mistake("the residuals are taken off: they are added",
                when=wired(add=lambda a, r, s, last: a - s * r)),
        Mistake("the residuals come in the wrong order: each goes to the skip of its own block",
                when=wired(order=lambda found: [*found[-2::-1], found[-1]])),
        Mistake("the copy's middle has not been passed: its joint reads what comes out of it",
                when=wired(last=lambda part, h, t: h)),
        Mistake("the trunk's own encoder was run with the hint: the copy's blocks should be",
                when=wired(source=lambda copy, encoder: encoder)),
        Mistake("leave is a torch.nn.ModuleList: the weights of a plain list are nobody's",
                raised="'list' object has no attribute"),
        Mistake("the names are net, copy, enter and leave, as the text has them",
                raised="object has no attribute"),
        Mistake("under no_grad nothing learns: freeze the weights and let gradients pass",
                raised="does not require grad"),
        Mistake("forward takes x, t, hint and, if given, strength", raised="positional argument"),
    ),
)


# ---- 11-3 guidance with a hint -----------------------------------------------------------------


def steer_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, S: int, K: int, window: tuple[float, float], both: bool, fade: bool,
             dtype: str, *, prompt: str = "a fox", w: float = 0.0) -> Case:
        return Case(f"{what}, {dtype}", {
            "eps": named("hinted", seed=seed(g), K=K), "prompt": prompt,
            "path": [*uneven(g, S, 60, 900), 0], "K": K, "w": w or float(g.uniform(2, 5)),
            "strength": float(g.uniform(0.5, 0.9)), "window": window, "both": both,
            "fade": fade}, dtype)

    yield case("a window of whole hops", 5, 2, (0.2, 0.6), True, False, "float64")
    yield case("guess mode", 3, 4, (0.0, 1.0), False, True, "float32")
    yield case("the hint in both halves", 4, 3, (0.0, 1.0), True, False, "float64")
    yield case("a window that cuts through hops, finer maps less", 6, 5, (0.29, 0.62), True, True,
               "float32")
    yield case("no words, the hint in one half", 4, 3, (0.0, 0.6), False, False, "float64",
               prompt="")
    yield case("weight one, an empty window", 4, 2, (0.5, 0.6), True, True, "float64", w=1.0)


def rising(k: int, K: int) -> float:
    return 0.1 * 10 ** (k / K)


class Steered:
    """The predictor, with parts to be altered."""

    def __init__(self, eps: Hinted, prompt: str, path: Sequence[int], K: int, w: float,
                 strength: float, window: Sequence[float], both: bool, fade: bool, *,
                 rises: Callable = rising, fades: Callable = lambda fade: fade,
                 opens: Callable = lambda i, a, b, S: hops(a, S) <= i < hops(b, S),
                 number: Callable = lambda path, t, calls: path.index(t),
                 size: Callable = lambda strength, factor: strength * factor,
                 halves: Callable = lambda both, on, off: (on if both else off, on),
                 mix: Callable = lambda n, p, w: n + w * (p - n),
                 words: Callable = lambda prompt: ("", prompt)) -> None:
        self.eps, self.w, self.path, self.words = eps, w, list(path), words(prompt)
        self.calls, self.mix, self.number = 0, mix, number
        factors = [rises(k, K) if fades(fade) else 1.0 for k in range(K + 1)]
        self.on, off = [size(strength, f) for f in factors], [0.0] * (K + 1)
        self.halves = halves(both, self.on, off)
        self.off = halves(both, off, off)
        self.opens = lambda i: opens(i, *window, len(path) - 1)

    def __call__(self, z: Tensor, t: int) -> Tensor:
        i = self.number(self.path, t, self.calls)
        self.calls += 1
        scales = self.halves if self.opens(i) else self.off
        return self.mix(*(self.eps(z, t, said, some) for said, some in zip(
            self.words, scales, strict=True)), self.w)


def steering(**parts: Callable) -> Callable:
    """What is seen of such a predictor, by the check's own questions."""
    return lambda *args: asked(lambda *args: Steered(*args, **parts), *args)


FLOOR = ("numbers of hops are cut off, not rounded, and shares are not compared themselves: hop i "
         "acts if hops(a, S) <= i < hops(b, S)")
STEER = Exercise(
    "11-3", "What guidance multiplies", 3, 15, 3,
    "steered(eps, prompt, path, K, w, strength, window, both, fade)",
    public=steer_cases, wanted=steering(), tolerance={"float64": 1e-5, "float32": 1e-3},
    study=("coursekit.edits.controlnet.under", "coursekit.edits.controlnet._gate",
           "coursekit.edits.controlnet._hops", "coursekit.edits.controlnet.residuals",
           "coursekit.diffusion.predict.guided", "coursekit.diffusion.predict.mixed"),
    mistakes=(
        Mistake("a function of z and t is asked for: define it inside, and return it",
                when=no_dict),
        Mistake("the hint is in the negative half, too: where `both` is false it is not",
                steering(halves=lambda both, on, off: (on, on))),
        Mistake("the hint is missing in the negative half: where `both` is true it is there",
                steering(halves=lambda both, on, off: (off, on))),
        Mistake("`both` is turned about: true means the hint in both halves",
                steering(halves=lambda both, on, off: (off if both else on, on))),
        Mistake("the hint is in the negative half alone: the prompt's half always has it",
                steering(halves=lambda both, on, off: (on, on if both else off))),
        Mistake("the hint has no effect", steering(halves=lambda both, on, off: (off, off))),
        Mistake("the factors fall: the first and finest counts least, the middle for one",
                steering(rises=lambda k, K: rising(K - k, K))),
        Mistake("the factors do not reach one: there are K skips and a middle, so k / K ends at "
                "one", steering(rises=lambda k, K: rising(k, K + 1))),
        Mistake("the factors rise by the same amount: they rise by the same factor",
                steering(rises=lambda k, K: 0.1 + 0.9 * k / K)),
        Mistake("the factors begin at one and grow: they begin at a tenth and end at one",
                steering(rises=lambda k, K: 10 ** (k / K))),
        Mistake("the factors are powers of e: powers of ten",
                steering(rises=lambda k, K: math.exp(k / K - 1))),
        Mistake("finer maps count less where `fade` says so, and there alone",
                steering(fades=lambda fade: True)),
        Mistake("`fade` has no effect", steering(fades=lambda fade: False)),
        Mistake("`fade` is turned about", steering(fades=lambda fade: not fade)),
        Mistake("the strength has no effect", steering(size=lambda strength, f: f)),
        Mistake("the strength has no effect where finer maps count less: the two are multiplied",
                steering(size=lambda strength, f: f if f < 1 else strength)),
        Mistake("strength and factor are added: they are multiplied",
                steering(size=lambda strength, f: strength + f if f < 1 else strength)),
        Mistake("the strength is multiplied twice",
                steering(size=lambda strength, f: strength**2 * f)),
        Mistake("the window has no effect", steering(opens=lambda i, a, b, S: True)),
        Mistake("the window is turned about: the hint acts while it is open",
                steering(opens=lambda i, a, b, S: not hops(a, S) <= i < hops(b, S))),
        Mistake("the window is a hop too long: its end is not in it",
                steering(opens=lambda i, a, b, S: hops(a, S) <= i <= hops(b, S))),
        Mistake("the window begins a hop too late: its beginning is in it",
                steering(opens=lambda i, a, b, S: hops(a, S) < i < hops(b, S))),
        Mistake("the beginning of the window has no effect",
                steering(opens=lambda i, a, b, S: i < hops(b, S))),
        Mistake("the end of the window has no effect",
                steering(opens=lambda i, a, b, S: i >= hops(a, S))),
        Mistake("the window is counted from the clean end: the first hops are the noisy ones",
                steering(opens=lambda i, a, b, S: hops(a, S) <= S - 1 - i < hops(b, S))),
        Mistake(FLOOR, steering(opens=lambda i, a, b, S: a - 1e-9 <= i / S < b - 1e-9)),
        Mistake(FLOOR, steering(opens=lambda i, a, b, S: a <= i / S <= b)),
        Mistake(FLOOR, steering(opens=lambda i, a, b, S: round(a * S) <= i < round(b * S))),
        Mistake("windows are shares of the hops: not of the times", steering(
            number=lambda path, t, calls: (1000 - t) / 1000 * (len(path) - 1))),
        Mistake("windows are counted by calls: a predictor may be asked in any order, so look "
                "for t in the path", steering(number=lambda path, t, calls: calls)),
        Mistake("windows are counted by calls: a predictor may be asked in any order, so look "
                "for t in the path", steering(number=lambda path, t, calls: calls // 2)),
        Mistake("windows are counted by calls: a predictor may be asked in any order, so look "
                "for t in the path", steering(number=lambda path, t, calls:
                                              calls % (len(path) - 1))),
        Mistake("there is no guidance: w leads away from the empty prompt",
                steering(mix=lambda n, p, w: p)),
        Mistake("the two ends of guidance have changed places: weight one is the prompt",
                steering(mix=lambda n, p, w: p + w * (n - p))),
        Mistake("guidance is too strong by one: at w one it is the prompt's prediction alone",
                steering(mix=lambda n, p, w: p + w * (p - n))),
        Mistake("the negative half has the words as well: it has the empty prompt",
                steering(words=lambda prompt: (prompt, prompt))),
        Mistake("scales are K + 1 numbers, one for each skip and one for the middle, or None",
                raised="scales is"),
    ),
)


# ---- 11-4 LoRA ---------------------------------------------------------------------------------


def lora_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, d: int, k: int, r: int, alpha: float, dtype: str,
             bias: bool = True) -> Case:
        return Case(f"{what}, {dtype}", {
            "layer": named("layer", seed=seed(g), d=d, k=k, bias=bias), "r": r, "alpha": alpha,
            "generator": named("generator", seed=seed(g))}, dtype)

    yield case("alpha larger than the rank", 7, 100, 4, float(g.uniform(6, 9)), "float64")
    yield case("as many channels out as in", 90, 90, 3, float(g.uniform(1, 2)), "float32")
    yield case("a layer without bias", 60, 80, 5, float(g.uniform(2, 4)), "float64", False)
    yield case("rank one", 5, 300, 1, float(g.uniform(0.3, 0.7)), "float32")


class Adapted(nn.Module):
    """A layer with an update whose parts may be altered."""

    def __init__(self, layer: nn.Linear, r: int, alpha: float, generator: torch.Generator, *,
                 scale: Callable = lambda alpha, r: alpha / r,
                 out: Callable = lambda base, update, s: base + s * update,
                 merged: Callable = lambda W, BA, s, bias: W + s * BA) -> None:
        super().__init__()
        d, k = layer.weight.shape
        self.layer = layer.requires_grad_(False)
        drawn = torch.randn(r, k, generator=generator, dtype=torch.float64) / r
        self.A = nn.Parameter(drawn.to(layer.weight))
        self.B = nn.Parameter(layer.weight.new_zeros(d, r))
        self.s, self.out, self.whole = scale(alpha, r), out, merged

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x), torch.einsum("...k,rk,dr->...d", x, self.A, self.B), self.s)

    def merged(self) -> Tensor:
        return self.whole(self.layer.weight, torch.einsum("dr,rk->dk", self.B, self.A), self.s,
                          self.layer.bias)


def adapting(**parts: Callable) -> Callable:
    return lambda *args: adapted(lambda *args: Adapted(*args, **parts), *args)


def comes(name: str, **parts: Callable) -> Callable:
    """A wrong layer recognised by one of the things that come of drawn factors."""
    made = adapting(**parts)

    def when(got: Any, wanted: dict, args: dict) -> bool:
        return not near(got[name], wanted[name]) and near(got[name], made(*args.values())[name])
    return when


def scaled(scale: Callable, words: str) -> tuple[Mistake, ...]:
    return tuple(Mistake(words, when=comes(name, scale=scale)) for name in ("output", "merged"))


ADAPT = Exercise(
    "11-4", "A small change of a large weight", 3, 15, 3, "LoRALinear(layer, r, alpha, generator)",
    public=lora_cases, wanted=adapting(), study=LORA,
    tolerance={"float64": 1e-8, "float32": 1e-3},
    mistakes=(
        Mistake("the factor is alpha / r: alpha is missing or stands below",
                when=comes("output", scale=lambda alpha, r: 1 / r)),
        *scaled(lambda alpha, r: 1.0, "the factor alpha / r is missing"),
        *scaled(lambda alpha, r: alpha, "the factor is alpha / r: r is missing"),
        *scaled(lambda alpha, r: r / alpha, "the factor is turned about: alpha / r"),
        *scaled(lambda alpha, r: alpha * r, "the factor is alpha / r: divided by r, not times r"),
        *scaled(lambda alpha, r: alpha / r**0.5, "the factor is alpha / r: not by r's root"),
        Mistake("the factor is there twice", when=comes("output", scale=lambda a, r: (a / r)**2)),
        Mistake("the update takes the place of the layer: it comes beside it",
                when=comes("output", out=lambda base, update, s: s * update)),
        Mistake("the factor multiplies the layer, too: the update alone",
                when=comes("output", out=lambda base, update, s: s * (base + update))),
        Mistake("the update is taken off: it is added",
                when=comes("output", out=lambda base, update, s: base - s * update)),
        Mistake("the update has no effect: B A x is added to what the layer gives",
                when=comes("output", out=lambda base, update, s: base)),
        Mistake("the bias is missing, or there twice: it is the layer's own, once",
                when=lambda got, wanted, args: args["layer"].bias is not None and any(
                    near(got["output"], wanted["output"] + sign * args["layer"].bias)
                    for sign in (1, -1))),
        Mistake("merged() lacks the layer's weight: it is added to the update",
                when=comes("merged", merged=lambda W, BA, s, bias: s * BA)),
        Mistake("merged() lacks the update", when=comes(
            "merged", merged=lambda W, BA, s, bias: W)),
        Mistake("merged() has the bias in it: it is the weight alone", when=comes(
            "merged", merged=lambda W, BA, s, bias: W + s * BA + bias[:, None])),
        Mistake("merged() has the update turned about: B A has the shape of the weight",
                when=comes("merged", merged=lambda W, BA, s, bias: W + s * BA.T)),
        Mistake("merged() writes into the layer: make a new tensor",
                when=says("the layer's own weight", "as it was")),
        Mistake("A reads what the layer reads and is (r, k), B writes and is (d, r)",
                when=lambda got, wanted, args: got["A"].split(",")[0] != wanted["A"].split(",")[0]
                or got["B"].split(",")[0] != wanted["B"].split(",")[0]),
        Mistake("B begins at zero, so that a fresh one changes nothing",
                when=lambda got, wanted, args: got["B"].endswith("random")),
        Mistake("A begins random: where both factors are zero, neither ever moves",
                when=lambda got, wanted, args: got["A"].endswith("zero")),
        Mistake("A is normal with deviation 1 / r", when=lambda got, wanted, args:
                got["A"].endswith("random") and got["deviation of A"] != "1 / r"),
        Mistake("A is drawn with the generator that is given, and with nothing else",
                when=lambda got, wanted, args: got["A"].endswith("random")
                and got["A by the generator"] != [True, False]),
        Mistake("the layer is not frozen: A and B alone learn", when=lambda got, wanted, args:
                set(got["learns"]) > {"A", "B"}),
        Mistake("A and B learn: make both an nn.Parameter", when=lambda got, wanted, args:
                not {"A", "B"} <= set(got["learns"])),
        Mistake("A and B have the dtype of the layer's weight", raised="same dtype"),
        Mistake("A and B have the dtype of the layer's weight", raised="but found"),
        Mistake("under no_grad nothing learns: freeze the layer and let gradients pass",
                when=lambda got, wanted, args: near(got["output"], wanted["output"])
                and got["gradient of A"] is None and got["learns"] == ["A", "B"]),
        Mistake("the names are A, B and merged, as the text has them",
                raised="object has no attribute"),
        Mistake("what goes in has its channels last, after any number of axes: x A^T, then B^T",
                raised="shapes cannot be multiplied"),
    ),
)


# ---- 11-5 the fit ------------------------------------------------------------------------------


def fit_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, steps: int, n: int, prediction: str, dtype: str, *, fresh: bool = True,
             frozen: bool = False, schedule: Any = COSINE) -> Case:
        return Case(f"{what}, {dtype}", {
            "net": named("learner", seed=seed(g), fresh=fresh, frozen=frozen),
            "schedule": schedule, "prediction": prediction,
            "x0": g.standard_normal((1, 2, 3)),
            "times": g.integers(100, 950, (steps, n)) + np.arange(n) * 7,
            "noises": g.standard_normal((steps, n, 2, 3)), "lr": float(g.uniform(0.02, 0.05))},
            dtype)

    yield case("all else is frozen already, B has begun", 4, 2, "eps", "float64", fresh=False,
               frozen=True)
    yield case("a network that says v", 4, 3, "v", "float64")
    yield case("a network that says eps", 3, 4, "eps", "float32", schedule=LINEAR)
    yield case("one update", 1, 5, "v", "float32")


def asked_for(schedule: Schedule, prediction: str, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
    if prediction == "eps":
        return eps
    angle = schedule.abar.to(x0)[t].sqrt().acos().view(-1, 1, 1)
    return angle.cos() * eps - angle.sin() * x0


def learn(net: Learner, schedule: Schedule, prediction: str, x0: Tensor, times: Tensor,
          noises: Tensor, lr: float, *, goal: Callable = asked_for,
          which: Callable = lambda name: name.endswith((".A", ".B")),
          optim: Callable = torch.optim.Adam, fresh_each: bool = False, clears: bool = True,
          loss: Callable = F.mse_loss, noisy: Callable = lambda schedule, x0, eps, t:
          schedule.noise(x0, eps, t), at: Callable = lambda t: t, walks: bool = True,
          steps: Callable = lambda pairs: pairs, freezes: bool = True,
          late: bool = False) -> list[float]:
    """The loop, with parts to be altered."""
    chosen = {name: p for name, p in net.named_parameters() if which(name)}
    for name, p in net.named_parameters():
        if freezes:
            p.requires_grad_(name in chosen)
    optimiser, said = optim(chosen.values(), lr=lr), []

    def misfit(t: Tensor, eps: Tensor) -> Tensor:
        clean = x0.expand_as(eps)
        wanted = goal(schedule, prediction, clean, eps, t)
        return loss(net(noisy(schedule, clean, eps, t), at(t)), wanted)

    for t, eps in steps(list(zip(times, noises, strict=True))):
        if fresh_each:
            optimiser = optim(chosen.values(), lr=lr)
        if clears:
            optimiser.zero_grad()
        value = misfit(t, eps)
        value.backward()
        if walks:
            optimiser.step()
        said.append((misfit(t, eps) if late else value).item())
    return said


def learnt(**parts: Any) -> Callable:
    """What is seen of such a loop."""
    return lambda *args: fitted(lambda *args: learn(*args, **parts), *args)


def v_of(by: Callable) -> Callable:
    """Another target in the place of v."""
    def goal(schedule: Schedule, prediction: str, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        if prediction == "eps":
            return eps
        level = schedule.abar.to(x0)[t].view(-1, 1, 1)
        return by(level.sqrt(), (1 - level).sqrt(), x0, eps)
    return goal


def fits(words: str, **parts: Any) -> Mistake:
    """Recognised by the losses and by what A and B have become."""
    made = learnt(**parts)

    def when(got: Any, wanted: dict, args: dict) -> bool:
        if not isinstance(got, dict):
            return False
        names = [name for name, v in wanted.items() if isinstance(v, Tensor)]
        wrong = made(*args.values())
        losses = [torch.tensor(d["losses"], dtype=torch.float64) for d in (got, wrong, wanted)]
        right = near(losses[0], losses[2]) and all(near(got[n], wanted[n]) for n in names)
        return not right and near(*losses[:2]) and all(near(got[n], wrong[n]) for n in names)
    return Mistake(words, when=when)


FIT = Exercise(
    "11-5", "Fit a portrait", 3, 20, 4, "fit(net, schedule, prediction, x0, times, noises, lr)",
    public=fit_cases, wanted=learnt(), tolerance={"float64": 1e-7, "float32": 5e-3},
    study=(f"{NETS}.lora_fit.fit", f"{NETS}.lora_fit._fit", f"{NETS}.lora_fit._output",
           "coursekit.diffusion.predict.target", "coursekit.diffusion.train.train"),
    mistakes=(
        Mistake("a list of numbers is asked for: the loss of every update", when=no_dict),
        Mistake("the losses are tensors: numbers are asked for, so that nothing keeps the graphs",
                when=lambda got, wanted, args: isinstance(got, dict) and any(
                    isinstance(v, Tensor) for v in got["losses"])),
        Mistake("other weights have changed: A and B alone learn",
                when=says("other weights changed", 0)),
        Mistake("other weights are left with gradients: they must take none",
                when=lambda got, wanted, args: isinstance(got, dict)
                and not got["other weights changed"] and got["other weights with a gradient"] > 0),
        fits("the sign of v is turned about: it holds the noise, less the picture",
             goal=v_of(lambda a, b, x0, eps: b * x0 - a * eps)),
        fits("in v the two levels have changed places", goal=v_of(
            lambda a, b, x0, eps: b * eps - a * x0)),
        fits("v is noise less picture: here they are added", goal=v_of(
            lambda a, b, x0, eps: a * eps + b * x0)),
        fits("the network says v, and is asked for the noise",
             goal=v_of(lambda a, b, x0, eps: eps)),
        fits("the network says v, and is asked for the picture",
             goal=v_of(lambda a, b, x0, eps: x0)),
        fits("the network is asked for the picture: for what it says, eps or v",
             goal=lambda schedule, prediction, x0, eps, t: x0),
        fits("the network says eps, and is asked for v",
             goal=lambda schedule, prediction, *rest: asked_for(schedule, "v", *rest)),
        fits("the network is shown the clean picture: noise of the level t belongs to it",
             noisy=lambda schedule, x0, eps, t: x0),
        fits("the picture is not made smaller: the levels are those of schedule.noise",
             noisy=lambda schedule, x0, eps, t: x0 + (1 - schedule.abar.to(x0)[t]).sqrt().view(
                 -1, 1, 1) * eps),
        fits("every row has a time of its own, and its own level of noise",
             noisy=lambda schedule, x0, eps, t: schedule.noise(x0, eps, t[:1].expand_as(t))),
        fits("every row has a time of its own: the network was told the first one's",
             at=lambda t: t[:1].expand_as(t)),
        fits("the network counts times as they come, 1 to T", at=lambda t: t - 1),
        fits("the squares are summed: the mean is asked for",
             loss=lambda a, b: (a - b).square().sum()),
        fits("half of the mean is used", loss=lambda a, b: (a - b).square().mean() / 2),
        fits("the differences are not squared", loss=F.l1_loss),
        fits("gradients of earlier updates are added up: clear them", clears=False),
        fits("nothing is learnt: after backward() comes the step", walks=False),
        fits("each update begins with a new Adam: it must remember", fresh_each=True),
        fits("this is plain descent: Adam is asked for", optim=torch.optim.SGD),
        fits("Adam without weight decay is asked for", optim=torch.optim.AdamW),
        fits("only B learns: A as well", which=lambda name: name.endswith(".B")),
        fits("only A learns: B as well", which=lambda name: name.endswith(".A")),
        fits("the loss is that after the update: it is the one whose gradient is taken",
             late=True),
        fits("the last update is missing", steps=lambda pairs: pairs[:-1]),
        fits("there is only one update: one for each row of times",
             steps=lambda pairs: pairs[:1]),
        fits("the updates come in the wrong order", steps=lambda pairs: pairs[::-1]),
        Mistake("under no_grad nothing learns", raised="does not require grad"),
        Mistake("the graph was cut off before the loss: no detach, no item() before backward()",
                raised="has no attribute 'backward'"),
        Mistake("the picture is one, the rows are many: expand it", raised="size of tensor"),
    ),
)


# ---- 11-6 mixing -------------------------------------------------------------------------------


def mix_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, d: int, k: int, ranks: tuple[int, int], q: int | None, dtype: str,
             u: float | None = None) -> Case:
        some = [(g.standard_normal((r, k)), g.standard_normal((d, r)),
                 float(r * g.uniform(0.3, 0.7))) for r in ranks]
        return Case(f"{what}, {dtype}", {
            "first": some[0], "second": some[1], "u": float(g.uniform(0.2, 0.4)) if u is None
            else u, "q": q}, dtype)

    yield case("ranks side by side", 7, 9, (2, 4), None, "float64")
    yield case("of one rank", 8, 8, (3, 3), None, "float32")
    yield case("cut to rank three", 9, 7, (3, 2), 3, "float64")
    yield case("cut to rank one", 8, 8, (2, 2), 1, "float32")
    yield case("all of the second, cut to rank two", 6, 9, (3, 4), 2, "float64", 1.0)


Pair = tuple[Tensor, Tensor, float]


def change(part: Pair) -> Tensor:
    A, B, alpha = part
    return alpha * torch.einsum("dr,rk->dk", B, A) / B.shape[1]


def shares(u: float) -> tuple[float, float]:
    return 1 - u, u


def blended(first: Pair, second: Pair, u: float, q: int | None, *, shares: Callable = shares,
            change: Callable = change, rank: Callable = lambda r: r,
            keep: Callable = lambda S, q: S.where(torch.arange(len(S)) < q, 0.0),
            before: bool = False, split: Callable = lambda S: (S.sqrt(), S.sqrt())) -> dict:
    """What is seen of a mixture: its update, and how its singular values lie in the factors."""
    weights, parts = shares(u), (first, second)
    ranks = [len(part[0]) for part in parts]

    def cut(D: Tensor) -> Tensor:
        U, S, V = torch.linalg.svd(D, full_matrices=False)
        return (U * keep(S, q)) @ V

    changes = [change(part) for part in parts]
    if q is not None and before:
        changes = [cut(D) for D in changes]
    D = sum(w * c for w, c in zip(weights, changes, strict=True))
    if q is None:
        return {"update": D, "rank": rank(sum(ranks)), "alpha / r": 1.0}
    D = D if before else cut(D)
    S = torch.linalg.svdvals(D)[:q]
    left, right = split(S)
    return {"update": D, "rank": q, "alpha / r": 1.0, "squares of A": torch.diag(left.square()),
            "squares of B": torch.diag(right.square())}


def factors(first: Pair, second: Pair, u: float, scale: Callable) -> Tensor:
    """Averaged factors, where their ranks are the same."""
    A, B = ((1 - u) * a + u * b for a, b in zip(first[:2], second[:2], strict=True))
    return scale(first, second) * (B @ A)


def updates(words: str, wrong: Callable | None = None, **parts: Any) -> Mistake:
    """Recognised by the update alone."""
    def made(**args: Any) -> Tensor:
        found = wrong(**args) if wrong else blended(*args.values(), **parts)
        return found["update"] if isinstance(found, dict) else found
    return Mistake(words, when=only("update", made))


def whole_rank(got: Any, wanted: dict, args: dict) -> bool:
    return isinstance(got, dict) and args["q"] is not None and got.get("rank") != args["q"]


def uneven_split(got: Any, wanted: dict, args: dict) -> bool:
    return isinstance(got, dict) and "squares of A" in wanted and near(
        got["update"], wanted["update"]) and got["rank"] == args["q"] and not near(
            got["squares of A"], wanted["squares of A"])


MIX = Exercise(
    "11-6", "Mix two, and cut", 3, 15, 3, "mix(first, second, u, q)",
    public=mix_cases, wanted=blended, study=LORA, tolerance={"float64": 1e-8, "float32": 1e-3},
    mistakes=(
        Mistake("A, B and alpha are returned, in a tuple", when=no_dict),
        updates("u is turned about: it is the share of the second",
                shares=lambda u: (u, 1 - u)),
        updates("both updates come in full: with weights 1 - u and u", shares=lambda u: (1, 1)),
        updates("the weights are there twice: in one of the two factors only",
                shares=lambda u: ((1 - u)**2, u**2)),
        updates("the factors alpha / r are lost: each update has its own",
                change=lambda part: part[1] @ part[0]),
        updates("the factors alpha / r are there twice: in one of the two factors only",
                change=lambda part: (part[2] / len(part[0]))**2 * (part[1] @ part[0])),
        updates("each update is divided by its own rank, and alpha is in it",
                change=lambda part: part[2] * (part[1] @ part[0])),
        updates("each update is divided by its own rank, and alpha is in it",
                change=lambda part: part[1] @ part[0] / len(part[0])),
        *(updates("factors are averaged: updates are to be, so put ranks side by side",
                  lambda first, second, u, q, scale=scale: factors(first, second, u, scale))
          for scale in (lambda a, b: 1.0, lambda a, b: a[2] / len(a[0]),
                        lambda a, b: (a[2] + b[2]) / 2 / len(a[0]))),
        updates("only the first one's factor alpha / r is used: each update has its own",
                lambda first, second, u, q: blended(
                    first, (*second[:2], first[2] / len(first[0]) * len(second[0])), u, q)),
        updates("each is cut by itself: cut the mixture", before=True),
        updates("the smallest singular values were kept: the largest are",
                keep=lambda S, q: S.where(torch.arange(len(S)) >= len(S) - q, 0.0)),
        updates("the smallest singular values were kept: the largest are",
                lambda first, second, u, q: blended(
                    first, second, u, q, keep=lambda S, q: S.where(
                        (torch.arange(len(S)) < len(first[0]) + len(second[0]))
                        & (torch.arange(len(S)) >= len(first[0]) + len(second[0]) - q), 0.0))),
        updates("the singular values are lost, or there twice: their product is S once",
                keep=lambda S, q: (S > 0).to(S).where(torch.arange(len(S)) < q, 0.0)),
        updates("the singular values are lost, or there twice: their product is S once",
                keep=lambda S, q: S.square().where(torch.arange(len(S)) < q, 0.0)),
        updates("the singular values are lost, or there twice: their product is S once",
                keep=lambda S, q: S.sqrt().where(torch.arange(len(S)) < q, 0.0)),
        updates("nothing is cut: q says how many ranks are left", keep=lambda S, q: S),
        Mistake("the result has another rank than q: keep q rows of A and q columns of B",
                when=whole_rank),
        Mistake("without q all ranks stay: those of both, side by side",
                when=lambda got, wanted, args: isinstance(got, dict) and args["q"] is None
                and got.get("rank", wanted["rank"]) != wanted["rank"]),
        Mistake("alpha is the rank of the result, so that its factor is one: all factors stand in "
                "A and B", when=lambda got, wanted, args: isinstance(got, dict)
                and got.get("alpha / r", 1.0) != 1.0),
        Mistake("A and B do not share the singular values evenly: each has their root, in falling "
                "order", when=uneven_split),
        Mistake("ranks lie along the first axis of A and the second of B",
                raised="Sizes of tensors must match"),
        Mistake("where there is no q, nothing is cut", raised="NoneType"),
    ),
)

EXERCISES = (ZERO, HELD, STEER, ADAPT, FIT, MIX)
