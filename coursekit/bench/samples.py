"""The shipped DDPM: FID_w of its samples, round trips, and whether it repeats its training set.

FID_w is read between two ends: its floor (renders against renders) and what renders blurred by
1.5 pixels get. The network does most of the work, in bf16 where the processor has units for it:
about ten minutes on two cores. Round trips stay in float32.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit import portraits, pretrained
from coursekit.bench import Row
from coursekit.bench.judge import blur
from coursekit.classroom import metrics
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.diffusion.train import fast_dtype
from coursekit.pretrained import Loaded
from coursekit.recipes import portraits_ddpm

MODEL = "portraits-ddpm"
N, STEPS, BATCH = 2000, 50, 50
ROUND_TRIPS, ROUND_TRIP_STEPS = 64, 100
NEAREST = 64
HELD_OUT = 2 * 10**9  # seeds from here on are neither the judge's nor the generator's
BLUR = 1.5  # pixels, standard deviation


@torch.no_grad()
def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Samples between floor and blur, then the round trip, then the nearest training pictures."""
    model, judge = pretrained.load(MODEL, device), pretrained.load("judge", device).net
    reference, again = (held_out(N, seed + k, device) for k in (0, 1))
    blurred = blur(again, BLUR)
    made = samples(model, N, STEPS, seed=seed, device=device)
    ends = {name: metrics.fid_w(judge, x, reference, again)
            for name, x in (("samples", made), ("blurred", blurred))}
    mine, far = ends["samples"], ends["blurred"]
    yield Row(f"FID_w of {STEPS}-step DDIM samples; peer: floor", mine.value, mine.floor, "",
              "lower", N)
    yield Row(f"FID_w of renders blurred by {BLUR} px; peer: floor", far.value, far.floor, "",
              "higher", N)
    place = (mine.value - mine.floor) / (far.value - far.floor)
    yield Row("place of the samples from floor (0) to blur (1); peer: bar", place, 0.5, "",
              "lower", N)
    yield from round_trip(model, judge, held_out(ROUND_TRIPS, seed + 2, device))
    yield nearest(made[:NEAREST], held_out(NEAREST, seed + 3, device), device)


def held_out(n: int, seed: int, device: str) -> Tensor:
    """n renders of the training distribution that no recipe has drawn: (n, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(HELD_OUT + seed)
    return portraits.render(portraits.sample(n, generator, device=device, **portraits.TRAINING))


def samples(model: Loaded, n: int, steps: int, *, eta: float = 0.0, seed: int,
            device: str) -> Tensor:
    """n samples (n, 3, 64, 64), clipped to [-1, 1]; the same noise whatever steps and eta."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, 64, 64, generator=generator).to(device)
    fresh = torch.Generator().manual_seed(seed + 1)
    path = model.schedule.trailing(steps)
    parts = [last(ddim(quick(model, device), model.schedule, some, path, eta, fresh)).x
             for some in x.split(BATCH)]
    return torch.cat(parts).clamp(-1, 1)


def quick(model: Loaded, device: str) -> Eps:
    """The model's eps with the network in `fast_dtype`; what is around it stays in float32."""
    eps, dtype = model.eps(), fast_dtype(device)

    def predict(x: Tensor, t: int) -> Tensor:
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
            return eps(x, t)

    return predict


def round_trip(model: Loaded, judge: torch.nn.Module, x: Tensor) -> Iterator[Row]:
    """Invert and sample again: PSNR, and the share of the judge's readings that stay."""
    path = model.schedule.karras(ROUND_TRIP_STEPS)
    back = []
    for some in x.split(BATCH):
        noise = last(invert(model.eps(), model.schedule, some, path)).x
        back.append(last(ddim(model.eps(), model.schedule, noise, path)).x)
    back = torch.cat(back).clamp(-1, 1)
    name = f"round trip at {ROUND_TRIP_STEPS} steps"
    yield Row(f"{name}: PSNR; peer: bar", metrics.psnr(x, back).mean().item(), 30.0, "dB",
              "higher", len(x))
    yield Row(f"{name}: attributes kept; peer: bar", metrics.kept(judge, x, back).mean().item(),
              0.97, "", "higher", len(x))


def nearest(made: Tensor, fresh: Tensor, device: str) -> Row:
    """Distance to the nearest training picture, of samples and (peer) of held-out renders.

    A model that repeats its training set is much nearer to it than a fresh render is.
    """
    training = portraits_ddpm.renders(portraits_ddpm.PORTRAITS, device)
    distance, _ = metrics.nearest(torch.cat([made, fresh]).cpu(), training)
    mine, theirs = distance[: len(made), 0].median(), distance[len(made) :, 0].median()
    return Row("median RMSE to the nearest training picture; peer: fresh renders", mine.item(),
               theirs.item(), "", "higher", len(made))
