# 05-1: partial, 0 of 2
# Right on the first call of all, and never again.
calls = []


def sigma(schedule, t, s, eta):
    calls.append(t)
    if len(calls) > 1:
        return -1.0
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
