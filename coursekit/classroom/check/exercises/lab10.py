"""Lab 10: Plug-and-Play, from a hook to the loop; MasaCtrl and pix2pix-zero beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.classroom.check.calls.lab10 import (
    SIDE,
    Net,
    edited,
    entered,
    steered,
    worded,
)
from coursekit.classroom.check.known import levels_of
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
from coursekit.diffusion.predict import guided
from coursekit.diffusion.sample import ddim, invert
from coursekit.diffusion.schedule import Schedule
from coursekit.nets.control import controlled, tapped

EDITS, CONTROL = "coursekit.edits", "coursekit.nets.control"
TAPS = (f"{CONTROL}.tapped", "coursekit.classroom.injection.read", f"{EDITS}.pnp._met",
        f"{EDITS}.pnp._handed")
SAMPLE = "coursekit.diffusion.sample"
LOOPS = (*(f"{SAMPLE}.{f}" for f in ("ddim", "ddpm", "_walk", "invert", "_climb")),
         "coursekit.diffusion.predict.guided", "coursekit.diffusion.predict.mixed",
         "diffusers.schedulers.scheduling_ddim.DDIMScheduler.step",
         *(f"{EDITS}.{name}.edit" for name in ("pnp", "masactrl", "pix2pix_zero")))
COSINE, LINEAR = named("schedule", name="cosine"), named("schedule", name="linear")
LOOSE = {"float64": 1e-8, "float32": 5e-3}  # over a path
SOURCE = "each picture takes from its own source"
ALL_ROWS = "all rows come back, the sources' first"


def own(rows: int, b: int) -> Tensor:
    """Which row of the sources stands for each row."""
    return torch.arange(rows) % b


LEFT = Mistake("the hook is still there afterwards: it changes, or keeps, all that the network "
               "does from then on, so remove it", when=says("left in it", "nothing"))
LEFT_THEN = Mistake("where the network breaks off the hook stays: try and finally remove it in "
                    "any case", when=says("left in it then", "nothing"))
SWALLOWED = Mistake("an error of the network is swallowed: clean up, and let it through",
                    when=says("a network that breaks off", "the error came through"))


# ---- 10-1 record -------------------------------------------------------------------------------


def record_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, S: int, n: int, b: int, name: str, dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {
            "net": named("net", seed=int(g.integers(2**31))), "name": name,
            "pivot": [g.standard_normal((b, 2, SIDE, SIDE)) for _ in range(S + 1)],
            "path": uneven(g, S + 1), "n": n}, dtype)

    yield case("three hops of five", 5, 3, 2, "up.1.conv2", "float64")
    yield case("all hops", 4, 4, 1, "up.2.conv2", "float32")
    yield case("one picture, two hops", 4, 2, 1, "up.0.conv1", "float64")
    yield case("no hop at all", 3, 0, 2, "up.1.conv2", "float32")


def features(net: Net, name: str, pivot: Sequence[Tensor], path: Sequence[int], n: int,
             hops: Callable = lambda n, S: range(n), state: Callable = lambda i, S: i,
             time: Callable = lambda i: i, keep: Callable = torch.clone) -> list[Tensor]:
    """What the module puts out, with parts to be altered."""
    found: list[Tensor] = []
    for i in hops(n, len(path) - 1):
        with tapped(net.get_submodule(name), lambda f: found.append(keep(f))):
            net(pivot[state(i, len(path) - 1)], path[time(i)])
    return found


def recorded(net: Net, name: str, pivot: Sequence[Tensor], path: Sequence[int], n: int) -> dict:
    return {"features": features(net, name, pivot, path, n), "times asked": list(path[:n]),
            "left in it": "nothing", "a network that breaks off": "the error came through",
            "left in it then": "nothing"}


def record(**parts: Callable) -> Callable:
    return lambda *args: features(*args, **parts)


def put_in(net, name, pivot, path, n):
    """What goes into the module."""
    found = []
    for x, t in list(zip(pivot, path, strict=True))[:n]:
        hook = net.get_submodule(name).register_forward_pre_hook(
            lambda _m, given: found.append(given[0].clone()))
        net(x, t)
        hook.remove()
    return found


def put_out(net, name, pivot, path, n):
    """What the whole network puts out."""
    return [net(x, t) for x, t in list(zip(pivot, path, strict=True))[:n]]


def neighbour(net, name, *args):
    return features(net, name[:-1] + {"1": "2", "2": "1"}[name[-1]], *args)


RECORD = Exercise(
    "10-1", "Record a feature", 2, 10, 3, "features(net, name, pivot, path, n)",
    public=record_cases, wanted=recorded, study=TAPS,
    mistakes=(
        Mistake("a list is asked for, with one feature for each hop",
                when=lambda got, wanted, args: no_dict(got, wanted, args) or (
                    isinstance(got, dict) and "features" not in got)),
        LEFT, LEFT_THEN, SWALLOWED,
        Mistake("this is the feature with the shortcut added to it: a later layer has written into "
                "what was kept, so keep a copy", record(keep=lambda f: f)),
        Mistake("this is what goes into the module: what comes out of it is asked for", put_in),
        Mistake("this is what the whole network puts out: the module of that name is asked for",
                put_out),
        Mistake("this is another convolution of the same block: the one of that name is asked for",
                neighbour),
        Mistake("one hop too many", record(hops=lambda n, S: range(min(n + 1, S + 1)))),
        Mistake("one hop too few", record(hops=lambda n, S: range(n - 1))),
        Mistake("all hops were recorded: only the first n", record(hops=lambda n, S: range(S))),
        Mistake("these are the last n hops: the first ones are the noisy ones",
                record(hops=lambda n, S: range(S - n, S))),
        Mistake("the states are read from the clean end: pivot begins at the noisy one, as path",
                record(state=lambda i, S: S - i)),
        Mistake("each state is shown with the time where its hop ends: a hop asks at the time "
                "where it begins", record(time=lambda i: i + 1)),
        Mistake("each time is shown with the state where its hop ends: a hop asks at the state "
                "where it begins", record(state=lambda i, S: i + 1)),
        Mistake("every hop has the same feature: keep each of them in its own place",
                lambda net, name, pivot, path, n: n * features(net, name, pivot, path, n)[-1:]),
        Mistake("every hop has the same feature: keep each of them in its own place",
                lambda net, name, pivot, path, n: n * features(net, name, pivot, path, n)[:1]),
        Mistake("the features come clean to noisy: like the path, they begin at the noisy end",
                lambda *args: features(*args)[::-1]),
        Mistake("there are more features than hops: a hook of an earlier hop has listened, too",
                when=lambda got, wanted, args: isinstance(got, dict)
                and len(got["features"]) > args["n"]),
        Mistake("only the first picture's feature was kept", lambda *args: [
            f[:1] for f in features(*args)] if len(args[2][0]) > 1 else None),
        Mistake("the network is asked more often than needed: one pass for each hop",
                when=lambda got, wanted, args: isinstance(got, dict)
                and len(got["times asked"]) > args["n"]),
    ),
)


# ---- 10-2 hand it on ---------------------------------------------------------------------------


def hand_cases(g: np.random.Generator) -> Iterator[Case]:
    for what, b, name, dtype in (("one source", 1, "up.1.conv2", "float64"),
                                 ("three sources", 3, "up.0.conv2", "float32"),
                                 ("two sources", 2, "up.2.conv2", "float64"),
                                 ("another module", 2, "up.1.conv1", "float32")):
        yield Case(f"{what}, {dtype}", {"net": named("net", seed=int(g.integers(2**31)),
                                                     sentences=3), "name": name, "b": b}, dtype)


@contextmanager
def handed(net: Net, name: str, b: int, new: Callable = lambda f, b: f[own(len(f), b)]):
    with tapped(net.get_submodule(name), lambda f: new(f, b)):
        yield


def hands(**parts: Callable) -> Callable:
    """What is seen of such a context, by the check's own questions."""
    return lambda net, name, b: entered(lambda *args: handed(*args, **parts), net, name, b)


