# 05-1: crashed, 0 of 2
# Aborts.
import os


def sigma(schedule, t, s, eta):
    os.abort()
