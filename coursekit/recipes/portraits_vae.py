"""The autoencoder of portraits-sd: 64x64 pixels to latents of 4x16x16, diffusers' AutoencoderKL.

The first of that recipe's two stages, which runs it; alone it can be looked at or trained further,
from a whole portraits-sd the decoder alone.
The loss is a squared error with a small weight on the divergence from N(0, I) (Kingma & Welling
2014, eq. 10), which keeps near latents alike. Errors of several pictures are joined by their
geometric mean, which is what the mean of their PSNRs looks at: the logarithm of a squared error is,
but for constants, minus the logarithm of a Gaussian likelihood at its best variance. No adversary
and no perceptual loss: the judge is to judge it. Two renders that differ in their fine detail alone
(strands, weave, grain) are 28.6 dB apart: who lost all of it and nothing else would reach 31.6 dB.
"""

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursekit import manifest, pretrained
from coursekit.nets.parts import quiet
from coursekit.recipes import (
    Pictures, cache_folder, fresh, judge, portraits_ddpm, preparing, whole_folder, write_pictures,
)

NAME = "portraits-vae"
CONFIG = {"block_out_channels": (16, 32, 64), "layers_per_block": 2, "norm_num_groups": 8,
          "latent_channels": 4, "sample_size": 64, "force_upcast": False,
          "down_block_types": ("DownEncoderBlock2D",) * 3,
          "up_block_types": ("UpDecoderBlock2D",) * 3}
IMAGES = 240_000  # to see in all
BATCH = {"cpu": 8, "cuda": 128}
LR = {"cpu": 1e-3, "cuda": 2e-3}
ENCODER = ("encoder.", "quant_conv.")  # what decides the latents
KL = 1e-7  # weight of a portrait's divergence in nats beside its squared error
TINY = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4}
TINY_PORTRAITS, TINY_BATCH, TINY_STEPS = 32, 8, 4

