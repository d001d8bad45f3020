# 05-1: wrong, 0 of 2
# Not a number compares with nothing.
def sigma(schedule, t, s, eta):
    return float("nan")
