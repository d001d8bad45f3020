"""How the shipped models are made: one file a model, run by `coursekit train NAME`.

A recipe has a docstring whose first line says what it trains, and one function

    run(out, *, data, steps, minutes, start, resume, device, seed, tiny) -> Iterator[Update]

out      folder for the model (`pretrained.load(out)` works from the first minutes on), its card,
         `log.txt`, `samples/` and `checkpoint.pt`; run again, it goes on from there
data     a folder of pictures where the recipe takes one
steps    updates in all; minutes: of training in all, earlier runs included, pictures not counted
start    weights to begin with: a shipped name, a folder or a hub id
tiny     a toy size that only shows that it runs

This file holds what the recipes for pictures share: the pictures, and `fit`.
"""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import torch
from torch import Tensor, nn

from coursekit import images, pretrained
from coursekit.diffusion.predict import from_network
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import Update, fast_dtype, train

LOG_SECONDS = 60.0
SAVE_SECONDS = 300.0
SAMPLE_SECONDS = 600.0
UNLIMITED = 10**9  # steps, where only minutes were asked for


class Pictures:
    """uint8 pictures (n, 3, h, w) on disk as batches: pictures(k) -> (b, 3, h, w) in [-1, 1].

    Epoch after epoch in a new order; batch k depends on the seed and k alone. The file is mapped,
    so memory holds what was read lately and no more.
    """

    def __init__(self, file: Path, batch: int, seed: int):
        self.pixels = numpy.load(file, mmap_mode="r")
        self.batch, self.seed = batch, seed
        self._epoch, self._order = -1, numpy.empty(0)

    def __len__(self) -> int:
        return len(self.pixels)

    def __call__(self, k: int) -> Tensor:
        return images.from_uint8(torch.from_numpy(self.pixels[self.rows(k)]))

    def rows(self, k: int) -> list[int]:
        """Which pictures batch k holds."""
        places = range(k * self.batch, (k + 1) * self.batch)
        return [self._index(*divmod(i, len(self))) for i in places]

    def _index(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = numpy.random.default_rng((self.seed, epoch)).permutation(len(self))
        return int(self._order[place])


def write_pictures(file: Path, size: int, chunks: Iterable[Tensor], *,
                   least: int = 1) -> Iterator[int]:
    """Writes chunks (b, 3, size, size) in [-1, 1] to `file` as uint8; yields how many are done.

    The file appears when all are there, or not at all; ValueError if they are fewer than `least`.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with images.whole(file) as part:
        try:
            with part.open("wb") as stream:
                # Not through a memory map: on a full disk that is a bus error, not an OSError.
                _write_header(stream, 0, size)
                start, n = stream.tell(), 0
                for chunk in chunks:
                    stream.write(images.to_uint8(chunk).numpy().tobytes())
                    n += len(chunk)
                    yield n
                if n < least:
                    raise ValueError(f"{n} readable pictures: at least {least} are needed")
                stream.seek(0)
                _write_header(stream, n, size)  # as long as before: numpy leaves room to grow
                assert stream.tell() == start
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror, str(file)) from problem


def write_array(file: Path, array: numpy.ndarray) -> None:
    """Writes an array in numpy's format, whole or not at all."""
    with images.whole(file) as part, part.open("wb") as stream:
        numpy.save(stream, array)


def _write_header(stream: BinaryIO, n: int, size: int) -> None:
    numpy.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": (n, 3, size, size)})


def cache_folder() -> Path:
    """Where prepared data is kept between runs; deleting it is safe."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "coursekit"


def fresh(build: type[nn.Module], config: dict[str, Any], seed: int) -> nn.Module:
    """A network with weights that depend on the seed alone; the global generator is put back."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return build(**config)


def preparing(done: int, steps: int | None, start: float) -> Update:
    """A record for the time before the first update: pictures done so far, no loss yet."""
    seconds = time.perf_counter() - start
    return Update(0, steps or UNLIMITED, done, math.nan, math.nan, 0.0, seconds,
                  done / max(seconds, 1e-9))


def fit(out: Path, net: nn.Module, pictures: Pictures, *, steps: int | None, minutes: float | None,
        default_steps: int, resume: bool, device: str, seed: int, card: str,
        schedule: Schedule | None = None, export: Callable[..., None] | None = None,
        draw: Callable[..., None] | None = None, **settings: Any) -> Iterator[Update]:
    """Trains net (a UNet, v-prediction, cosine schedule) on pictures; keeps `out` up to date.

    schedule, export and draw stand in for the cosine one, `_export` and `_draw` where another kind
    of network is trained. settings go to `train`. Several devices: start it with
    `accelerate launch`.
    """
    schedule, export, draw = schedule or Schedule.cosine(), export or _export, draw or _draw
    accelerator = _accelerator()
    chief = accelerator is None or accelerator.is_main_process
    steps = steps or (UNLIMITED if minutes else default_steps)
    if accelerator is None:
        net.to(device)
        settings.setdefault("autocast", fast_dtype(device))
    updates = train(net, pictures, schedule, steps=steps, seed=seed, resume=resume,
                    seconds=60 * minutes if minutes else None, accelerator=accelerator,
                    checkpoint=out / "checkpoint.pt", every=SAVE_SECONDS, **settings)
    logged = saved = sampled = time.perf_counter()
    seen = None
    with closing(updates):  # Ctrl-C between two updates reaches `train`, which then saves
        for update in updates:
            now = time.perf_counter()
            seen = seen or update
            if chief and now - logged >= LOG_SECONDS:
                _log(out, update, seen)
                logged, seen = now, update
            if chief and now - saved >= SAVE_SECONDS:
                export(out, update, schedule, card, device)
                saved = now
            if chief and now - sampled >= SAMPLE_SECONDS:
                draw(out, update, schedule, pictures, seed)
                sampled = now
            yield update
    if chief and seen:  # nothing was seen where the minutes were over before
        _log(out, update, seen)
        export(out, update, schedule, card, device)
        draw(out, update, schedule, pictures, seed)


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to write to; its files replace those of `out`, one by one, if the block succeeds."""
    with tempfile.TemporaryDirectory(prefix=".", dir=out) as made:
        yield Path(made)
        for file in sorted(p for p in Path(made).rglob("*") if p.is_file()):
            target = out / file.relative_to(made)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def _accelerator() -> Any:
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    from accelerate import Accelerator

    return Accelerator()


def _log(out: Path, update: Update, before: Update) -> None:
    images_, seconds = update.images - before.images, update.seconds - before.seconds
    with (out / "log.txt").open("a", encoding="utf-8") as file:
        file.write(f"{time.strftime('%H:%M:%S')}  step {update.step}  images {update.images}  "
                   f"loss {update.loss:.4f}  norm {update.grad_norm:.3f}  lr {update.lr:.2e}  "
                   f"{images_ / max(seconds, 1e-9):.1f} images/s  "
                   f"{update.seconds / 60:.1f} min\n")


def _export(out: Path, update: Update, schedule: Schedule, card: str, device: str) -> None:
    pretrained.save(out, update.ema, update.ema.config, schedule, "v")
    write_card(out, update, card, device)


def write_card(out: Path, update: Update, card: str, device: str) -> None:
    """card.md: what the recipe says, and what only the run knows."""
    facts = {"Updates": update.step, "Images seen": update.images,
             "Training time": f"{update.seconds:.0f} s on {_device_name(device)}",
             "Parameters": sum(p.numel() for p in update.ema.parameters())}
    lines = [card, "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items()), ""]
    with images.whole(out / "card.md") as part:
        part.write_text("\n".join(lines), encoding="utf-8")


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} threads"


@torch.no_grad()
def _draw(out: Path, update: Update, schedule: Schedule, pictures: Pictures, seed: int) -> None:
    side = pictures.pixels.shape[2]
    device = next(update.ema.parameters()).device
    noise = torch.randn(16, 3, side, side, generator=torch.Generator().manual_seed(seed))
    eps = from_network(update.ema, schedule, "v")
    x = last(ddim(eps, schedule, noise.to(device), schedule.trailing(25))).x.cpu()
    (out / "samples").mkdir(exist_ok=True)
    images.save(images.grid(x, columns=8), out / "samples" / f"{update.step:07d}.png")
