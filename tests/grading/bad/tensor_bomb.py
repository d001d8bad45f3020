# 05-1: memory, 0 of 2
# Asks torch for eight terabytes.
def sigma(schedule, t, s, eta):
    return float(torch.zeros(10**12, dtype=torch.float64).sum())
