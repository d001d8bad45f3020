# 05-1: error-in-code, 0 of 2
# No Python.
def sigma(schedule, t, s, eta):
    return eta *
