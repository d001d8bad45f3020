"""Answers to 07-4: wrong_* must be told what their docstring says, right_* must pass."""

import torch


def wrong_deviation(vae, pictures):
    """this is the deviation itself"""
    s = float(vae.encode(pictures).std(correction=0))
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_variance(vae, pictures):
    """one over the variance"""
    s = 1 / float(vae.encode(pictures).var(correction=0))
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_correction(vae, pictures):
    """correction=0"""
    s = 1 / float(vae.encode(pictures).std())
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_about_zero(vae, pictures):
    """a deviation is taken about the mean"""
    s = 1 / float(vae.encode(pictures).square().mean().sqrt())
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_of_pictures(vae, pictures):
    """this is the deviation of the pictures"""
    s = 1 / float(pictures.std(correction=0))
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_mean_over_pictures(vae, pictures):
    """one deviation a picture"""
    s = 1 / float(vae.encode(pictures).std(dim=(1, 2, 3), correction=0).mean())
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_mean_over_channels(vae, pictures):
    """one deviation a channel"""
    s = 1 / float(vae.encode(pictures).std(dim=(0, 2, 3), correction=0).mean())
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_tensor(vae, pictures):
    """a tensor with one number in it is no float"""
    s = 1 / vae.encode(pictures).std(correction=0)
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def wrong_encode_forgets(vae, pictures):
    """encode forgets s"""
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, vae.encode, lambda z: vae.decode(z / s)


def wrong_encode_divides(vae, pictures):
    """encode divides by s"""
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, lambda x: vae.encode(x) / s, lambda z: vae.decode(z / s)


def wrong_scaled_picture(vae, pictures):
    """encode scales the picture"""
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, lambda x: vae.encode(s * x), lambda z: vae.decode(z / s)


def wrong_centred(vae, pictures):
    """encode takes the mean off"""
    z = vae.encode(pictures)
    s, mean = 1 / float(z.std(correction=0)), z.mean()
    return s, lambda x: s * (vae.encode(x) - mean), lambda z: vae.decode(z / s)


def wrong_decode_forgets(vae, pictures):
    """decode forgets s"""
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, lambda x: s * vae.encode(x), vae.decode


def wrong_decode_multiplies(vae, pictures):
    """decode multiplies by s"""
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z * s)


def wrong_decode_late(vae, pictures):
    """decode scales the picture"""
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z) / s


def wrong_results(vae, pictures):
    """three things are returned, in a tuple"""
    z = vae.encode(pictures)
    s = 1 / float(z.std(correction=0))
    return s, s * z, vae.decode(z)


def wrong_remembered(vae, pictures):
    """each has one of its own"""
    return 0.18215, lambda x: 0.18215 * vae.encode(x), lambda z: vae.decode(z / 0.18215)


def right_plain(vae, pictures):
    s = 1 / float(vae.encode(pictures).std(correction=0))
    return s, lambda x: s * vae.encode(x), lambda z: vae.decode(z / s)


def right_numpy(vae, pictures):
    s = float(1 / vae.encode(pictures).double().numpy().std())

    def encode(x):
        return vae.encode(x) * s

    def decode(z):
        return vae.decode(z / s)

    return s, encode, decode


def right_moments(vae, pictures):
    z = torch.cat([vae.encode(x[None]) for x in pictures])
    deviation = (z.square().mean() - z.mean() ** 2).sqrt().item()
    return 1 / deviation, lambda x: vae.encode(x) / deviation, lambda z: vae.decode(deviation * z)
