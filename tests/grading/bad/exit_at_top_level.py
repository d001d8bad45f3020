# 05-1: error-in-code, 0 of 2
# Leaves while its cell runs.
import sys

sys.exit(0)


def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
