"""Saved pictures made lighter: a palette of 128 colours is a third of the size and looks the same.

Done once, when a solution is run, and not when a lab is built: building copies bytes, so that it
gives the same on every machine.
"""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbformat import NotebookNode

DATA = re.compile(r"(?<=data:image/png;base64,)[\w+/=]+")
COLOURS = 128


def lighten(notebook: NotebookNode) -> None:
    """Give every picture in the notebook's HTML outputs a palette, where that is smaller."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "text/html" in data:
                data["text/html"] = DATA.sub(_palette, data["text/html"])


def _palette(found: re.Match[str]) -> str:
    from PIL import Image

    picture, stream = Image.open(io.BytesIO(base64.b64decode(found[0]))), io.BytesIO()
    picture.convert("RGB").quantize(COLOURS).save(stream, format="PNG", optimize=True)
    small = base64.b64encode(stream.getvalue()).decode()
    return small if len(small) < len(found[0]) else found[0]
