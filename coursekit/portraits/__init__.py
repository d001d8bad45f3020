"""The Portraits world: procedural portraits whose every edit is known exactly.

    p = sample(8, generator)                     records: who, how old, which hat, which light ..
    x = render(p)                                pictures (8, 3, 64, 64) in [-1, 1]
    c = counterfactual(p, hat="beanie")          the perfect edit, and the mask of what differs
    words = caption(p, generator)                captions that say which word names what
"""

from .attributes import (
    CATEGORICAL,
    CONTINUOUS,
    IDENTITY,
    TRAINING,
    Portraits,
    correlated,
    sample,
    stack,
)
from .captions import Caption, caption, recaption
from .render import render
from .scene import GROUPS
from .truth import (
    Counterfactual,
    counterfactual,
    depth,
    difference,
    edges,
    labels,
    part_masks,
    silhouette,
    strokes,
)

__all__ = [
    "CATEGORICAL", "CONTINUOUS", "GROUPS", "IDENTITY", "TRAINING", "Caption", "Counterfactual",
    "Portraits", "caption", "correlated", "counterfactual", "depth", "difference", "edges",
    "labels", "part_masks", "recaption", "render", "sample", "silhouette", "stack", "strokes",
]  # fmt: skip
