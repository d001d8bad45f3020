"""Data laws whose noise predictor is known in closed form, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from coursekit.diffusion.predict import Eps
from coursekit.diffusion.schedule import Schedule


class Mixture:
    """Equal Gaussians N(means[k], std^2 I); means (k, d), points x (b, d)."""

    def __init__(self, means: list[list[float]], std: float) -> None:
        self.means, self.std = torch.tensor(means, dtype=torch.float64), std

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        which = torch.randint(len(self.means), (n,), generator=generator)
        noise = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[which] + self.std * noise  # (n, d)

    def log_parts(self, x: Tensor, level: float) -> Tensor:
        """log N(x; component k of p_t), up to one shared constant, (b, k)."""
        var = level * self.std**2 + 1 - level
        return -((x[:, None] - level**0.5 * self.means) ** 2).sum(-1) / (2 * var)

    def eps(self, schedule: Schedule) -> Eps:
        """-sqrt(1 - abar_t) grad log p_t(x)."""

        def eps(x: Tensor, t: int) -> Tensor:
            level = float(schedule.abar[t])
            share = self.log_parts(x, level).softmax(1)  # (b, k)
            var = level * self.std**2 + 1 - level
            return (1 - level) ** 0.5 * (x - level**0.5 * share @ self.means) / var

        return eps


TRIANGLE = Mixture([[1.0, 0.0], [-0.6, 0.8], [-0.5, -0.9]], std=0.3)
