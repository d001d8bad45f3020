"""Noise predictors: every network becomes the same thing, a function (x, t) -> eps.

Conditioning is closed over, so samplers and inverters know nothing of text. A wrapper takes an
Eps and returns an Eps, and wrappers stack. The three things a network may predict are tied by

    v   = sqrt(abar) eps - sqrt(1 - abar) x_0                   Salimans & Ho 2022, section 4
    eps = sqrt(abar) v + sqrt(1 - abar) x_t
    x_0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from coursekit.diffusion.schedule import Schedule

PREDICTIONS = ("eps", "x0", "v")
DIFFUSERS_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}


class Eps(Protocol):
    """A noise predictor: x (b, c, h, w) at time t in 1..T -> the noise in it, same shape."""

    def __call__(self, x: Tensor, t: int) -> Tensor: ...


# ---- conversions ---------------------------------------------------------------------------


def to_eps(
    schedule: Schedule, prediction: str, out: Tensor, x: Tensor, t: int | Tensor
) -> Tensor:
    """The noise that a network's output means; out and x (b, ...), t in 1..T, int or (b,)."""
    check_prediction(prediction)
    if prediction == "eps":
        return out
    a, b = _noisy_scales(schedule, t, x)
    return (x - a * out) / b if prediction == "x0" else a * out + b * x


def from_eps(
    schedule: Schedule, prediction: str, eps: Tensor, x: Tensor, t: int | Tensor
) -> Tensor:
    """The inverse of `to_eps`: eps at x, said as "eps", "x0" or "v"."""
    check_prediction(prediction)
    if prediction == "eps":
        return eps
    a, b = _noisy_scales(schedule, t, x)
    return (x - b * eps) / a if prediction == "x0" else (eps - b * x) / a


def target(
    schedule: Schedule, prediction: str, x0: Tensor, eps: Tensor, t: int | Tensor
) -> Tensor:
    """What a network should put out at noise(x0, eps, t); exact where `from_eps` divides by ~0."""
    check_prediction(prediction)
    if prediction == "v":
        a, b = schedule.scales(t, x0)
        return a * eps - b * x0
    return eps if prediction == "eps" else x0


def check_prediction(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction: {prediction!r} is not one of {', '.join(PREDICTIONS)}")


def _noisy_scales(schedule: Schedule, t: int | Tensor, x: Tensor) -> tuple[Any, Any]:
    a, b = schedule.scales(t, x)
    if (t if not isinstance(t, Tensor) else int(t.min())) < 1:
        raise ValueError(f"t: 0 is outside 1..{schedule.T} (a clean image holds no noise)")
    return a, b


# ---- networks -> Eps -----------------------------------------------------------------------


def from_network(
    net: Callable[..., Tensor], schedule: Schedule, prediction: str = "eps", **conditions: Any
) -> Eps:
    """An Eps from one of our networks, called net(x, t, **conditions) with t (b,) in 1..T.

    prediction  what the network was trained to say: "eps", "x0" or "v".
    Gradients flow if anything requires them: freeze the net or use torch.no_grad() to sample.
    """
    check_prediction(prediction)

    def eps(x: Tensor, t: int) -> Tensor:
        out = net(x, _times(schedule, x, t), **conditions)
        # a bf16 network's v is turned into eps in x's precision: the rounding is not amplified
        return to_eps(schedule, prediction, out.to(x.dtype), x, t)

    return eps


def from_diffusers(
    unet: Any, schedule: Schedule, prediction: str = "eps", **conditions: Any
) -> Eps:
    """An Eps from a diffusers UNet2DModel or UNet2DConditionModel.

    conditions  passed on, e.g. encoder_hidden_states (b, tokens, width).
    A network in fp16 or bf16 is given x in its own precision; all around it stays in x's.
    """
    check_prediction(prediction)
    channels, dtype = unet.config.in_channels, next(unet.parameters()).dtype

    def eps(x: Tensor, t: int) -> Tensor:
        if x.shape[1] != channels:
            raise ValueError(f"x: {x.shape[1]} channels, the network takes {channels}")
        time = diffusers_time(_times(schedule, x, t))
        out = unet(x.to(dtype), time, **conditions).sample
        return to_eps(schedule, prediction, out.to(x.dtype), x, t)

    return eps


def diffusers_time(t: Tensor) -> Tensor:
    """Our times 1..T as diffusers' networks count them, 0..T-1: the shift is here alone."""
    return t - 1


def _times(schedule: Schedule, x: Tensor, t: int) -> Tensor:
    if not 1 <= t <= schedule.T:
        raise ValueError(f"t: {t} is outside 1..{schedule.T}, where the network is defined")
    return torch.full((len(x),), t, device=x.device)  # (b,)


# ---- Eps -> Eps ----------------------------------------------------------------------------


def mixed(parts: Sequence[Eps], weights: Sequence[float | Tensor]) -> Eps:
    """sum_i w_i eps_i: tuned networks blended, or put side by side with masks as weights.

    weights  floats, or tensors that broadcast against x (b, c, h, w); one for each part.
    """
    if not parts or len(parts) != len(weights):
        raise ValueError(f"weights: {len(weights)} for {len(parts)} predictors, need one for each")
    return lambda x, t: sum(w * part(x, t) for part, w in zip(parts, weights, strict=True))


def guided(uncond: Eps, cond: Eps, w: float) -> Eps:
    """Classifier-free guidance, uncond + w (cond - uncond) (Ho & Salimans 2022).

    w = 1 is the plain conditional prediction and costs one pass, not two; the paper's weight
    is w - 1.
    """
    if w == 1:
        return cond

    def eps(x: Tensor, t: int) -> Tensor:
        base = uncond(x, t)
        return base + w * (cond(x, t) - base)

    return eps


def shifted(eps: Eps, residual: Eps) -> Eps:
    """eps + residual: classifier guidance has residual = -sqrt(1 - abar_t) grad log p(y | x_t)."""
    return lambda x, t: eps(x, t) + residual(x, t)
