"""What `coursekit grade` keeps in its folder, beside the reports: key, results, log.

    course.key       32 secret bytes as hex, for the owner alone: they draw the hidden cases
    results.sqlite   see store.py
    log.jsonl        a line of JSON for each thing that happened, with its time
"""

from __future__ import annotations

import json
import os
import re
import secrets
import tempfile
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

from coursekit.grading.report.text import clean
from coursekit.grading.store import Store

KEY, RESULTS, LOG = "course.key", "results.sqlite", "log.jsonl"
BYTES = 32
HEX = re.compile(r"[0-9a-f]{%d,}" % (2 * BYTES))


class Folder:
    """The folder, opened: made if need be, readable by its owner alone."""

    def __init__(self, out: Path, key: Path | None = None) -> None:
        made = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        if made:
            out.chmod(0o700)  # marks are nobody else's business
        self.out, self.key_path = out, key or out / KEY
        self.new_key = key is None and not self.key_path.exists()
        if self.new_key and (out / RESULTS).exists():
            raise ValueError(f"'{self.key_path}' is missing, but there are results that were drawn "
                             "with it: put it back, name it with --key, or take another --out")
        if self.new_key:
            _create(self.key_path)
        self.key = read_key(self.key_path)
        self.store = Store(out / RESULTS)
        own = sha256(b"which key " + self.key).hexdigest()[:16]
        if self.store.settle("key", own) != own:
            self.store.__exit__()
            raise ValueError(f"'{self.key_path}' is not the key that the results in '{out}' were "
                             "drawn with: name that with --key, or take another --out")
        self._log = (out / LOG).open("a", encoding="utf-8")

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, kind: type | None, problem: BaseException | None,
                 trace: TracebackType | None) -> None:
        if problem is not None:
            self.log("stopped", words=f"{kind.__name__}: {problem}")
        self._log.close()
        self.store.__exit__()

    def log(self, event: str, **fields: Any) -> None:
        """A line of the log. The times of a run stand here and nowhere else."""
        page = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        self._log.write(clean(json.dumps(page, ensure_ascii=False, allow_nan=False)) + "\n")
        self._log.flush()


def read_key(path: Path) -> bytes:
    """The course's key, refused if others may read it."""
    if not path.is_file():
        raise ValueError(f"--key='{path}': there is no such file")
    mode = path.stat().st_mode
    if os.name == "posix" and mode & 0o077:
        raise ValueError(f"'{path}' may be read by others (mode {mode & 0o777:o}): accepted is 600; "
                         f"run chmod 600 '{path}', and make a new key if they could have read it")
    text = path.read_bytes()[:10_000].decode("ascii", "replace").strip()
    if not HEX.fullmatch(text) or len(text) % 2:
        raise ValueError(f"'{path}' is no key: accepted are {2 * BYTES} or more hexadecimal digits")
    return bytes.fromhex(text)


def _create(path: Path) -> None:
    """A new key: there whole or not at all, and if another process is first, that one's."""
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # of mode 600
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(BYTES) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            pass
    finally:
        os.unlink(part)
