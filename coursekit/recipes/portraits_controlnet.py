"""A ControlNet for portraits-sd that follows silhouettes: diffusers' own, 64x64 pixels.

After Zhang et al. (2023): a copy of the U-Net's encoder and middle learns from the loss of the
model itself, whose U-Net, text model and autoencoder stand still. Half of the captions are left
empty, so that the copy learns to see in the hint what no word says. Each picture's hint is drawn
once, from what the world knows of it, and kept in the cache folder.

A hint is followed all of a sudden, and the loss does not show when: it is a mean over all times,
and at most of them the noisy picture itself says where the portrait is. So fidelity.json keeps
beside the loss how well samples follow hints that were not trained on, whatever their kind: the
silhouette that the judge sees is held against the one wanted. Its first row is the model alone.

With `start` a ControlNet goes on learning; or a portraits-sd of one's own is given one.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursekit import images, portraits, pretrained
from coursekit.classroom import metrics
from coursekit.diffusion.predict import diffusers_time
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import Update
from coursekit.edits import controlnet
from coursekit.edits.controlnet import Control, as_hint
from coursekit.manifest import PIPELINE, read_json
from coursekit.nets import checkpoint
from coursekit.nets.latent import Latent
from coursekit.nets.parts import quiet
from coursekit.portraits import truth
from coursekit.recipes import (
    Pictures, _words, cache_folder, fit, fresh, portraits_ddpm, portraits_sd, portraits_vae,
    preparing, whole_folder, write_array, write_card,
)

NAME, BASE = "portraits-controlnet", "portraits-sd"
HINTS = {"silhouette": portraits.silhouette, "edges": portraits.edges, "depth": portraits.depth}
WIDTHS = (8, 16, 32)  # of the hint's encoder, which halves twice as the autoencoder does
DROPPED = 0.5  # share of captions left out
IMAGES = 160_000  # to see in all
BATCH = {"cpu": 16, "cuda": 128}
LR = {"cpu": 3e-4, "cuda": 6e-4}
# The loss is that of portraits-sd; a longer average would blur the moment when hints are followed.
SETTINGS = {"warmup": 100, "decay": 0.4, "ema": 0.99, "clip": 1.0, "min_snr": 5.0, "floor": 1.0}
EVERY = 200  # updates between two looks at the samples
PEOPLE, GUIDANCE, STEPS = 16, 3.0, 10  # in those samples
HELD_OUT = 2 * 10**9 + 11  # their seed: from 2 * 10**9 on nothing is trained on
TINY_BATCH, TINY_STEPS, TINY_PEOPLE, TINY_HOPS = 8, 4, 2, 2
PAGE = "fidelity.json"

CARD = """# {name}

