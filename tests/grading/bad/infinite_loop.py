# 05-1: timeout, 0 of 2
# Never comes back.
def sigma(schedule, t, s, eta):
    while True:
        pass
