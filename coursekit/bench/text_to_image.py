"""The shipped text-to-image model: autoencoder, prompts that the judge reads back, FID_w, seconds.

Held-out records are captioned and drawn from their captions under several guidance weights; the
judge then reads the attributes that each caption names. Style is left out, as only photos were
trained on, and so is the hue of a plain background, which the judge does not read. The judge on the
renders of the same records is the ceiling. Half an hour on two cores.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from coursekit import portraits, pretrained
from coursekit.bench import Row, medians
from coursekit.bench.judge import blur
from coursekit.bench.samples import BLUR, HELD_OUT, held_out
from coursekit.classroom import metrics
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.train import fast_dtype
from coursekit.nets.judge import Reading
from coursekit.nets.latent import Latent
from coursekit.portraits import CATEGORICAL, CONTINUOUS, TRAINING, Caption, Portraits
from coursekit.portraits.captions import NAMED
from coursekit.recipes._questions import ENDS

MODEL = "portraits-sd"
RENDERS, PROMPTS, N, RUNS = 500, 400, 2000, 5
WEIGHTS = (1.0, 2.0, 3.0, 5.0, 7.5)
STEPS, BATCH = 30, 50
SLACK = 0.1  # of its range: how far a word may be missed by an attribute that is continuous
BARS = {"mean": 0.9, "each": 0.75, "seconds": 3.0, "psnr": 30.0, "kept": 0.97, "equal": 1e-4}


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """The autoencoder, diffusers beside us, the prompts by w, and FID_w at the best of them."""
    yield from gates(pretrained.load_latent(MODEL, device), seed, device)


@torch.no_grad()
def gates(sd: Latent, seed: int, device: str, renders: int = RENDERS, prompts: int = PROMPTS,
          n: int = N) -> Iterator[Row]:
    """The rows for any text-to-image model of this world that was read from a folder."""
    judge = pretrained.load("judge", device).net
    yield from reconstruction(sd, judge, held_out(renders, seed, device))
    yield from beside_diffusers(sd, seed, device)
    p, captions = told(prompts, seed + 1, device)
    texts, x = [c.text for c in captions], portraits.render(p)
    real = accuracies(metrics.readings(judge, x), p, captions)
    yield Row("the judge on the renders themselves: mean", mean(real), None, "", "higher", prompts)
    reference, found = held_out(prompts, seed + 2, device), {}
    for w in WEIGHTS:
        made = draw(sd, texts, w, seed, device)
        found[w] = accuracies(metrics.readings(judge, made), p, captions)
        yield Row(f"w = {w:g}: named attributes read, mean; peer: bar", mean(found[w]),
                  BARS["mean"], "", "higher", prompts)
        score = metrics.fid_w(judge, made, reference, x)
        yield Row(f"w = {w:g}: FID_w; peer: floor", score.value, score.floor, "", "lower", prompts)
    best = max(found, key=lambda w: mean(found[w]))
    for name, (share, count) in found[best].items():
        yield Row(f"w = {best:g}: {name} (renders {real[name][0]:.2f}); peer: bar", share,
                  BARS["each"], "", "higher", count)
    yield from distance(sd, judge, best, seed + 3, device, n)


def told(n: int, seed: int, device: str) -> tuple[Portraits, list[Caption]]:
    """n held-out records of the training distribution, and a caption of four details for each."""
    generator = torch.Generator().manual_seed(HELD_OUT + seed)
    p = portraits.sample(n, generator, **TRAINING)
    return p.to(device), portraits.caption(p, generator)


def draw(sd: Latent, texts: Sequence[str], w: float, seed: int, device: str,
         under: Callable[[slice], Latent] | None = None) -> Tensor:
    """A picture a text (n, 3, 64, 64), clipped to [-1, 1]; the same noise whatever w.

    under  gives the model for some of the texts, where each has a control of its own.
    """
    noise = sd.noise(len(texts), torch.Generator().manual_seed(seed))
    parts = []
    for i in range(0, len(texts), BATCH):
        some = slice(i, i + BATCH)
        eps = quick((under(some) if under else sd).eps(list(texts[some]), w=w), device)
        z = last(ddim(eps, sd.schedule, noise[some], sd.path(STEPS))).x
        parts.append(sd.decode(z).clamp(-1, 1))
    return torch.cat(parts)


def quick(eps: Eps, device: str) -> Eps:
    """eps with its network in `fast_dtype`; what is around it stays in float32."""
    dtype = fast_dtype(device)

    def predict(x: Tensor, t: int) -> Tensor:
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            return eps(x, t)

    return predict


# ---- the gates ------------------------------------------------------------------------------


def reconstruction(sd: Latent, judge: nn.Module, x: Tensor) -> Iterator[Row]:
    """Encode and decode: the ceiling of whatever is done to a given picture."""
    back = torch.cat([sd.decode(sd.encode(some)) for some in x.split(BATCH)]).clamp(-1, 1)
    yield Row("autoencoder: PSNR; peer: bar", metrics.psnr(x, back).mean().item(), BARS["psnr"],
              "dB", "higher", len(x))
    yield Row("autoencoder: attributes kept; peer: bar",
              metrics.kept(judge, x, back).nanmean().item(), BARS["kept"], "", "higher", len(x))


def beside_diffusers(sd: Latent, seed: int, device: str) -> Iterator[Row]:
    """One image, 30 guided steps: the time, the pipeline's, and how far the latents differ."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(sd.source).to(device)
    pipe.set_progress_bar_config(disable=True)
    text, noise = "a photo of a cat on a beach", sd.noise(1, torch.Generator().manual_seed(seed))

    def ours() -> tuple[Tensor, Tensor]:
        z = last(ddim(sd.eps(text, w=5.0), sd.schedule, noise, sd.path(STEPS))).x
        return z, sd.decode(z).cpu()

    def theirs(kind: str = "pt") -> Tensor:
        return pipe(text, latents=noise, guidance_scale=5.0, num_inference_steps=STEPS,
                    output_type=kind).images.cpu()

    off = (ours()[0].cpu() - theirs("latent")).abs().max().item()
    yield Row(f"largest difference from diffusers' latents, {STEPS} steps; peer: bar", off,
              BARS["equal"], "", "lower", 1)
    mine, peer = medians(ours, theirs, n=RUNS)
    yield Row(f"one image, {STEPS} guided steps; peer: bar", mine, BARS["seconds"], "s", "lower",
              RUNS)
    yield Row("the same; peer: StableDiffusionPipeline", mine, peer, "s", "lower", RUNS)


