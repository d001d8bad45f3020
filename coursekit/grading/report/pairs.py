"""similar.csv and similar.html: pairs that look alike, for a person to read side by side.

A list and no verdict: two who learnt from the same book write alike, too.
"""

from __future__ import annotations

import csv
from pathlib import Path

from coursekit.grading.names import slug
from coursekit.grading.report.line import Plan
from coursekit.grading.report.pages import render
from coursekit.grading.report.text import cell
from coursekit.grading.similar import Alike
from coursekit.images import whole


def write(out: Path, alike: Alike, plan: Plan) -> None:
    """Write both files, in the order of the pairs."""
    ids = [column.id for column in plan.columns]
    with whole(out / "similar.csv") as part, \
            part.open("w", encoding="utf-8-sig", newline="") as stream:
        table = csv.writer(stream, quoting=csv.QUOTE_ALL)
        table.writerow(["student", "other student", "share", "bits", *ids, "letter for letter"])
        for pair in alike.pairs:
            shares = [f"{pair.exercises[id]:.2f}" if id in pair.exercises else "" for id in ids]
            table.writerow(map(cell, (pair.a, pair.b, f"{pair.share:.2f}", f"{pair.bits:.0f}",
                                      *shares, ", ".join(pair.verbatim))))
    with whole(out / "similar.html") as part:
        render(part, "pairs.html", plan=plan, alike=alike, slug=slug)
