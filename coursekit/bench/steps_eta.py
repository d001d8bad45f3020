"""The S x eta table of Song et al. (2021), table 1, on the shipped DDPM: FID_w by steps and noise.

Every cell starts from the same noise. The peer is what as many renders get, on average over
FLOORS sets; how much they scatter says which cells differ. Hours on two cores. What
`coursekit bench steps-eta --json` prints is what is shipped beside the weights, in TABLE.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coursekit import pretrained
from coursekit.bench import Row, samples
from coursekit.classroom.metrics import frechet, statistics
from coursekit.manifest import STEPS_ETA as TABLE
from coursekit.nets.judge import Judge

N, LONG_N, FLOORS = 500, 100, 8
CELLS = {  # pictures a cell -> (steps, eta)
    N: [(steps, eta) for steps in (10, 20, 50, 100) for eta in (0.0, 0.2, 0.5, 1.0)],
    LONG_N: [(1000, eta) for eta in (0.0, 1.0)],
}
FLOOR = "FID_w of renders, mean of the sets; peer: their scatter"
CELL = "FID_w, S = {}, eta = {:g}; peer: renders"
NAMES = re.compile(r"FID_w, S = (\d+), eta = ([\d.]+); peer: renders")


@dataclass(frozen=True)
class Measured:
    """FID_w of n pictures a cell: fid[S, eta]; floor and scatter are those of n renders."""

    n: int
    floor: float
    scatter: float
    fid: dict[tuple[int, float], float]


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """For each number of pictures the floor, then one row a cell, by steps."""
    model, judge = (pretrained.load(name, device) for name in (samples.MODEL, "judge"))

    def draw(n: int, steps: int, eta: float) -> Tensor:
        return samples.samples(model, n, steps, eta=eta, seed=seed, device=device)

    return measure(judge.net, draw, seed=seed, device=device)


@torch.no_grad()
def measure(judge: Judge, draw: Callable[[int, int, float], Tensor], *, seed: int,
            device: str) -> Iterator[Row]:
    """The rows, with draw(n, steps, eta) as the source of a cell's pictures (n, 3, 64, 64)."""
    for n, cells in CELLS.items():
        reference, *sets = (statistics(judge, samples.held_out(n, seed + k, device))
                            for k in range(FLOORS + 1))
        floors = torch.tensor([frechet(some, reference) for some in sets])
        floor = floors.mean().item()
        yield Row(FLOOR, floor, floors.std().item(), "", "lower", n)
        for steps, eta in cells:
            value = frechet(statistics(judge, draw(n, steps, eta)), reference)
            yield Row(CELL.format(steps, eta), value, floor, "", "lower", n)


def stored(folder: str | Path) -> list[Measured]:
    """The tables that lie in a model's folder, most pictures first; [] where there are none."""
    file = Path(folder) / TABLE
    if not file.is_file():
        return []
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        found = [_table(line, lines) for line in lines if line["name"] == FLOOR]
    except (KeyError, TypeError, ValueError):
        found = []
    if not found:
        raise ValueError(f"'{file}' is damaged: accepted is what `coursekit bench steps-eta --json` "
                         "prints")
    return sorted(found, key=lambda table: -table.n)


def _table(floor: dict, lines: list[dict]) -> Measured:
    mine = [(NAMES.fullmatch(line["name"]), line) for line in lines if line["n"] == floor["n"]]
    fid = {(int(name[1]), float(name[2])): float(line["ours"]) for name, line in mine if name}
    return Measured(floor["n"], floor["ours"], floor["peer"], fid)
