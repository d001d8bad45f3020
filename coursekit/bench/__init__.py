"""Measurements: one file a table, run by `coursekit bench NAME`.

A bench file has a docstring whose first line says what it measures, and one function

    rows(*, seed: int, device: str) -> Iterator[Row]

which yields a row as soon as it is known. Ours and the peer's run in the same process, in turns
(`medians`), so that a busy machine slows both alike.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One line of a table.

    name    what was measured
    ours    our figure, in `unit`
    peer    the figure of the library or reference beside it, None where there is none
    unit    "images/s", "ms", "nats", ..
    better  "lower" or "higher"
    n       how many runs (or samples) stand behind the figures
    """

    name: str
    ours: float
    peer: float | None
    unit: str
    better: str
    n: int

    def __post_init__(self) -> None:
        if self.better not in ("lower", "higher"):
            raise ValueError(f"better={self.better!r}: accepted are lower, higher")
        for field in ("ours", "peer"):
            value = getattr(self, field)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{field}={value} in row {self.name!r}: accepted is finite")

    @property
    def ratio(self) -> float | None:
        """ours / peer, None where there is no peer to divide by."""
        return self.ours / self.peer if self.peer else None

    def as_dict(self) -> dict[str, str | float | int | None]:
        """The row for `--json`."""
        return {"name": self.name, "ours": self.ours, "peer": self.peer, "unit": self.unit,
                "ratio": self.ratio, "better": self.better, "n": self.n}


def medians(*functions: Callable[[], object], n: int, warmup: int = 1) -> list[float]:
    """Median seconds of each function over n interleaved runs, after `warmup` untimed ones.

    The order is turned round every time, so that neither always runs first. A function returns
    when its work is done: one that uses a GPU synchronises before it returns.
    """
    if n < 1:
        raise ValueError(f"n={n}: accepted is a whole number >= 1")
    for _ in range(warmup):
        for function in functions:
            function()
    seconds = [[] for _ in functions]
    for i in range(n):
        order = range(len(functions)) if i % 2 == 0 else reversed(range(len(functions)))
        for k in order:
            start = time.perf_counter()
            functions[k]()
            seconds[k].append(time.perf_counter() - start)
    return [median(s) for s in seconds]


def print_table(name: str, rows: Iterable[Row]) -> None:
    """Draws the table at the end, also of rows that an error or Ctrl-C cuts short: one may have
    taken an hour. Says on stderr how far it is."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "ours", "peer", "unit", "ours/peer", "better", "n", title=f"bench {name}")
    try:
        with Console(stderr=True).status("measuring") as status:
            for row in rows:
                ours, peer, ratio = ("-" if x is None else f"{x:.4g}"
                                     for x in (row.ours, row.peer, row.ratio))
                table.add_row(row.name, ours, peer, row.unit, ratio, row.better, str(row.n))
                status.update(f"measured {row.name}")
    finally:
        if table.rows:
            Console().print(table)