Makes portraits-sd follow hints ({hint}), 64x64: a ControlNetModel of diffusers that loads
unmodified beside it. A hint is a picture in [0, 1], its three channels alike. Data: the {n} renders
and captions of portraits-sd, seed {data_seed}; half of the captions left empty. The loss is that of
portraits-sd, whose weights stood still. Adam, lr {lr:g} falling to 0 over the last two fifths,
batch {batch}; these weights are an average. Its joints began as {began} convolutions. Made by
`coursekit train {name}`, seed {seed}."""


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False, hint: str = "silhouette",
        gaussian: bool = False) -> Iterator[Any]:
    """Trains it in `out`; arguments as in `coursekit.recipes`. data is refused: it is rendered.

    hint      which of HINTS it learns to follow
    gaussian  joints that begin as usual convolutions do, for the paper's ablation
    """
    name = "-".join([NAME, *([hint] if hint != "silhouette" else []), *["gaussian"] * gaussian])
    _refuse(name, data, hint)
    kind = torch.device(device).type
    batch = TINY_BATCH if tiny else BATCH.get(kind, BATCH["cpu"])
    n = portraits_vae.TINY_PORTRAITS if tiny else portraits_ddpm.PORTRAITS
    sd, net = begin(start, gaussian, seed, device)
    out.mkdir(parents=True, exist_ok=True)
    page = Page.of(out, {"hint": hint, "gaussian": gaussian, "base": _stamp(sd.unet)}, resume)
    yield from portraits_vae.draw(n, device, steps)
    yield from portraits_sd.tell(n, sd.tokenizer, steps)
    yield from portraits_sd.encode(sd.vae, n, device, steps)
    yield from sketch(n, hint, device, steps)
    studio = Studio.of(sd, hint, page, device, tiny)
    lr = LR.get(kind, LR["cpu"])
    card = CARD.format(name=name, hint=hint, n=n, data_seed=portraits_ddpm.DATA_SEED, lr=lr,
                       batch=batch, seed=seed, began="Gaussian" if gaussian else "zero")
    if not page.rows:
        page.add(out, 0, 0, math.nan, studio.fidelity(net))
    updates = fit(out, Follower(sd, net), Hinted(n, sd, hint, batch, seed), steps=steps,
                  minutes=minutes, default_steps=TINY_STEPS if tiny else IMAGES // batch,
                  resume=resume, device=device, seed=seed, card=card, schedule=sd.schedule,
                  export=studio.export, draw=studio.draw, lr=lr, **SETTINGS)
    losses = []
    with closing(updates):
        for update in updates:
            losses.append(update.loss)
            due = update.step % EVERY == 0 or update.step == update.steps
            if due and math.isfinite(update.loss):  # it is not where all was done before
                page.add(out, update.step, update.images, sum(losses) / len(losses),
                         studio.fidelity(update.ema.net))
                losses = []
            yield update


def begin(start: str | None, gaussian: bool, seed: int, device: str) -> tuple[Latent, nn.Module]:
    """The model that stands still, and a fresh copy or the ControlNet that `start` names."""
    whole = start is not None and PIPELINE in checkpoint.find(pretrained.find(start)).names
    base = start if whole else BASE
    sd = pretrained.load_latent(base, device)
    if sd.tokenizer.get_vocab() != _words.tokenizer().get_vocab() or sd.prediction != "v":
        raise ValueError(f"start='{base}' has another tokenizer or prediction: accepted is a model "
                         f"of the recipe {BASE}, or a ControlNet")
    if start is None or whole:
        return sd, fresh(copied, {"unet": sd.unet, "gaussian": gaussian}, seed).to(device)
    if gaussian:
        raise ValueError(f"start='{start}' brings its own joints: gaussian accepts none, or a "
                         f"model of the recipe {BASE}")
    net = controlnet.load(start, device)
    controlnet.check_fit(sd, net)
    return sd, net.requires_grad_(True)


def copied(unet: nn.Module, gaussian: bool) -> nn.Module:
    """diffusers' ControlNetModel of that U-Net, joined by zero convolutions or by usual ones."""
    from diffusers import ControlNetModel

    net = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=WIDTHS)
    joints = (net.controlnet_cond_embedding.conv_out, *net.controlnet_down_blocks,
              net.controlnet_mid_block)
    for joint in joints if gaussian else ():
        inputs = joint.weight[0].numel()  # that one output sums up
        nn.init.normal_(joint.weight, std=inputs**-0.5)
    return net.requires_grad_(True)


class Follower(nn.Module):
    """The ControlNet beside the model that stands still, called as `train` calls a network.

    forward(z (b, 4, h, w), t (b,) in 1..T, tokens (b, l), hint (b, 3, H, W)) -> v (b, 4, h, w)
    Its parameters are the ControlNet's: the rest is in no checkpoint and in no average.
    """

    def __init__(self, sd: Latent, net: nn.Module) -> None:
        super().__init__()
        self.sd, self.net = sd, net

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor, hint: Tensor) -> Tensor:
        time_, seen = diffusers_time(t), self.sd.encoders[0](tokens).last_hidden_state
        skips, middle = self.net(z, time_, seen, hint, return_dict=False)
        return self.sd.unet(z, time_, seen, down_block_additional_residuals=skips,
                            mid_block_additional_residual=middle).sample


# ---- the set --------------------------------------------------------------------------------


def hints(n: int, hint: str) -> Path:
    """The file of the hints of all pictures, (n, bytes) uint8: bits, or for depth grey levels."""
    said = hashlib.sha256(Path(truth.__file__).read_bytes()).hexdigest()[:8]
    return cache_folder() / (f"hints-{hint}-{n}-{portraits_ddpm.DATA_SEED}-"
                             f"{portraits_ddpm.world()}-{said}.npy")


def sketch(n: int, hint: str, device: str, steps: int | None) -> Iterator[Update]:
    """Draws the hints of the training pictures, unless they are there."""
    file = hints(n, hint)
    if file.exists():
        return
    begun, drawn = time.perf_counter(), []
    for i, people in enumerate(portraits_ddpm.records(n)):
        drawn.append(packed(HINTS[hint](people.to(device), portraits_ddpm.SIZE), hint))
        yield preparing(min(256 * (i + 1), n), steps, begun)
    write_array(file, numpy.concatenate(drawn))


