# 05-1: correct, 2 of 2
# A thread that talks on after the answer.
import threading
import time


def talk():
    while True:
        print("still here", flush=True)
        time.sleep(0.001)


threading.Thread(target=talk, daemon=True).start()


def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
