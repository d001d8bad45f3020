# 05-1: correct, 2 of 2
# A first try above the answer: the last definition counts.
def sigma(schedule, t, s, eta):
    return eta


def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
