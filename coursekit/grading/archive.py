"""What lies in a folder or archive that strangers filled: names first, contents one at a time.

Nothing is extracted to a disk. Links are not followed, devices not opened, names that climb out of
the archive not used; each such entry is listed with the reason, so that it touches nobody but whom
it belongs to. Whatever is read has a limit before it is read.
"""

from __future__ import annotations

import gzip
import io
import mmap
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from coursekit.labs.notebook import LARGEST, too_large

ENTRIES, NESTED = 100_000, 2_000  # in what is given; in an archive that a student handed in
DEEP = 20  # folders in folders
ZIPPED = 50_000_000  # bytes of a student's archive
UNPACKED = 10_000_000_000  # bytes that a compressed tar may come to
HEADER = 1_000_000  # bytes of one header of a tar
RATIO, FROM = 300, 1_000_000  # bytes for a byte, in entries that come to more than so many
WANTED = (".ipynb", ".zip", "timestamp.txt")  # what is ever read
BROKEN = (zipfile.BadZipFile, tarfile.TarError, NotImplementedError, RuntimeError, struct.error,
          zlib.error, EOFError, OSError, ValueError, OverflowError)


@dataclass(frozen=True)
class File:
    """A file by its path in the whole; `read` gives its bytes or a ValueError that says why not.

    refused  why this entry is not even looked at, from the verb on; empty if it may be read.
    stray    whether its path does not say where it belongs.
    """

    parts: tuple[str, ...]
    read: Callable[[], bytes]
    refused: str = ""
    stray: bool = False

    @property
    def source(self) -> str:
        return "/".join(self.parts)


def files(path: Path, closing: ExitStack) -> list[File]:
    """All files under a folder or in a zip, tar or tar.gz; or the one notebook that is given.

    closing  holds what has to stay open for as long as files are read.
    """
    if path.is_dir():
        return list(_folder(path))
    if not path.is_file():
        raise ValueError(f"'{path}': there is no such folder or file")
    if path.suffix.lower() == ".ipynb":
        return [File((path.name,), lambda: _content(path))]
    with path.open("rb") as stream:
        head = stream.read(512)
    kind = _zip_file if head[:2] == b"PK" else _tar if head[257:262] == b"ustar" else \
        _compressed_tar if head[:2] == b"\x1f\x8b" else None
    if kind is None:
        raise ValueError(f"'{path}' is nothing that can be opened: accepted are a folder, a "
                         "notebook, and archives that are zip, tar or tar.gz")
    try:
        return list(kind(path, closing))
    except BROKEN as error:
        why = str(error) if isinstance(error, Refused) else "is no whole archive"
        raise ValueError(f"'{path}' {why}") from None


class Refused(ValueError):
    """Why an entry or an archive is not read, from the verb on."""


def entry(name: str, read: Callable[[], bytes], refused: str = "") -> File:
    """A file of an archive, if its name stays inside."""
    plain = name.replace("\\", "/")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    absolute = plain.startswith("/") or re.match(r"[A-Za-z]:", plain) is not None
    if absolute:
        refused = "has an absolute path"
    elif ".." in parts:
        refused = "leads out of the archive"
    elif "\0" in plain:
        refused = "has a name that ends before its end"
    elif len(parts) > DEEP:
        refused = f"lies {len(parts)} folders deep: accepted are {DEEP}"
    return File(parts or ("",), read, refused, absolute or parts[:1] in ((), ("..",)))


def limit(name: str) -> int:
    """How many bytes a file of this name may have."""
    return ZIPPED if name.lower().endswith(".zip") else LARGEST


def fits(name: str, size: int) -> None:
    if size > limit(name):
        zipped = f"has {size // 10**6} MB: accepted are {ZIPPED // 10**6} for an archive"
        raise Refused(zipped if limit(name) == ZIPPED else too_large(size))


def few(count: int, most: int) -> None:
    if count > most:
        raise Refused(f"holds more than {most:,} files")


# ---- folders ---------------------------------------------------------------------------------


def _folder(root: Path) -> Iterator[File]:
    count, todo = 0, [((), root)]
    while todo:
        above, folder = todo.pop()
        try:
            found = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError:
            yield File((*above, ""), lambda: b"", "cannot be opened")
            continue
        count += len(found)
        if count > ENTRIES:
            raise ValueError(f"'{root}' holds more than {ENTRIES:,} files")
        for e in found:
            parts = (*above, e.name)
            if e.is_dir(follow_symlinks=False) and len(parts) <= DEEP:
                todo.append((parts, Path(e.path)))
            else:
                yield File(parts, lambda path=Path(e.path): _content(path), _kind(e))


def _kind(e: os.DirEntry) -> str:
    """Why what lies there is no file to be read."""
    if e.is_symlink():
        return "is a link, which is not followed"
    if e.is_dir(follow_symlinks=False):
        return f"lies {DEEP} folders deep"
    return "" if e.is_file(follow_symlinks=False) else "is no file but a device or a pipe"


