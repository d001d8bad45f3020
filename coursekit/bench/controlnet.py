"""The shipped ControlNet: whether portraits fill the silhouettes given, and what that costs.

Held-out portraits are captioned and drawn from their captions twice, from the same noise: by
portraits-sd alone, and under their silhouettes. The outline that the judge sees in a picture is
held against the one wanted. Someone else's portrait already has an IoU of 0.8, so the model alone
stands beside it. Then FID_w of both, what the judge reads of the captions in both, and diffusers'
own pipeline with the same latents. 400 portraits: a quarter of an hour on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from coursekit import portraits, pretrained
from coursekit.bench import Row, medians
from coursekit.bench.samples import held_out
from coursekit.bench.text_to_image import STEPS, accuracies, draw, mean, told
from coursekit.classroom import metrics
from coursekit.diffusion.sample import ddim, last
from coursekit.edits import controlnet
from coursekit.edits.controlnet import Control, as_hint, under
from coursekit.nets.latent import Latent
from coursekit.recipes.portraits_controlnet import NAME, outlines

N, RUNS, W = 400, 5, 3.0
STRENGTHS = (0.5, 1.0, 1.5)
BARS = {"iou": 0.85, "fid": 1.2, "equal": 1e-4}


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Agreement by strength and without words, the pictures' quality, diffusers beside us."""
    sd = pretrained.load_latent("portraits-sd", device)
    yield from gates(sd, controlnet.load(pretrained.path(NAME), device), seed, device)


@torch.no_grad()
def gates(sd: Latent, net: torch.nn.Module, seed: int, device: str, n: int = N) -> Iterator[Row]:
    """The rows for any ControlNet of silhouettes for a text-to-image model of this world."""
    judge = pretrained.load("judge", device).net
    p, captions = told(n, seed + 5, device)
    texts, wanted, x = [c.text for c in captions], portraits.silhouette(p), portraits.render(p)
    yield from agreement("the renders themselves", judge.silhouette(x), wanted)
    made = {0.0: draw(sd, texts, W, seed, device)}
    yield from agreement("the model alone", judge.silhouette(made[0.0]), wanted)
    hints = as_hint(wanted)
    for strength in STRENGTHS:
        made[strength] = draw(sd, texts, W, seed, device,
                              held(sd, net, hints, strength=strength))
        yield from agreement(f"strength {strength:g}", judge.silhouette(made[strength]), wanted,
                             BARS["iou"] if strength == 1 else None)
    wordless = draw(sd, [""] * n, W, seed, device, held(sd, net, hints, negative_hint=False))
    yield from agreement("without words, hint not in the negative half",
                         judge.silhouette(wordless), wanted)
    reference = held_out(n, seed + 6, device)
    scores = [metrics.fid_w(judge, made[s], reference, x) for s in (1.0, 0.0)]
    yield Row(f"FID_w at strength 1 (floor {scores[0].floor:.3g}); peer: the model alone, bar "
              f"{BARS['fid']} x", scores[0].value, scores[1].value, "", "lower", n)
    read = [mean(accuracies(metrics.readings(judge, made[s]), p, captions)) for s in (1.0, 0.0)]
    yield Row("named attributes read at strength 1; peer: the model alone", *read, "", "higher", n)
    yield from beside_diffusers(sd, net, hints[:1], seed, device)


def held(sd: Latent, net: torch.nn.Module, hints: Tensor, **how: Any) -> Callable[[slice], Latent]:
    """The model under some of the hints, as `draw` asks for it; `how` as in `Control`."""
    return lambda some: under(sd, Control(net, hints[some], **how))


def agreement(name: str, seen: Tensor, wanted: Tensor, bar: float | None = None) -> Iterator[Row]:
    """IoU and the F-score of outlines, each with its interval."""
    for what, found, peer in (("IoU", metrics.iou(seen, wanted), bar),
                              ("outlines, F-score", outlines(seen, wanted), None)):
        half = NormalDist().inv_cdf(0.975) * found.std().item() / len(found) ** 0.5
        yield Row(f"{name}: {what} (+- {half:.3f}){'; peer: bar' if peer else ''}",
                  found.mean().item(), peer, "", "higher", len(found))


def beside_diffusers(sd: Latent, net: torch.nn.Module, hint: Tensor, seed: int,
                     device: str) -> Iterator[Row]:
    """One image: how far our latents are from the pipeline's, and the time of both."""
    from diffusers import StableDiffusionControlNetPipeline

    pipe = StableDiffusionControlNetPipeline.from_pretrained(sd.source, controlnet=net).to(device)
    pipe.set_progress_bar_config(disable=True)
    text, noise = "a photo of a woman on a beach", sd.noise(1, torch.Generator().manual_seed(seed))
    eps = under(sd, Control(net, hint)).eps(text, w=W)

    def ours() -> Tensor:
        return last(ddim(eps, sd.schedule, noise, sd.path(STEPS))).x.cpu()

    def theirs() -> Tensor:
        return pipe(text, image=hint, latents=noise, guidance_scale=W, num_inference_steps=STEPS,
                    output_type="latent").images.cpu()

    off = (ours() - theirs()).abs().max().item()
    yield Row(f"largest difference from diffusers' latents, {STEPS} steps; peer: bar", off,
              BARS["equal"], "", "lower", 1)
    mine, peer = medians(ours, theirs, n=RUNS)
    yield Row(f"one image's latents, {STEPS} guided steps; peer: StableDiffusionControlNetPipeline",
              mine, peer, "s", "lower", RUNS)
