"""A LoRA on one portrait: seconds to fit, what inversion brings back, whose face other words draw.

Portraits of the training distribution that no recipe has drawn get a LoRA each, by the defaults of
`fit`. What follows is set against the model alone, from the same noise:

    there and back   DDIM inversion with the caption and sampling, w = 1
    from noise       the caption with another backdrop, W, noises that know nothing of the portrait
    edited           the same words from the portrait's own inverted noise

Differences come with their 95 % interval by Student's t over portraits; noises of one portrait are
averaged first, as they are no independent cases. A quarter of an hour on one core.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import median

import torch
from torch import Tensor

from coursekit import pretrained
from coursekit.bench import Row
from coursekit.bench._edits import Task, interval, task
from coursekit.classroom import metrics
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.nets.judge import Judge
from coursekit.nets.latent import Latent
from coursekit.nets.lora import Lora, applied
from coursekit.nets.lora_fit import fit
from coursekit.recipes import portraits_sd

N, NOISES, STEPS, W = 16, 4, 30, 3.0
SCALES = (0.5, 1.0)
BAR = 45.0  # seconds to fit one


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Seconds, then for each scale of the update what it gains over the model alone."""
    yield from gates(pretrained.load_latent(portraits_sd.NAME, device), seed, device)


@torch.no_grad()
def gates(sd: Latent, seed: int, device: str, n: int = N, noises: int = NOISES,
          **how: int) -> Iterator[Row]:
    """The rows for any text-to-image model of this world; `how` is for `fit`."""
    judge = pretrained.load("judge", device).net
    some, loras, seconds = task(["background"], n, 10 * seed + 7, device), [], []
    for i in range(n):
        begun = time.perf_counter()
        generator = torch.Generator().manual_seed(seed + i)
        loras.append(last(fit(sd, some.truth.source[i : i + 1], some.prompts[i],
                              generator=generator, **how)).lora)
        seconds.append(time.perf_counter() - begun)
    yield Row("fit to one portrait, median; peer: bar", median(seconds), BAR, "s", "lower", n)
    alone = columns(sd, judge, some, [None] * n, 0.0, seed, noises)
    for scale in SCALES:
        found = columns(sd, judge, some, loras, scale, seed, noises)
        for name, ours in found.items():
            mean, low, high = interval(ours - alone[name])
            yield Row(f"scale {scale:g}, {name}; {mean:+.2f} ({low:+.2f} to {high:+.2f}) more than "
                      "the model alone, the peer", ours.mean().item(), alone[name].mean().item(),
                      "dB" if "PSNR" in name else "", "higher", n)


def columns(sd: Latent, judge: Judge, some: Task, loras: list[Lora | None], scale: float,
            seed: int, noises: int) -> dict[str, Tensor]:
    """(n,) a column, one number a portrait."""
    parts: dict[str, list[float]] = {}
    for i, lora in enumerate(loras):
        for name, value in one(sd, judge, some, i, lora, scale, seed, noises).items():
            parts.setdefault(name, []).append(value)
    return {name: torch.tensor(values) for name, values in parts.items()}


def one(sd: Latent, judge: Judge, some: Task, i: int, lora: Lora | None, scale: float, seed: int,
        noises: int) -> dict[str, float]:
    """A portrait brought back, drawn from noise under other words, and edited to them."""
    x, prompt, target = some.truth.source[i : i + 1], some.prompts[i], some.targets[i]
    path, schedule = sd.path(STEPS), sd.schedule
    wanted = some.truth.record.background[i].expand(1 + noises)
    with applied(sd.unet, lora or Lora({}), scale):
        code = last(invert(sd.eps(prompt), schedule, sd.encode(x), path)).x
        begin = torch.cat([code, sd.noise(noises, torch.Generator().manual_seed(seed + i))])
        back = last(ddim(sd.eps(prompt), schedule, code, path)).x
        drawn = last(ddim(sd.eps(target, w=W), schedule, begin, path)).x
    back, drawn = (sd.decode(z).clamp(-1, 1) for z in (back, drawn))
    like = metrics.id_w(judge, x.expand_as(drawn), drawn)
    hits = metrics.tas(judge, drawn, {"background": wanted}).float()
    return {
        "there and back: PSNR": metrics.psnr(x, back).item(),
        "from noise: ID_w to the portrait": like[1:].mean().item(),
        "from noise: backdrop as said": hits[1:].mean().item(),
        "edited: ID_w to the portrait": like[0].item(),
        "edited: backdrop as said": hits[0].item(),
    }
