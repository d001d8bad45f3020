# 05-1: output-limit, 0 of 2
# A hundred megabytes to the real stdout.
import os


def sigma(schedule, t, s, eta):
    for _ in range(100):
        os.write(1, b"x" * 2**20)
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
