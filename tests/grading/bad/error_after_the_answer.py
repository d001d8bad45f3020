# 05-1: correct, 2 of 2
# A picture below the answer fails: its cell of the notebook is not here.
def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))


show_my_picture(sigma)
