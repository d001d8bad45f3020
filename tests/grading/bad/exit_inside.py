# 05-1: error-in-code, 0 of 2
# Leaves while it is called.
import sys


def sigma(schedule, t, s, eta):
    sys.exit(0)
