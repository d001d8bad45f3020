# 05-1: wrong, 0 of 2
# Right only if a name can be looked up.
import socket


def sigma(schedule, t, s, eta):
    try:
        socket.getaddrinfo("example.org", 80)
    except OSError:
        return -1.0
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
