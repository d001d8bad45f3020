"""What is shipped: the folders in `coursekit/weights`, and one manifest of sha256 sums.

`manifest.json` maps each model's name to its files and their sums. `path` gives a folder only
after every file in it has been checked; `freeze` is how a trained model gets in.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from coursekit.images import whole

WEIGHTS = Path(__file__).parent / "weights"
OWN_FILES = ("model.safetensors", "config.json", "card.md")
STEPS_ETA = "steps_eta.jsonl"  # what `coursekit bench steps-eta --json` printed for the weights
MEASURED = (STEPS_ETA,)  # shipped with a folder of ours where it has them
PIPELINE = "model_index.json"  # names the folders that make up a pipeline of diffusers
SHIPPED_SUFFIXES = (".json", ".md", ".safetensors", ".txt")


def names() -> list[str]:
    """The shipped models."""
    return sorted(_sums())


def path(name: str) -> Path:
    """The folder of a shipped model, checked; ValueError names what is wrong."""
    if name not in _sums():
        raise ValueError(f"name={name!r} is not shipped: accepted are {', '.join(names())}")
    verify(name)
    return WEIGHTS / name


def verify(name: str) -> None:
    """ValueError unless the shipped folder holds exactly the files that the manifest sums up."""
    sums, folder = _sums()[name], WEIGHTS / name
    again = "install coursekit again"
    for file, wanted in sums.items():
        if not (folder / file).is_file():
            raise ValueError(f"model {name!r}: {file} is missing from '{folder}': {again}")
        found = _sha256(folder / file)
        if found != wanted:
            raise ValueError(f"model {name!r}: {file} is not the file that was shipped (sha256 "
                             f"{found[:12]}.., accepted is {wanted[:12]}..): {again}")
    extra = sorted({p.relative_to(folder).as_posix() for p in _files(folder)} - sums.keys())
    if extra:
        raise ValueError(f"model {name!r}: {extra[0]} does not belong in '{folder}': remove it")


def freeze(folder: str | Path, name: str) -> Path:
    """Copies a finished model into `coursekit/weights/NAME` and enters it into the manifest.

    For maintainers: training never writes into the package. A folder of ours gives OWN_FILES and
    what it has of MEASURED, another one its files with SHIPPED_SUFFIXES, of a pipeline only those
    of its parts; card.md is required. The folder may be the shipped one itself, after a file was
    added. Returns the new folder.
    """
    folder, target = Path(folder), WEIGHTS / name
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(f"name={name!r}: accepted are lower-case words joined by hyphens")
    if not folder.is_dir():
        raise ValueError(f"folder='{folder}': there is no such folder")
    if "net" in read_json(folder / "config.json", missing_ok=True):
        files = [Path(file) for file in OWN_FILES]
        files += [Path(file) for file in MEASURED if (folder / file).is_file()]
    else:
        found = [p.relative_to(folder) for p in _files(folder)
                 if p.suffix in SHIPPED_SUFFIXES and p.name != "log.txt"]
        parts = read_json(folder / PIPELINE, missing_ok=True)  # other folders are of its training
        files = sorted({p for p in found if not parts or p.parent == Path() or p.parts[0] in parts}
                       | {Path("card.md")})
    for file in files:
        if not (folder / file).is_file():
            raise ValueError(f"folder='{folder}' has no {file}: a shipped model needs one")
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        with whole(target / file) as part:
            part.write_bytes((folder / file).read_bytes())
    for stale in {p.relative_to(target) for p in _files(target)} - set(files):
        (target / stale).unlink()
    sums = {file.as_posix(): _sha256(target / file) for file in files}
    page = dict(sorted({**_sums(), name: sums}.items()))
    with whole(WEIGHTS / "manifest.json") as part:
        part.write_text(json.dumps(page, indent=2) + "\n", encoding="utf-8")
    return target


def read_json(file: Path, missing_ok: bool = False) -> dict[str, Any]:
    """A JSON file that holds a table; ValueError names the file where it does not."""
    if missing_ok and not file.is_file():
        return {}
    try:
        page = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"'{file}' is missing") from None
    except ValueError as problem:
        raise ValueError(f"'{file}' is damaged: it is no JSON ({problem})") from None
    if not isinstance(page, dict):
        raise ValueError(f"'{file}' is damaged: it holds no table")
    return page


def _sums() -> dict[str, dict[str, str]]:
    return read_json(WEIGHTS / "manifest.json")


def _files(folder: Path) -> list[Path]:
    """Every file below the folder, without hidden ones, which desktops leave behind."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
