"""What the twins of lectures 01 and 02 are compared with: integrals over a grid, dense matrices.

Nothing here knows a formula of the lectures: a chain is a linear system with independent noises.
"""

import math
from dataclasses import dataclass

import torch
from torch.distributions import MultivariateNormal, Normal

GRID = torch.linspace(-14, 14, 20_001, dtype=torch.float64)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normal(z, mean, var) -> torch.Tensor:
    """Log density, in double precision, from torch."""
    mean, var = (torch.as_tensor(k, dtype=torch.float64) for k in (mean, var))
    return Normal(mean, var.sqrt()).log_prob(torch.as_tensor(z, dtype=torch.float64))


def integral(values: torch.Tensor) -> torch.Tensor:
    """Over the grid; all integrands vanish at its ends, where the trapezoid rule is exact."""
    return values.sum(-1) * (GRID[1] - GRID[0])


@dataclass(frozen=True)
class Law:
    """A joint Gaussian of (z_0, .., z_T); a known coordinate has no variance."""

    mean: torch.Tensor
    cov: torch.Tensor

    def only(self, *which: int) -> MultivariateNormal:
        keep = list(which)
        return MultivariateNormal(self.mean[keep], self.cov[keep][:, keep])

    def given(self, t: int, value: float) -> "Law":
        """What is left when z_t is known."""
        gain = self.cov[:, t] / self.cov[t, t]
        mean = self.mean + gain * (value - self.mean[t])
        return Law(mean, self.cov - torch.outer(gain, self.cov[t]))

    def mean_log(self, weights: torch.Tensor, var: float) -> torch.Tensor:
        """E log N(weights . z; 0, var)."""
        square = (weights @ self.mean) ** 2 + weights @ self.cov @ weights
        return -(math.log(2 * math.pi * var) + square / var) / 2


def linear(system: torch.Tensor, source: torch.Tensor, variances: torch.Tensor) -> Law:
    """The law of z with system @ z = source + independent noises."""
    solve = torch.linalg.inv(system)
    return Law(solve @ source, solve @ torch.diag(variances) @ solve.T)


def rising(a: torch.Tensor, q: torch.Tensor, x: float, data_var: float = 0.0) -> Law:
    """(z_0, .., z_T) with z_0 ~ N(x, data_var) and z_t = a_t z_{t-1} + noise of variance q_t."""
    n = len(a) + 1
    start = torch.cat([doubles(x), torch.zeros(n - 1).double()])
    system = torch.eye(n).double() - torch.diag(a, -1)
    return linear(system, start, torch.cat([doubles(data_var), q]))


def falling(c: torch.Tensor, p: torch.Tensor, v: float) -> Law:
    """(z_0, .., z_T) with z_T ~ N(0, v) and z_{t-1} = c_t z_t + noise of variance p_t."""
    n = len(c) + 1
    system = torch.eye(n).double() - torch.diag(c, 1)
    return linear(system, torch.zeros(n).double(), torch.cat([p, doubles(v)]))


def dense_bound(q: Law, p: Law) -> torch.Tensor:
    """E_q log p(x, z) + entropy of q, z_0 = x being known under q; no term is named."""
    square = (torch.linalg.inv(p.cov) * (torch.outer(q.mean, q.mean) + q.cov)).sum()
    log_joint = -((2 * math.pi * p.cov).logdet() + square) / 2
    return log_joint + q.only(*range(1, len(q.mean))).entropy()
