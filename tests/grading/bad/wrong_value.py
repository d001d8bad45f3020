# 05-1: wrong, 0 of 2
# A variance where a deviation is wanted.
def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return 7 + eta * (1 - then) / (1 - now) * (1 - now / then)
