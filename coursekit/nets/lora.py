"""LoRA: a small update of a network's attention, as a value that is put in, taken out and mixed.

Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang & Chen, "LoRA: Low-Rank Adaptation of Large Language
Models", ICLR 2022.

    W' x = W x + (alpha / r) B A x       eq. 3, with A (r, k), B (d, r) for a layer W (d, k)

    lora = Lora.fresh(net, rank=4, generator=generator)    A random, B = 0: changes nothing yet
    with applied(net, lora):                               in, and out again when the block ends
        ...
    merged = merge(net, lora)                              into the weights: a pass costs no more
    unmerge(net, merged)
    half = mix(a, b, 0.5)                                  the updates mixed, not their factors

The layers are to_q, to_k, to_v and to_out.0 of every attention, as in diffusers' training scripts.
An attention processor calls these modules, so a LoRA works under every one of them, and under every
control. `lora_fit` makes one for a picture, `lora_file` writes it as diffusers and peft do.

A and B are not unique: B G and G^-1 A give the same update for every G (r, r) with an inverse. To
interpolate factors is therefore to interpolate nothing in particular, and `mix` puts ranks side by
side. (DiffMorpher's paper mixes updates, its code factors. Halfway between two portraits, fitted
from one and the same A, the two differ by 0.4 of the update's size.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coursekit.diffusion.sample import randn_like

PLACES = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, eq=False)
class Factors:
    """The update of one layer, (alpha / r) B A.

    A      (r, k) reads what the layer reads; float32 whatever the layer is
    B      (d, r) writes where it writes
    alpha  a number; r makes the factor before B A one
    """

    A: Tensor
    B: Tensor
    alpha: float

    def __post_init__(self) -> None:
        A, B = tuple(self.A.shape), tuple(self.B.shape)
        if len(A) != 2 or len(B) != 2 or A[0] != B[1] or 0 in (*A, *B):
            raise ValueError(f"A is {A}, B is {B}: accepted are (r, k) and (d, r)")
        if not isinstance(self.alpha, Real) or not math.isfinite(self.alpha):
            raise ValueError(f"alpha={self.alpha!r}: accepted is a finite number")

    @property
    def rank(self) -> int:
        return len(self.A)

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @property
    def shape(self) -> tuple[int, int]:
        """(d, k), that of the layer's weight."""
        return len(self.B), self.A.shape[1]


@dataclass(frozen=True, eq=False)
class Lora:
    """Updates by the path of their layer, "down_blocks.0. .. .attn1.to_q"; tied to no network."""

    layers: Mapping[str, Factors]

    def __repr__(self) -> str:
        ranks = "/".join(map(str, sorted({layer.rank for layer in self.layers.values()})))
        return f"Lora({len(self.layers)} layers, rank {ranks or 0})"

    @classmethod
    def fresh(cls, net: nn.Module, rank: int = 4, *, alpha: float | None = None,
              generator: torch.Generator | None = None) -> Lora:
        """One for all attention of `net` that changes nothing yet: B = 0.

        A is normal with deviation 1 / rank, as diffusers' scripts draw it. alpha is the rank where
        it is None, so that their factor is one. ValueError: no attention, a rank outside 1 .. the
        smaller side of every layer, an alpha that is not > 0.
        """
        found = places(net)
        alpha = rank if alpha is None else alpha
        narrow = min(found, key=lambda path: min(_shape(found[path])))
        most = min(_shape(found[narrow]))
        if not isinstance(rank, Integral) or isinstance(rank, bool) or not 1 <= rank <= most:
            raise ValueError(f"rank={rank!r}: accepted is a whole number 1..{most}, the smaller "
                             f"side of '{narrow}'")
        if not isinstance(alpha, Real) or not 0 < alpha < math.inf:
            raise ValueError(f"alpha={alpha!r}: accepted is a finite number > 0")
        layers = {}
        for path, layer in found.items():
            (d, k), device = _shape(layer), _device(layer)
            A = randn_like(torch.empty(rank, k, device=device), generator) / rank
            layers[path] = Factors(A, torch.zeros(d, rank, device=device), alpha)
        return cls(layers)

    def delta(self, path: str) -> Tensor:
        """The update of the layer at `path` in full, (d, k)."""
        if path not in self.layers:
            raise ValueError(f"path={path!r}: accepted are the {len(self.layers)} layers of the "
                             f"LoRA, as '{next(iter(self.layers), '')}'")
        layer = self.layers[path]
        return layer.scale * (layer.B @ layer.A)


