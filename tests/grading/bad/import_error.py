# 05-1: error-in-code, 0 of 2
# Needs what is not there.
import no_such_library


def sigma(schedule, t, s, eta):
    return no_such_library.sigma(schedule, t, s, eta)
