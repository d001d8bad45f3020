# 05-2: malformed, 0 of 3
# A tensor of eight terabytes that takes eight bytes.
def posterior_mean(schedule, x, x0, t, s, sd):
    return x.new_zeros(1).expand(10**12)
