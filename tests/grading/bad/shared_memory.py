# 05-1: memory, 0 of 2
# Maps memory that belongs to nobody, in pieces, in several processes.
import mmap
import os
import time


def sigma(schedule, t, s, eta):
    for _ in range(4):
        if os.fork() == 0:
            shared = mmap.mmap(-1, 2**28)
            for i in range(0, 2**28, 4096):
                shared[i] = 1
            time.sleep(60)
    time.sleep(60)
