# 05-1: error-in-code, 0 of 2
# Waits for somebody at a keyboard.
def sigma(schedule, t, s, eta):
    return float(input("sigma? "))
