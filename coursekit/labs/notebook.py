"""Notebooks as files: read strictly, written byte by byte the same, cells known by their ids."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from coursekit.images import whole

if TYPE_CHECKING:
    from nbformat import NotebookNode

ROOT = Path(__file__).parent.parent.parent
LARGEST = 20_000_000  # bytes: a lab has a fiftieth of that
STEM = re.compile(r"\d\d_\w+")
PART = re.compile(r"(\d\d-\d)-(text|answer|check|picture|expected)")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def read(path: Path) -> NotebookNode:
    """The notebook in a file; ValueError says in one line what is wrong with it."""
    if not path.is_file():
        raise ValueError(f"'{path}': there is no such file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"'{path}' has {path.stat().st_size // 10**6} MB: accepted are "
                         f"{LARGEST // 10**6}; clear its outputs and save it again")
    content = path.read_bytes()
    try:
        page = json.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, ValueError, RecursionError):
        what = "is empty" if not content.strip() else "is no whole JSON file"
        raise ValueError(f"'{path}' {what}: accepted is a notebook saved by Jupyter") from None
    version = page.get("nbformat") if isinstance(page, dict) else None
    if version != 4:
        said = f"is of nbformat {version}" if isinstance(version, int) else "is no notebook"
        raise ValueError(f"'{path}' {said}: accepted is nbformat 4, "
                         "as `jupyter nbconvert --to notebook --nbformat 4` writes it")
    wrong = _misshapen(page)
    if wrong:
        raise ValueError(f"'{path}' is no valid notebook: {wrong}")
    return _joined(page)


def parse(content: bytes) -> NotebookNode:
    """The notebook in bytes that `written` made."""
    return _joined(json.loads(content))


def _joined(page: dict) -> NotebookNode:
    import nbformat

    for cell in page["cells"]:
        for holder, key in _texts(cell):
            if isinstance(holder.get(key), list):
                holder[key] = "".join(holder[key])
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
        if not isinstance(cell, dict) or not isinstance(cell.get("cell_type"), str):
            return f"cell {i} has no type"
        source = cell.get("source")
        lines = source if isinstance(source, list) else [source]
        if not all(isinstance(line, str) for line in lines):
            return f"cell {i} has no source"
        if not isinstance(cell.get("metadata", {}), dict):
            return f"cell {i} has no proper metadata"
        cell.setdefault("metadata", {})
    if not isinstance(page.setdefault("metadata", {}), dict):
        return "its metadata is no table"
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


def defines(source: str) -> set[str]:
    """The names that a cell's source defines at its top level; lines of magic are passed over."""
    plain = "\n".join("pass" if re.match(r"[%!?]", line) else line for line in source.split("\n"))
    try:
        tree = ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set(re.findall(r"(?m)^(?:def|class) (\w+)", source))
    names = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {t.id for t in node.targets if isinstance(t, ast.Name)}
    return names