def packed(maps: Tensor, hint: str) -> numpy.ndarray:
    """Maps (b, .., 64, 64) in [0, 1] as rows (b, bytes) uint8."""
    flat = maps.float().flatten(1).cpu()
    if hint == "depth":
        return (255 * flat).round().byte().numpy()
    return numpy.packbits(flat.numpy() > 0.5, axis=1)


def unpacked(rows: numpy.ndarray, hint: str) -> Tensor:
    """The maps (b, 64, 64) in [0, 1] that `packed` made rows of."""
    flat = rows / numpy.float32(255) if hint == "depth" else numpy.unpackbits(rows, axis=1)
    side = portraits_ddpm.SIZE
    return torch.from_numpy(flat.astype(numpy.float32)).unflatten(1, (side, side))


class Hinted(portraits_sd.Captioned):
    """Latents (b, 4, 16, 16), the tokens of a caption each, half of them empty, and the hints."""

    def __init__(self, n: int, sd: Latent, hint: str, batch: int, seed: int) -> None:
        super().__init__(n, sd.vae, sd.tokenizer, batch, seed)
        self.scale = sd.vae.config.scaling_factor  # what the U-Net learned with, to the bit
        self.hint, self.maps = hint, numpy.load(hints(n, hint), mmap_mode="r")

    def __call__(self, k: int) -> tuple[Tensor, dict[str, Tensor]]:
        z, conditions = super().__call__(k)
        # in draws of their own, so many more that half of all captions are empty
        generator = torch.Generator().manual_seed(2**62 + self.seed * 1_000_003 + k)
        more = (DROPPED - portraits_sd.EMPTY) / (1 - portraits_sd.EMPTY)
        conditions["tokens"][torch.rand(len(z), generator=generator) < more] = self.empty
        maps = unpacked(self.maps[self.rows(k)], self.hint)
        return z, conditions | {"hint": as_hint(maps)}


# ---- what is written ------------------------------------------------------------------------


@dataclass
class Page:
    """fidelity.json: what is trained, and a row every so often.

    settings  the hint, whether the joints began Gaussian, and letters of the U-Net it is made for
    rows      {"step", "images", "iou", "outline", "loss"}: the last is the mean since the row
              before, None in the first; iou and outline are those of `agreement`
    """

    settings: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, out: Path, settings: dict[str, Any], resume: bool) -> "Page":
        """That of a run which goes on, or a new one; ValueError where the run was another."""
        if not (resume and (out / "checkpoint.pt").exists() and (out / PAGE).exists()):
            return cls(settings)
        old = read_json(out / PAGE)
        for name, value in settings.items():
            if old.get(name) != value:
                raise ValueError(f"out='{out}' was begun with {name}={old.get(name)}, now it is "
                                 f"{value}: accepted is the same, another folder, or --no-resume")
        return cls(settings, old["rows"])

    def add(self, out: Path, step: int, seen: int, loss: float, found: dict[str, float]) -> None:
        """Another row; those that an earlier run was ahead by are dropped."""
        self.rows = [row for row in self.rows if row["step"] < step]
        self.rows.append({"step": step, "images": seen, **found,
                          "loss": None if math.isnan(loss) else round(loss, 5)})
        with images.whole(out / PAGE) as part:
            part.write_text(json.dumps(self.settings | {"rows": self.rows}, indent=1) + "\n",
                            encoding="utf-8")

    def __str__(self) -> str:
        first, now = self.rows[0], self.rows[-1]
        return (f"After {now['step']} updates silhouettes of samples have an IoU of "
                f"{now['iou']:.3f} with those wanted,\noutlines an F-score of "
                f"{now['outline']:.3f}; before the first {first['iou']:.3f} and "
                f"{first['outline']:.3f}.")


