# 05-1: crashed, 0 of 2
# Reads where nothing is.
import ctypes


def sigma(schedule, t, s, eta):
    ctypes.string_at(0)
