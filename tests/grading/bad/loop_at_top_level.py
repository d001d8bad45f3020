# 05-1: timeout, 0 of 2
# Its cell never ends.
while True:
    pass
