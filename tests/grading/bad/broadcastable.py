# 05-2: wrong, 0 of 3
# The first item's answer, which would fit all by broadcasting.
def posterior_mean(schedule, x, x0, t, s, sd):
    now, then = schedule.level(t), schedule.level(s)
    noise = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
    return (math.sqrt(then) * x0 + math.sqrt(max(0, 1 - then - sd**2)) * noise)[:1]