def _content(path: Path) -> bytes:
    """The bytes of a file that is one at the moment when it is opened."""
    flags = (getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY"))
    try:
        with open(os.open(path, os.O_RDONLY | sum(flags)), "rb") as stream:
            found = os.fstat(stream.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise Refused("is no file")
            fits(path.name, found.st_size)
            return stream.read(found.st_size)
    except OSError:
        raise ValueError("cannot be opened") from None


# ---- zip -------------------------------------------------------------------------------------


def _zip_file(path: Path, closing: ExitStack) -> Iterator[File]:
    stream = closing.enter_context(path.open("rb"))
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        few(_entries(content, ENTRIES), ENTRIES)
    return _zip(closing.enter_context(zipfile.ZipFile(stream)))


def nested(content: bytes) -> list[File]:
    """The files of a zip that was handed in; ValueError says why it cannot be read."""
    try:
        few(_entries(content, NESTED), NESTED)
        return list(_zip(zipfile.ZipFile(io.BytesIO(content))))
    except Refused:
        raise
    except BROKEN:
        raise Refused("is no whole archive") from None


def _entries(content: bytes | mmap.mmap, most: int) -> int:
    """At least as many as zipfile will make objects of, counted before it does."""
    return sum(1 for _ in islice(re.finditer(rb"PK\x01\x02", content), most + 1))


def _zip(archive: zipfile.ZipFile) -> Iterator[File]:
    for info in archive.infolist():
        if not info.is_dir():
            yield entry(info.orig_filename, lambda info=info: _unzipped(archive, info),
                        _zip_entry(info))


def _zip_entry(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link, which is not followed" if stat.S_ISLNK(mode) else "is no file"
    return ""


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    fits(info.filename, info.file_size)
    if info.flag_bits & 1:
        raise Refused("needs a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise Refused("is compressed in another way than zip's usual one")
    if info.file_size > max(FROM, RATIO * info.compress_size):
        raise Refused(f"unpacks to more than {RATIO} times its size")
    try:
        with archive.open(info) as stream:
            return stream.read(info.file_size)
    except BROKEN:
        raise Refused("is damaged") from None


# ---- tar -------------------------------------------------------------------------------------


class _Stream:
    """A file for tarfile that is not read beyond a limit in one go, nor beyond one in all."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.most = stream, HEADER

    def tell(self) -> int:
        return self.stream.tell()

    def seek(self, at: int) -> int:
        if at > UNPACKED:
            raise Refused(f"unpacks to more than {UNPACKED // 10**9} GB")
        return self.stream.seek(at)

    def read(self, size: int) -> bytes:
        if size > self.most:
            raise Refused(f"has a header of {size:,} bytes: accepted are {HEADER:,}")
        return self.stream.read(size)


def _tar(path: Path, closing: ExitStack) -> Iterator[File]:
    stream = _Stream(closing.enter_context(path.open("rb")))
    archive = closing.enter_context(tarfile.open(fileobj=stream, mode="r:"))
    for info in _members(archive):
        yield entry(info.name, lambda info=info: _untarred(archive, stream, info), _tar_entry(info))


def _compressed_tar(path: Path, closing: ExitStack) -> Iterator[File]:
    """A tar.gz can only be read from front to back: what may be asked for is kept, compressed."""
    stream = _Stream(closing.enter_context(gzip.open(path)))
    archive = closing.enter_context(tarfile.open(fileobj=stream, mode="r:"))
    for info in _members(archive):
        refused = _tar_entry(info)
        wanted = not refused and info.name.lower().endswith(WANTED)
        read = _held(archive, stream, info) if wanted else lambda: b""
        yield entry(info.name, read, refused)


def _held(archive: tarfile.TarFile, stream: _Stream, info: tarfile.TarInfo) -> Callable[[], bytes]:
    try:
        content = zlib.compress(_untarred(archive, stream, info), 1)
    except Refused as error:
        return partial(_refuse, str(error))
    return partial(zlib.decompress, content)


def _refuse(words: str) -> bytes:
    raise Refused(words)


def _members(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    for count, info in enumerate(archive, 1):
        few(count, ENTRIES)
        if not info.isdir():
            yield info


def _tar_entry(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "is a link, which is not followed"
    return "" if info.isreg() and not info.issparse() else "is no plain file"


def _untarred(archive: tarfile.TarFile, stream: _Stream, info: tarfile.TarInfo) -> bytes:
    fits(info.name, info.size)
    stream.most = limit(info.name)
    try:
        return archive.extractfile(info).read()
    except Refused:
        raise
    except BROKEN:
        raise Refused("is damaged") from None
    finally:
        stream.most = HEADER
