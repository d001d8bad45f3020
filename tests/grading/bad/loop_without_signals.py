# 05-1: timeout, 0 of 2
# Never comes back, and hears no signal.
import signal


def sigma(schedule, t, s, eta):
    for name in ("SIGINT", "SIGALRM", "SIGTERM", "SIGXCPU"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    while True:
        pass
