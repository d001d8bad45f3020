# 05-1: correct, 2 of 2
# Talks a lot and is right: what is printed is put aside.
def sigma(schedule, t, s, eta):
    for i in range(1_000_000 // 8):
        print(i)
    print("x" * 10**7)
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
