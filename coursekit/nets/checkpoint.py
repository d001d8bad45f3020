"""A diffusers pipeline on disk or on the hub: which of its files are needed, and do they fit?

Weights are counted from the headers of the safetensors files. A model that is too large is refused
before a weight is read and, on the hub, before one is downloaded.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(.*)\.safetensors")
SHARD = re.compile(r"-\d{5}-of-\d{5}")
INDEX = "model_index.json"
REST = (INDEX, "scheduler/*", "tokenizer*/*", "*/config.json", "*.safetensors.index.json")
SECONDS = 10.0  # to wait for the hub's first answer


@dataclass(frozen=True)
class Checkpoint:
    """A pipeline that was found: its files by name, in `folder`, or on the hub where that is None.

    source  the folder or hub id that was asked for
    """

    source: str
    names: tuple[str, ...]
    folder: Path | None

    def index(self) -> dict[str, Any]:
        """model_index.json: what the pipeline is and which parts it has."""
        if INDEX not in self.names:
            raise ValueError(f"'{self.source}' has no {INDEX}: accepted is a pipeline as "
                             "diffusers' save_pretrained writes it")
        file = self.folder / INDEX if self.folder else _reached(self.source, _download, INDEX)
        try:
            page = json.loads(Path(file).read_text(encoding="utf-8"))
        except ValueError as problem:
            raise ValueError(f"'{self.source}': {INDEX} is damaged ({problem})") from None
        if not isinstance(page, dict):
            raise ValueError(f"'{self.source}': {INDEX} is damaged: it holds no table")
        return page

    def weights(self, part: str, dtype: torch.dtype) -> tuple[str | None, list[str]]:
        """The variant ("fp16" or None) to load `part` in, and the names of its files."""
        by_variant: dict[str, list[str]] = {}
        for name in self.names:
            inside, _, file = name.rpartition("/")
            match = WEIGHTS.fullmatch(file)
            if inside == part and match:
                by_variant.setdefault(SHARD.sub("", match[1]).strip("."), []).append(name)
        wanted = ("fp16", "") if dtype.itemsize == 2 else ("", "fp16")
        for variant in wanted:
            if variant in by_variant:
                return variant or None, by_variant[variant]
        where = f" in {part}/" if part else ""
        raise ValueError(f"'{self.source}' has no safetensors weights{where}: pickled ones are not "
                         "read")

    def count(self, file: str) -> int:
        """How many numbers a file of weights holds, from its header."""
        if self.folder is None:
            return sum(_reached(self.source, _header, file).parameter_count.values())
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.folder / file, framework="pt") as weights:
                return sum(math.prod(weights.get_slice(k).get_shape()) for k in weights.keys())
        except SafetensorError as problem:
            raise ValueError(f"'{self.folder / file}' is damaged or no safetensors file "
                             f"({problem})") from None

    def fetch(self, files: list[str]) -> Path:
        """The folder with `files` and all that is small; downloads from the hub what is missing."""
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download

        patterns = [*REST, *files]
        return Path(_reached(self.source, lambda source: snapshot_download(
            source, allow_patterns=patterns)))


def find(source: str | Path) -> Checkpoint:
    """The pipeline that a folder or a hub id names; ValueError says in a line why there is none."""
    if Path(source).is_dir():
        found = Path(source)
    elif isinstance(source, str) and HUB_ID.fullmatch(source):
        found = _reached(source, _listing)
    else:
        raise ValueError(f"source='{source}' is not known: accepted are a folder and a hub id "
                         "owner/name")
    if isinstance(found, Path):
        names = (p.relative_to(found).as_posix() for p in sorted(found.rglob("*")) if p.is_file())
        return Checkpoint(str(source), tuple(names), found)
    return Checkpoint(str(source), tuple(found), None)


def check_room(source: str, numbers: int, dtype: torch.dtype, device: str) -> None:
    """ValueError where `numbers` weights of that dtype do not fit into the device's free memory."""
    need, free = numbers * dtype.itemsize, free_memory(device)
    if need > free:
        half = "" if dtype.itemsize == 2 else "; dtype=torch.float16 halves it"
        raise ValueError(f"'{source}' does not fit: {numbers / 1e6:,.0f} M weights take "
                         f"{need / 1e9:.3g} GB in {str(dtype).removeprefix('torch.')}, device "
                         f"{device!r} has {free / 1e9:.3g} GB free{half}")


def free_memory(device: str) -> int:
    """Bytes that can be allocated on cpu, cuda, cuda:N or mps."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    import psutil

    return psutil.virtual_memory().available


# ---- the hub --------------------------------------------------------------------------------


def _listing(source: str) -> list[str] | Path:
    """The names of the files on the hub; the folder of a copy where the hub does not answer."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return [s.rfilename for s in HfApi().model_info(source, timeout=SECONDS).siblings]
    except RepositoryNotFoundError:
        raise
    except Exception:  # offline mode, no route, a time-out: each layer below has its own
        return Path(snapshot_download(source, local_files_only=True))


def _download(source: str, file: str) -> str:
    from huggingface_hub import hf_hub_download

    return hf_hub_download(source, file)


def _header(source: str, file: str) -> Any:
    from huggingface_hub import HfApi

    return HfApi().parse_safetensors_file_metadata(source, file)


def _reached(source: str, ask: Any, *args: str) -> Any:
    """ask(source, *args), with the hub's refusals as one line each."""
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return ask(source, *args)
    except GatedRepoError:
        raise ValueError(f"'{source}' is gated: accept its terms on its page on the hub, then log "
                         "in with `hf auth login`") from None
    except RepositoryNotFoundError:
        raise ValueError(f"'{source}' is not on the hub, or private: check the name, or log in "
                         "with `hf auth login`") from None
    except LocalEntryNotFoundError:
        raise ValueError(f"'{source}' is not in the cache and the hub cannot be reached: connect "
                         "once, or give a folder") from None
    except Exception as problem:  # each layer below has its own
        if isinstance(problem, OSError) and problem.errno is not None:  # the disk's, say
            raise
        raise ValueError(f"'{source}' cannot be fetched ({_line(problem)})") from problem


def _line(problem: BaseException) -> str:
    return " ".join(str(problem).split())[:200]
