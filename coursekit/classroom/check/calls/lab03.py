"""Lab 03: layers and a denoiser from a seed, and what is done with blocks, losses and updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# ---- 03-2 the time turns every channel up or down --------------------------------------------


def norm(dtype: torch.dtype, seed: int, channels: int, groups: int) -> nn.GroupNorm:
    return seeded(nn.GroupNorm(groups, channels), seed, dtype)


def projection(dtype: torch.dtype, seed: int, channels: int, time_dim: int) -> nn.Linear:
    return seeded(nn.Linear(time_dim, 2 * channels), seed, dtype)


def seeded(module: nn.Module, seed: int, dtype: torch.dtype) -> Any:
    """Every parameter drawn anew, in the order of their names; float32 first, so that the same
    numbers come in both precisions."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in sorted(module.named_parameters()):
            p.copy_(torch.randn(p.shape, generator=g) / max(1, p[0].numel()) ** 0.5)
    return module.to(dtype).requires_grad_(False)


# ---- 03-3 the residual block ------------------------------------------------------------------


def inputs(channels: int, time_dim: int, groups: int) -> tuple[int, Tensor, Tensor]:
    """A seed, pictures and embeddings that belong to these sizes."""
    seed = channels * 10_000 + time_dim * 100 + groups
    g = torch.Generator().manual_seed(seed)
    x = 2 * torch.randn(2, channels, 5, 6, generator=g) + 1
    return seed, x.double(), torch.randn(2, time_dim, generator=g).double()


def tried(answer: Callable[..., nn.Module], channels: int, time_dim: int, groups: int) -> dict:
    """A block as it is made, and the same block with every weight drawn anew."""
    seed, x, emb = inputs(channels, time_dim, groups)
    block = answer(channels, time_dim, groups)
    if not isinstance(block, nn.Module):
        raise TypeError("the answer must be a class that inherits from nn.Module")
    layers = {name: "x".join(map(str, p.shape)) for name, p in sorted(block.named_parameters())}
    kept = str(block(x.float(), emb.float()).dtype).removeprefix("torch.")
    block.double()
    fresh = block(x, emb).detach()
    return {"layers": layers, "of float32": kept, "a fresh block": fresh,
            "drawn weights": seeded(block, seed, torch.float64)(x, emb)}


# ---- 03-4 the loss ----------------------------------------------------------------------------


class Denoiser(nn.Module):
    """A small network net(x (b, ...), t (b,)) that keeps what it was asked, in `times`."""

    def __init__(self, size: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor([size, 1 - size], dtype=torch.float32).to(dtype))
        self.times: list[list[int]] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        if not isinstance(t, Tensor) or t.shape != x.shape[:1] or t.is_floating_point():
            came = f"{t.dtype} {tuple(t.shape)}" if isinstance(t, Tensor) else type(t).__name__
            raise TypeError(f"net(x, t): t is {came}, accepted is an int64 tensor ({len(x)},)")
        self.times.append(t.tolist())
        late = (t.to(x.dtype) / 1000).view(-1, *[1] * (x.ndim - 1))
        return self.size[0] * torch.tanh(x) * (1 + late) + self.size[1] * late


def denoiser(dtype: torch.dtype, size: float) -> Denoiser:
    return Denoiser(size, dtype)


def measured(answer: Callable, net: Denoiser, schedule, x0, t, eps, goal) -> dict:
    value = answer(net, schedule, x0, t, eps, goal)
    if not isinstance(value, Tensor) or value.ndim:
        return {"loss": value, "gradient": None, "times asked": net.times}
    return {"loss": value.detach(), "gradient": torch.autograd.grad(value, net.size)[0],
            "times asked": net.times}


# ---- 03-5 one update --------------------------------------------------------------------------


def descent(dtype: torch.dtype, lr: float) -> partial:
    """weights -> torch's plain descent; its first use loads a compiler, here where no clock runs."""
    torch.optim.SGD([torch.zeros(1)], lr)
    return partial(torch.optim.SGD, lr=lr)


def updated(answer: Callable, net: Denoiser, descent: partial, schedule, x0, t, eps, goal) -> dict:
    """The losses and the weights that a few updates leave behind."""
    optimiser = descent(net.parameters())
    said = [answer(net, optimiser, schedule, *batch, goal) for batch in zip(x0, t, eps,
                                                                          strict=True)]
    return {"losses": said, "weights": net.size.detach().clone()}


# ---- 03-6 one ancestral step -------------------------------------------------------------------


def asked(answer: Callable, eps, *args) -> dict:
    """What an answer returns, and the times at which it asked its predictor."""
    return {"x": answer(eps, *args), "times asked": list(eps.times)}


# ---- 03-7 the sampler ---------------------------------------------------------------------------


def tap(dtype: torch.dtype, seed: int) -> Callable[[Tensor], Tensor]:
    """draw(x): fresh standard normal noise for x, the same in both precisions."""
    g = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype)


def walked(answer: Callable, eps, schedule, x, path, draw, clip) -> dict:
    states = answer(eps, schedule, x, path, draw, clip)
    return {"states": list(states) if hasattr(states, "__next__") else states,
            "times asked": list(eps.times)}


CALLS = {"03-3": tried, "03-4": measured, "03-5": updated, "03-6": asked, "03-7": walked}
KNOWN = {"03-2": {"norm": norm, "projection": projection}, "03-4": {"denoiser": denoiser},
         "03-5": {"denoiser": denoiser, "descent": descent}, "03-7": {"tap": tap}}
