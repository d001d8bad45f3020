"""Frames: what is plain travels unchanged, and nothing else gets through."""

import io
import json
import os
import pickle
import random
import threading

import numpy as np
import pytest
import torch

from coursekit.classroom.check.exercises import exercises, labs
from coursekit.classroom.check.spec import Named
from coursekit.grading.protocol import (
    HEADER,
    LENGTHS,
    Broken,
    Encoder,
    Reader,
    Unplain,
    decode,
    decode_case,
    encode_case,
    pack,
    receive,
    send,
    unpacked,
)

MOST = 2**20


def there_and_back(value):
    encoder = Encoder(MOST)
    reader = Reader(MOST)
    reader.feed(pack({"value": encoder.encode(value)}, encoder.blocks))
    header, blocks = reader.frame()
    assert not reader.held
    return decode(header["value"], blocks)


def same(a, b):
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and a.shape == b.shape and a.isnan().equal(b.isnan())
        assert torch.equal(a.nan_to_num(), b.nan_to_num())
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, dict):
        same(list(a.items()), list(b.items()))
    else:
        assert repr(a) == repr(b)


@pytest.mark.parametrize("value", [
    None, True, 0, -7, 2**4000, 0.1, 1e300, float("nan"), -float("inf"), "words\n\ud800 \u2603",
    [], (), {}, [1, (2.5, [None])], {"x": 1, 2: "y", (1, 2): [3]},
    torch.randn(2, 3, dtype=torch.float64), torch.tensor(2.5), torch.zeros(0, 4),
    torch.tensor([1.0, float("nan"), float("inf")]), torch.arange(6).view(2, 3).T,
    torch.tensor([True, False]), torch.randn(3).half(), torch.randn(2, dtype=torch.complex128),
    torch.randn(3, requires_grad=True).detach(), np.arange(5), np.ones((2, 1), "f4"),
    np.float64(0.5), np.int64(3), np.float32(0.1), np.bool_(True),
], ids=lambda v: type(v).__name__)
def test_plain_values_travel(value):
    same(there_and_back(value), value)


def test_odd_but_plain_arrays():
    same(there_and_back(np.arange(4, dtype=">i4")), np.arange(4, dtype="<i4"))
    turned = torch.randn(2, 2, dtype=torch.complex64).conj()
    same(there_and_back(turned), turned.resolve_conj())
    grown = torch.ones(2, requires_grad=True) * 2
    same(there_and_back(grown), torch.tensor([2.0, 2.0]))
    assert there_and_back(torch.ones(2, dtype=torch.bfloat16)).dtype is torch.bfloat16


class Number(float):
    pass


class Rows(list):
    pass


ITSELF = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize("value, words", [
    (Number(1), "Number"), (Rows(), "Rows"), ({1, 2}, "set"), (object(), "object"),
    (b"bytes", "bytes"), (1j, "complex"), (range(3), "range"), (ITSELF, "nested"),
    (torch.nn.Parameter(torch.ones(2)), "Parameter"), ([1, {"x": iter([])}], "list_iterator"),
    (torch.ones(2).to_sparse(), "not a plain one"), (torch.empty(2, device="meta"), "plain"),
    (torch.zeros(1).expand(10**12), "larger"), (2**5000, "5001 bits"), ([0] * 200_000, "100000"),
    ("x" * (MOST + 1), "more bytes"), (np.zeros(MOST, "f8"), "more bytes"),
    (np.array([object()]), "array of object"), (np.array(["a"]), "array of <U1"),
    (np.longdouble(1), "array of"), (np.ma.masked_array([1.0]), "MaskedArray"),
    (np.zeros(2, [("x", "f4")]), "array of"),
], ids=lambda v: type(v).__name__)
def test_what_is_not_plain_stays(value, words):
    with pytest.raises(Unplain, match=words):
        Encoder(MOST).encode(value)


def block(descr="'<f8'", shape="(2,)", rest=b"\0" * 16, fortran="False", length=None):
    head = f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n".encode()
    length = len(head) if length is None else length
    return b"\x93NUMPY\x01\x00" + length.to_bytes(2, "little") + head + rest


def test_a_block_is_exactly_as_long_as_it_says():
    assert unpacked(block()).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("bad", [
    b"", b"\x93NUMPY", block(rest=b""), block(rest=b"\0" * 17), block(shape="(-1,)"),
    block(shape="(99999999999,)"), block(shape="(0, 99999999999)", rest=b"1"), block("'|O'"),
    block("'<U2'"), block("'>f8'"), block("'<f3'"), block("[('x', '<f8')]"), block(fortran="True"),
    block(shape="(2,).__class__"), block(length=5), block("__import__('os').system('true')"),
    block("'<M8'"), block(shape="(" + "1, " * 100 + ")", rest=b"\0" * 8),
])
def test_bad_blocks(bad):
    with pytest.raises(Broken):
        decode({"tensor": 0}, [bad])