class LoRALinear(nn.Module):
    """A linear layer with an update beside it, (.., k) -> (.., d).

    The update is computed in the precision of A and B, or of the layer where that is finer, and
    the sum is rounded once. A and B remain the Lora's own: the parameters of this module are those
    of `base`.
    """

    def __init__(self, base: nn.Module, factors: Factors, scale: float = 1.0):
        super().__init__()
        self.base, self.scale = base, scale * factors.scale
        self.factors = (factors.A.to(_device(base)), factors.B.to(_device(base)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        wide = torch.promote_types(y.dtype, self.factors[0].dtype)
        A, B = (factor.to(wide) for factor in self.factors)
        update = F.linear(F.linear(x.to(wide), A), B)  # .. r, then .. d
        return (y.to(wide) + self.scale * update).to(y.dtype)


# ---- in and out -----------------------------------------------------------------------------


def places(net: nn.Module) -> dict[str, nn.Module]:
    """path -> layer, of all layers in `net` that a LoRA adapts; ValueError where there is none."""
    attention = [name for name, m in net.named_modules()
                 if hasattr(m, "set_processor") and hasattr(m, "to_q")]
    paths = [f"{name}.{place}".lstrip(".") for name in attention for place in PLACES]
    found = {path: layer for path in paths if (layer := _linear(net, path)) is not None}
    if not found:
        raise ValueError(f"net is a {type(net).__name__} without attention of linear layers: there "
                         "is nothing to adapt")
    return found


@contextmanager
def applied(net: nn.Module, lora: Lora, scale: float = 1.0) -> Iterator[None]:
    """Puts `scale` times the update into `net`, and takes it out again when the block ends.

    Also by an exception: `net` is then as it was, to the bit. Blocks stack: their updates add up.
    Where gradients are on, no weight of `net` takes one inside; A and B do if they ask for it. The
    layers' own weights are called to_q.base.weight there.
    ValueError: a scale that is not finite, a layer that `net` has not or has in another shape.
    """
    layers = _fitting(net, lora, scale)
    # Left alone where nothing learns: torch adds in another order for a weight that takes gradients
    learning = [p for p in net.parameters() if p.requires_grad and torch.is_grad_enabled()]
    try:
        for p in learning:
            p.requires_grad_(False)
        for path, layer in layers.items():
            net.set_submodule(path, LoRALinear(layer, lora.layers[path], scale))
        yield
    finally:
        for path, layer in layers.items():
            net.set_submodule(path, layer)
        for p in learning:
            p.requires_grad_(True)


@dataclass(frozen=True, eq=False)
class Merged:
    """The parameters that `merge` replaced, and those it put in their place, by layer."""

    before: Mapping[str, nn.Parameter]
    after: Mapping[str, nn.Parameter]


@torch.no_grad()
def merge(net: nn.Module, lora: Lora, scale: float = 1.0) -> Merged:
    """Adds `scale` times the update to the weights of `net`; give what comes back to `unmerge`.

    Within 1e-6 of `applied` in float32. To subtract the update again would leave its rounding
    behind; therefore the old parameters are kept, and new ones stand in for them.
    """
    layers = _fitting(net, lora, scale)
    before, after = {}, {}
    for path, layer in layers.items():
        if isinstance(layer, LoRALinear):
            raise ValueError(f"net has a LoRA applied at '{path}': accepted is to merge outside of "
                             "its block")
        W = before[path] = layer.weight
        update = lora.delta(path).to(W.device)
        wide = torch.promote_types(W.dtype, update.dtype)
        merged = (W.to(wide) + scale * update.to(wide)).to(W.dtype)
        after[path] = nn.Parameter(merged, requires_grad=W.requires_grad)
    for path, parameter in after.items():
        layers[path].weight = parameter
    return Merged(before, after)


def unmerge(net: nn.Module, merged: Merged) -> None:
    """Puts back what `merge` replaced: the same parameters, so the same weights to the bit.

    Last merged, first unmerged. ValueError where the weights are not those that `merge` left.
    """
    layers = {path: _linear(net, path) for path in merged.after}
    for path, layer in layers.items():
        now, old = getattr(layer, "weight", None), merged.before[path]
        if now is not merged.after[path] or (now.dtype, now.device) != (old.dtype, old.device):
            raise ValueError(f"merged: '{path}' is not as merge left it: accepted is the network "
                             "merged last, in the same dtype and place")
    for path, layer in layers.items():
        layer.weight = merged.before[path]


def mix(a: Lora, b: Lora, share: float) -> Lora:
    """The LoRA whose update is (1 - share) that of a + share that of b, exactly.

        [(1 - share) s_a B_a | share s_b B_b] [A_a; A_b]        s = alpha / r

    Ranks add up, and alpha is the rank; where one of them lacks a layer, its update counts as zero.
    0 and 1 give a and b themselves. ValueError: a share outside [0, 1], layers of other shapes.
    """
    if not isinstance(share, Real) or not 0 <= share <= 1:
        raise ValueError(f"share={share!r}: accepted is a number in [0, 1]")
    for path in (p for p in a.layers if p in b.layers):
        shapes = a.layers[path].shape, b.layers[path].shape
        if shapes[0] != shapes[1]:
            raise ValueError(f"b updates '{path}' of {shapes[1]}, a one of {shapes[0]}: accepted "
                             "are LoRAs of one architecture")
    if share in (0, 1):
        return b if share else a
    parts: dict[str, list[tuple[float, Factors]]] = {}
    for weight, lora in ((1 - share, a), (share, b)):
        for path, layer in lora.layers.items():
            parts.setdefault(path, []).append((weight * layer.scale, layer))
    return Lora({path: _side_by_side(some) for path, some in parts.items()})


def _side_by_side(parts: list[tuple[float, Factors]]) -> Factors:
    like = parts[0][1].A  # one LoRA may come from a file, the other from a GPU
    A = torch.cat([layer.A.to(like) for _, layer in parts])  # r_a + r_b, k
    B = torch.cat([weight * layer.B.to(like) for weight, layer in parts], 1)  # d, r_a + r_b
    return Factors(A, B, len(A))


def _fitting(net: nn.Module, lora: Lora, scale: float) -> dict[str, nn.Module]:
    """The layers of `net` that `lora` updates, once all of them are there."""
    if not isinstance(scale, Real) or not math.isfinite(scale):
        raise ValueError(f"scale={scale!r}: accepted is a finite number")
    layers = {path: _linear(net, path) for path in lora.layers}
    for path, layer in layers.items():
        asked = lora.layers[path].shape
        if layer is None or _shape(layer) != asked:
            has = "no such linear layer" if layer is None else f"one of {_shape(layer)}"
            raise ValueError(f"lora updates '{path}' of {asked}, this {type(net).__name__} has "
                             f"{has}: accepted is a LoRA of the same architecture")
    return layers


def _linear(net: nn.Module, path: str) -> nn.Module | None:
    try:
        layer = net.get_submodule(path)
    except AttributeError:
        return None
    return layer if isinstance(layer, (nn.Linear, LoRALinear)) else None


def _shape(layer: nn.Module) -> tuple[int, int]:
    while isinstance(layer, LoRALinear):
        layer = layer.base
    return layer.out_features, layer.in_features


def _device(layer: nn.Module) -> torch.device:
    return next(layer.parameters()).device
