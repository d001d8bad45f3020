# 05-1: correct, 2 of 2
# Warns on stderr while it is right.
import sys
import warnings


def sigma(schedule, t, s, eta):
    warnings.warn("the schedule looks odd", stacklevel=1)
    print("careful", file=sys.stderr)
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
