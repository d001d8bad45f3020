"""LoRA files as diffusers and peft write them.

    save(folder / lora_file.NAME, lora)
    pipe.load_lora_weights(folder)         a StableDiffusionPipeline, with peft installed
    lora = load(folder / lora_file.NAME)

The file holds unet.LAYER.lora_A.weight (r, k) and unet.LAYER.lora_B.weight (d, r); diffusers'
training scripts call them lora.down and lora.up, which is read as well. What peft must know
besides, the ranks and alphas, stands in the header under "lora_adapter_metadata", where diffusers
writes and reads it; a program that does not look there takes alpha / r for one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from coursekit.images import whole
from coursekit.nets.lora import Factors, Lora

NAME = "pytorch_lora_weights.safetensors"  # the one that diffusers looks for in a folder
METADATA = "lora_adapter_metadata"
KEY = re.compile(r"unet\.(.+)\.(lora_A|lora_B|lora\.down|lora\.up)\.weight")
SIDES = {"lora_A": "A", "lora.down": "A", "lora_B": "B", "lora.up": "B"}
OTHERS = ("use_rslora", "use_dora", "lora_bias")  # settings that make it another method
ALPHA = 8  # peft's, where settings are silent


def save(file: str | Path, lora: Lora) -> Path:
    """Writes `lora` in float32 and returns the path; the file appears whole or not at all.

    OSError says what the disk refuses, ValueError that there is nothing to write.
    """
    if not lora.layers:
        raise ValueError("lora has no layers: there is nothing to write")
    tensors = {}
    for path, layer in lora.layers.items():
        for side, value in (("A", layer.A), ("B", layer.B)):
            tensors[f"unet.{path}.lora_{side}.weight"] = value.detach().float().cpu().contiguous()
    page = json.dumps({f"unet.{name}": value for name, value in _settings(lora).items()})
    content = safetensors.torch.save(tensors, {"format": "pt", METADATA: page})
    file = Path(file)
    with whole(file) as part:
        part.write_bytes(content)
    return file


def load(file: str | Path) -> Lora:
    """A LoRA of a U-Net's linear layers that `save` or diffusers wrote; float32, on the CPU.

    ValueError in one line: no such file, a damaged one, or another kind of LoRA.
    """
    file = Path(file)
    try:
        with safetensors.safe_open(file, framework="pt") as weights:
            tensors = {key: weights.get_tensor(key) for key in weights.keys()}
            page = (weights.metadata() or {}).get(METADATA)
        settings = None if page is None else dict(json.loads(page))
    except OSError as problem:
        why = ("it is a folder" if file.is_dir() else
               str(problem) if file.exists() else "there is no such file")
        raise ValueError(f"file='{file}': {why}") from None
    except (safetensors.SafetensorError, TypeError, ValueError) as problem:
        raise ValueError(f"file='{file}' is damaged or no safetensors file ({problem})") from None
    pairs, alpha, layers = _pairs(file, tensors), _alphas(file, settings), {}
    for path, pair in pairs.items():
        try:
            layers[path] = Factors(pair["A"], pair["B"], alpha(path, len(pair["A"])))
        except (ValueError, re.error) as problem:  # a pattern may be no regular expression
            raise ValueError(f"file='{file}' has no LoRA at '{path}': {problem}") from None
    return Lora(layers)


def _pairs(file: Path, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """path -> {"A": .., "B": ..}"""
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"file='{file}' holds '{key}': accepted are unet.LAYER.lora_A.weight "
                             "and unet.LAYER.lora_B.weight alone")
        if not value.isfinite().all():
            raise ValueError(f"file='{file}' has NaN or infinite values in '{key}': accepted are "
                             "finite ones")
        pairs.setdefault(match[1], {})[SIDES[match[2]]] = value.float()
    lacking = [f"{path}.lora_{side}" for path, pair in pairs.items() for side in "AB"
               if side not in pair]
    if lacking or not pairs:
        raise ValueError(f"file='{file}' lacks 'unet.{lacking[0]}.weight'" if lacking else
                         f"file='{file}' is empty: accepted is a LoRA of a U-Net")
    return pairs


def _settings(lora: Lora) -> dict[str, Any]:
    """The arguments of peft's LoraConfig: what most layers have, and patterns for the others."""
    ranks = {path: layer.rank for path, layer in lora.layers.items()}
    alphas = {path: float(layer.alpha) for path, layer in lora.layers.items()}
    r, alpha = (Counter(d.values()).most_common(1)[0][0] for d in (ranks, alphas))
    return {"r": r, "rank_pattern": {f"^{path}": v for path, v in ranks.items() if v != r},
            "lora_alpha": alpha,
            "alpha_pattern": {f"^{path}": v for path, v in alphas.items() if v != alpha},
            "target_modules": sorted(lora.layers)}


def _alphas(file: Path, settings: dict[str, Any] | None) -> Callable[[str, int], float]:
    """(path, rank) -> alpha, as diffusers and peft find it."""
    if settings is None:
        return lambda path, rank: rank
    said = {key.removeprefix("unet."): value for key, value in settings.items()}
    other = [name for name in OTHERS if said.get(name)]
    if other:
        raise ValueError(f"file='{file}' says {other[0]}: accepted is plain LoRA, without "
                         f"{', '.join(OTHERS)}")
    patterns = said.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise ValueError(f"file='{file}' has alpha_pattern={patterns!r:.60}: accepted is a table")

    def alpha(path: str, rank: int) -> float:
        named = (value for pattern, value in patterns.items()
                 if re.match(rf"(.*\.)?({pattern})$", path))
        return next(named, said.get("lora_alpha", ALPHA))

    return alpha
