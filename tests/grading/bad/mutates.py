# 05-2: wrong, 0 of 3
# Writes into what it was given.
def posterior_mean(schedule, x, x0, t, s, sd):
    now, then = schedule.level(t), schedule.level(s)
    x -= math.sqrt(now) * x0
    x /= math.sqrt(1 - now)
    return math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * x