@dataclass(frozen=True)
class Studio:
    """What does not change while it trains: the model, and people to be drawn by their hints.

    silhouettes (b, 64, 64) bool; hints (b, 3, 64, 64) in [0, 1]; hops of the sampler
    """

    sd: Latent
    judge: nn.Module
    page: Page
    captions: list[str]
    silhouettes: Tensor
    hints: Tensor
    hops: int

    @classmethod
    def of(cls, sd: Latent, hint: str, page: Page, device: str, tiny: bool) -> "Studio":
        generator = torch.Generator().manual_seed(HELD_OUT)
        n = TINY_PEOPLE if tiny else PEOPLE
        people = portraits.sample(n, generator, **portraits.TRAINING)
        captions = [c.text for c in portraits.caption(people, generator, details=1)]
        people = people.to(device)
        return cls(sd, pretrained.load("judge", device).net, page, captions,
                   portraits.silhouette(people), as_hint(HINTS[hint](people)),
                   TINY_HOPS if tiny else STEPS)

    @torch.no_grad()
    def samples(self, net: nn.Module) -> Tensor:
        """A picture a hint (b, 3, 64, 64), clipped to [-1, 1]; the same noise every time."""
        sd = controlnet.under(self.sd, Control(net, self.hints))
        z = sd.noise(len(self.hints), torch.Generator().manual_seed(HELD_OUT))
        eps = sd.eps(self.captions, w=GUIDANCE)
        return sd.decode(last(ddim(eps, sd.schedule, z, sd.path(self.hops))).x).clamp(-1, 1)

    @torch.no_grad()
    def fidelity(self, net: nn.Module) -> dict[str, float]:
        """How well the silhouettes that the judge sees in samples are those wanted, as `agreement`.
        """
        return agreement(self.judge.silhouette(self.samples(net)), self.silhouettes)

    def export(self, out: Path, update: Update, schedule: Schedule, card: str,
               device: str) -> None:
        """The ControlNet in fp16, as diffusers writes it, and the card."""
        with whole_folder(out) as made, quiet():
            portraits_vae.halved(update.ema.net).save_pretrained(made)
        write_card(out, update, f"{card}\n\n{self.page}", device)

    def draw(self, out: Path, update: Update, schedule: Schedule, pictures: Pictures,
             seed: int) -> None:
        """A sheet: rows of hints, and below each row what was drawn by it."""
        rows = zip((2 * self.hints - 1).split(8), self.samples(update.ema.net).split(8),
                   strict=True)
        sheet = torch.cat([row for pair in rows for row in pair]).cpu()
        (out / "samples").mkdir(exist_ok=True)
        images.save(images.grid(sheet, columns=min(8, len(self.hints))),
                    out / "samples" / f"{update.step:07d}.png")


def agreement(seen: Tensor, wanted: Tensor) -> dict[str, float]:
    """Means over silhouettes (b, h, w) bool, in four digits; who sees none has followed none.

    iou      intersection over union: someone else's portrait has 0.8, as all fill the middle
    outline  of `outlines`, which asks where a portrait ends
    """
    iou = metrics.iou(seen, wanted) * seen.flatten(1).any(1)
    return {"iou": round(iou.mean().item(), 4),
            "outline": round(outlines(seen, wanted).mean().item(), 4)}


def outlines(seen: Tensor, wanted: Tensor) -> Tensor:
    """(b,) F-score of the outlines of silhouettes (b, h, w) bool: 1 at best.

    Of each outline counts the share that lies within a pixel of the other.
    """
    a, b = (_wider(m) & ~m for m in (seen, wanted))
    precision = (a & _wider(b)).sum((1, 2)) / a.sum((1, 2)).clamp(min=1)
    recall = (b & _wider(a)).sum((1, 2)) / b.sum((1, 2)).clamp(min=1)
    return 2 * precision * recall / (precision + recall).clamp(min=1e-9)


def _wider(m: Tensor) -> Tensor:
    """With the eight neighbours of every pixel."""
    return F.max_pool2d(m.float()[:, None], 3, 1, 1)[:, 0] > 0


def _stamp(net: nn.Module) -> str:
    """Twelve letters that change with the weights."""
    said = hashlib.sha256()
    for _, value in sorted(net.state_dict().items()):
        said.update(value.detach().float().cpu().numpy().tobytes())
    return said.hexdigest()[:12]


def _refuse(name: str, data: Path | None, hint: str) -> None:
    if data is not None:
        raise ValueError(f"data='{data}': {name} renders its own pictures; leave it out")
    if hint not in HINTS:
        raise ValueError(f"hint={hint!r}: accepted are {', '.join(HINTS)}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"WORLD_SIZE={os.environ['WORLD_SIZE']}: {name} trains on one device; "
                         "start it without torchrun or accelerate")
