"""Lab 11: a small U-Net to be copied, a predictor that takes a hint, layers with low-rank updates.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 4


def draws(seed: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    """draw(*shape): standard normal numbers, the same in both precisions."""
    g = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64).float().to(dtype)


@torch.no_grad()
def filled(module: nn.Module, draw: Callable[..., Tensor], size: float = 0.3) -> None:
    """Adds numbers to every weight, in the order of the weights' names."""
    for _, p in sorted(module.named_parameters()):
        p.add_(size * draw(*p.shape))


def apart(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """A builder that leaves torch's own generator as it was."""
    def built(**numbers: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            return build(**numbers)
    return built


def is_module(answer: Any) -> nn.Module:
    if not isinstance(answer, nn.Module):
        raise TypeError("the answer must be a class that inherits from torch.nn.Module")
    return answer


def learning(module: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that learn, by name."""
    return {name: p for name, p in sorted(module.named_parameters()) if p.requires_grad}


# ---- 11-1 a zero convolution -------------------------------------------------------------------


def named_parts(answer: Callable, h: Tensor, W: Tensor, b: Tensor, g: Tensor) -> object:
    got = answer(h, W, b, g)
    if not isinstance(got, tuple) or len(got) != 4:
        return got
    return dict(zip(("y", "dW", "db", "dh"), got, strict=True))


# ---- 11-2 a control of our own -----------------------------------------------------------------


class Block(nn.Module):
    """block(h (b, c, 4, 4), t) -> (b, c', 4, 4)"""

    def __init__(self, inside: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, out, 3, padding=1)

    def forward(self, h: Tensor, t: int) -> Tensor:
        return (self.conv(h) + math.cos(t / 150)).tanh()


class Encoder(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.input = nn.Conv2d(2, widths[0], 1)
        self.blocks = nn.ModuleList(map(Block, (widths[0], *widths), widths[:-1]))
        self.middle = Block(*widths[-2:])


class Decoder(nn.Module):
    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        *skips, h = widths
        self.blocks = nn.ModuleList(Block(h + c, h) for c in reversed(skips))
        self.output = nn.Conv2d(h, 2, 1)

    def forward(self, h: Tensor, skips: Sequence[Tensor], t: int) -> Tensor:
        if not isinstance(skips, (list, tuple)) or len(skips) != len(self.blocks):
            came = len(skips) if isinstance(skips, (list, tuple)) else type(skips).__name__
            raise ValueError(f"decoder(h, skips, t): skips is {came}, accepted is a list of "
                             f"{len(self.blocks)}")
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            h = block(torch.cat([h, skip], 1), t)
        return self.output(h)


class Trunk(nn.Module):
    """net(x (b, 2, 4, 4), t); widths are the channels of each skip, and last of the middle."""

    def __init__(self, dtype: torch.dtype, seed: int, widths: Sequence[int], frozen: bool) -> None:
        super().__init__()
        self.seed, self.widths = seed, list(widths)
        self.encoder, self.decoder = Encoder(widths), Decoder(widths)
        draw = draws(seed, dtype)
        with torch.no_grad():
            for _, p in sorted(self.named_parameters()):
                p.copy_(draw(*p.shape) / p[0].numel() ** 0.5)
        self.to(dtype).requires_grad_(not frozen)

    def forward(self, x: Tensor, t: int) -> Tensor:
        h, skips = self.encoder.input(x), []
        for block in self.encoder.blocks:
            h = block(h, t)
            skips.append(h)
        return self.decoder(self.encoder.middle(h, t), skips, t)


TIME, STRENGTH = 300, 0.6


def shown(net: Trunk, hint_channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two noisy pictures, a hint for each, and what their outputs are weighted with."""
    dtype = next(net.parameters()).dtype
    draw = draws(net.seed + 1, dtype)
    return (draw(2, 2, SIDE, SIDE), draw(2, hint_channels, SIDE, SIDE).sigmoid(),
            draw(2, 2, SIDE, SIDE))


def joint(conv: nn.Module) -> str:
    """A convolution in words."""
    shape = "x".join(map(str, conv.weight.shape))
    zero = not conv.weight.any() and (conv.bias is None or not conv.bias.any())
    return f"{shape}, {'zero' if zero else 'not zero'}{'' if conv.bias is not None else ', bare'}"


def held(answer: Callable, net: Trunk, hint_channels: int) -> dict[str, Any]:
    """A control as it is made, and with every joint and every weight of the copy drawn anew."""
    with torch.enable_grad():
        model = is_module(answer(net, hint_channels))
        x, hint, aim = shown(net, hint_channels)
        model.to(x.dtype)
        before = {name: p.detach().clone() for name, p in net.named_parameters()}
        seen: dict[str, Any] = {
            "a fresh one": model(x, TIME, hint).detach(),
            "enter": joint(model.enter), "leave": [joint(z) for z in model.leave],
            "numbers that learn": sum(p.numel() for p in learning(model).values())}
        for i, part in enumerate((model.copy, model.enter, model.leave)):
            filled(part, draws(net.seed + 2 + i, x.dtype))
        same = all(torch.equal(p, before[name]) for name, p in net.named_parameters())
        seen["the trunk's own weights"] = "as they were" if same else "changed with the copy's"
        out = model(x, TIME, hint)
        (aim * out).sum().backward()
        seen["output"] = out.detach()
        seen["trunk weights with a gradient"] = sum(p.grad is not None for p in net.parameters())
        for name, part in (("copy.input", model.copy.input), ("enter", model.enter),
                           ("leave[0]", model.leave[0])):
            seen[f"gradient of {name}"] = part.weight.grad
        for strength, words in ((STRENGTH, "weaker"), (0.0, "strength zero")):
            seen[words] = model(x, TIME, hint, strength).detach()
    return seen


# ---- 11-3 guidance with a hint -----------------------------------------------------------------


class Hinted:
    """eps(z (b, 2, 3), t, words, scales): scales are K + 1 factors of what a hint adds, or None."""

    def __init__(self, dtype: torch.dtype, seed: int, K: int) -> None:
        draw = draws(seed, dtype)
        self.seed, self.K = seed, K
        self.added = draw(K + 1, 2, 3)
        self.told, self.dtype = {}, dtype

    def __call__(self, z: Tensor, t: int, words: str, scales: Sequence[float] | None) -> Tensor:
        if not isinstance(words, str):
            raise TypeError(f"eps(z, t, words, scales): words is {type(words).__name__}, accepted "
                            "is a sentence")
        if isinstance(t, bool) or not isinstance(t, int) or not 1 <= t <= 1000:
            raise ValueError(f"eps(z, t, words, scales): t = {t!r}, accepted is an int in 1..1000")
        if scales is None:
            scales = [0.0] * (self.K + 1)
        if isinstance(scales, (int, float)) or len(scales) != self.K + 1:
            came = scales if isinstance(scales, (int, float)) else f"{len(scales)} numbers"
            raise ValueError(f"eps(z, t, words, scales): scales is {came}, accepted are "
                             f"{self.K + 1} numbers or None")
        if words not in self.told:
            mean = draws(zlib.crc32(words.encode()) + self.seed, self.dtype)(2, 3)
            self.told[words] = mean
        turn = (z - self.told[words]) * math.cos(t / 400)
        found = turn.tanh()
        for k, scale in enumerate(scales):
            found = found + float(scale) * (turn + self.added[k]).sin() / (1 + k)
        return found


def asked(answer: Callable, eps: Hinted, prompt: str, path: list[int], *args: Any) -> object:
    """What the predictor says of every hop, asked in an order of the check's own, and twice."""
    predictor = answer(eps, prompt, path, *args)
    if not callable(predictor):
        return predictor
    z, S = draws(eps.seed + 1, eps.dtype)(2, 2, 3), len(path) - 1
    order = [*range(0, S, 2), *range(1, S, 2)]
    first, again = ({i: predictor(z, path[i]) for i in some} for some in (order[::-1], order))
    return {f"hop {i}": first[i] for i in range(S)} | {
        f"hop {i} again": again[i] for i in range(S)}


# ---- 11-4 LoRA ---------------------------------------------------------------------------------


def layer(dtype: torch.dtype, seed: int, d: int, k: int, bias: bool = True) -> nn.Linear:
    """A linear layer from k to d channels that learns."""
    found, draw = nn.Linear(k, d, bias=bias).to(dtype), draws(seed, dtype)
    with torch.no_grad():
        for _, p in sorted(found.named_parameters()):
            p.copy_(draw(*p.shape) / k**0.5)
    found.seed = seed
    return found


def read(base: nn.Linear) -> tuple[Tensor, Tensor]:
    """What the layer reads (2, 3, k), and what its outputs are weighted with."""
    draw = draws(base.seed + 1, base.weight.dtype)
    return draw(2, 3, base.in_features), draw(2, 3, base.out_features)


def factor(p: Tensor) -> str:
    return f"{'x'.join(map(str, p.shape))}, {'random' if p.any() else 'zero'}"


def spread(A: Tensor, r: int) -> str:
    """Whether the numbers of A have the deviation that is asked for, within a quarter."""
    return "1 / r" if 0.75 < float(A.detach().double().std()) * r < 1.25 else "another"


def adapted(answer: Callable, base: nn.Linear, r: int, alpha: float,
            generator: torch.Generator) -> dict[str, Any]:
    """A layer with an update as it is made, and with A and B drawn anew."""
    with torch.enable_grad():
        x, aim = read(base)
        before, begun = base.weight.detach().clone(), generator.get_state()
        model = is_module(answer(base, r, alpha, generator))
        A = model.A.detach().clone()
        seen: dict[str, Any] = {"a fresh one": model(x).detach(), "A": factor(model.A),
                                "B": factor(model.B), "deviation of A": spread(A, r)}
        torch.rand(7)  # who draws from torch's own generator finds it elsewhere
        generator.set_state(begun)
        again = answer(base, r, alpha, generator).A
        other = answer(base, r, alpha, generator).A
        seen["A by the generator"] = [torch.equal(A, again), torch.equal(A, other)]
        seen["learns"] = list(learning(model))
        draw = draws(base.seed + 2, before.dtype)
        with torch.no_grad():
            model.A.copy_(0.5 * draw(*model.A.shape))
            model.B.copy_(0.5 * draw(*model.B.shape))
        out = model(x)
        if out.requires_grad:
            (aim * out).sum().backward()
        seen |= {"output": out.detach(), "gradient of A": model.A.grad,
                 "gradient of B": model.B.grad, "merged": model.merged().detach()}
        same = torch.equal(base.weight, before)
        seen["the layer's own weight"] = "as it was" if same else "changed"
    return seen


# ---- 11-5 the fit ------------------------------------------------------------------------------


class Fits(nn.Module):
    """A linear map from `inside` to `out` channels with an update beside it, A and B."""

    def __init__(self, inside: int, out: int, r: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inside, out)
        self.A, self.B = nn.Parameter(torch.zeros(r, inside)), nn.Parameter(torch.zeros(out, r))

    def forward(self, h: Tensor) -> Tensor:
        return self.layer(h) + nn.functional.linear(h, self.B @ self.A)


class Learner(nn.Module):
    """net(x (n, 2, 3), t (n,)) -> (n, 2, 3), with two updates; the rest may learn or not."""

    def __init__(self, dtype: torch.dtype, seed: int, fresh: bool, frozen: bool) -> None:
        super().__init__()
        self.enter, self.leave, self.norm = Fits(6, 5, 2), Fits(5, 6, 1), nn.LayerNorm(5)
        draw = draws(seed, dtype)
        with torch.no_grad():
            for name, p in sorted(self.named_parameters()):
                zero = fresh and name.endswith(".B")
                p.copy_(0 * p if zero else draw(*p.shape) / p[0].numel() ** 0.5)
        self.to(dtype)
        for name, p in self.named_parameters():
            p.requires_grad_(name.endswith((".A", ".B")) or not frozen)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if not isinstance(x, Tensor) or x.shape[1:] != (2, 3):
            came = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"net(x, t): x is {came}, accepted is (n, 2, 3)")
        if not isinstance(t, Tensor) or t.shape != x.shape[:1] or t.is_floating_point():
            came = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"net(x, t): t is {came}, accepted is an int64 tensor ({len(x)},)")
        late = (t.to(x.dtype) / 1000)[:, None]
        h = (self.norm(self.enter(x.flatten(1))) + 2 * late).tanh()
        return self.leave(h).view_as(x)


def fitted(answer: Callable, net: Learner, *args: Any) -> object:
    """The losses and what the updates have become, and what came of the other weights."""
    own = {name: p for name, p in net.named_parameters() if name.endswith((".A", ".B"))}
    others = {name: p for name, p in net.named_parameters() if name not in own}
    before = {name: p.detach().clone() for name, p in others.items()}
    with torch.enable_grad():
        losses = answer(net, *args)
    if not isinstance(losses, list):
        return losses
    changed = sum(not torch.equal(p, before[name]) for name, p in others.items())
    return {"losses": losses} | {name: p.detach().clone() for name, p in own.items()} | {
        "other weights changed": changed,
        "other weights with a gradient": sum(p.grad is not None for p in others.values())}


# ---- 11-6 mixing -------------------------------------------------------------------------------


def composed(answer: Callable, first: tuple, second: tuple, u: float, q: int | None) -> object:
    """The update of the answer's factors, their rank, and how it is shared between A and B."""
    got = answer(first, second, u, q)
    if not isinstance(got, tuple) or len(got) != 3 or not all(
            isinstance(factor, Tensor) and factor.ndim == 2 for factor in got[:2]):
        return got
    A, B, alpha = got
    if B.shape[1] != len(A):
        return {"update": f"A is {tuple(A.shape)}, B is {tuple(B.shape)}"}
    seen = {"update": alpha / len(A) * (B @ A), "rank": len(A), "alpha / r": float(alpha) / len(A)}
    return seen if q is None else seen | {"squares of A": A @ A.mT, "squares of B": B.mT @ B}


CALLS = {"11-1": named_parts, "11-2": held, "11-3": asked, "11-4": adapted, "11-5": fitted,
         "11-6": composed}
KNOWN = {"11-2": {"trunk": apart(Trunk)}, "11-3": {"hinted": Hinted},
         "11-4": {"layer": apart(layer)}, "11-5": {"learner": apart(Learner)}}
