"""A DDPM of your own pictures: any folder, any mode and size, 64x64 pixels.

The same network and settings as portraits-ddpm. Every picture is turned upright, cut to its
centred square and resized once; the result is kept in the cache folder, 12 KB a picture. A file
that cannot be read is reported and left out. From a few hundred pictures on it learns their law;
with fewer it repeats them. `--from portraits-ddpm` is a better start than noise.
"""

import hashlib
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from coursekit import images
from coursekit.diffusion.train import Update
from coursekit.recipes import Pictures, cache_folder, fit, preparing, write_pictures
from coursekit.recipes.portraits_ddpm import (
    BATCH, CONFIG, SETTINGS, SIZE, STEPS, TINY, TINY_BATCH, TINY_STEPS, begin,
)

NAME = "ddpm"
LEAST = 16

CARD = """# ddpm

Draws pictures like the {n} in the folder `{folder}`, 64x64. Predicts v on a cosine schedule,
T = 1000. No augmentation. Adam, lr 5e-4, batch {batch}; these weights are the average.
Made by `coursekit train ddpm --data {folder}`, seed {seed}."""


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False) -> Iterator[Update]:
    """Trains it in `out` on the folder `data`; arguments as in `coursekit.recipes`.

    ValueError without a folder or with fewer than 16 readable pictures in it; a warning names
    each file that was left out.
    """
    if data is None:
        raise ValueError(f"data is missing: {NAME} needs a folder with at least {LEAST} pictures")
    files = sorted(f for f in data.rglob("*") if f.is_file() and not f.name.startswith("."))
    if len(files) < LEAST:
        raise ValueError(f"data='{data}' holds {len(files)} files: at least {LEAST} pictures are "
                         "needed")
    file = cache_folder() / f"folder-{_fingerprint(files)}.npy"
    if not file.exists():
        begun = time.perf_counter()
        try:
            for done in write_pictures(file, SIZE, _readable(files), least=LEAST):
                yield preparing(done, steps, begun)
        except ValueError as problem:
            raise ValueError(f"data='{data}': {problem}") from None
    batch = TINY_BATCH if tiny else BATCH
    pictures = Pictures(file, batch, seed)
    out.mkdir(parents=True, exist_ok=True)
    card = CARD.format(n=len(pictures), folder=data, batch=batch, seed=seed)
    yield from fit(out, begin(start, TINY if tiny else CONFIG, seed), pictures, steps=steps,
                   minutes=minutes, default_steps=TINY_STEPS if tiny else STEPS, resume=resume,
                   device=device, seed=seed, card=card, **SETTINGS)


def _readable(files: list[Path]) -> Iterator[Tensor]:
    for file in files:
        try:
            yield images.load(file, SIZE)
        except ValueError as problem:
            warnings.warn(f"left out: {problem}", stacklevel=2)


def _fingerprint(files: list[Path]) -> str:
    """Letters that change with the names, sizes and dates of the files."""
    lines = [f"{f.absolute()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
    return hashlib.sha256("\n".join([str(SIZE), *lines]).encode()).hexdigest()[:12]