def test_a_pickled_array_is_not_loaded(tmp_path):
    class Command:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    stream = io.BytesIO()
    np.save(stream, np.array([Command()], dtype=object), allow_pickle=True)
    for bad in (stream.getvalue(), pickle.dumps(Command())):
        with pytest.raises(Broken):
            decode({"array": 0}, [bad])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("tree", [
    [], [1], {}, {"tensor": 0, "list": []}, {"tensor": 5}, {"tensor": -1}, {"tensor": "0"},
    {"tensor": True}, {"eval": "1"}, {"list": 3}, {"dict": [[1]]}, {"dict": [[{"list": []}, 1]]},
    {"half": [10**9]}, {"half": [-1]}, {"half": [0, 10**30]}, {"half": "ab"}, {"named": []},
    {"list": {"a": 1}}, {"dict": 1},
])
def test_bad_trees(tree):
    with pytest.raises(Broken):
        decode(tree, [])


def test_a_deep_tree_is_refused():
    tree = 1
    for _ in range(500):
        tree = {"list": [tree]}
    with pytest.raises(Broken, match="deep"):
        decode(tree, [])
    reader = Reader(MOST)
    head = b"[" * 100_000
    reader.feed(LENGTHS.pack(len(head), 0) + head)
    with pytest.raises(Broken):
        reader.frame()


@pytest.mark.parametrize("head", [
    b"", b"x", b"[]", b"1", b"{}", b'{"blocks": 3}', b'{"blocks": [1]}', b'{"blocks": [-1, 1]}',
    b'{"blocks": [true]}', b'{"blocks": {}}', b"\xff\xfe", b'{"blocks": [' + b"9" * 5_000 + b"]}",
])
def test_bad_headers(head):
    reader = Reader(MOST)
    reader.feed(LENGTHS.pack(len(head), 0) + head)
    if head == b'{"blocks": {}}':  # an empty table of lengths says as much as an empty list
        assert reader.frame() == ({}, [])
    else:
        with pytest.raises(Broken):
            reader.frame()


@pytest.mark.parametrize("head, body", [(HEADER + 1, 0), (0, MOST + 1), (2**32 - 1, 2**32 - 1)])
def test_a_frame_too_large_is_refused_before_it_comes(head, body):
    with pytest.raises(Broken, match="more than"):
        Reader(MOST).feed(LENGTHS.pack(head, body))


def test_frames_in_pieces():
    frames = [pack({"n": n}, [bytes(n), b"x"]) for n in (0, 3, 70_000)]
    stream, reader, found = b"".join(frames), Reader(MOST), []
    pick = random.Random(0)
    while stream:
        size = pick.choice((1, 7, 4_000))
        reader.feed(stream[:size])
        stream = stream[size:]
        while (frame := reader.frame()) is not None:
            found.append(frame)
    assert found == [({"n": n}, [bytes(n), b"x"]) for n in (0, 3, 70_000)]


def test_random_bytes_are_broken_or_incomplete():
    pick = random.Random(1)
    for _ in range(2_000):
        reader = Reader(MOST)
        size = pick.randrange(40)
        try:
            reader.feed(LENGTHS.pack(size, 0) + pick.randbytes(size))
            header, _ = reader.frame()
        except Broken:
            continue
        assert isinstance(header, dict)


def test_a_pipe_from_end_to_end():
    ours, theirs = os.pipe()
    frame = pack({"do": "case"}, [b"y" * 300_000])  # more than a pipe holds at once
    writer = threading.Thread(target=send, args=(theirs, frame))
    writer.start()
    assert receive(ours) == ({"do": "case"}, [b"y" * 300_000])
    writer.join()
    os.close(theirs)
    with pytest.raises(EOFError):
        receive(ours)
    os.close(ours)


@pytest.mark.parametrize("lab", labs())
def test_every_case_travels(lab):
    for e in exercises(lab):
        for case in e.cases(3, hidden=True):
            tree, blocks = encode_case(case)
            back = decode_case(json.loads(json.dumps(tree)), blocks)
            assert (back.what, back.dtype) == (case.what, case.dtype)
            assert list(back.args) == list(case.args)
            for name, value in case.args.items():
                back_value = back.args[name]
                if isinstance(value, Named):
                    same((back_value.kind, back_value.numbers), (value.kind, dict(value.numbers)))
                else:
                    same(back_value, value)
