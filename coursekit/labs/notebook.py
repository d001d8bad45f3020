"""Notebooks as files: read strictly, written byte by byte the same, cells known by their ids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.images import whole

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent.parent
LARGEST = 20_000_000  # bytes: a lab has a fiftieth of that
VALUES, DEEPEST = 1_000_000, 100  # of the JSON: a lab has some 600, nested 6 deep
CODE = 1_000_000  # characters in code cells: a lab has 8,000
STEM = re.compile(r"\d\d_\w+")
PART = re.compile(r"(\d\d-\d)-(text|answer|check|picture|expected)")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.S)
MARKS = b"[]{},"  # what the shape of JSON shows in, outside of strings
NO_MARKS = bytes(set(range(256)) - set(MARKS))


def read(path: Path) -> NotebookNode:
    """The notebook in a file; ValueError says in one line what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"'{path}': there is no such file")
    size = path.stat().st_size
    try:
        if size > LARGEST:
            raise ValueError(too_large(size))
        return loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"'{path}' {error}") from None


def too_large(size: int) -> str:
    return (f"has {size // 10**6} MB: accepted are {LARGEST // 10**6}; clear its outputs and save "
            "it again")


def loads(content: bytes, outputs: bool = True) -> NotebookNode:
    """The notebook in a stranger's bytes; ValueError says what is wrong, from the verb on.

    outputs  False empties them, where they are not looked at.

    A key that is given twice counts as it stands last, as it does for Jupyter.
    """
    page = _page(content)
    version = page.get("nbformat") if isinstance(page, dict) else None
    if version != 4:
        said = f"is of nbformat {version}" if isinstance(version, int) else "is no notebook"
        raise ValueError(f"{said}: accepted is nbformat 4, "
                         "as `jupyter nbconvert --to notebook --nbformat 4` writes it")
    wrong = _misshapen(page)
    if wrong:
        raise ValueError(f"is no valid notebook: {wrong}")
    if not outputs:
        for cell in page["cells"]:
            cell["outputs"] = []
    return _joined(page)


def _page(content: bytes) -> object:
    """The JSON in bytes, if it is of a size and shape that can be read at once."""
    if len(content) > LARGEST:
        raise ValueError(too_large(len(content)))
    wrong = ""
    try:
        text = content.decode("utf-8-sig")
        wrong = _overgrown(content)
        if not wrong:
            return json.loads(text, parse_int=_number)
    except ValueError:
        wrong = "is empty" if not content.strip() else "is no whole JSON file"
        wrong += ": accepted is a notebook saved by Jupyter"
    raise ValueError(wrong)


def _number(digits: str) -> int | float:
    """As in JavaScript; Python refuses to read a whole number of 5,000 digits."""
    return int(digits) if len(digits) < 20 else float(digits)


def _overgrown(content: bytes) -> str:
    """What in the shape of the JSON would take long to read, or much memory."""
    quotes = content.count(b'"')
    if quotes > 4 * VALUES:
        return f"holds {quotes:,} quotes: accepted are {4 * VALUES:,}"
    marks = STRING.sub(b"", content).translate(None, NO_MARKS)
    values = len(marks) - marks.count(b"]") - marks.count(b"}")
    if values > VALUES:
        return (f"holds {values:,} values: accepted are {VALUES:,}; clear its outputs and save it "
                "again")
    step = {ord(mark): 1 if mark in "[{" else -1 for mark in "[]{}"}
    deepest = max(accumulate(step.get(mark, 0) for mark in marks), default=0)
    return f"is nested {deepest:,} deep: accepted are {DEEPEST}" if deepest > DEEPEST else ""


def parse(content: bytes) -> NotebookNode:
    """The notebook in bytes that `written` made."""
    return _joined(json.loads(content))


def _joined(page: dict) -> NotebookNode:
    import nbformat

    for cell in page["cells"]:
        for holder, key in _texts(cell):
            lines = holder.get(key)
            if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
                holder[key] = "".join(lines)
    return nbformat.from_dict(page)


def _texts(cell: dict) -> Iterator[tuple[dict, str]]:
    """Where a cell holds text that a file may split into lines."""
    yield cell, "source"
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else ():
        if isinstance(output, dict):
            yield output, "text"
            data = output.get("data")
            yield from ((data, kind) for kind in (data if isinstance(data, dict) else ()))


def _misshapen(page: dict) -> str:
    """What keeps the page from being read as a notebook: no full validation, which a stray key
    would fail; only what is used afterwards."""
    if not isinstance(page.get("cells"), list):
        return "it has no list of cells"
    for i, cell in enumerate(page["cells"]):
        words = _cell(cell)
        if words:
            return f"cell {i} has no {words}"
    code = sum(len(c["source"]) for c in page["cells"] if c["cell_type"] == "code")
    if code > CODE:
        return f"its code has {code:,} characters, accepted are {CODE:,}"
    if not isinstance(page.setdefault("metadata", {}), dict):
        return "its metadata is no table"
    return ""


def _cell(cell: object) -> str:
    """What a cell lacks; one that lacks nothing gets its source as one text, fit for UTF-8."""
    if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
        return "type"
    lines = cell.get("source")
    lines = lines if isinstance(lines, list) else [lines]
    if not all(isinstance(line, str) for line in lines):
        return "source"
    if not isinstance(cell.setdefault("metadata", {}), dict):
        return "proper metadata"
    if not isinstance(cell.get("id"), str):
        cell.pop("id", None)
    cell["source"] = "".join(lines).encode("utf-8", "replace").decode()  # half a surrogate pair
    return ""


def written(notebook: NotebookNode) -> bytes:
    """The bytes of a notebook, the same for the same content: lines that diff and nbdime like."""
    page = json.loads(json.dumps(notebook))
    for cell in page["cells"]:
        for holder, key in _texts(cell):
            if isinstance(holder.get(key), str):
                holder[key] = holder[key].splitlines(keepends=True)
    return (json.dumps(page, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    with whole(path) as part:
        part.write_bytes(content)


def grade_id(cell: NotebookNode) -> str:
    """nbgrader's name of a cell, "" if it has none."""
    given = cell.metadata.get("nbgrader")
    found = given.get("grade_id") if isinstance(given, dict) else None
    return found if isinstance(found, str) else ""


def plain(name: object) -> str:
    """A stranger's name if it can be said anywhere, in a terminal or a page; "" if not."""
    fit = isinstance(name, str) and re.fullmatch(r"[\w.-]{1,40}", name, re.ASCII)
    return name if fit else ""
