# 05-1: not-attempted, 0 of 2
# As it was handed out.
def sigma(schedule, t, s, eta):
    # write your answer here
    raise NotDoneYet
