# 05-2: wrong, 0 of 3
# Infinitely wrong.
def posterior_mean(schedule, x, x0, t, s, sd):
    return x / 0
