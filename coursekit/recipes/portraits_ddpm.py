"""A DDPM of the Portraits world: 64x64 pixels, v-prediction, cosine schedule.

The training set is rendered once (48,000 portraits of the default training distribution) and kept
in the cache folder, 590 MB. No flips: pose and light are attributes that a mirror would change.
"""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from coursekit import portraits, pretrained
from coursekit.diffusion.train import Update
from coursekit.nets.unet import UNet
from coursekit.recipes import Pictures, cache_folder, fit, fresh, preparing, write_pictures

NAME = "portraits-ddpm"
SIZE, PORTRAITS, DATA_SEED = 64, 48_000, 1
CONFIG = {"channels": (48, 64, 128, 224), "encoder": (1, 1, 1, 0), "decoder": (2, 1, 2, 0),
          "attention": (2, 3), "unshuffle": 2}
SETTINGS = {"lr": 5e-4, "warmup": 200, "decay": 0.4, "ema": 0.999, "clip": 1.0, "min_snr": 5.0}
BATCH, STEPS = 16, 24_000

TINY = {"channels": (8, 16), "encoder": (1, 1), "decoder": (1, 1), "attention": (1,),
        "head_dim": 8, "groups": 4, "unshuffle": 4}
TINY_PORTRAITS, TINY_BATCH, TINY_STEPS = 32, 8, 20

CARD = """# portraits-ddpm

Draws portraits of the course's own world, 64x64. Predicts v on a cosine schedule, T = 1000.
Data: {n} renders of the default training distribution (photo style, few backgrounds), seed
{data_seed}, no augmentation. Adam, lr 5e-4, batch {batch}; these weights are the average.
Made by `coursekit train portraits-ddpm`, seed {seed}."""


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False) -> Iterator[Update]:
    """Trains it in `out`; arguments as in `coursekit.recipes`. data is refused: it is rendered."""
    if data is not None:
        raise ValueError(f"data='{data}': {NAME} renders its own pictures; for a folder of yours "
                         "use the recipe ddpm")
    n, batch = (TINY_PORTRAITS, TINY_BATCH) if tiny else (PORTRAITS, BATCH)
    out.mkdir(parents=True, exist_ok=True)
    file = cache_folder() / f"portraits-{n}-{DATA_SEED}-{world()}.npy"
    if not file.exists():
        begun = time.perf_counter()
        for done in write_pictures(file, SIZE, renders(n, device), least=n):
            yield preparing(done, steps, begun)
    net = begin(start, TINY if tiny else CONFIG, seed)
    card = CARD.format(n=n, data_seed=DATA_SEED, batch=batch, seed=seed)
    yield from fit(out, net, Pictures(file, batch, seed), steps=steps, minutes=minutes,
                   default_steps=TINY_STEPS if tiny else STEPS, resume=resume, device=device,
                   seed=seed, card=card, **SETTINGS)


def begin(start: str | None, config: dict, seed: int) -> UNet:
    """A fresh network, or the weights that `start` names if they are of a U-Net of ours."""
    if start is None:
        return fresh(UNet, config, seed)
    loaded = pretrained.load(start)
    if not isinstance(loaded.net, UNet) or loaded.prediction != "v":
        raise ValueError(f"start='{start}' is a {type(loaded.net).__name__} that predicts "
                         f"{loaded.prediction}: accepted is a UNet of this course that predicts v")
    return loaded.net


def records(n: int) -> Iterator[portraits.Portraits]:
    """The portraits of the training set in chunks, the same on every run."""
    generator = torch.Generator().manual_seed(DATA_SEED)
    for i in range(0, n, 256):
        yield portraits.sample(min(256, n - i), generator, **portraits.TRAINING)


def renders(n: int, device: str) -> Iterator[torch.Tensor]:
    """The training set in chunks, as pictures."""
    for batch in records(n):
        yield portraits.render(batch.to(device), SIZE).cpu()


def world() -> str:
    """Eight letters that change with the world's source, so that no stale render is used."""
    folder = Path(portraits.__file__).parent
    drawing = ("attributes", "noise", "scene", "anatomy", "wardrobe", "backgrounds", "render")
    sources = [folder / f"{name}.py" for name in (*drawing, "styles")]
    return hashlib.sha256(b"".join(s.read_bytes() for s in sources)).hexdigest()[:8]
