"""One thing of a portrait changed, for recipes whose pictures come in groups."""

import torch
from torch import Tensor

from coursekit.portraits import CATEGORICAL, CONTINUOUS, Portraits


def moved(p: Portraits, name: str, generator: torch.Generator) -> Tensor:
    """Another value of an attribute for everyone; at least a third of its range away."""
    old = getattr(p, name)
    if name in CATEGORICAL:
        n = len(CATEGORICAL[name])
        return (old + torch.randint(1, n, old.shape, generator=generator)) % n
    low, high = CONTINUOUS[name]
    step = (1 + torch.rand(old.shape, generator=generator)) / 3
    return low + ((old - low) / (high - low) + step) % 1 * (high - low)


def fitting(p: Portraits) -> Portraits:
    """No hair on animals and beards on grown men alone, as `sample` has it, after a change."""
    human, man = p.where("subject", "woman", "man"), p.where("subject", "man")
    return p.replace(hair_style=p.hair_style * human, beard=p.beard * man * (p.age > 0.3))
