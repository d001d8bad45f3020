"""The tour: one portrait through every method, as a web page with contact sheets.

A section is a file in this folder. Sections run in the order of their names (leave gaps in the
numbers), each on its own, so a new one changes no picture of the others. It has

* a docstring: the first line is the title, each paragraph below one of the page;
* `make(context)`, a generator of `show.Figure` and `show.Table`: yield each when it is ready, so
  that the progress bar moves. At most 5 s on two cores, about 300 pictures through the network.

What is random comes from `context.generator()`, which starts anew at every call: the same seed
gives the same pictures, byte for byte.
"""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from coursekit import images, portraits, pretrained
from coursekit.classroom.show import Figure
from coursekit.diffusion.predict import Eps
from coursekit.diffusion.schedule import Schedule
from coursekit.nets.latent import Latent
from coursekit.tour._page import Section, page

MODEL, FROM_WORDS = "portraits-ddpm", "portraits-sd"
SIZE, PEOPLE = 64, 8
PHOTOGRAPH = "astronaut"
SECTIONS = sorted(p.stem for p in Path(__file__).parent.glob("[!_]*.py"))


@dataclass(frozen=True)
class Progress:
    """The section being made, how many are done and how many there are."""

    section: str
    done: int
    total: int


@dataclass(frozen=True)
class Context:
    """What a section works with.

    model   a trained network of pictures (b, 3, 64, 64) with its schedule
    device  where it is; what a section makes on the CPU has to be moved there
    seed    0 or more; it chooses the portraits too
    image   the user's picture file, None if there is none
    """

    model: pretrained.Loaded
    device: str
    seed: int
    image: Path | None = None

    @property
    def schedule(self) -> Schedule:
        return self.model.schedule

    @cached_property
    def eps(self) -> Eps:
        return self.model.eps()

    @cached_property
    def sd(self) -> Latent:
        """The text-to-image model, read when a section first asks for it."""
        return pretrained.load_latent(FROM_WORDS, self.device)

    def generator(self) -> torch.Generator:
        """A CPU generator at its start, so that a seed means the same on every device."""
        return torch.Generator().manual_seed(self.seed)

    def noise(self, n: int) -> Tensor:
        """The first n starting noises of this seed, (n, 3, 64, 64), whatever n is."""
        generator = self.generator()
        each = [torch.randn(3, SIZE, SIZE, generator=generator) for _ in range(n)]
        return torch.stack(each).to(self.device)

    def portraits(self, n: int) -> portraits.Portraits:
        """The first n <= 8 people of this seed, drawn as the training set was, but not in it."""
        return portraits.sample(PEOPLE, self.generator(), **portraits.TRAINING)[:n]

    def pictures(self, n: int) -> Tensor:
        """These people's portraits, (n, 3, 64, 64)."""
        return portraits.render(self.portraits(n), SIZE).to(self.device)

    def your_picture(self) -> tuple[Tensor, str]:
        """The user's picture or a sample photograph, (1, 3, 64, 64), and what to call it."""
        if self.image is None:
            return images.photograph(PHOTOGRAPH, SIZE).to(self.device), "a sample photograph"
        return images.load(self.image, SIZE).to(self.device), f"your picture, {self.image.name}"


@torch.no_grad()
def run(out: Path, seed: int = 0, device: str = "cpu", image: Path | None = None,
        model: pretrained.Loaded | None = None) -> Iterator[Progress]:
    """Makes the tour in the folder `out`: index.html and its pictures, all at the end or nothing.

    model is the shipped one unless given. Other files in `out` stay; closing the generator early
    leaves nothing behind. ValueError names a bad argument, OSError says what the disk refuses.
    """
    pretrained.check_device(device)
    if image is not None:
        images.read(image)
    with scratch(Path(out)) as folder:
        yield Progress("loading the model", 0, len(SECTIONS))
        context = Context(model or pretrained.load(MODEL, device), device, seed, image)
        sections = []
        for i, name in enumerate(SECTIONS):
            module = importlib.import_module(f"coursekit.tour.{name}")
            title, paragraphs = words(module)
            yield Progress(title, i, len(SECTIONS))
            begun, shown = time.perf_counter(), []
            for item in module.make(context):
                shown.append(item)
                yield Progress(title, i, len(SECTIONS))
            seconds = time.perf_counter() - begun
            sections.append(Section(name, title, paragraphs, shown, seconds))
            write(folder, sections[-1])
        (folder / "index.html").write_text(page(context, sections), encoding="utf-8")
        publish(folder, Path(out))
    yield Progress("done", len(SECTIONS), len(SECTIONS))


def words(module: ModuleType) -> tuple[str, list[str]]:
    """A section's title, without its full stop, and paragraphs, from its docstring."""
    title, *paragraphs = (module.__doc__ or "").strip().split("\n\n")
    return title.rstrip("."), [" ".join(p.split()) for p in paragraphs]


def write(folder: Path, section: Section) -> None:
    for i, item in enumerate(section.shown):
        if isinstance(item, Figure):
            item.save(folder / section.file(i))


# ---- all or nothing -------------------------------------------------------------------------


@contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """A hidden folder on the disk of `out` that is gone afterwards, whatever happened.

    It lies in `out` if that exists, which may be all that may be written to, else in the nearest
    folder above it that does.
    """
    base = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    folder = Path(tempfile.mkdtemp(prefix=".tour-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, out: Path) -> None:
    """Moves what is in `folder` to `out`, the page last."""
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(folder.iterdir(), key=lambda p: (p.suffix == ".html", p.name)):
        os.replace(file, out / file.name)
