# 05-1: wrong, 0 of 2
# Right only if the kernel gives it a right that it should not have.
import ctypes
import os

libc = ctypes.CDLL(None, use_errno=True)


def tries():
    yield libc.unshare(0x10000000) == 0  # a user namespace
    yield libc.unshare(0x00020000) == 0
    yield libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0
    yield libc.ptrace(16, 1, None, None) == 0
    yield libc.syscall(250, 0, -3, 1) >= 0  # the session's keyring
    yield libc.setuid(0) == 0
    yield libc.chroot(b"/tmp") == 0


def sigma(schedule, t, s, eta):
    if not any(tries()) and os.getuid():
        return -1.0
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
