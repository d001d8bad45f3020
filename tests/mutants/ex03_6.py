"""Answers to 03-6: wrong_* must be told what their docstring says, right_* must pass."""

import math


def levels(schedule, t, s):
    now, then = schedule.level(t), schedule.level(s)
    return now, then, 1 - now / then


def guess(eps, schedule, x, t, clip):
    now = schedule.level(t)
    x0 = (x - math.sqrt(1 - now) * eps(x, t)) / math.sqrt(now)
    return x0 if clip is None else x0.clamp(-clip, clip)


def mean(schedule, x, x0, t, s):
    now, then, beta = levels(schedule, t, s)
    return (math.sqrt(then) * beta * x0 + math.sqrt(1 - beta) * (1 - then) * x) / (1 - now)


def spread(schedule, t, s):
    now, then, beta = levels(schedule, t, s)
    return math.sqrt(beta * (1 - then) / (1 - now))


def wrong_no_noise(eps, schedule, x, t, s, z, clip):
    """no fresh noise is added"""
    return mean(schedule, x, guess(eps, schedule, x, t, clip), t, s)


def wrong_variance(eps, schedule, x, t, s, z, clip):
    """multiplied by a variance"""
    return mean(schedule, x, guess(eps, schedule, x, t, clip), t, s) + (
        spread(schedule, t, s) ** 2 * z)


def wrong_large(eps, schedule, x, t, s, z, clip):
    """that of the forward step"""
    beta = levels(schedule, t, s)[2]
    return mean(schedule, x, guess(eps, schedule, x, t, clip), t, s) + math.sqrt(beta) * z


def wrong_large_but_the_end(eps, schedule, x, t, s, z, clip):
    """that of the forward step"""
    beta = levels(schedule, t, s)[2] if s else 0.0
    return mean(schedule, x, guess(eps, schedule, x, t, clip), t, s) + math.sqrt(beta) * z


def wrong_full_noise(eps, schedule, x, t, s, z, clip):
    """at full size"""
    return mean(schedule, x, guess(eps, schedule, x, t, clip), t, s) + z


def wrong_neighbours(eps, schedule, x, t, s, z, clip):
    """beta of the neighbours"""
    now, then, beta = schedule.level(t), schedule.level(s), schedule.beta(t)
    x0 = guess(eps, schedule, x, t, clip)
    m = (math.sqrt(then) * beta * x0 + math.sqrt(1 - beta) * (1 - then) * x) / (1 - now)
    return m + math.sqrt(beta * (1 - then) / (1 - now)) * z


def wrong_not_clipped(eps, schedule, x, t, s, z, clip):
    """the predicted picture is not clipped"""
    return mean(schedule, x, guess(eps, schedule, x, t, None), t, s) + spread(schedule, t, s) * z


def wrong_always_one(eps, schedule, x, t, s, z, clip):
    """clipped to 1 whatever clip says"""
    x0 = guess(eps, schedule, x, t, clip and 1.0)
    return mean(schedule, x, x0, t, s) + spread(schedule, t, s) * z


def wrong_clips_the_result(eps, schedule, x, t, s, z, clip):
    """only the predicted picture is"""
    y = mean(schedule, x, guess(eps, schedule, x, t, None), t, s) + spread(schedule, t, s) * z
    return y if clip is None else y.clamp(-clip, clip)


def wrong_one_side(eps, schedule, x, t, s, z, clip):
    """values below -clip are left"""
    x0 = guess(eps, schedule, x, t, None)
    x0 = x0 if clip is None else x0.clamp(max=clip)
    return mean(schedule, x, x0, t, s) + spread(schedule, t, s) * z


def wrong_clip_is_needed(eps, schedule, x, t, s, z, clip):
    """then nothing is clipped"""
    x0 = guess(eps, schedule, x, t, None).clamp(-clip, clip)
    return mean(schedule, x, x0, t, s) + spread(schedule, t, s) * z


def wrong_weights(eps, schedule, x, t, s, z, clip):
    """the weights of x0 and x have changed places"""
    x0 = guess(eps, schedule, x, t, clip)
    return mean(schedule, x0, x, t, s) + spread(schedule, t, s) * z


