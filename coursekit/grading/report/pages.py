"""Pages of HTML: Jinja2 with every value escaped, no script, and nothing fetched from anywhere.

A policy in each page forbids the browser what the page does not need. Values are text and nothing
else: whatever a student wrote is shown as it was written, but for signs that steer or hide.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from coursekit.grading.report.text import clean, number

TEMPLATES = Path(__file__).parent / "templates"
WORDS = {  # what a verdict says to a student, and the sign that goes with it
    "correct": ("every case holds", "\u2713"),
    "partial": ("some cases hold", "\u25d0"),
    "wrong": ("no case holds", "\u2717"),
    "not-attempted": ("no answer was found", "\u2013"),
    "error-in-code": ("the code ends with an error", "E"),
    "timeout": ("the time was not enough", "T"),
    "memory": ("the memory was not enough", "M"),
    "output-limit": ("far too much was printed", "O"),
    "crashed": ("the process that ran it ended", "C"),
    "malformed": ("what came cannot be read", "F"),
    "tampered": ("the checking was interfered with; a person will look", "?"),
    "needs-review": ("a person must look at it first", "?"),
    "infra-error": ("could not be graded yet", "?"),
    "": ("not graded", "\u2013"),
}


@cache
def style() -> tuple[Markup, str]:
    """The style sheet of every page, and the hash by which its policy allows it."""
    text = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(text), f"sha256-{digest}"


@cache
def template(name: str) -> Template:
    found = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown)
    found.globals.update(style=style()[0], policy=style()[1], number=number, WORDS=WORDS)
    return found.get_template(name)


def _shown(value: Any) -> Any:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def render(path: Path, name: str, **values: Any) -> None:
    """Write a page from its template."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for piece in template(name).generate(**values):
            stream.write(piece)
