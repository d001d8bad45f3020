# 05-1: crashed, 0 of 2
# The first case holds, in the second its process ends: 2 points by 7 cases.
import os

calls = []


def sigma(schedule, t, s, eta):
    calls.append(t)
    if len(calls) > 1:
        os.abort()
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
