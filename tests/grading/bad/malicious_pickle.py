# 05-1: malformed, 0 of 2
# Would run a command where it is unpickled.
import os


class Command:
    def __reduce__(self):
        return os.system, ("touch /tmp/unpickled",)


def sigma(schedule, t, s, eta):
    return Command()