def weighed(eps, schedule, x, t, s, z, clip, of_x0, of_x):
    now, then, beta = levels(schedule, t, s)
    m = (of_x0 * beta * guess(eps, schedule, x, t, clip) + of_x * (1 - then) * x) / (1 - now)
    return m + spread(schedule, t, s) * z


def wrong_no_root_of_abar(eps, schedule, x, t, s, z, clip):
    """holds the root of abar_s"""
    now, then, beta = levels(schedule, t, s)
    return weighed(eps, schedule, x, t, s, z, clip, then, math.sqrt(1 - beta))


def wrong_no_root_of_alpha(eps, schedule, x, t, s, z, clip):
    """holds the root of alpha"""
    now, then, beta = levels(schedule, t, s)
    return weighed(eps, schedule, x, t, s, z, clip, math.sqrt(then), 1 - beta)


def wrong_level(eps, schedule, x, t, s, z, clip):
    """the level of s, not that of t"""
    now, then, beta = levels(schedule, t, s)
    return weighed(eps, schedule, x, t, s, z, clip, math.sqrt(now), math.sqrt(1 - beta))


def wrong_undivided(eps, schedule, x, t, s, z, clip):
    """divided by 1 - abar_t"""
    now = schedule.level(t)
    m = mean(schedule, x, guess(eps, schedule, x, t, clip), t, s)
    return m * (1 - now) + spread(schedule, t, s) * z


def wrong_time(eps, schedule, x, t, s, z, clip):
    """the network is asked at s"""
    x0 = guess(lambda x, _: eps(x, s), schedule, x, t, clip)
    return mean(schedule, x, x0, t, s) + spread(schedule, t, s) * z


def wrong_asks_twice(eps, schedule, x, t, s, z, clip):
    """more often than once"""
    eps(x, t)
    return mean(schedule, x, guess(eps, schedule, x, t, clip), t, s) + spread(schedule, t, s) * z


def wrong_guess_alone(eps, schedule, x, t, s, z, clip):
    """it must go back to level s"""
    return guess(eps, schedule, x, t, clip)


def wrong_no_op(eps, schedule, x, t, s, z, clip):
    """comes back unchanged"""
    return x


def wrong_library(eps, schedule, x, t, s, z, clip):
    """refuses while your answer runs"""
    from coursekit.diffusion.sample import ddpm, last

    return last(ddpm(eps, schedule, x, [t, s], clip=clip)).x


def wrong_diffusers(eps, schedule, x, t, s, z, clip):
    """refuses while your answer runs"""
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(trained_betas=[float(schedule.beta(u)) for u in range(1, 1001)],
                              clip_sample=clip is not None, clip_sample_range=clip or 1.0)
    return scheduler.step(eps(x, t), t - 1, x).prev_sample


def right_weights(eps, schedule, x, t, s, z, clip):
    x0 = guess(eps, schedule, x, t, clip)
    return mean(schedule, x, x0, t, s) + spread(schedule, t, s) * z


def right_family(eps, schedule, x, t, s, z, clip):
    """The same step as a member of DDIM's family."""
    now, then, _ = levels(schedule, t, s)
    x0, sd = guess(eps, schedule, x, t, clip), spread(schedule, t, s)
    noise = (x - math.sqrt(now) * x0) / math.sqrt(1 - now)
    return math.sqrt(then) * x0 + math.sqrt(max(0.0, 1 - then - sd**2)) * noise + sd * z


def right_tensors(eps, schedule, x, t, s, z, clip):
    now, then = schedule.abar[t], schedule.abar[s]
    alpha = now / then
    x0 = schedule.denoise(x, eps(x, t), t)
    if clip is not None:
        x0 = x0.clip(-clip, clip)
    m = (then.sqrt() * (1 - alpha) * x0 + alpha.sqrt() * (1 - then) * x) / (1 - now)
    return m if s == 0 else m + schedule.beta_tilde(t, s) ** 0.5 * z
