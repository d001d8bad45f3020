# 05-1: timeout, 0 of 2
# Never comes back, whatever is raised in it.
def sigma(schedule, t, s, eta):
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue
