"""Lab 10: a small network with modules and attention, what is left in it, verbs asked about layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from coursekit.classroom.check.calls import watched
from coursekit.classroom.check.known import levels_of
from coursekit.nets.control import Site
from coursekit.nets.unet import Attention

WIDTH, SIDE = 6, 4


class Broken(RuntimeError):
    """Raised by a network in the middle of a pass, where a check asks for it."""


# ---- 10-1, 10-2, 10-4 a network with modules ---------------------------------------------------


class Part(nn.Module):
    """Two convolutions, a shortcut that is added in place, and self-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(2))
        self.attn1 = Attention(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(self.conv1(x).tanh()).add_(x)
        tokens = self.attn1(2 * h.flatten(2).mT)
        return (h + 2 * tokens.mT.view_as(h)).tanh()


class Net(nn.Module):
    """net(x, t) for x (k b, 2, 4, 4), the b rows of each of its k sentences together.

    same  whether all sentences say the same. `asked` holds the rows and the time of each call;
          with `fails` a call ends in `Broken`, after most modules have run.
    """

    def __init__(self, dtype: torch.dtype, seed: int, sentences: int = 1,
                 same: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.enter, self.leave = nn.Conv2d(2, WIDTH, 1), nn.Conv2d(WIDTH, 2, 3, padding=1)
            self.up = nn.ModuleList(Part() for _ in range(3))
            texts = torch.randn(3, WIDTH, 1, 1)
            self.register_buffer("texts", texts[:1].expand_as(texts) if same else texts)
            for weight in self.parameters():
                nn.init.normal_(weight, std=0.25)
        self.seed, self.sentences, self.fails, self.asked = seed, sentences, False, []
        self.to(dtype).eval().requires_grad_(False)

    def forward(self, x: Tensor, t: int) -> Tensor:
        if not isinstance(x, Tensor) or x.shape[1:] != (2, SIDE, SIDE) or len(x) % self.sentences:
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"net(x, t): x is {shape}, accepted is ({self.sentences} b, 2, 4, 4)")
        if isinstance(t, bool) or not isinstance(t, int) or not 1 <= t <= 1000:
            raise ValueError(f"net(x, t): t = {t!r}, accepted is an int in 1..1000")
        self.asked.append((len(x), t))
        text = self.texts[:self.sentences].repeat_interleave(len(x) // self.sentences, 0)
        h = self.enter(x) + text + math.sin(t / 200)
        for part in self.up:
            h = part(h)
        if self.fails:
            raise Broken("the network broke off")
        return self.leave(h).tanh()


def left(net: nn.Module) -> str:
    """What somebody has left in a network, in words."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules())
    kinds = {type(m.processor).__name__ for m in net.modules() if isinstance(m, Attention)}
    return "nothing" if not hooks and kinds == {"Fused"} else f"{hooks} hooks"


def broken(net: Net, run: Callable[[], Any]) -> str:
    """What comes of run() when the network breaks off."""
    net.fails = True
    try:
        run()
    except Broken:
        return "the error came through"
    finally:
        net.fails = False
    return "the error was swallowed"


def recorded(answer: Callable, net: Net, name: str, pivot: list[Tensor], *args: Any) -> object:
    """The list of features, when the network was asked, and what is left in it afterwards."""
    got = answer(net, name, pivot, *args)
    if not isinstance(got, list):
        return got
    seen = {"features": got, "times asked": [t for _, t in net.asked], "left in it": left(net)}
    path, n = args
    seen["a network that breaks off"] = broken(net, lambda: answer(net, name, pivot, path,
                                                                   max(n, 1)))
    seen["left in it then"] = left(net)
    return seen


TIME = 300


def start(net: Net, rows: int) -> Tensor:
    """Rows for a network, always the same, all different."""
    g = torch.Generator().manual_seed(net.seed + rows)
    x = torch.randn(rows, 2, SIDE, SIDE, generator=g, dtype=torch.float64)
    return x.to(net.texts.dtype)


def entered(answer: Callable, net: Net, name: str, b: int) -> object:
    """What a network says inside and after a context, with three sentences and with two."""
    seen: dict[str, object] = {}
    for k, words in ((3, "three sentences"), (2, "two sentences")):
        net.sentences, x = k, start(net, k * b)
        manager = answer(net, name, b)
        if not hasattr(manager, "__enter__"):
            return manager
        with manager:
            seen[f"inside, {words}"] = net(x, TIME)
        seen[f"afterwards, {words}"] = net(x, TIME)
    seen["left in it"] = left(net)

    def run() -> None:
        with answer(net, name, b):
            net(x, TIME)

    seen["a network that breaks off"] = broken(net, run)
    seen["left in it then"] = left(net)
    return seen


def edited(answer: Callable, net: Net, *args: Any) -> object:
    """The edit, with the rows and times that the network was asked about."""
    got = answer(net, *args)
    if not isinstance(got, Tensor):
        return got
    return {"edit": got, "rows asked": [rows for rows, _ in net.asked],
            "times asked": [t for _, t in net.asked], "left in it": left(net)}


# ---- 10-5 two verbs, and what they are asked about ---------------------------------------------

SIZES = {"fine": (4, 6), "coarse": (2, 3), "other": (4, 6), "words": (4, 6)}
PARTS = ((3, ""), (2, ", two parts"))


def site(name: str) -> Site:
    """A layer of the check's network; "words" pays attention to words, the others do not."""
    return Site(name, "up", list(SIZES).index(name), name == "words", SIZES[name])


def layer(name: str, rows: int, like: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k, v (rows, 2, .., 4) of a layer in float64: every row of every one differs."""
    n = math.prod(SIZES[name])
    g = torch.Generator().manual_seed(list(SIZES).index(name) + 10 * rows + 1000 * like)
    lengths = (n, 5, 5) if name == "words" else (n, n, n)
    return tuple(torch.randn(rows, 2, length, 4, generator=g, dtype=torch.float64)
                 for length in lengths)


def steered(answer: Callable, i: int, first: int, b: int, *args: Any) -> object:
    """What the two verbs do with rows of three parts and of two, in every layer.

    What is no pair of functions stays as it came.
    """
    got = answer(i, first, b, *args)
    if not isinstance(got, tuple) or len(got) != 2 or not all(map(callable, got)):
        return got
    (qkv, probs), seen = got, {}
    for parts, words in PARTS:
        for name in SIZES:
            taken, after = watched(qkv, site(name), *layer(name, parts * b, i))
            if not isinstance(taken, tuple) or len(taken) != 3:
                return {"qkv gives": taken if taken is None else type(taken).__name__}
            for part, value in zip("qkv", taken, strict=True):
                seen[f"{part}, {name}{words}"] = value
            seen[f"{name} afterwards{words}"] = after
    for parts, words in PARTS:
        for name in SIZES:
            q, k, _ = layer(name, parts * b, i)
            seen[f"map, {name}{words}"], seen[f"map, {name} afterwards{words}"] = watched(
                probs, site(name), (q @ k.mT / 2).softmax(-1))
    return seen


# ---- 10-6 a network that takes a text, and where its words look --------------------------------


def checked(what: str, x: Tensor, t: int, text: Tensor) -> None:
    if not isinstance(x, Tensor) or not isinstance(text, Tensor):
        raise TypeError(f"{what}(z, t, text): z or text is no tensor")
    if isinstance(t, bool) or not isinstance(t, int) or not 1 <= t <= 1000:
        raise ValueError(f"{what}(z, t, text): t = {t!r}, accepted is an int in 1..1000")
    if text.ndim != 3 or len(text) not in (1, len(x)):
        raise ValueError(f"{what}(z, t, text): text {tuple(text.shape)} does not fit z "
                         f"{tuple(x.shape)}, accepted is one text for all rows, or one for each")


def worded(dtype: torch.dtype, seed: int, name: str = "linear") -> Callable:
    """eps(z, t, text), exact for data N(mu(text), 0.25 I): z (b, 2, 2, 3), text (1, l, 5)."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(5, 12, generator=g, dtype=torch.float64).to(dtype)
    levels = levels_of(name)

    def eps(x: Tensor, t: int, text: Tensor) -> Tensor:
        checked("eps", x, t, text)
        share = 1 / torch.arange(1, text.shape[1] + 1, dtype=text.dtype)  # the first tokens count
        mu = torch.tanh((share @ text) @ mix / 2).view(-1, 2, 2, 3)
        level = levels.level(t)
        return math.sqrt(1 - level) / (level / 4 + 1 - level) * (x - math.sqrt(level) * mu)

    return eps


def looking(dtype: torch.dtype, seed: int) -> Callable:
    """maps(z, t, text): where words look, of two layers: (b, 2, 6, l) and (b, 3, 3, l)."""
    g = torch.Generator().manual_seed(seed + 1)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)
    weights = [(6, 2, draw(2, 2 * 4), draw(5, 2 * 4)), (3, 3, draw(2, 3 * 4), draw(5, 3 * 4))]

    def maps(x: Tensor, t: int, text: Tensor) -> list[Tensor]:
        checked("maps", x, t, text)
        found = []
        for places, heads, to_q, to_k in weights:
            pixels = x.flatten(2).mT.unflatten(1, (places, -1)).mean(2)  # b places 2
            q, k = ((y @ to).unflatten(2, (heads, 4)).transpose(1, 2)
                    for y, to in ((pixels, to_q), (text, to_k)))
            found.append(((0.5 + t / 1000) * q @ k.mT / 2).softmax(-1))
        return found

    return maps


def moved(answer: Callable, *args: Any) -> object:
    """The edit, and whether it still carries the graph of what made it."""
    with torch.enable_grad():
        got = answer(*args)
    if not isinstance(got, Tensor):
        return got
    return {"edit": got, "graph left": ["the edit"] if got.requires_grad else []}


CALLS = {"10-1": recorded, "10-2": entered, "10-4": edited, "10-5": steered, "10-6": moved}
NETS = {"net": Net}
KNOWN = {"10-1": NETS, "10-2": NETS, "10-4": NETS,
         "10-6": {"worded": worded, "looking": looking}}
