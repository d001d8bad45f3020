"""Frames of plain values between the side that judges and the side that runs answers.

A frame is two lengths, a JSON header, and raw .npy blocks to which the header points. Nothing that
arrives is unpickled, evaluated or believed: types are rebuilt from a short list, sizes are known
before anything is read, and an array's bytes must be as many as its shape says.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coursekit.classroom.check.spec import Case, Named

LENGTHS = struct.Struct(">II")
DEPTH, ITEMS, BITS = 16, 100_000, 4_096  # of nested values, of all values, of a whole number
HEADER = 4 * 2**20  # bytes of a frame beside its blocks
SCALARS = (bool, int, float, str, type(None))
KINDS = "biufc"  # numpy's letters for truth values and numbers
NPY = re.compile(  # the beginning of a .npy block, version 1.0, as it is written below
    rb"\x93NUMPY\x01\x00..\{'descr': '([<|][%s]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,15},? ?)*)\), \} *\n" % KINDS.encode(), re.DOTALL)


class Unplain(TypeError):
    """A value that cannot travel: no plain array, number, word, list, tuple or table of such."""


class Broken(ValueError):
    """Bytes that are no frame, or a frame that says something impossible."""


# ---- values ----------------------------------------------------------------------------------


class Encoder:
    """Makes one value into a JSON tree and blocks, within limits.

    most  bytes that arrays and words may take together.
    """

    def __init__(self, most: int) -> None:
        self.left, self.items, self.blocks = most, ITEMS, []

    def encode(self, value: Any, depth: int = 0) -> Any:
        """The tree; raises Unplain with the reason. Exact types only: a subclass may lie."""
        self.items -= 1
        if depth > DEPTH or self.items < 0:
            raise Unplain(f"nested {DEPTH} deep or more than {ITEMS} values")
        kind = type(value)
        if kind in SCALARS:
            return self._scalar(value)
        if kind in (list, tuple):
            return {kind.__name__: [self.encode(v, depth + 1) for v in value]}
        if kind is dict:
            return {"dict": [[self.encode(k, depth + 1), self.encode(v, depth + 1)]
                             for k, v in value.items()]}
        if kind is Tensor:
            return self._tensor(value)
        if kind is np.ndarray or kind in np.sctypeDict.values():
            return {"array" if kind is np.ndarray else "number": self._array(np.asarray(value))}
        if kind is Named:
            return {"named": [value.kind, self.encode(dict(value.numbers), depth + 1)]}
        raise Unplain(str(kind.__name__))

    def _scalar(self, value: Any) -> Any:
        if type(value) is int and value.bit_length() > BITS:
            raise Unplain(f"int of {value.bit_length()} bits")
        if type(value) is str:
            self._take(len(value))
        return value

    def _tensor(self, value: Tensor) -> dict[str, Any]:
        said = f"{value.dtype} tensor {tuple(value.shape)}".removeprefix("torch.")
        if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise Unplain(f"{said}, not a plain one")
        if value.numel() * value.element_size() > self.left:
            raise Unplain(f"{said}, larger than is accepted")
        if value.dtype is torch.bfloat16:  # numpy has none
            return {"half": list(value.shape)}
        return {"tensor": self._array(value.detach().resolve_conj().resolve_neg().numpy())}

    def _array(self, value: np.ndarray) -> int:
        longest = 16 if value.dtype.kind == "c" else 8
        if value.dtype.kind not in KINDS or value.dtype.itemsize > longest:
            raise Unplain(f"array of {value.dtype}")
        self._take(value.nbytes)
        stream = io.BytesIO()
        plain = np.array(value, value.dtype.newbyteorder("<"), order="C")
        np.lib.format.write_array(stream, plain, version=(1, 0), allow_pickle=False)
        self.blocks.append(stream.getvalue())
        return len(self.blocks) - 1

    def _take(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Unplain("more bytes than are accepted")


def decode(tree: Any, blocks: list[bytes]) -> Any:
    """The value of a tree; Broken if it is none."""
    try:
        return _value(tree, blocks, 0)
    except Broken:
        raise
    except (ValueError, TypeError, LookupError, RuntimeError, AttributeError,
            ArithmeticError) as odd:
        raise Broken(f"no value: {type(odd).__name__}") from None


def _value(tree: Any, blocks: list[bytes], depth: int) -> Any:
    if depth > DEPTH + 1:
        raise Broken("nested too deep")
    if not isinstance(tree, dict):
        if type(tree) not in SCALARS:
            raise Broken("a list that says not what it is")
        return tree
    (kind, inside), = tree.items()
    if kind in ("list", "tuple", "dict", "named", "half") and type(inside) is not list:
        raise Broken("no list where one belongs")
    if kind in ("list", "tuple"):
        made = [_value(v, blocks, depth + 1) for v in inside]
        return made if kind == "list" else tuple(made)
    if kind == "dict":
        return {_value(k, blocks, depth + 1): _value(v, blocks, depth + 1) for k, v in inside}
    if kind == "named":
        return Named(str(inside[0]), _value(inside[1], blocks, depth + 1))
    if kind == "half":  # no answer is wanted like this: only its kind can matter
        return torch.zeros(bounded(inside), dtype=torch.bfloat16)
    if kind not in ("tensor", "array", "number") or type(inside) is not int or inside < 0:
        raise Broken("a kind of value that nobody knows")
    array = unpacked(blocks[inside])
    return torch.from_numpy(array) if kind == "tensor" else array[()] if kind == "number" else array


def bounded(shape: list[int]) -> list[int]:
    """The shape, if it is one of no more values than a frame could hold."""
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) > HEADER:
        raise Broken("no shape")
    return shape


def unpacked(block: bytes) -> np.ndarray:
    """The array of a .npy block; Broken unless it is plain numbers and exactly as long as said."""
    found = NPY.match(block)
    if not found or found.end() != 10 + int.from_bytes(block[8:10], "little"):
        raise Broken("no plain array")
    dtype, shape = np.dtype(found[1].decode()), [int(n) for n in found[2].split(b",") if n.strip()]
    if math.prod(shape) * dtype.itemsize != len(block) - found.end():
        raise Broken("an array of another length")
    return np.frombuffer(block, dtype, offset=found.end()).reshape(shape).copy()


def encode_case(case: Case) -> tuple[dict[str, Any], list[bytes]]:
    """A case as a tree and blocks, for the side that runs answers."""
    encoder = Encoder(2**31)
    args = encoder.encode(dict(case.args))
    return {"what": case.what, "dtype": case.dtype, "args": args}, encoder.blocks


def decode_case(tree: dict[str, Any], blocks: list[bytes]) -> Case:
    return Case(tree["what"], decode(tree["args"], blocks), tree["dtype"])


# ---- frames ----------------------------------------------------------------------------------


def pack(header: dict[str, Any], blocks: list[bytes] = ()) -> bytes:
    """A frame as bytes."""
    head = json.dumps({**header, "blocks": [len(b) for b in blocks]}).encode()
    return b"".join((LENGTHS.pack(len(head), sum(map(len, blocks))), head, *blocks))


def unpack(head: bytes, body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """Header and blocks; Broken if they do not fit each other."""
    try:
        header = json.loads(head)
        lengths, at, blocks = header.pop("blocks"), 0, []
        if not all(type(n) is int and n >= 0 for n in lengths) or sum(lengths) != len(body):
            raise Broken("blocks of other lengths")
    except Broken:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise Broken("no header") from None
    for n in lengths:
        blocks.append(body[at:at + n])
        at += n
    return header, blocks


class Reader:
    """Puts frames together from pieces; Broken as soon as a frame says that it is too large.

    most  bytes of all blocks; a header has at most HEADER.
    """

    def __init__(self, most: int) -> None:
        self.most, self.held = most, bytearray()

    def feed(self, piece: bytes) -> None:
        self.held += piece
        if len(self.held) >= LENGTHS.size:
            head, body = LENGTHS.unpack_from(self.held)
            if head > HEADER or body > self.most:
                raise Broken(f"more than {self.most} bytes")

    def frame(self) -> tuple[dict[str, Any], list[bytes]] | None:
        """The next whole frame, None if it has not all come yet."""
        if len(self.held) < LENGTHS.size:
            return None
        head, body = LENGTHS.unpack_from(self.held)
        end = LENGTHS.size + head + body
        if len(self.held) < end:
            return None
        start = LENGTHS.size + head
        found = bytes(self.held[LENGTHS.size:start]), bytes(self.held[start:end])
        del self.held[:end]
        return unpack(*found)


def receive(fd: int) -> tuple[dict[str, Any], list[bytes]]:
    """The next frame from a pipe, waited for: the worker's side. EOFError if the pipe is closed."""
    head, body = LENGTHS.unpack(_exactly(fd, LENGTHS.size))
    return unpack(_exactly(fd, head), _exactly(fd, body))


def _exactly(fd: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.read(fd, min(size, 2**20))
        if not piece:
            raise EOFError("the pipe is closed")
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def send(fd: int, frame: bytes) -> None:
    """Write a frame into a pipe, whole: the worker's side."""
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(fd, rest):]
