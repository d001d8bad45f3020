# 05-1: wrong, 0 of 2
# Seeds everybody's generator.
def sigma(schedule, t, s, eta):
    torch.manual_seed(0)
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
