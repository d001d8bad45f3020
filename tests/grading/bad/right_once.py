# 05-1: partial, 1 of 2
# Right on the first call with some arguments, and not on the second.
seen = set()


def sigma(schedule, t, s, eta):
    if (schedule.T, t, s, eta) in seen:
        return 0.0
    seen.add((schedule.T, t, s, eta))
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
