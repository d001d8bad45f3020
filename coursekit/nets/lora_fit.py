"""Fit a LoRA to a picture, or to a few: after it the network draws them, and edits keep them.

    min over A, B of  E || net_{W + (alpha / r) B A}(x_t, t, prompt) - target ||^2
                      over t, eps;  x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps

with the target that the network learnt, eps or v, and latents for x. Hu et al., "LoRA", ICLR 2022;
one picture a LoRA after Zhang, Zhou, Xu, Dai & Pan, "DiffMorpher", CVPR 2024, section 4.1.

    lora = last(fit(sd, portrait, "a photo of a cat", generator=generator)).lora
    with applied(sd.unet, lora):
        ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor

from coursekit import images
from coursekit.diffusion.predict import diffusers_time, target
from coursekit.diffusion.sample import randn_like
from coursekit.nets.latent import Latent, Prompt, Text
from coursekit.nets.lora import Factors, Lora, applied

ROUNDING = 1e-3  # by which a picture may leave [-1, 1]


@dataclass(frozen=True)
class Fitted:
    """What is known after an update.

    step, steps  updates done, and to do in all
    loss         of this update: the mean squared error of the network's output
    lora         the LoRA as it is now; it goes on learning until the last record
    """

    step: int
    steps: int
    loss: float
    lora: Lora


def fit(sd: Latent, x: Tensor, prompt: Prompt, *, rank: int = 16, steps: int = 100,
        lr: float = 5e-3, batch: int = 8, decay: float = 1e-2,
        generator: torch.Generator | None = None) -> Iterator[Fitted]:
    """Fits a LoRA to pictures x (n, 3, h, w) in [-1, 1]; yields a record after each update.

    prompt     what they show: one sentence for all or one for each, or a Text
    rank       of every layer; alpha is the same, so that their factor is one
    batch      noisy versions an update sees, each at a time and with a noise of its own
    lr, decay  of AdamW, constant
    generator  draws A, times and noise

    The defaults suit the shipped model; at four times the lr it breaks: noise no longer leads to
    the picture, though an inverted code still does. DiffMorpher's for Stable Diffusion 2.1 are
    rank=16, steps=200, lr=2e-4, batch=1, far too little here. Between two records, and after the
    last one, `sd` is as it was. A network `beside` the U-Net takes no part.

    TypeError or ValueError for pictures, prompts and numbers that are not as said, before the
    first update; FloatingPointError when the loss is no longer finite.
    """
    for name, value in (("steps", steps), ("batch", batch)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name}={value!r}: accepted is a whole number >= 1")
    if not isinstance(lr, Real) or not 0 < lr < math.inf:
        raise ValueError(f"lr={lr!r}: accepted is a finite number > 0")
    if not isinstance(decay, Real) or not 0 <= decay < math.inf:
        raise ValueError(f"decay={decay!r}: accepted is a finite number >= 0")
    top = images.check(x).abs().max().item()
    if top > 1 + ROUNDING:
        raise ValueError(f"x reaches {top:.4g} in magnitude: accepted is [-1, 1]; clamp a picture "
                         "that overshoots")
    with torch.no_grad():
        text, z = sd.text(prompt).rows(len(x)), sd.encode(x)
    lora = Lora.fresh(sd.unet, rank, generator=generator)
    return _fit(sd, z, text, lora, steps, lr, batch, decay, generator)


def _fit(sd: Latent, z: Tensor, text: Text, lora: Lora, steps: int, lr: float, batch: int,
         decay: float, generator: torch.Generator | None) -> Iterator[Fitted]:
    learning = [p.requires_grad_() for layer in lora.layers.values() for p in (layer.A, layer.B)]
    shown = Lora({path: Factors(layer.A.detach(), layer.B.detach(), layer.alpha)
                  for path, layer in lora.layers.items()})  # the same memory
    optimiser = torch.optim.AdamW(learning, lr=lr, weight_decay=decay)
    for k in range(steps):
        rows = (torch.arange(batch) + k * batch) % len(z)  # each picture as often as the others
        x0, t = z[rows], _times(sd.schedule.T, batch, generator)
        eps = randn_like(x0, generator)
        x_t, goal = sd.schedule.noise(x0, eps, t), target(sd.schedule, sd.prediction, x0, eps, t)
        with torch.enable_grad(), applied(sd.unet, lora):
            loss = (_output(sd, x_t, t, text, rows) - goal).square().mean()
            optimiser.zero_grad()
            # AdamW does not see the factor; float16 would round the gradients of a mean to zero
            (goal[0].numel() * loss).backward()
        said = float(loss.detach())
        if not math.isfinite(said):
            raise FloatingPointError(f"loss is {said} at step {k}: try a smaller lr (now {lr:g})")
        optimiser.step()
        yield Fitted(k + 1, steps, said, shown)


def _times(T: int, b: int, generator: torch.Generator | None) -> Tensor:
    """(b,) in 1..T, one from each of b equal slices, in any order: uniform, with less noise."""
    device = generator.device if generator else "cpu"
    u = torch.rand(b, generator=generator, device=device)
    order = torch.randperm(b, generator=generator, device=device)
    return ((u + order) / b * T).long().clamp(max=T - 1).cpu() + 1


def _output(sd: Latent, x_t: Tensor, t: Tensor, text: Text, rows: Tensor) -> Tensor:
    """What the U-Net puts out for rows at times of their own."""
    shown = Text(text.tokens[rows], None if text.pooled is None else text.pooled[rows])
    conditions = sd.conditions(x_t, shown)
    time = diffusers_time(t).to(x_t.device)
    return sd.unet(x_t.to(sd.unet.dtype), time, **conditions).sample.to(x_t.dtype)
