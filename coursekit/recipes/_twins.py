"""Twins: every training picture beside the same one with a single thing in the face changed.

What a word does to a few pixels is a small part of what a generator gets wrong about a picture, and
drowns in the rest of it. Twins have the rest in common: with one noise for both, the difference of
their errors shows the word alone. Their captions follow one plan and differ in the words of what
was changed. The first of two twins is the training picture of the recipe portraits-ddpm.
"""

import hashlib
import inspect
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from coursekit import images, portraits
from coursekit.diffusion.train import Update
from coursekit.portraits import Portraits
from coursekit.recipes import cache_folder, portraits_ddpm, preparing, write_array
from coursekit.recipes._changes import fitting, moved

CHANGED = {"smile": 8, "mouth": 5, "beard": 7, "earrings": 2, "hair_style": 3, "hair_colour": 1,
           "eyes": 1, "glasses": 1, "age": 2}
"""What may change, and how readily: the small things by which captions tell faces apart. Most
portraits have no beard that could."""
DATA_SEED = 7
CHUNK = 256


def pairs(n: int) -> Iterator[tuple[Portraits, Portraits, list[str]]]:
    """Chunks of the n training portraits, their twins, and the name of what differs.

    A change is drawn from those of CHANGED that the captions of both put into words.
    """
    generator = torch.Generator().manual_seed(DATA_SEED)
    for first in portraits_ddpm.records(n):
        plans = portraits.caption(first, generator, 0)
        others = [fitting(first.replace(**{
            name: moved(first, name, generator)})) for name in CHANGED]
        told = torch.tensor([[a.text != b.text for a, b in zip(
            portraits.recaption(plans, first, name), portraits.recaption(plans, other, name),
            strict=True)] for name, other in zip(CHANGED, others, strict=True)])  # names b
        # Of everyone something can be changed: an animal smiles, closes its eyes, wears glasses.
        odds = told.T * torch.tensor([float(v) for v in CHANGED.values()])
        which = torch.multinomial(odds, 1, generator=generator)[:, 0]
        second = portraits.stack(*others)[which * len(first) + torch.arange(len(first))]
        yield first, second, [list(CHANGED)[k] for k in which.tolist()]


def captions(n: int, plans: Sequence[int], each: int, words: Any) -> Path:
    """The file of the tokens of `each` pairs of captions a pair, (n, each, 2, context) uint16."""
    sources = (portraits.attributes, portraits.captions)
    content = "".join(Path(s.__file__).read_text(encoding="utf-8") for s in sources) + _drawing()
    content += repr((tuple(plans), each, sorted(words.get_vocab().items())))
    return cache_folder() / f"twins-captions-{n}-{_stamp(content)}.npy"


def tell(n: int, plans: Sequence[int], each: int, words: Any,
         steps: int | None) -> Iterator[Update]:
    """Writes the captions, unless they are there. plans: how many things they name in turn."""
    file = captions(n, plans, each, words)
    if file.exists():
        return
    begun, told = time.perf_counter(), []
    generator = torch.Generator().manual_seed(DATA_SEED + 1)
    for i, (first, second, names) in enumerate(pairs(n)):
        for j in range(each):  # chunk by chunk another half of the lengths
            details = plans[(i + 2 * j) % len(plans)] - 1  # the change is named besides
            texts = []
            for k, plan in enumerate(portraits.caption(first, generator, details)):
                texts += [portraits.recaption([plan], p[k : k + 1], names[k])[0].text
                          for p in (first, second)]
            ids = words(texts, padding="max_length", max_length=words.model_max_length)
            told.append(numpy.array(ids["input_ids"], numpy.uint16).reshape(len(first), 2, -1))
        yield preparing(min(CHUNK * (i + 1), n), steps, begun)
    chunks = [numpy.stack(told[i : i + each], 1) for i in range(0, len(told), each)]
    write_array(file, numpy.concatenate(chunks))


def latents(firsts: Path) -> Path:
    """The file of the twins' latents, which stands beside that of the training pictures'."""
    return firsts.with_name(f"twins-{firsts.stem}-{_stamp(_drawing())}.npy")


def _drawing() -> str:
    """All that decides who the twins are, so that no stale one is used."""
    return "".join(inspect.getsource(f) for f in (
        pairs, moved, fitting)) + repr((CHANGED, DATA_SEED))


def _stamp(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()[:8]


@torch.no_grad()
def encode(vae: nn.Module, firsts: Path, n: int, device: str,
           steps: int | None) -> Iterator[Update]:
    """Draws the twins and writes their latents, not yet scaled, unless they are there."""
    if latents(firsts).exists():
        return
    begun, found = time.perf_counter(), []
    for i, (_, second, _) in enumerate(pairs(n)):
        x = portraits.render(second.to(device), portraits_ddpm.SIZE)
        x = images.from_uint8(images.to_uint8(x))
        found.append(vae.encode(x).latent_dist.mean.half().cpu().numpy())
        yield preparing(min(CHUNK * (i + 1), n), steps, begun)
    write_array(latents(firsts), numpy.concatenate(found))
