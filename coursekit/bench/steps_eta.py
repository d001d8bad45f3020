"""The S x eta table of Song et al. (2021), table 1, on the shipped DDPM: FID_w by steps and noise.

Every cell starts from the same noise; the peer is the floor at the same N, renders against
renders. Hours on two cores.
"""

from collections.abc import Iterator

import torch

from coursekit import pretrained
from coursekit.bench import Row, samples
from coursekit.classroom import metrics

STEPS, ETAS, N = (10, 20, 50, 100), (0.0, 0.2, 0.5, 1.0), 500
LONG, LONG_ETAS, LONG_N = 1000, (0.0, 1.0), 100


@torch.no_grad()
def rows(*, seed: int, device: str) -> Iterator[Row]:
    """One row a cell, by steps, then the long ones with fewer samples."""
    model = pretrained.load(samples.MODEL, device)
    judge = pretrained.load("judge", device).net
    cells = [(s, eta, N) for s in STEPS for eta in ETAS] + [(LONG, e, LONG_N) for e in LONG_ETAS]
    sets = {n: [samples.held_out(n, seed + k, device) for k in (0, 1)] for n in (N, LONG_N)}
    for steps, eta, n in cells:
        made = samples.samples(model, n, steps, eta=eta, seed=seed, device=device)
        score = metrics.fid_w(judge, made, *sets[n])
        yield Row(f"FID_w, S = {steps}, eta = {eta:g}; peer: floor", score.value, score.floor, "",
                  "lower", n)
