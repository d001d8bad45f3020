# 05-1: error-in-code, 0 of 2
# Starts threads until none can be started.
import threading
import time


def sigma(schedule, t, s, eta):
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
