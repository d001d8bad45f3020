# 05-1: crashed, 0 of 2
# Ends its process, as if all were well.
import os


def sigma(schedule, t, s, eta):
    os._exit(0)
