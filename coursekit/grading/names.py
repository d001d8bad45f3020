"""Names that strangers chose: kept as they are, and made fit for a line of text and for a file."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

SHOWN, SLUG, DIGEST = 60, 40, 16  # characters
# What a file cannot be called on Windows, in any folder and with any ending.
DEVICES = re.compile(r"con|prn|aux|nul|(com|lpt)\d")


def kept(name: str) -> str:
    """The name itself, but for bytes that are no text: those are spelt out, so that it can be
    written to any file. In one normal form, since systems differ in how they store an accent."""
    return unicodedata.normalize("NFC", name).encode("utf-8", "backslashreplace").decode()


def shown(name: str) -> str:
    """The name in quotes for a line of ours: letters of all scripts, digits and a few signs;
    a question mark for whatever could steer a terminal, a page or a spreadsheet."""
    short = name if len(name) <= SHOWN else f"{name[:SHOWN]}.."
    fit = (c if unicodedata.category(c)[0] in "LMN" or c in " /._-+,:@()[]" else "?" for c in short)
    return f"'{''.join(fit)}'"


def slug(name: str) -> str:
    """A file name for a student, the same every time and on every system, shared by no two names.

    A name in small letters, digits, `-` and `_` stays as it is. Any other gets a digest of itself
    at its end, and so does one that ends like a digest: no name can be made to meet another's.
    """
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    letters = re.sub(r"[^a-z0-9_]+", "-", letters)[:SLUG].strip("-")
    digest = sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    like_one = re.search(rf"[0-9a-f]{{{DIGEST}}}\Z", name)
    if letters == name and name and not like_one and not DEVICES.fullmatch(name):
        return name
    return f"{letters}-{digest}" if letters else digest
