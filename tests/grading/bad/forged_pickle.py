# 05-1: tampered, 0 of 2
# Answers with the right nonce and an array that would have to be unpickled.
import gc
import io
import os
import struct
import json

import numpy as np


def pipes():
    """The descriptors of pipes to write to, without stdout and stderr."""
    found = []
    for fd in range(3, 256):
        try:
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                found.append(fd)
        except OSError:
            continue
    return found


def frame(header, *blocks):
    head = json.dumps({**header, "blocks": [len(b) for b in blocks]}).encode()
    return struct.pack(">II", len(head), sum(map(len, blocks))) + head + b"".join(blocks)


def nonce():
    for thing in gc.get_objects():
        if isinstance(thing, dict) and "nonce" in thing and "case" in thing:
            return thing["nonce"]


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/unpickled",)


def sigma(schedule, t, s, eta):
    stream = io.BytesIO()
    np.save(stream, np.array([Command()], dtype=object), allow_pickle=True)
    forged = {"nonce": nonce(), "kind": "value", "value": {"array": 0}, "words": "", "printed": "",
              "changed": [], "reseeded": False}
    for fd in pipes():
        try:
            os.write(fd, frame(forged, stream.getvalue()))
        except OSError:
            continue
    os._exit(0)
