# 05-1: correct, 2 of 2
# Lines that only a notebook knows are left out.
%matplotlib inline
!ls
math?


def sigma(schedule, t, s, eta):
    now, then = schedule.level(t), schedule.level(s)
    return eta * math.sqrt((1 - then) / (1 - now) * (1 - now / then))
