# 05-2: malformed, 0 of 3
# Would run a command where it is loaded.
import os

import numpy as np


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/unpickled",)


def posterior_mean(schedule, x, x0, t, s, sd):
    return np.array([Command()], dtype=object)
