# 05-1: output-limit, 0 of 2
# Twenty million tiny lines to the real stderr.
import os


def sigma(schedule, t, s, eta):
    lines = b"\n".join([b"!"] * 1_000)
    for _ in range(20_000):
        os.write(2, lines)
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