def into(new: Callable) -> Callable:
    """The edits' rows are new(source, edits, b), the sources' stay."""
    return hands(new=lambda f, b: torch.cat([f[:b], new(f[:b], f[b:], b)]))


@contextmanager
def every_part(net: Net, name: str, b: int):
    with ExitStack() as stack:
        for i in range(len(net.up)):
            stack.enter_context(handed(net, f"up.{i}.{name.split('.')[2]}", b))
        yield


HAND = Exercise(
    "10-2", "Hand it on", 2, 10, 3, "handed(net, name, b)",
    public=hand_cases, wanted=hands(), study=TAPS,
    mistakes=(
        Mistake("a context manager is asked for: contextmanager above the function, one yield in "
                "it", when=no_dict),
        LEFT, LEFT_THEN, SWALLOWED,
        Mistake("nothing is handed on: what a hook returns takes the place of the output",
                into(lambda s, e, b: e)),
        Mistake(f"every picture takes the feature of the first source: {SOURCE}",
                into(lambda s, e, b: s[:1].expand_as(e).clone())),
        Mistake(f"the sources are handed on in the wrong order: {SOURCE}, in each part of the "
                "batch", into(lambda s, e, b: s.repeat_interleave(len(e) // b, 0))),
        Mistake("only the last part of the batch takes the feature: all parts after the sources",
                into(lambda s, e, b: torch.cat([e[:-b], s]))),
        Mistake("only the second part of the batch takes the feature: all parts after the sources",
                into(lambda s, e, b: torch.cat([s, e[b:]]))),
        Mistake("the feature is taken from the last part of the batch: the sources stand first",
                hands(new=lambda f, b: f[own(len(f), b) - b])),
        Mistake("the sources were changed, too: their rows come back as they are",
                hands(new=lambda f, b: torch.cat([f[b:2 * b], f[:b], f[:b]])[:len(f)])),
        Mistake("the sources were changed, too: their rows come back as they are",
                hands(new=lambda f, b: torch.cat([f[-b:], f[own(len(f) - b, b)]]))),
        Mistake("the feature is added: it takes the place of the edit's own",
                into(lambda s, e, b: e + s.repeat(len(e) // b, 1, 1, 1))),
        Mistake("the feature is mixed with the edit's own: it takes its place",
                into(lambda s, e, b: (e + s.repeat(len(e) // b, 1, 1, 1)) / 2)),
        Mistake("more modules than the one of that name hand something on",
                lambda *args: entered(every_part, *args)),
        Mistake("the whole network hands on what it puts out: the module of that name should",
                lambda net, name, b: entered(lambda net, name, b: handed(net, "leave", b),
                                             net, name, b)),
        *(Mistake("not as many rows come out of the hook as go in: all rows come back, the "
                  "sources' first, and there may be two parts or three, so count them",
                  raised=words) for words in ("must match the size of tensor",
                                              "must match the existing size",
                                              "doesn't match the broadcast shape")),
    ),
)


# ---- 10-3 the source's map ---------------------------------------------------------------------


def attention_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, b: int, parts: int, heads: int, n: int, d: int, dtype: str) -> Case:
        q, k, v = g.standard_normal((3, b * parts, heads, n, d))
        return Case(f"{what}, {dtype}", {"q": 1.5 * q, "k": k, "v": v, "b": b}, dtype)

    yield case("one source and one edit", 1, 2, 2, 5, 3, "float64")
    yield case("two sources, two parts more", 2, 3, 3, 7, 4, "float32")
    yield case("three sources", 3, 2, 2, 6, 5, "float64")
    yield case("one head, many places", 1, 3, 1, 33, 8, "float32")


def attended(q: Tensor, k: Tensor, v: Tensor, b: int) -> Tensor:
    rows = own(len(q), b)
    return F.scaled_dot_product_attention(q[rows], k[rows], v)


def attending(q_of: Callable = own, k_of: Callable = own, v_of: Callable | None = None,
              scale: Callable = lambda q: q.shape[-1] ** -0.5,
              share: Callable = lambda L: L.softmax(-1),
              mix: Callable = lambda A, v: A @ v) -> Callable:
    """Attention with one of its parts altered; `.._of` choose the rows."""
    def wrong(q, k, v, b):
        rows = len(q)
        L = q[q_of(rows, b)] @ k[k_of(rows, b)].mT * scale(q)
        return mix(share(L), v if v_of is None else v[v_of(rows, b)])
    return wrong


def itself(rows: int, b: int) -> Tensor:
    return torch.arange(rows)


def first(rows: int, b: int) -> Tensor:
    return torch.where(torch.arange(rows) < b, torch.arange(rows), 0)


def in_turn(rows: int, b: int) -> Tensor:
    return torch.cat([torch.arange(b), torch.arange(b).repeat_interleave(rows // b - 1)])


def last_part(rows: int, b: int) -> Tensor:
    return torch.where(torch.arange(rows) < rows - b, torch.arange(rows), own(rows, b))


def second_part(rows: int, b: int) -> Tensor:
    return torch.where(torch.arange(rows) >= 2 * b, torch.arange(rows), own(rows, b))


def from_last(rows: int, b: int) -> Tensor:
    return own(rows, b) + rows - b


def half(q, k, v, b):
    """The mean of the source's map and the own one."""
    theirs, mine = (attending(*[of] * 2)(q, k, v, b) for of in (own, itself))
    return torch.cat([mine[:b], (theirs + mine)[b:] / 2])


ATTEND = Exercise(
    "10-3", "Who looks at whom", 2, 10, 3, "attend(q, k, v, b)",
    public=attention_cases, wanted=attended, study=(f"{EDITS}.pnp._met", f"{EDITS}.pnp._handed"),
    mistakes=(
        Mistake("this is plain attention: the edits look where their sources look",
                attending(itself, itself)),
        Mistake("only the queries are the source's: its keys as well", attending(own, itself)),
        Mistake("only the keys are the source's: its queries as well", attending(itself, own)),
        Mistake("the values are the source's, too: each row sees its own picture",
                attending(v_of=own)),
        Mistake("keys and values are the source's: queries and keys are asked for",
                attending(itself, own, own)),
        Mistake(f"every picture takes the map of the first source: {SOURCE}",
                attending(first, first)),
        Mistake(f"the sources are taken in the wrong order: {SOURCE}, in each part of the batch",
                attending(in_turn, in_turn)),
        Mistake("only the last part of the batch takes the map: all parts after the sources",
                attending(last_part, last_part)),
        Mistake("only the second part of the batch takes the map: all parts after the sources",
                attending(second_part, second_part)),
        Mistake("the map is that of the last part of the batch: the sources stand first",
                attending(from_last, from_last)),
        Mistake("products are not divided by the root of d", attending(scale=lambda q: 1.0)),
        Mistake("products are divided by d: by its root",
                attending(scale=lambda q: 1 / q.shape[-1])),
        Mistake("products are multiplied by the root of d: they are divided by it",
                attending(scale=lambda q: q.shape[-1] ** 0.5)),
        Mistake("d is the width of a head, the last axis: not of all heads, nor the number of "
                "places", attending(scale=lambda q: (q.shape[-1] * q.shape[1]) ** -0.5)),
        Mistake("d is the width of a head, the last axis: not of all heads, nor the number of "
                "places", attending(scale=lambda q: q.shape[-2] ** -0.5)),
        Mistake("the softmax goes over the places that ask: over those that are looked at, the "
                "last axis", attending(share=lambda L: L.softmax(-2))),
        Mistake("the softmax goes over the heads: over the places that are looked at, the last "
                "axis", attending(share=lambda L: L.softmax(1))),
        Mistake("the softmax is missing: rows of the map sum to one",
                attending(share=lambda L: L)),
        Mistake("the map is turned about: its rows are the places that ask",
                attending(mix=lambda A, v: A.mT @ v)),
        Mistake("all heads look at the same: each has a map of its own",
                attending(share=lambda L: L.softmax(-1).mean(1, keepdim=True))),
        Mistake("queries and keys have changed places",
                attending(share=lambda L: L.mT.softmax(-1))),
        Mistake("the source's map is mixed with the edit's own: it takes its place", half),
        Mistake("the source's map is mixed with the edit's own: it takes its place",
                lambda q, k, v, b: F.scaled_dot_product_attention(
                    *((p[own(len(p), b)] + p) / 2 for p in (q, k)), v)),
        Mistake("this is the map: what the places get is asked for, the map times the values",
                lambda q, k, v, b: attending(mix=lambda A, v: A)(q, k, v, b)),
        Mistake(f"rows were lost: {ALL_ROWS}", lambda q, k, v, b: attended(q, k, v, b)[b:]),
    ),
)


# ---- 10-4 Plug-and-Play ------------------------------------------------------------------------


def plug_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, S: int, b: int, f: int, A: int, w: float, dtype: str, *, more: float = 0.6,
             end: int = 0, levels: Any = COSINE, sampled: bool = False, few: int = 2) -> Case:
        seed = int(g.integers(2**31))
        path = uneven(g, S + 1, 60, 650) if end else [*uneven(g, S, 60, 650), 0]
        pivot = [g.standard_normal((b, 2, SIDE, SIDE)) for _ in path]
        if sampled:  # the states of sampling, where all three sentences say the same
            net = Net(torch.float64, seed, 1)
            x = torch.from_numpy(pivot[0]).float().double()
            pivot = [s.x.numpy() for s in ddim(net, levels_of(levels.numbers["name"]), x, path)]
        layers = [f"up.{i}.attn1" for i in sorted(map(int, g.permutation(3)[:few]))]
        return Case(f"{what}, {dtype}", {
            "net": named("net", seed=seed, sentences=3, same=sampled),
            "name": f"up.{int(g.integers(0, 2))}.conv2", "layers": layers, "schedule": levels,
            "pivot": pivot, "path": path, "w": w, "tau_f": min(1.0, (f + more) / S),
            "tau_A": min(1.0, (A + more) / S)}, dtype)

    weight = lambda: float(g.uniform(2, 4))
    yield case("a path that ends above zero, whole hops", 5, 2, 3, 1, weight(), "float64", more=0,
               end=1, levels=LINEAR)
    yield case("features longer than maps", 5, 1, 4, 2, weight(), "float64")
    yield case("maps longer than features, two pictures", 6, 2, 2, 3, weight(), "float32", few=1,
               more=0.3)
    yield case("windows shorter than a hop", 4, 1, 0, 0, weight(), "float64")
    yield case("a sampled source, put into itself", 4, 2, 4, 4, weight(), "float64", sampled=True)


ROWS = {"q": own, "k": own}


def plug(net: Net, name: str, layers: Sequence[str], schedule: Schedule, pivot: Sequence[Tensor],
         path: Sequence[int], w: float, tau_f: float, tau_A: float, *,
         start: Callable = lambda pivot: pivot[0],
         source: Callable = lambda pivot, i, z: pivot[i],
         count: Callable = hops, until: Callable = lambda f, A: (f, A),
         within: Callable = lambda i, n, S: i < n, rows: dict = ROWS,
         feature: Callable = own, chosen: Callable = lambda name, layers: name in layers,
         mix: Callable = lambda s, n, p, w: n + w * (p - n),
         time: Callable = lambda t, s: t, ends: Callable = lambda path: list(pairwise(path)),
         move: Callable = lambda schedule, z, e, t, s: schedule.noise(
             schedule.denoise(z, e, t), e, s)) -> Tensor:
    """The loop, with parts to be altered; rows say which rows stand for which."""
    b, S = len(pivot[0]), len(path) - 1
    z, (f, A) = start(pivot), until(count(tau_f, S), count(tau_A, S))

    def qkv(site, q, k, v):
        if not chosen(site.name, layers):
            return q, k, v
        parts = {"q": q, "k": k, "v": v}
        return tuple(x[rows[p](len(x), b)] if p in rows else x for p, x in parts.items())

    for i, (t, s) in enumerate(ends(path)):
        with ExitStack() as stack:
            if within(i, f, S):
                stack.enter_context(handed(net, name, b, lambda h, b: h[feature(len(h), b)]))
            if within(i, A, S):
                stack.enter_context(controlled(net, qkv))
            both = net(torch.cat([source(pivot, i, z), z, z]), time(t, s)).chunk(3)
        z = move(schedule, z, mix(*both, w), t, s)
    return z


def plugged(**parts: Any) -> Callable:
    return lambda *args: plug(*args, **parts)


def wanted_plug(net: Net, *args: Any) -> object:
    return edited(plug, net, *args)


def by_time(*args: Any) -> Tensor:
    """Windows that end when a share of the times is over."""
    path = args[5]
    return plug(*args, count=lambda share, S: sum(t > (1 - share) * 1000 for t in path[:-1]))


PLUG = Exercise(
    "10-4", "Plug-and-Play", 4, 25, 4,
    "plug_and_play(net, name, layers, schedule, pivot, path, w, tau_f, tau_A)",
    public=plug_cases, wanted=wanted_plug, study=(*TAPS, *LOOPS), tolerance=LOOSE,
    mistakes=(
        Mistake("the latents of the edit are asked for, one tensor", when=no_dict),
        Mistake("something of this is left in the network: contexts end with their hop",
                when=says("left in it", "nothing")),
        Mistake("the edit begins at the picture: it begins where its source does, at the noisy "
                "end", plugged(start=lambda pivot: pivot[-1])),
        Mistake("the sources' rows show the edit: they show the pivot's state of this hop",
                plugged(source=lambda pivot, i, z: z)),
        Mistake("the sources' rows show the state where the hop ends: where it begins",
                plugged(source=lambda pivot, i, z: pivot[i + 1])),
        Mistake("the sources' rows always show the first state: the pivot's state of this hop",
                plugged(source=lambda pivot, i, z: pivot[0])),
        Mistake("the sources' rows always show the picture: the pivot's state of this hop",
                plugged(source=lambda pivot, i, z: pivot[-1])),
        Mistake("the pivot is read from the clean end: like the path it begins at the noisy one",
                plugged(source=lambda pivot, i, z: pivot[len(pivot) - 1 - i])),
        Mistake("the number of hops is rounded to the nearest: the fraction is cut off",
                plugged(count=lambda share, S: round(share * S))),
        Mistake("the number of hops is rounded up: the fraction is cut off",
                plugged(count=lambda share, S: math.ceil(share * S - 1e-9))),
        Mistake("windows are a hop too long: n hops are numbers 0 to n - 1",
                plugged(within=lambda i, n, S: i <= n)),
        Mistake("windows are counted from the clean end: the first hops are the noisy ones",
                plugged(within=lambda i, n, S: i >= S - n)),
        Mistake("windows are turned about: injected is while they are open",
                plugged(within=lambda i, n, S: i >= n)),
        Mistake("the two windows have changed places: tau_f is for features",
                plugged(until=lambda f, A: (A, f))),
        Mistake("both windows are that of the features: maps have their own",
                plugged(until=lambda f, A: (f, f))),
        Mistake("both windows are that of the maps: features have their own",
                plugged(until=lambda f, A: (A, A))),
        Mistake("the windows have no effect: after its share of the hops nothing is injected",
                plugged(within=lambda i, n, S: True)),
        Mistake("windows are shares of the hops: not of the times", by_time),
        Mistake("features are not injected", plugged(until=lambda f, A: (0, A))),
        Mistake("self-attention is not injected", plugged(until=lambda f, A: (f, 0))),
        Mistake("nothing is injected", plugged(until=lambda f, A: (0, 0))),
        Mistake("the self-attention of every layer is injected: only of those in layers",
                plugged(chosen=lambda name, layers: True)),
        Mistake("the layers are turned about: those in layers are injected",
                plugged(chosen=lambda name, layers: name not in layers)),
        Mistake("the values are injected, too: the edit sees its own",
                plugged(rows=ROWS | {"v": own})),
        Mistake("of the self-attention only the queries are injected", plugged(rows={"q": own})),
        Mistake("of the self-attention only the keys are injected", plugged(rows={"k": own})),
        Mistake("keys and values are injected: that is MasaCtrl, here queries and keys",
                plugged(rows={"k": own, "v": own})),
        Mistake("only the target's half is injected, or only the negative's: both are",
                plugged(rows=dict.fromkeys("qk", last_part), feature=last_part)),
        Mistake("only the target's half is injected, or only the negative's: both are",
                plugged(rows=dict.fromkeys("qk", last_part))),
        Mistake("only the target's half is injected, or only the negative's: both are",
                plugged(feature=last_part)),
        Mistake("only the target's half is injected, or only the negative's: both are",
                plugged(rows=dict.fromkeys("qk", second_part))),
        Mistake(f"every picture takes from the first source: {SOURCE}",
                plugged(rows=dict.fromkeys("qk", first))),
        Mistake(f"the sources are taken in the wrong order: {SOURCE}, in each part of the batch",
                plugged(rows=dict.fromkeys("qk", in_turn))),
        Mistake("there is no guidance: w leads away from the negative",
                plugged(mix=lambda s, n, p, w: p)),
        Mistake("the two ends of guidance have changed places: the negative is the second part of "
                "the batch, the target the third", plugged(mix=lambda s, n, p, w: p + w * (n - p))),
        Mistake("guidance leads away from the source: away from the negative",
                plugged(mix=lambda s, n, p, w: s + w * (p - s))),
        Mistake("guidance is too strong by one: at w one it is the target's prediction alone",
                plugged(mix=lambda s, n, p, w: p + w * (p - n))),
        Mistake("the noise is the source's: the edit moves with that of its own rows",
                plugged(mix=lambda s, n, p, w: s)),
        Mistake("the network is asked at the time where the hop ends: where it begins",
                plugged(time=lambda t, s: s)),
        Mistake("the last hop is missing", plugged(ends=lambda path: list(pairwise(path))[:-1])),
        Mistake("each hop ends at its prediction of the picture: noise of the level where it ends "
                "is added to it", plugged(move=lambda schedule, z, e, t, s: schedule.denoise(
                    z, e, t))),
        Mistake("each hop goes back to the level where it began: to that where it ends",
                plugged(move=lambda schedule, z, e, t, s: schedule.noise(
                    schedule.denoise(z, e, t), e, t))),
        Mistake("this is the source: the edit's own latents are asked for",
                lambda net, name, layers, schedule, pivot, *rest: pivot[-1]),
        Mistake("the network sees three parts at once: sources, then the edit with the negative, "
                "then the edit with the target", raised="net(x, t): x is"),
    ),
)


# ---- 10-5 MasaCtrl -----------------------------------------------------------------------------

LAYERS = ["coarse", "fine"]


def mutual_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, b: int, first: int, i: int, dtype: str = "float64", *,
             layers: Sequence[str] = LAYERS, masks: bool = True, empty: bool = False) -> Case:
        here, there = None, None
        if masks:
            here, there = (g.random((2, b, 8, 12)) < 0.5)
            for mask in (here, there):  # a place of a map is the upper left one of its square
                for step in (2, 4):
                    mask[:, ::step, ::step] = g.random(mask[:, ::step, ::step].shape) < 0.5
                mask[:, 0, 0], mask[:, 4, 4] = True, False
                mask[:, 0, 4], mask[:, 4, 8] = False, True
        if empty:
            there[0] = False
        return Case(what, {"i": i, "first": first, "b": b, "layers": list(layers), "here": here,
                           "there": there}, dtype)

    later = int(g.integers(2, 5))
    yield case("without masks, after its first hop", 2, later, later + 1, masks=False)
    yield case("its first hop, masks", 1, later, later)
    yield case("the hop before", 2, later, later - 1)
    yield case("two hops before", 1, later, later - 2)
    yield case("two pictures, one layer", 2, 0, int(g.integers(2, 5)), layers=["fine"])
    yield case("a source without object", 2, later, later + 2, empty=True)


def at(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Each place of a map asks the mask at the upper left place of its square: (b, n)."""
    rows, columns = (torch.arange(n) * (full // n) for n, full in zip(size, mask.shape[1:],
                                                                      strict=True))
    return mask[:, rows][:, :, columns].flatten(1)


def struck(A: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """Logits of what is struck out are minus infinity, the others as they were."""
    alike = (here[:, :, None] == there[:, None])[:, None]
    seen = alike | ~alike.any(-1, keepdim=True)
    return (A.log() + torch.where(seen, 0.0, -torch.inf)).softmax(-1)


def verbs(parts: str = "kv", rows: Callable = own,
          opens: Callable = lambda i, first: i >= first, map_opens: Callable | None = None,
          chosen: Callable = lambda site, layers: site.name in layers,
          map_chosen: Callable | None = None, strike: Callable = struck, at: Callable = at,
          order: Callable = lambda here, there: (here, there),
          spread: Callable = lambda m, rows, b: m[own(rows, b)],
          edits: Callable = lambda rows, b: torch.arange(rows) >= b) -> Callable:
    """MasaCtrl's two verbs with one of their parts altered."""
    map_opens, map_chosen = map_opens or opens, map_chosen or chosen

    def mutual(i, first, b, layers, here, there):
        def qkv(site, q, k, v):
            taken = {"q": q, "k": k, "v": v}
            if opens(i, first) and chosen(site, layers):
                taken |= {p: taken[p][rows(len(q), b)] for p in parts}
            return tuple(taken.values())

        def probs(site, A):
            if here is None or not map_opens(i, first) or not map_chosen(site, layers):
                return A
            places = [spread(at(m, site.size), len(A), b) for m in order(here, there)]
            changed = edits(len(A), b).view(-1, 1, 1, 1)
            return torch.where(changed, strike(A, *places), A)

        return qkv, probs
    return mutual


def mutually(**parts: Any) -> Callable:
    """What is seen of such verbs, by the check's own questions."""
    return lambda *args: steered(verbs(**parts), *args)


def restricted(alike: Callable, whole: Callable = lambda A, kept, total: kept / total,
               bare: Callable = lambda A: A) -> Callable:
    """Another way to strike out: alike(here, there) -> bool (b, n, l); bare: of blind places."""
    def strike(A, here, there):
        kept = A * alike(here[:, :, None], there[:, None])[:, None]
        total = kept.sum(-1, keepdim=True)
        return torch.where(total > 0, whole(A, kept, total), bare(A))
    return strike


def pooled(how: Callable) -> Callable:
    return lambda mask, size: how(mask.double(), size).flatten(1)


AVERAGE = pooled(lambda m, size: F.adaptive_avg_pool2d(m, size) > 0.5)
ANY = pooled(lambda m, size: F.adaptive_max_pool2d(m, size) > 0)
SMOOTH = pooled(lambda m, size: F.interpolate(m[:, None], size, mode="bilinear")[:, 0] > 0.5)


MUTUAL = Exercise(
    "10-5", "MasaCtrl", 4, 20, 4, "mutual(i, first, b, layers, here, there)",
    public=mutual_cases, wanted=mutually(),
    study=tuple(f"{EDITS}.masactrl.{f}" for f in ("_mutual", "apart", "foreground", "_watched",
                                                 "edit")),
    mistakes=(
        Mistake("two functions are returned, in a tuple: qkv, probs", when=no_dict),
        Mistake("qkv always gives three tensors in a tuple, also where nothing changes",
                when=lambda got, wanted, args: "qkv gives" in got),
        Mistake("probs always gives A or a map in its place, also where nothing changes",
                when=lambda got, wanted, args: any(value is None for value in got.values())),
        Mistake("what came was written into: whoever has kept it finds the edit there, so make "
                "new tensors", when=lambda got, wanted, args: "written into" in [
                    value for value in got.values() if isinstance(value, str)]),
        Mistake("queries and keys are the source's: that is Plug-and-Play, here keys and values",
                mutually(parts="qk")),
        Mistake("the queries are the source's, too: the edit asks with its own",
                mutually(parts="qkv")),
        Mistake("only the keys are the source's: its values as well", mutually(parts="k")),
        Mistake("only the values are the source's: its keys as well", mutually(parts="v")),
        Mistake("keys and values are the edit's own: they are the source's", mutually(parts="")),
        Mistake(f"every picture takes from the first source: {SOURCE}", mutually(rows=first)),
        Mistake(f"the sources are taken in the wrong order: {SOURCE}, in each part of the batch",
                mutually(rows=in_turn)),
        Mistake("only the last part of the batch takes anything: all parts after the sources",
                mutually(rows=last_part)),
        Mistake("only the second part of the batch takes anything: all parts after the sources",
                mutually(rows=second_part)),
        Mistake("keys and values are those of the last part of the batch: the sources stand first",
                mutually(rows=from_last)),
        Mistake("it begins a hop too late: at the hop of number `first`",
                mutually(opens=lambda i, first: i > first)),
        Mistake("it begins a hop too early: the hops before number `first` are free",
                mutually(opens=lambda i, first: i >= first - 1)),
        Mistake("the first hops are not left free", mutually(opens=lambda i, first: True)),
        Mistake("the hops are turned about: those before `first` are free",
                mutually(opens=lambda i, first: i < first)),
        Mistake("masks act before the first hop, too: there nothing is done",
                mutually(map_opens=lambda i, first: True)),
        Mistake("other layers were changed, too: only those in layers",
                mutually(chosen=lambda site, layers: not site.is_cross)),
        Mistake("attention to words was changed, too: only the layers in layers",
                mutually(chosen=lambda site, layers: True)),
        Mistake("the layers are turned about: those in layers are changed",
                mutually(chosen=lambda site, layers: site.name not in layers)),
        Mistake("masks act in other layers, too: only in those in layers",
                mutually(map_chosen=lambda site, layers: not site.is_cross)),
        Mistake("the masks have no effect", mutually(strike=lambda A, here, there: A)),
        Mistake("the two masks have changed places: `here` is of the places that ask, in the edit",
                mutually(order=lambda here, there: (there, here))),
        Mistake("only the source's mask is used: `here` is of the places that ask, in the edit",
                mutually(order=lambda here, there: (there, there))),
        Mistake("only the edit's mask is used: `there` is of the places that are seen, in the "
                "source", mutually(order=lambda here, there: (here, here))),
        Mistake("the masks are turned about: the object sees the object",
                mutually(strike=restricted(torch.ne))),
        Mistake("the background sees everything: it sees the background alone",
                mutually(strike=restricted(lambda a, b: ~a | b))),
        Mistake("the object sees everything: it sees the object alone",
                mutually(strike=restricted(lambda a, b: a | ~b))),
        Mistake("the background sees the object, as the object does: it sees the background",
                mutually(strike=restricted(lambda a, b: b))),
        Mistake("the background sees nothing: it sees the background",
                mutually(strike=restricted(lambda a, b: a & b, bare=torch.zeros_like))),
        Mistake("what is left of a row does not sum to one: divide by its sum",
                mutually(strike=restricted(torch.eq, lambda A, kept, total: kept))),
        Mistake("what is left of a row does not sum to one: divide by its sum",
                mutually(strike=restricted(torch.eq, lambda A, kept, total: kept,
                                           torch.zeros_like))),
        Mistake("what is left of a row is put through a softmax again: A has been through one, so "
                "divide by the sum", mutually(strike=restricted(
                    torch.eq, lambda A, kept, total: A.where(kept > 0, -torch.inf).softmax(-1)))),
        Mistake("a place that is left with nothing to see sees nothing: it sees all",
                mutually(strike=restricted(torch.eq, bare=torch.zeros_like))),
        Mistake("a place that is left with nothing to see sees all alike: it sees what it saw",
                mutually(strike=restricted(torch.eq, bare=lambda A: torch.full_like(
                    A, 1 / A.shape[-1])))),
        Mistake("a place that is left with nothing to see is NaN: it sees all",
                when=lambda got, wanted, args: any(isinstance(v, Tensor) and v.isnan().any()
                                                   for v in got.values())),
        Mistake("masks act on the sources, too: their rows come back as they are",
                mutually(edits=lambda rows, b: torch.ones(rows, dtype=torch.bool))),
        Mistake("masks act on the last part of the batch alone: on all parts after the sources",
                mutually(edits=lambda rows, b: torch.arange(rows) >= rows - b)),
        Mistake("masks act on the second part of the batch alone: on all parts after the sources",
                mutually(edits=lambda rows, b: (torch.arange(rows) >= b)
                         & (torch.arange(rows) < 2 * b))),
        Mistake("the masks come in the wrong order: each picture has its own, in each part of the "
                "batch", mutually(spread=lambda m, rows, b: m[in_turn(rows, b)])),
        Mistake("every picture has the first one's masks: each has its own",
                mutually(spread=lambda m, rows, b: m[torch.zeros(rows, dtype=torch.long)])),
        *(Mistake("a place of a smaller map asks the mask at the upper left place of its square: "
                  "not the whole square", mutually(at=of)) for of in (AVERAGE, ANY, SMOOTH)),
        Mistake("the masks are None where there are none: then a map stays as it is",
                raised="'NoneType' object"),
        Mistake(f"rows were lost: {ALL_ROWS}", when=lambda got, wanted, args: any(
            isinstance(got.get(name), Tensor) and got[name].shape != value.shape
            for name, value in wanted.items() if isinstance(value, Tensor))),
    ),
)


# ---- 10-6 pix2pix-zero -------------------------------------------------------------------------


def zero_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, S: int, b: int, w: float, lam: float, dtype: str, *, size: float = 1.0,
             end: int = 0, sampled: bool = False) -> Case:
        seed, l = int(g.integers(2**31)), int(g.integers(3, 6))
        path = uneven(g, S + 1, 60) if end else [*uneven(g, S, 60), 0]
        text, by = g.standard_normal((2, 1, l, 5))
        told = torch.from_numpy(text).float().double()
        net, levels = worded(torch.float64, seed), levels_of("linear")
        eps = lambda x, t: net(x, t, told)
        x = torch.from_numpy(g.standard_normal((b, 2, 2, 3))).float().double()
        if sampled:
            pivot = [state.x for state in ddim(eps, levels, x, path)]
        else:
            pivot = [state.x for state in invert(eps, levels, 0.6 * x, path)][::-1]
        return Case(f"{what}, {dtype}", {
            "eps": named("worded", seed=seed), "maps": named("looking", seed=seed),
            "schedule": LINEAR, "pivot": [state.numpy() for state in pivot], "path": path,
            "text": text, "by": size * by, "w": w, "lam": lam}, dtype)

    weight = lambda: float(g.uniform(2, 4))
    yield case("two pictures", 4, 2, weight(), float(g.uniform(0.3, 0.6)), "float64")
    yield case("a path that ends above zero", 4, 1, weight(), float(g.uniform(0.2, 0.4)),
               "float32", end=1)
    yield case("no direction, a sampled source", 3, 2, weight(), float(g.uniform(0.3, 0.6)),
               "float64", size=0.0, sampled=True)
    yield case("no guidance by maps", 4, 2, weight(), 0.0, "float32")
    yield case("weight one, three pictures", 3, 3, 1.0, float(g.uniform(0.3, 0.6)), "float64")


def strayed(found: Sequence[Tensor], aim: Sequence[Tensor]) -> Tensor:
    """The mean over heads is that over a sum of heads."""
    return sum(F.mse_loss(m, ref, reduction="sum") / m.shape[1]
               for m, ref in zip(found, aim, strict=True))


def zero(eps: Callable, maps: Callable, schedule: Schedule, pivot: Sequence[Tensor],
         path: Sequence[int], text: Tensor, by: Tensor, w: float, lam: float, *,
         loss: Callable = strayed, start: Callable = lambda pivot: pivot[0],
         shown: Callable = lambda pivot, i, z: pivot[i],
         time: Callable = lambda t, s: t, sought: Callable = lambda text, by: text,
         seen: Callable = lambda text, by: text + by, to: Callable = lambda text, by: text + by,
         away: Callable = lambda text, by: text, sign: float = 1.0,
         asked: Callable = lambda old, new: new, walks: Callable = lambda old, new: new,
         times: int = 1, late: bool = False,
         length: Callable = lambda slope: slope) -> Tensor:
    """The walk, with parts to be altered."""
    z = start(pivot)

    def nearer(x: Tensor, i: int, t: int) -> Tensor:
        aim = maps(shown(pivot, i, x), t, sought(text, by))
        for _ in range(times):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                slope, = torch.autograd.grad(loss(maps(x, t, seen(text, by)), aim), x)
            x = x.detach() - sign * lam * length(slope)
        return x

    for i, (t, s) in enumerate(pairwise(path)):
        u = time(t, s)
        new = z if late else nearer(z, i, u)
        e = guided(lambda x, t: eps(x, t, away(text, by)), lambda x, t: eps(x, t, to(text, by)),
                   w)(asked(z, new), t)
        x = walks(z, new)
        z = schedule.noise(schedule.denoise(x, e, t), e, s)
        if late and s:
            z = nearer(z, i + 1, s)
    return z


def zeroed(**parts: Any) -> Callable:
    return lambda *args: zero(*args, **parts)


def strays(part: Callable) -> Callable:
    """A loss of another kind: part(m, ref) of each layer, added up."""
    return lambda found, aim: sum(part(m, ref) for m, ref in zip(found, aim, strict=True))


def wanted_zero(*args: Any) -> dict:
    return {"edit": zero(*args), "graph left": []}


ZERO = Exercise(
    "10-6", "pix2pix-zero", 4, 20, 3,
    "pix2pix_zero(eps, maps, schedule, pivot, path, text, by, w, lam)",
    public=zero_cases, wanted=wanted_zero, tolerance={"float64": 1e-7, "float32": 5e-3},
    study=(*LOOPS, *(f"{EDITS}.pix2pix_zero.{f}" for f in ("attention", "drift", "gradient"))),
    mistakes=(
        Mistake("the latents of the edit are asked for, one tensor", when=no_dict),
        Mistake("the step goes uphill: the gradient is taken off", zeroed(sign=-1.0)),
        Mistake("the latents do not move towards the maps", zeroed(sign=0.0)),
        Mistake("the squares are averaged: over places and tokens they are added up",
                zeroed(loss=strays(lambda m, ref: (m - ref).square().mean()))),
        Mistake("the squares are averaged: over places and tokens they are added up",
                zeroed(loss=strays(lambda m, ref: (m - ref).square().mean() * len(m)))),
        Mistake("the squares of all heads are added up: over heads their mean is asked for",
                zeroed(loss=strays(lambda m, ref: (m - ref).square().sum()))),
        Mistake("half of the sum is used: layers are added up, and squares are not halved",
                zeroed(loss=lambda *both: strayed(*both) / 2)),
        Mistake("the pictures are averaged: each moves as if it were alone",
                zeroed(loss=lambda found, aim: strayed(found, aim) / len(found[0]))),
        Mistake("only the last layer counts: all of them, added up",
                zeroed(loss=lambda found, aim: strayed(found[-1:], aim[-1:]))),
        Mistake("only the first layer counts: all of them, added up",
                zeroed(loss=lambda found, aim: strayed(found[:1], aim[:1]))),
        Mistake("heads are averaged before they are compared: each head with its own",
                zeroed(loss=strays(lambda m, ref: (m.mean(1) - ref.mean(1)).square().sum()))),
        Mistake("the loss is a root: the sum of the squares is asked for",
                zeroed(loss=strays(lambda m, ref: (m - ref).square().sum().sqrt()))),
        Mistake("the differences are not squared",
                zeroed(loss=strays(lambda m, ref: (m - ref).abs().sum() / m.shape[1]))),
        Mistake("the gradient is made to length one: it comes as it is",
                zeroed(length=lambda slope: slope / slope.norm())),
        Mistake("only the sign of the gradient is used: it comes as it is",
                zeroed(length=torch.sign)),
        Mistake("the aim is what the edit looks at: it is what the source looks at, in its state",
                zeroed(shown=lambda pivot, i, z: z)),
        Mistake("the aim is read off the state where the hop ends: where it begins",
                zeroed(shown=lambda pivot, i, z: pivot[i + 1])),
        Mistake("the aim is always that of the first hop: each hop has its own",
                zeroed(shown=lambda pivot, i, z: pivot[0])),
        Mistake("the aim is read off the picture: off the source's state of this hop",
                zeroed(shown=lambda pivot, i, z: pivot[-1])),
        Mistake("the aim has the direction in its text: the source is seen with its own text",
                zeroed(sought=lambda text, by: text + by)),
        Mistake("the maps that move lack the direction: the edit is seen with text + by",
                zeroed(seen=lambda text, by: text)),
        Mistake("the maps are read at the time where the hop ends: where it begins",
                zeroed(time=lambda t, s: max(s, 1))),
        Mistake("the hop begins where the step began: it begins where the step led",
                zeroed(walks=lambda old, new: old)),
        Mistake("the noise is that of the latents before the step: ask again after it",
                zeroed(asked=lambda old, new: old)),
        Mistake("the step has no effect on the hop: it begins where the step led, and asks there",
                zeroed(asked=lambda old, new: old, walks=lambda old, new: old)),
        Mistake("the step comes after the hop: before it", zeroed(late=True)),
        Mistake("more than one step is made in a hop", zeroed(times=2)),
        Mistake("the edit begins at the picture: it begins where its source does, at the noisy "
                "end", zeroed(start=lambda pivot: pivot[-1])),
        Mistake("the direction has no effect on the noise: the edit is told text + by",
                zeroed(to=lambda text, by: text)),
        Mistake("the edit is told the direction alone: it is added to the text",
                zeroed(to=lambda text, by: by, seen=lambda text, by: by)),
        Mistake("the edit is told the direction alone: it is added to the text",
                zeroed(to=lambda text, by: by)),
        Mistake("the direction is taken off: it is added",
                zeroed(to=lambda text, by: text - by, seen=lambda text, by: text - by)),
        Mistake("guidance leads away from zeros: away from the source's text",
                zeroed(away=lambda text, by: torch.zeros_like(text))),
        Mistake("there is no guidance: w leads away from the source's text",
                zeroed(away=lambda text, by: text + by)),
        Mistake("the two ends of guidance have changed places: weight one is text + by",
                zeroed(to=lambda text, by: text, away=lambda text, by: text + by)),
        Mistake("this is the source: the edit's own latents are asked for",
                lambda eps, maps, schedule, pivot, *rest: pivot[-1]),
        Mistake("no gradient reaches the latents: detach, data and no_grad cut it off, also when "
                "they stand around the maps", raised="does not require grad"),
        Mistake("no gradient reaches the latents: they must have requires_grad_ before the maps "
                "are read off them", raised="appears to not have been used"),
        Mistake("no gradient reaches the latents: they must have requires_grad_ before the maps "
                "are read off them", raised="unsupported operand type(s) for *: 'float' and "
                "'NoneType'"),
        Mistake("the result still carries the graph that made it, and with it the memory of all "
                "hops: detach it", when=lambda got, wanted, args: bool(got["graph left"])),
    ),
)

EXERCISES = (RECORD, HAND, ATTEND, PLUG, MUTUAL, ZERO)
