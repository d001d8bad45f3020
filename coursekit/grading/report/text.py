"""Strangers' words made fit for a page and for a spreadsheet."""

from __future__ import annotations

import re

ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])"
                  r"|\x9b[0-?]*[ -/]*[@-~]")  # colours, cursor moves, titles
UNSEEN = re.compile("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\u061c\u200b\u200e\u200f"
                    "\u2028-\u202e\u2060\u2066-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff"
                    "\U000e0000-\U000e007f]")
# At the start of a cell a spreadsheet reads these as a formula; also the wide ones of East Asia.
# One that takes another sign for the end of a cell starts there anew.
FORMULA = re.compile("(^|[,;|\"'\t\r\n])([ \u00a0\u3000]*)(?=[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20])")


def clean(text: str) -> str:
    """The text without what steers a terminal, hides, or turns the direction of reading."""
    return UNSEEN.sub("", ANSI.sub("", text))


def cell(text: str) -> str:
    """The text for a cell of a CSV: one line, and no formula in any spreadsheet."""
    return FORMULA.sub(r"\1\2'", " ".join(re.split(r"[\t\r\n]+", clean(text))))


def number(value: float) -> str:
    """Points as one writes them: 14, 14.5."""
    return f"{round(value, 4):.10g}"
