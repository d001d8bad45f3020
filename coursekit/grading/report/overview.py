"""overview.html: the class without any name, to be shown to it: distributions, known mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from coursekit.grading.record import VERDICTS
from coursekit.grading.report.line import Cell, Column, Line, Plan
from coursekit.grading.report.pages import render
from coursekit.grading.report.text import clean
from coursekit.images import whole

BINS = 10
SHADES = 6  # of blue; the numbers stand in the cells
UNKNOWN = "no known mistake explains it"


@dataclass
class Tally:
    """What became of one exercise."""

    column: Column
    points: Counter[int] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    mistakes: Counter[str] = field(default_factory=Counter)

    def add(self, cell: Cell) -> None:
        self.points[cell.points] += 1
        self.verdicts[cell.verdict] += 1
        if cell.result.mistake:
            self.mistakes[clean(cell.result.mistake)] += 1
        elif cell.verdict in ("wrong", "partial"):
            self.mistakes[UNKNOWN] += 1

    @property
    def ranked(self) -> list[tuple[str, int]]:
        """The mistakes, the commonest first."""
        return sorted(self.mistakes.items(), key=lambda m: (m[0] == UNKNOWN, -m[1], m[0]))

    @property
    def share(self) -> float:
        """The mean of the points as a share of all, 0 if there are none."""
        n = self.points.total()
        return sum(p * k for p, k in self.points.items()) / (n * self.column.of) if n else 0.0


class Overview:
    """The page, and what is counted for it."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.path, self.plan = out / "overview.html", plan
        self.tallies = [Tally(column) for column in plan.columns]
        self.finals: list[float] = []
        self.absent = self.ungraded = 0

    def __enter__(self) -> Overview:
        return self

    def __exit__(self, kind: type | None, *problem: object) -> None:
        if kind is None:
            with whole(self.path) as part:
                render(part, "overview.html", plan=self.plan, **self.values())

    def add(self, line: Line) -> None:
        if line.mark.record is None:
            self.absent += line.absent
            self.ungraded += not line.absent
            return
        self.finals.append(line.mark.final)
        for tally, cell in zip(self.tallies, line.cells, strict=True):
            if cell.result is not None:
                tally.add(cell)

    def values(self) -> dict:
        """What the template is given."""
        known = [v for v in VERDICTS if any(t.verdicts[v] for t in self.tallies)]
        most = max((c.of for c in self.plan.columns), default=0)
        return {"n": len(self.finals), "absent": self.absent, "ungraded": self.ungraded,
                "mean": mean(self.finals) if self.finals else 0.0,
                "median": median(self.finals) if self.finals else 0.0,
                "full": sum(f >= self.plan.of for f in self.finals),
                "bars": self.bars(), "tallies": self.tallies, "known": known, "most": most,
                "heat": self.heat(), "shade": shade}

    def bars(self) -> list[tuple[str, int]]:
        """How many final marks lie in each tenth, the last with both ends."""
        of, counts = self.plan.of, Counter()
        for final in self.finals:
            counts[min(int(final * BINS / of), BINS - 1)] += 1
        edges = [round(of * i / BINS, 2) for i in range(BINS + 1)]
        return [(f"{edges[i]:g} to {'below ' if i < BINS - 1 else ''}{edges[i + 1]:g}", counts[i])
                for i in range(BINS)]

    def heat(self) -> list[tuple[str, list[int]]]:
        """Rows of the heat map: a mistake, and how many made it in each exercise."""
        order = dict.fromkeys(words for tally in self.tallies for words, _ in tally.ranked)
        return [(words, [tally.mistakes[words] for tally in self.tallies])
                for words in sorted(order, key=UNKNOWN.__eq__)]


def shade(count: int, of: int) -> int:
    """A step of the scale: 0 for nobody, SHADES for all of them."""
    return -(-count * SHADES // of) if of else 0
