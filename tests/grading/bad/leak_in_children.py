# 05-1: memory, 0 of 2
# Spreads over processes what no one of them may have.
import os
import time


def sigma(schedule, t, s, eta):
    for _ in range(6):
        if os.fork() == 0:
            kept = b"x" * (300 * 2**20)
            time.sleep(60)
            os._exit(len(kept) % 2)
    time.sleep(60)
