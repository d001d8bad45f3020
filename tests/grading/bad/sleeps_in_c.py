# 05-1: timeout, 0 of 2
# Waits in a library, where no exception reaches it.
import ctypes


def sigma(schedule, t, s, eta):
    libc = ctypes.PyDLL(None)  # holds the interpreter's lock
    while True:
        libc.sleep(1_000)
