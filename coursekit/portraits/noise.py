"""Counter-based random numbers: the same for a (seed, x, y) on every device and in any batch."""

from __future__ import annotations

import torch
from torch import Tensor


def hashed(seed: Tensor, x: Tensor, y: Tensor, stream: int) -> Tensor:
    """24 random bits for each (seed, x, y, stream), as int32 of the broadcast shape.

    Args:
        seed: int32, broadcastable with x and y.
        x, y: int32 lattice coordinates.
        stream: which of many independent fields.

    An integer mix (multiply, shift, xor) in wrapping 32-bit arithmetic: no state, so a portrait
    has the same detail alone, in a batch, on a CPU and on a GPU.
    """
    offset = (stream * 1013904223 + 2**31) % 2**32 - 2**31  # wrapped into int32
    h = seed + (x * 374761393 + offset) + y * 668265263
    h = (h ^ (h >> 15)) * 739982445
    h = (h ^ (h >> 12)) * 695872825
    return (h ^ (h >> 15)) & 0xFFFFFF


def uniform(seed: Tensor, x: Tensor, y: Tensor, stream: int) -> Tensor:
    """Uniform numbers in [0, 1), float32, one for each (seed, x, y, stream)."""
    return hashed(seed, x, y, stream) * (1 / 2**24)


def rgb(seed: Tensor, x: Tensor, y: Tensor, stream: int) -> Tensor:
    """Three uniform numbers in [-1, 1) from one hash: (b, 3, h, w) for inputs (b, h, w)."""
    bits = hashed(seed, x, y, stream)
    parts = torch.stack([bits & 0xFF, (bits >> 8) & 0xFF, bits >> 16], dim=1)
    return parts * (2 / 255) - 1


def lattice(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Integer coordinates x (1, 1, size) and y (1, size, 1), int32."""
    line = torch.arange(size, dtype=torch.int32, device=device)
    return line.view(1, 1, size), line.view(1, size, 1)
