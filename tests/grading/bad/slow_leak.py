# 05-1: memory, 0 of 2
# Keeps a little more every moment.
def sigma(schedule, t, s, eta):
    kept = []
    while True:
        kept.append(b"x" * 2**24)