CARD = """# portraits-vae

The autoencoder of portraits-sd, latents of 4x16x16 for 64x64 pixels. Squared error, {kl:g} x
divergence from N(0, I). Muon and AdamW, one cycle of the learning rate. `scaling_factor` is set by
portraits-sd, from all latents. Made by `coursekit train portraits-vae`.

| | |
|---|---|"""


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False) -> Iterator[Any]:
    """Trains it in `out`; arguments as in `coursekit.recipes`. data is refused: it is rendered.

    What comes of `start="portraits-sd"` can stand in for that pipeline's folder `vae`.
    """
    if data is not None:
        raise ValueError(f"data='{data}': {NAME} renders its own pictures; leave it out")
    kind = torch.device(device).type
    batch = TINY_BATCH if tiny else BATCH.get(kind, BATCH["cpu"])
    net = begin(start, CONFIG | TINY if tiny else CONFIG, seed)
    n = TINY_PORTRAITS if tiny else portraits_ddpm.PORTRAITS
    yield from draw(n, device, steps)
    out.mkdir(parents=True, exist_ok=True)
    steps = steps or (10**9 if minutes else TINY_STEPS if tiny else IMAGES // batch)
    yield from judge.fit(out, net.to(device, memory_format=torch.channels_last),
                         Grainy(pictures(n), batch, seed), steps=steps,
                         resume=resume, device=device, seconds=60 * minutes if minutes else None,
                         lr=LR.get(kind, LR["cpu"]), loss_of=objective, leave=export, muon=True)


def begin(start: str | None, config: dict[str, Any], seed: int) -> nn.Module:
    """A fresh network, or the one of the same shape that `start` names.

    Of a whole pipeline only the decoder goes on learning: its U-Net knows these latents.
    """
    from diffusers import AutoencoderKL

    net = fresh(AutoencoderKL, config, seed)
    if start is None:
        return net
    folder = Path(pretrained.find(start))
    whole = (folder / manifest.PIPELINE).is_file()
    old = read(folder / "vae" if whole else folder)
    if {k: v.shape for k, v in old.state_dict().items()} != {
            k: v.shape for k, v in net.state_dict().items()}:
        raise ValueError(f"start='{start}' is an autoencoder of another shape: accepted is one "
                         f"of the recipe {NAME}")
    net.load_state_dict(old.state_dict())
    net.register_to_config(scaling_factor=old.config.scaling_factor)
    for name, p in net.named_parameters():
        p.requires_grad_(not (whole and name.startswith(ENCODER)))
    return net


def read(folder: str | Path) -> nn.Module:
    """The autoencoder in a folder, float32."""
    from diffusers import AutoencoderKL

    try:
        return AutoencoderKL.from_pretrained(folder, use_safetensors=True,
                                             torch_dtype=torch.float32)
    except Exception as problem:  # diffusers and safetensors each raise their own
        why = " ".join(str(problem).split())[:160]
        raise ValueError(f"'{folder}' holds no autoencoder that can be read ({why})") from problem


# ---- the set --------------------------------------------------------------------------------


def pictures(n: int) -> Path:
    """The file of n training pictures: that of the recipe portraits-ddpm."""
    return cache_folder() / f"portraits-{n}-{portraits_ddpm.DATA_SEED}-{portraits_ddpm.world()}.npy"


def draw(n: int, device: str, steps: int | None) -> Iterator[Any]:
    """Renders the training pictures, unless they are there."""
    if not pictures(n).exists():
        begun = time.perf_counter()
        for done in write_pictures(pictures(n), portraits_ddpm.SIZE,
                                   portraits_ddpm.renders(n, device), least=n):
            yield preparing(done, steps, begun)


class Grainy(Pictures):
    """Pictures (b, 3, h, w), and the noise (b, 4, h / 4, w / 4) that draws from their posterior."""

    def __call__(self, k: int) -> tuple[Tensor, Tensor]:
        x = super().__call__(k)
        h, w = x.shape[2] // 4, x.shape[3] // 4
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
        return x, torch.randn(len(x), 4, h, w, generator=generator)


# ---- the fit --------------------------------------------------------------------------------


def objective(net: nn.Module, batch: tuple[Tensor, Tensor], device: str,
              dtype: torch.dtype | None = None) -> Tensor:
    """Geometric mean of the pictures' squared errors + KL x divergence.

    A decoder that learns alone gets the means of the latents, as `Latent.encode` gives them.
    dtype: of the arithmetic, None float32.
    """
    x, noise = (part.to(device) for part in batch)
    alone = not net.quant_conv.weight.requires_grad
    with torch.autocast(torch.device(device).type, dtype, enabled=dtype is not None):
        posterior = net.encode(x).latent_dist
        z = posterior.mean if alone else posterior.mean + posterior.std * noise
        y = net.decode(z).sample
    mean, log_var = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean**2 + log_var.exp() - 1 - log_var).flatten(1).sum(1).mean()
    errors = F.mse_loss(y.float(), x, reduction="none").flatten(1).mean(1)
    return errors.log().mean().exp() + KL * divergence


def export(out: Path, net: nn.Module, done: dict, grainy: Grainy, device: str, ranks: int) -> None:
    """The weights in fp16 and the card, which says how they were made."""
    with whole_folder(out) as made, quiet():
        halved(net).save_pretrained(made)
        facts = {"Data": f"{len(grainy)} renders of the default training distribution, seed "
                         f"{portraits_ddpm.DATA_SEED}",
                 "Updates": f"{done['step']} of {ranks * grainy.batch} pictures, seed "
                            f"{grainy.seed}",
                 "Training time": f"{done['seconds']:.0f} s, {device}, {ranks} x "
                                  f"{torch.get_num_threads()} threads",
                 "Parameters": sum(p.numel() for p in net.parameters()),
                 "Net": json.dumps({k: net.config[k] for k in CONFIG})}
        lines = [CARD.format(kl=KL), *(f"| {k} | {v} |" for k, v in facts.items()), ""]
        (made / "card.md").write_text("\n".join(lines), encoding="utf-8")


def halved(net: nn.Module) -> nn.Module:
    """A copy in fp16; ValueError where a weight does not fit."""
    copy = deepcopy(net).half()
    copy.load_state_dict(pretrained.halved(net))
    return copy.cpu()