def distance(sd: Latent, judge: nn.Module, w: float, seed: int, device: str,
             n: int) -> Iterator[Row]:
    """FID_w of n pictures between its floor and what blurred renders get."""
    reference, again = (held_out(n, seed + k, device) for k in (0, 1))
    _, captions = told(n, seed + 2, device)
    made = draw(sd, [c.text for c in captions], w, seed, device)
    ends = [metrics.fid_w(judge, x, reference, again) for x in (made, blur(again, BLUR))]
    for name, end, better in ((f"samples, w = {w:g}", ends[0], "lower"),
                              (f"renders blurred by {BLUR} px", ends[1], "higher")):
        yield Row(f"FID_w of {name}; peer: floor", end.value, end.floor, "", better, n)
    place = (ends[0].value - ends[0].floor) / (ends[1].value - ends[1].floor)
    yield Row("place of the samples from floor (0) to blur (1); peer: bar", place, 0.5, "",
              "lower", n)


# ---- what captions name ---------------------------------------------------------------------


def accuracies(reading: Reading, p: Portraits,
               captions: Sequence[Caption]) -> dict[str, tuple[float, int]]:
    """Attribute -> share of the captions naming it where the judge reads it so, and their number.
    """
    found = {}
    for name in NAMED:
        rows_ = [i for i, c in enumerate(captions) if c.naming(name)]
        if rows_ and name != "style":
            at = torch.tensor(rows_, device=p.device)
            found[name] = right(reading, p, name)[at].float().mean().item(), len(rows_)
    return found


def right(reading: Reading, p: Portraits, name: str) -> Tensor:
    """(b,) bool: the judge reads the attribute as a caption of p would name it."""
    if name in CATEGORICAL:
        return reading.index(name) == getattr(p, name)
    said, true = reading.value(name), getattr(p, name)
    slack = SLACK * (CONTINUOUS[name][1] - CONTINUOUS[name][0])
    hit = torch.zeros_like(said, dtype=torch.bool)
    for low, high in ENDS[name].values():
        meant = (true >= low) & (true <= high)
        hit |= meant & (said >= low - slack) & (said <= high + slack)
    return hit


def mean(found: dict[str, tuple[float, int]]) -> float:
    """The mean over attributes, each counted alike."""
    return sum(share for share, _ in found.values()) / len(found)
