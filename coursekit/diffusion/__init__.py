"""Floor 0: the mathematics of diffusion over any noise predictor; knows no network.

schedule.py  Schedule: abar, noise, denoise, paths
predict.py   the Eps protocol, network outputs -> Eps, guidance, mixtures
sample.py    DDPM, DDIM and plain inversion, as generators over a path
inversion.py EDICT, edit-friendly noise, the fixed point: inversion that comes back
guided.py    null-text, negative prompt, direct: inversion that comes back under guidance
regularise.py  a predictor whose noise is made more like white noise, for inversion
mhvae.py     the bound of a linear-Gaussian hierarchy (MHVAE), exactly
elbo.py      every term of the bound of a diffusion model, bits/dim
train.py     train(): a generator with EMA and resume
"""
