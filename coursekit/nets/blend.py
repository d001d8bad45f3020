"""Where a picture may change: where its pixels pay attention to a word.

    M, M*            attention of source and target to their words, summed over the hops so far,
                     over heads and layers of one size
    alpha            blend_mask(M) or blend_mask(M*)
    z* <- (1 - alpha) z + alpha z*

The local blend of Hertz et al., "Prompt-to-Prompt", ICLR 2023, section 3.2 and its code, which
takes maps of 16x16 at latents of 64x64; here their size is `injection.map_height`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.nets import injection, words
from coursekit.nets.control import Site
from coursekit.nets.latent import Latent
from coursekit.nets.wordmaps import look


@dataclass(frozen=True)
class Blend:
    """Where the target may differ from the source: where attention to these words is high.

    source, target  words of the prompt and of the target; "" for what is not there yet, or gone
    threshold       share of the highest attention, in [0, 1]; two for source and target
    start           share of the hops after which it begins, in [0, 1]
    """

    source: str
    target: str
    threshold: float | tuple[float, float] = 0.3
    start: float = 0.2


def blend_mask(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Bool (b, 1, *size): where attention maps (b, h, w) >= 0 pass `threshold` of their highest.

    Spread to the eight neighbours first, then enlarged by repetition.
    """
    wide = F.interpolate(F.max_pool2d(maps[:, None], 3, 1, 1), size)  # b 1 h w, nearest
    return wide > threshold * wide.amax((2, 3), keepdim=True)


@dataclass(eq=False)
class Seen:
    """The attention to the words of a blend, summed over heads, layers of `height` and hops.

    join       (n, l, 1) a side, 1 at the tokens of its words
    total      (2b, h, w), sources before targets: M and M* as they are before the edit
    threshold  one a side
    """

    height: int
    join: tuple[Tensor, Tensor]
    threshold: tuple[float, float]
    total: Tensor | float = 0.0

    @classmethod
    def of(cls, sd: Latent, noise: Tensor, t: int, pairs: Sequence[tuple[str, str]],
           blend: Blend) -> Seen:
        """Nothing seen yet. ValueError: a word that is not there once, no map, a bad threshold."""
        both = isinstance(blend.threshold, tuple)
        thresholds = blend.threshold if both else (blend.threshold, blend.threshold)
        if len(thresholds) != 2 or not all(isinstance(k, Real) and 0 <= k <= 1 for k in thresholds):
            raise ValueError(f"blend.threshold={blend.threshold!r}: accepted is a share in [0, 1] "
                             "of the highest attention, or two")
        if not blend.source and not blend.target:
            raise ValueError("blend: source and target are empty, accepted is a word for one")
        join = torch.zeros(2, len(pairs), sd.context, 1, device=sd.device)
        for row, pair in enumerate(pairs):
            for side, (name, sentence) in enumerate(zip(("source", "target"), pair, strict=True)):
                if asked := getattr(blend, name):
                    join[side, row, words.tokens(sd, sentence, asked, f"blend.{name}")] = 1
        sites = injection.traced(sd, noise, t)
        if not any(site.is_cross for site in sites):
            raise ValueError(f"blend: '{sd.source}' pays no attention to words, so has no map")
        height = injection.map_height(sites, noise.shape[2])
        return cls(height, tuple(join), thresholds)

    def note(self, site: Site, q: Tensor, k: Tensor) -> None:
        """Adds one layer's queries and keys (2b, heads, n, d), if its maps have the size."""
        if site.size[0] == self.height:
            join = torch.cat([side.expand(len(q) // 2, -1, -1) for side in self.join])
            self.total = self.total + look(q, k, join, site.size)[:, 0]

    def mask(self, size: tuple[int, int]) -> Tensor:
        """Bool (b, 1, *size), True where the target may differ from the source."""
        source, target = (blend_mask(maps, size, threshold) for maps, threshold in
                          zip(self.total.chunk(2), self.threshold, strict=True))
        return source | target
