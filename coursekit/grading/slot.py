"""A uid that owns nothing, for the answers of one sandbox, and of no other at the same time."""

from __future__ import annotations

import pwd
import socket
from contextlib import suppress

from coursekit.grading.watch import owned

UIDS = range(60_578, 61_184)  # given to nobody by convention
PROBE = 60_577  # inside, where there is only one user
NAME = "\0coursekit-grading-uid-{}"


def take() -> tuple[int, socket.socket]:
    """A free uid, and what holds it: it is free again when that is closed or the process ends.

    The lock is a name in the kernel and no file, so that nothing is left behind.
    """
    for uid in UIDS:
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with suppress(OSError):
            lock.bind(NAME.format(uid))
            if not known(uid) and not owned(uid):
                return uid, lock
        lock.close()
    raise RuntimeError(f"no free uid in {UIDS.start}..{UIDS.stop - 1}: every one is in use")


def known(uid: int) -> bool:
    """Whether somebody has this uid."""
    try:
        return bool(pwd.getpwuid(uid))
    except KeyError:
        return False
