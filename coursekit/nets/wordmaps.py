"""Where a text-to-image network looks for each word: its cross-attention, a map a word and step.

    eps, maps = watched(sd, "a photo of a cat", w=5.0)
    z = last(ddim(eps, sd.schedule, sd.noise(1, generator), sd.path(30))).x
    maps.columns                start, a, photo, of, a, cat, end
    maps.at(982, 16)            (1, 7, 16, 16), sums to 1 over the columns

    M = softmax(q k^T / sqrt(d))    Hertz et al. 2022, eq. 1: a row a pixel, a column a token;
                                    mean over heads and over the layers of one size, summed over
                                    the tokens of a word

A step is known by the time t at which the sampler calls eps. The network keeps its fused
attention, so the samples are those of `sd.eps`; a second, explicit M is formed in the layers asked
for alone, and only its joined mean is kept: (h, w) times the columns for a step and size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from coursekit.diffusion.predict import Eps
from coursekit.nets.control import Site, controlled
from coursekit.nets.latent import Latent, Prompt

START, END = "<start>", "<end>"


@dataclass(frozen=True, eq=False)
class WordMaps:
    """What `watched` has seen so far.

    columns  <start>, every word in order (one said twice has two), <end> with all padding
    sizes    the heights of the maps that are kept
    steps    t -> height -> maps (b, columns, h, w), float32, >= 0, sum 1 over the columns; where a
             sampler calls eps twice at one t, those of the later call
    """

    columns: tuple[str, ...]
    sizes: tuple[int, ...]
    steps: dict[int, dict[int, Tensor]] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        return self.columns[1:-1]

    def at(self, t: int, size: int) -> Tensor:
        """The maps (b, columns, h, w) at time t; ValueError for a time or size not seen."""
        for name, value, known in (("t", t, self.steps), ("size", size, self.sizes)):
            if value not in known:
                raise ValueError(f"{name}={value!r} was not watched: accepted are "
                                 f"{', '.join(map(str, known)) or 'none, as nothing was sampled'}")
        return self.steps[t][size]

    def mean(self, size: int) -> Tensor:
        """The maps (b, columns, h, w), averaged over all steps."""
        if not self.steps:
            raise ValueError("no step was watched: sample with the predictor first")
        return torch.stack([self.at(t, size) for t in self.steps]).mean(0)


def watched(sd: Latent, prompt: str, negative: Prompt = "", w: float = 1.0, *,
            sizes: Sequence[int] = (16, 8)) -> tuple[Eps, WordMaps]:
    """sd.eps(prompt, negative, w), and the maps of the prompt's words that fill up as it is called.

    sizes  heights of the maps wanted: a layer whose picture is h x w counts where h is among them.
    Under guidance the maps are those of the prompt's half alone. The network is under control only
    while it is called, and as it was also after an exception.

    ValueError: a prompt without words, or no cross-attention of a size (said at the first call).
    """
    _check(prompt, sizes)
    predict, (columns, join) = sd.eps(prompt, negative, w), joined(sd, prompt)
    maps = WordMaps(columns, tuple(dict.fromkeys(sizes)))

    def eps(x: Tensor, t: int) -> Tensor:
        found: dict[int, list[Tensor]] = {}

        def note(site: Site, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            if site.is_cross:
                rows = found.setdefault(site.size[0], [])
                if site.size[0] in maps.sizes:
                    rows.append(look(q[-len(x):], k[-len(x):], join, site.size))
            return q, k, v

        with controlled(sd.unet, qkv=note):
            out = predict(x, t)
        lacking = [n for n in maps.sizes if n not in found]
        if lacking:
            raise ValueError(f"sizes: no cross-attention has the height {lacking[0]}, accepted are "
                             f"{', '.join(map(str, sorted(found, reverse=True)))}")
        maps.steps[t] = {n: sum(found[n]) / len(found[n]) for n in maps.sizes}
        return out

    return eps, maps


def joined(sd: Latent, prompt: str) -> tuple[tuple[str, ...], Tensor]:
    """The columns of `WordMaps`, and the matrix (tokens, columns) that sums tokens into them.

    Each token belongs to one column, so that what sums to 1 over tokens does so over columns.
    """
    words = sd.words(prompt)
    column = torch.full((sd.context,), len(words) + 1)  # end, padding, whatever is no word
    column[0] = 0
    for i, (_, tokens) in enumerate(words, start=1):
        column[tokens] = i
    join = torch.nn.functional.one_hot(column, len(words) + 2).float()
    return (START, *(word for word, _ in words), END), join.to(sd.device)


@torch.no_grad()  # a record, also where somebody wants the gradient of eps
def look(q: Tensor, k: Tensor, join: Tensor, size: tuple[int, int]) -> Tensor:
    """One layer's maps (b, columns, h, w) from its queries and keys (b, heads, n, d).

    join  (l, columns), or (b, l, columns): sums the tokens of a column, as `joined` makes it
    """
    q, k = q.float(), k.float()  # half precision would not sum to 1, and can overflow
    total = 0
    for head in range(q.shape[1]):  # one after another: M is the largest thing here
        logits = q[:, head] @ k[:, head].mT * q.shape[-1] ** -0.5  # b n l
        total = total + logits.softmax(-1) @ join  # b n columns
    return (total / q.shape[1]).mT.unflatten(2, size)


def _check(prompt: str, sizes: Sequence[int]) -> None:
    if not isinstance(prompt, str) or not prompt.split():
        raise ValueError(f"prompt={prompt!r:.60}: accepted is one sentence of at least a word")
    whole = isinstance(sizes, Sequence) and all(isinstance(n, int) and n > 0 for n in sizes)
    if not whole or not sizes:
        raise ValueError(f"sizes={sizes!r}: accepted are heights of maps, as (16, 8)")
