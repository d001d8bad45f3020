"""A Markov hierarchical VAE that is linear and Gaussian, so that every expectation is exact.

    encoder  q(z_t | z_{t-1}) = N(a_t z_{t-1}, q_t),  z_0 = x          t = 1..T
    decoder  p(z_T) = N(0, v),  p(z_{t-1} | z_t) = N(c_t z_t, p_t)

The bound  log p(x) >= E_q log p(x, z_1..z_T) / q(z_1..z_T | x)  is written out twice. As it stands
(`unbayesed`), each encoder factor meets a decoder factor that points the other way. With Bayes,
q(z_t | z_{t-1}) = q(z_{t-1} | z_t, x) q(z_t | x) / q(z_{t-1} | x), the marginals telescope and
every inner term becomes a KL between two laws of the same variable (`telescoped`).
A diffusion model is the case a_t = sqrt(1 - beta_t), q_t = beta_t (`Chain.diffusion`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coursekit.diffusion.schedule import Schedule


def gaussian_kl(square: Any, var_q: Any, var_p: Any) -> Tensor:
    """KL(N(mu_q, var_q) || N(mu_p, var_p)), elementwise, from square = (mu_q - mu_p)^2.

    The means enter through their squared distance alone: put in its expectation, get the
    expected KL.
    """
    var_q, var_p = (torch.as_tensor(v, dtype=torch.float64) for v in (var_q, var_p))
    for name, var in (("var_q", var_q), ("var_p", var_p)):
        if not (var > 0).all():
            raise ValueError(f"{name}: {var.min():g} is not > 0 (no KL between point masses)")
    ratio = var_q / var_p
    return (ratio - 1 - ratio.log() + square / var_p) / 2


def log_density(square: Any, var: Any) -> Tensor:
    """log N(x; mu, var), elementwise, from square = (x - mu)^2 or its expectation."""
    return -((2 * math.pi * torch.as_tensor(var, dtype=torch.float64)).log() + square / var) / 2


@dataclass(frozen=True)
class Bound:
    """The parts of an ELBO, nats for each x (n,): total = reconstruction - prior - sum(inner)."""

    reconstruction: Tensor
    prior: Tensor
    inner: Tensor  # (T-1, n)

    @property
    def total(self) -> Tensor:
        return self.reconstruction - self.prior - self.inner.sum(0)


@dataclass(frozen=True, eq=False)
class Chain:
    """Encoder a, q and decoder c, p, each (T,) float64 with [t-1] for t; v the prior's variance."""

    a: Tensor
    q: Tensor
    c: Tensor
    p: Tensor
    v: float

    def __post_init__(self) -> None:
        for name, value in {"a": self.a, "q": self.q, "c": self.c, "p": self.p}.items():
            if value.shape != self.a.shape or value.ndim != 1 or value.dtype != torch.float64:
                raise ValueError(f"{name}: {value.dtype} {tuple(value.shape)}, need float64 (T,)")
        lowest = min(float(self.q.min()), float(self.p.min()), self.v)
        if not lowest > 0:
            raise ValueError(f"q, p, v: the smallest variance is {lowest:g}, all must be > 0")

    @classmethod
    def tight(cls, a: Tensor, q: Tensor, data_var: float) -> Chain:
        """The decoder that inverts the encoder for x ~ N(0, data_var): no gap, log p(x) exact."""
        v = [data_var]
        for a_t, q_t in zip(a.tolist(), q.tolist(), strict=True):
            v.append(a_t**2 * v[-1] + q_t)
        v = torch.tensor(v, dtype=torch.float64)  # (T+1,)
        return cls(a, q, a * v[:-1] / v[1:], v[:-1] * q / v[1:], float(v[-1]))

    @classmethod
    def diffusion(cls, schedule: Schedule, data_var: float) -> Chain:
        """A diffusion model of N(0, data_var) data: exact denoiser, exact reverse variance."""
        beta = 1 - schedule.abar[1:] / schedule.abar[:-1]  # (T,)
        return cls.tight((1 - beta).sqrt(), beta, data_var)

    def encoded(self) -> tuple[Tensor, Tensor]:
        """m, w, both (T+1,): q(z_t | x) = N(m_t x, w_t), from z_0 = x itself."""
        m, w = [1.0], [0.0]
        for a_t, q_t in zip(self.a.tolist(), self.q.tolist(), strict=True):
            m.append(a_t * m[-1])
            w.append(a_t**2 * w[-1] + q_t)
        return torch.tensor(m, dtype=torch.float64), torch.tensor(w, dtype=torch.float64)

    def log_evidence(self, x: Tensor) -> Tensor:
        """log p(x) of the decoder, (n,): the variance carried from z_T down to x."""
        v = self.v
        for c_t, p_t in zip(self.c.flip(0).tolist(), self.p.flip(0).tolist(), strict=True):
            v = c_t**2 * v + p_t
        return log_density(x**2, v)

    def telescoped(self, x: Tensor) -> Bound:
        """E log p(x | z_1), KL(q(z_T | x) || p(z_T)),
        E KL(q(z_{t-1} | z_t, x) || p(z_{t-1} | z_t)).

        x (n,) float64; inner[t-2] belongs to t = 2..T.
        """
        m, w = (k[:, None] for k in self.encoded())  # (T+1, 1)
        a, q, c, p = (k[1:, None] for k in (self.a, self.q, self.c, self.p))  # t = 2..T, (T-1, 1)
        # q(z_{t-1} | z_t, x) = N(k z_t + g x, w_{t-1} q_t / w_t)
        k, g = a * w[1:-1] / w[2:], q * m[1:-1] / w[2:]
        square = ((k - c) * m[2:] + g) ** 2 * x**2 + (k - c) ** 2 * w[2:]
        inner = gaussian_kl(square, w[1:-1] * q / w[2:], p)
        return Bound(self._reconstruction(x), gaussian_kl(m[-1] ** 2 * x**2, w[-1], self.v), inner)

    def unbayesed(self, x: Tensor) -> Bound:
        """The same bound before Bayes: E log p(x | z_1), E KL(q(z_T | z_{T-1}) || p(z_T)) and
        E log q(z_t | z_{t-1}) / p(z_t | z_{t+1}), x (n,) float64; inner[t-1] is t = 1..T-1.

        The inner terms are not expected KLs, although often printed so: given z_{t+1}, z_t no
        longer follows q(z_t | z_{t-1}), and a KL with z_t drawn afresh is a_{t+1} c_{t+1} q_t /
        p_{t+1} too large.
        """
        m, w = (k[:, None] for k in self.encoded())
        z_square = m**2 * x**2 + w  # E z_t^2, (T+1, n)
        a, q, c, p = (k[1:, None] for k in (self.a, self.q, self.c, self.p))  # index t+1
        backwards = (1 - c * a) ** 2 * z_square[1:-1] + c**2 * q  # E (z_t - c z_{t+1})^2
        inner = log_density(self.q[:-1, None], self.q[:-1, None]) - log_density(backwards, p)
        prior = gaussian_kl(self.a[-1] ** 2 * z_square[-2], self.q[-1], self.v)
        return Bound(self._reconstruction(x), prior, inner)

    def _reconstruction(self, x: Tensor) -> Tensor:
        a, q, c, p = (k[0] for k in (self.a, self.q, self.c, self.p))
        return log_density((1 - c * a) ** 2 * x**2 + c**2 * q, p)
