# 05-1: malformed, 0 of 2
# A list that holds itself.
def sigma(schedule, t, s, eta):
    value = []
    value.append(value)
    return value
