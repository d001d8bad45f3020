# 05-1: memory, 0 of 2
# Asks for a hundred gigabytes at once.
def sigma(schedule, t, s, eta):
    return len(bytearray(10**11))
