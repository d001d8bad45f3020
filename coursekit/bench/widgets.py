"""How long an explorer takes to answer a control at the kernel; a slider must feel immediate."""

import math
import random
import time
from collections.abc import Callable, Iterator
from statistics import quantiles

import torch
from torch import Tensor

from coursekit.bench import Row
from coursekit.classroom import widgets
from coursekit.classroom.explorer import Explorer
from coursekit.diffusion.sample import ddim
from coursekit.diffusion.schedule import Schedule
from coursekit.edits import controlnet, p2p, pnp, sdedit
from coursekit.nets.latent import Latent
from coursekit.nets.lora import Lora
from coursekit.portraits import TRAINING, render, sample, strokes
from coursekit.recipes import _words, portraits_controlnet, portraits_sd, portraits_vae

N = 100  # moves of the controls
PEERS = 10  # redraws by matplotlib, which take long
KNOWN = 12  # portraits that the exact predictor knows
BLUR = 0.15
PROMPT = portraits_sd.SAMPLES[1]


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """The 95th percentile over random moves, an explorer a row; the last is a matplotlib redraw.

    The peer is the usual way to a moving figure, `savefig` for each view, of pictures alone.
    """
    generator = torch.Generator().manual_seed(seed)
    known = render(sample(KNOWN, generator, **TRAINING)).to(device)
    noise = torch.randn(2, 3, 64, 64, generator=generator).to(device)
    schedule = Schedule.cosine()
    eps, sd = _exact(schedule, known), text_to_image(seed, device)
    latents, told = sd.noise(2, generator), PROMPT.replace("red", "blue")
    net = portraits_controlnet.copied(sd.unet, False).eval().requires_grad_(False)
    loras = [Lora.fresh(sd.unet, 2, generator=generator) for _ in range(2)]
    walk = list(ddim(sd.eps(PROMPT), sd.schedule, latents[:1], sd.path(3)))
    makers: list[Callable[[], Explorer]] = [
        lambda: widgets.NoiseLevel(eps, schedule, known[:2], levels=11),
        lambda: widgets.ElboTerms(eps, schedule, known[:2], path=schedule.trailing(10)),
        lambda: widgets.SamplingPath(eps, schedule, noise, steps=(5, 10)),
        lambda: widgets.RoundTrip(eps, schedule, known[:2], steps=(5, 10)),
        lambda: widgets.StrokeEditor(sdedit.edit, eps, schedule, strokes(known[:1]), steps=10),
        lambda: widgets.AttentionMaps(sd, PROMPT, latents, steps=10),
        lambda: widgets.GuidanceWeight(sd, PROMPT, latents, weights=(1, 3, 5), steps=(3, 5)),
        lambda: widgets.Inversions(sd, known[:2], PROMPT, told, weights=(1, 3, 5), steps=(3, 5)),
        lambda: widgets.PromptWindows(p2p.pair, p2p.Control, sd, walk, PROMPT, told),
        lambda: widgets.PromptEditor(p2p.pair, p2p.Control, sd, walk, PROMPT, told),
        lambda: widgets.InjectionWindows(
            pnp.edit, sd, known[:2], PROMPT, "a photo of a fox", sd.path(4),
            outline=lambda x: x.mean(1) > 0, success=lambda x: x.mean((1, 2, 3)) > 0,
            tau_f=(0.0, 0.5, 1.0), tau_A=(0.0, 1.0)),
        lambda: widgets.DecoderFeatures(sd, known[:3], PROMPT, sd.path(6)),
        lambda: widgets.SilhouetteEditor(
            controlnet.under, controlnet.Control, sd, net, known[:1].mean(1) > 0, PROMPT,
            latents[:1], sd.path(3), outline=lambda x: x.mean(1) > 0),
        lambda: widgets.LoraMix(sd, *loras, known[:2], PROMPT, latents, sd.path(3)),
    ]
    for make in makers:
        explorer = make()
        ours, peer = _moves(explorer, random.Random(seed))
        yield Row(f"{type(explorer).__name__}, p95", ours, peer, "ms", "lower", N)


def _moves(explorer: Explorer, dice: random.Random) -> tuple[float, float]:
    """95th percentiles in ms: until the view has changed, and for the same view by matplotlib."""
    ours, peer = [], []
    moved = [c for c in explorer.controls.values() if hasattr(c, "options") or hasattr(c, "min")]
    while len(ours) < N:
        control = dice.choice(moved)  # not a field for text
        options = getattr(control, "options", None)
        new = dice.randrange(len(options)) if options else dice.randint(control.min, control.max)
        before, begun = explorer.view.value, time.perf_counter()
        setattr(control, "index" if options else "value", new)
        seconds = time.perf_counter() - begun
        if hasattr(explorer, "wait"):
            explorer.wait()  # a new painting is worked out in the background: not in the figure
        if explorer.view.value != before:
            ours.append(seconds)
        if len(peer) < PEERS:
            begun = time.perf_counter()
            _savefig(explorer)
            peer.append(time.perf_counter() - begun)
    return _p95(ours), _p95(peer)


def _p95(seconds: list[float]) -> float:
    return 1e3 * quantiles(seconds, n=20, method="inclusive")[-1]


def _savefig(explorer: Explorer) -> None:
    from io import BytesIO

    from matplotlib.figure import Figure

    rows = explorer.frame.rows
    figure = Figure(figsize=(8, 2 * len(rows)))
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            axes = figure.add_subplot(len(rows), len(row), i * len(row) + j + 1)
            axes.imshow(picture.image)
            axes.set_title(picture.heading)
            axes.set_axis_off()
    figure.savefig(BytesIO())


def text_to_image(seed: int, device: str) -> Latent:
    """portraits-sd before any training: how long a control takes hangs on no weight."""
    net, _ = portraits_sd.begin(None, tiny=False, seed=seed)
    vae, words = portraits_vae.begin(None, portraits_vae.CONFIG, seed), _words.tokenizer()
    for part in (net, vae):
        part.to(device).eval().requires_grad_(False)
    schedule = portraits_sd.Studio(vae, words).schedule
    return Latent(net.unet, vae, (words,), (net.text,), schedule, "v", end=1, offset=1)


def _exact(schedule: Schedule, known: Tensor) -> Callable[[Tensor, int], Tensor]:
    """The noise predictor of a mixture of blurred portraits: exact, and as good as free."""

    def eps(x: Tensor, t: int) -> Tensor:
        level = schedule.level(t)
        var = level * BLUR**2 + 1 - level
        gap = (x[:, None] - math.sqrt(level) * known[None]).flatten(2).square().sum(2)  # b k
        mean = torch.einsum("bk,kchw->bchw", (-gap / (2 * var)).softmax(1), known)
        return math.sqrt(1 - level) * (x - math.sqrt(level) * mean) / var

    return eps
