"""Inversions on latents: do they bring a picture back under guidance, at what cost, and edited?

Every method inverts the same renders with their captions and samples again with nothing changed
(PSNR beside that of the autoencoder alone, time and latents through the network), then lets
Prompt-to-Prompt draw the new caption, whose attribute the judge looks for (`_edits`).

    DDIM, w = 1        plain inversion, sampled as it was inverted
    DDIM               the same, sampled under guidance: another equation, which leaves the states
    fixed point        each hop of the inversion solved, under the guidance that samples
    null-text          the empty text optimised at each hop; ten updates at most
    negative prompt    the caption itself in the place of the empty text
    direct             the source is put back on its states after each hop
    EDICT              twins, under the guidance that samples; in float64
    edit-friendly      noised copies and the noise between them; edits skip the noisiest hops

A latent under guidance counts two. Seconds are those of a batch, divided by its pictures; the last
row has null-text alone on one picture, where 180 s are the bar. 40 renders: about 45 minutes on two
cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from coursekit import pretrained
from coursekit.bench import Row, medians
from coursekit.bench._edits import ATTRIBUTES, Task, counted, share, task
from coursekit.classroom import metrics
from coursekit.diffusion.guided import Nulled, direct, null_text
from coursekit.diffusion.inversion import (
    Hop, edict, edict_invert, edit_friendly, fixed_point, replay,
)
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import State, ddim, invert, last
from coursekit.edits import p2p
from coursekit.nets.latent import Latent, Text
from coursekit.recipes import portraits_sd

N, STEPS, RUNS = 40, 50, 3
W = portraits_sd.GUIDANCE
CONTROL = p2p.Control(cross_attention=0.4, self_attention=0.2)
SKIP = 0.36  # of the hops, as Huberman-Spiegelglas et al. leave out when they edit
TOL, ITERATIONS = 1e-3, 8  # of a fixed point
NULL_W, NULL_BAR = 7.5, 180.0


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """For each method four rows; then null-text on one picture, beside its bar."""
    yield from gates(pretrained.load_latent(portraits_sd.NAME, device), seed, device)


@torch.no_grad()
def gates(sd: Latent, seed: int, device: str, n: int = N) -> Iterator[Row]:
    """The rows for any text-to-image model of this world; n renders, a fifth a kind of edit."""
    if n < len(ATTRIBUTES):
        raise ValueError(f"n={n}: accepted are {len(ATTRIBUTES)} or more")
    judge = pretrained.load("judge", device).net
    tasks = [task([name], n // len(ATTRIBUTES), 10 * seed + i, device)
             for i, name in enumerate(ATTRIBUTES)]
    jobs = [Job(sd, some, sd.encode(some.truth.source), sd.path(STEPS), seed) for some in tasks]
    for name, method in METHODS.items():
        yield from table(name, method, sd, judge, jobs)
    yield null_text_alone(jobs[0])


def table(name: str, method: Method, sd: Latent, judge: nn.Module,
          jobs: Sequence[Job]) -> Iterator[Row]:
    """Reconstruction, its cost, and the share of edits that the judge reads as wanted."""
    psnr, ceiling, hits, seconds, calls = [], [], [], 0.0, 0
    for job in jobs:
        run, x = method(job), job.task.truth.source
        with counted(sd) as shown:
            begun = time.perf_counter()
            back = next(run)
            back.sum().item()  # a GPU has finished
            seconds, calls = seconds + time.perf_counter() - begun, calls + shown()
        psnr.append(metrics.psnr(x, job.shown(back)))
        ceiling.append(metrics.psnr(x, job.shown(job.z)))
        hits.append(job.task.hits(judge, job.shown(next(run))))
    found = torch.cat(hits).float()
    n, (low, high) = len(found), share(found)
    yield Row(f"{name}: PSNR of the reconstruction; peer: the autoencoder alone",
              torch.cat(psnr).mean().item(), torch.cat(ceiling).mean().item(), "dB", "higher", n)
    yield Row(f"{name}: there and back, a picture", seconds / n, None, "s", "lower", n)
    yield Row(f"{name}: there and back, latents through the network", calls / n, None, "", "lower",
              n)
    yield Row(f"{name}: edited, target success ({low:.2f} to {high:.2f})", found.mean().item(),
              None, "", "higher", n)


@dataclass(frozen=True)
class Job:
    """A task, its latents z and the path: what a method is given."""

    sd: Latent
    task: Task
    z: Tensor
    path: list[int]
    seed: int = 0

    def eps(self, w: float) -> Eps:
        """The predictor with the captions of the sources."""
        return self.sd.eps(self.task.prompts, w=w)

    def pivot(self) -> list[State]:
        return list(invert(self.eps(1.0), self.sd.schedule, self.z, self.path))

    def sampled(self, noise: Tensor, w: float) -> Tensor:
        return last(ddim(self.eps(w), self.sd.schedule, noise, self.path)).x

    def paired(self, w: float) -> Eps:
        """Prompt-to-Prompt, for samplers of sources and targets, (2b, c, h, w)."""
        pairs = list(zip(self.task.prompts, self.task.targets, strict=True))
        return p2p.paired(self.sd, pairs, self.path, w=w, control=CONTROL)

    def edited(self, noise: Tensor, w: float, **more: Any) -> Tensor:
        """The targets, from where sources and targets begin."""
        drawn = p2p.pair(self.sd, noise, self.task.prompts, self.task.targets, self.path, w=w,
                         control=CONTROL, **more)
        return last(drawn).x[len(noise):]

    def shown(self, z: Tensor) -> Tensor:
        return self.sd.decode(z.float()).clamp(-1, 1)


Method = Callable[[Job], Iterator[Tensor]]


# ---- the methods: each yields the latents of the reconstruction, then those of the edit -------


def plain(job: Job, w: float) -> Iterator[Tensor]:
    noise = job.pivot()[-1].x
    yield job.sampled(noise, w)
    yield job.edited(noise, w)


def solved(job: Job) -> Iterator[Tensor]:
    noise = last(fixed_point(job.eps(W), job.sd.schedule, job.z, job.path, ITERATIONS, TOL)).x
    yield job.sampled(noise, W)
    yield job.edited(noise, W)


def nulled(job: Job) -> Iterator[Tensor]:
    pivot = job.pivot()
    states = optimised(job, pivot, W)
    yield states[-1].x
    yield job.edited(pivot[-1].x, W, negative={a.t: Text(b.null) for a, b in pairwise(states)})


def avoided(job: Job) -> Iterator[Tensor]:
    noise, prompts = job.pivot()[-1].x, job.task.prompts
    eps = job.sd.eps(prompts, prompts, W)
    yield last(ddim(eps, job.sd.schedule, noise, job.path)).x
    yield job.edited(noise, W, negative=prompts)


def held(job: Job) -> Iterator[Tensor]:
    pivot = job.pivot()
    hops = list(direct(job.eps(W), job.sd.schedule, pivot))
    yield last(replay(job.eps(W), job.sd.schedule, hops)).x
    yield job.edited(pivot[-1].x, W, pivot={s.t: s.x for s in pivot})


def twins(job: Job) -> Iterator[Tensor]:
    schedule, path = job.sd.schedule, job.path
    up = last(edict_invert(job.eps(W), schedule, job.z.double(), path))
    yield last(edict(job.eps(W), schedule, up.x, path, up.y)).x
    x, y = (torch.cat([side, side]) for side in (up.x, up.y))
    yield last(edict(job.paired(W), schedule, x, path, y)).x[len(job.z):]


def friendly(job: Job) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(job.seed)
    eps, schedule = job.eps(W), job.sd.schedule
    hops = list(edit_friendly(eps, schedule, job.z, job.path, generator=generator))
    yield last(replay(eps, schedule, hops)).x
    both = [_twice(hop) for hop in hops[round(SKIP * (len(hops) - 1)):]]
    yield last(replay(job.paired(W), schedule, both)).x[len(job.z):]


METHODS: dict[str, Method] = {
    "DDIM, w = 1": partial(plain, w=1.0), f"DDIM, w = {W:g}": partial(plain, w=W),
    "fixed point": solved, "null-text": nulled, "negative prompt": avoided, "direct": held,
    "EDICT": twins, "edit-friendly": friendly}


def _twice(hop: Hop) -> Hop:
    noise = None if hop.noise is None else torch.cat([hop.noise, hop.noise])
    return Hop(hop.t, torch.cat([hop.x, hop.x]), None, noise, hop.sd)


# ---- null-text --------------------------------------------------------------------------------


def optimised(job: Job, pivot: Sequence[State], w: float) -> list[Nulled]:
    """The states under guidance, with an embedding of the empty text for each picture and hop."""
    empty = job.sd.text("").tokens.repeat(len(job.z), 1, 1)
    return list(null_text(lambda null: job.sd.eps(Text(null)), job.eps(1.0), job.sd.schedule,
                          pivot, empty, w))


def null_text_alone(job: Job) -> Row:
    """Seconds for the first picture, from latents to embeddings by way of the pivot."""
    one = replace(job, z=job.z[:1], task=replace(job.task, prompts=job.task.prompts[:1]))
    seconds, = medians(lambda: optimised(one, one.pivot(), NULL_W)[-1].x.sum().item(), n=RUNS,
                       warmup=0)
    return Row(f"null-text, one picture, {len(job.path) - 1} steps, w = {NULL_W:g}; peer: bar",
               seconds, NULL_BAR, "s", "lower", RUNS)
