# 05-1: error-in-code, 0 of 2
# Asks the course for what is wanted.
from coursekit.classroom.check.exercises import exercise


def sigma(schedule, t, s, eta):
    return exercise("05-1").wanted(schedule, t, s, eta)
