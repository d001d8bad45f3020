"""Muon for the weights of layers, AdamW for all else, under one learning rate.

The update of a layer's weight matrix is its momentum made nearly orthogonal (Jordan et al. 2024,
"Muon"), so that a direction in which the gradient is small moves as far as the others. A kernel
(o, i, h, w) counts as a matrix (o, i h w). Biases, gains, embeddings and free parameters have no
such shape. Updates are as large as AdamW's (Liu et al. 2025, "Muon is scalable for LLM training"),
so the learning rate of the one suits the other.
"""

from typing import Any

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.99)  # of AdamW
WIDEST = 512  # a matrix with more rows and columns takes longer to make orthogonal than to learn


class Muon:
    """torch's two optimisers as one. Build it when the network has its device and memory format.

    Frozen parameters stay as they are.
    """

    def __init__(self, net: nn.Module, lr: float, decay: float) -> None:
        words = {module.weight for module in net.modules() if isinstance(module, nn.Embedding)}
        layers, rest = [], []
        for name, p in net.named_parameters():
            if p.requires_grad:
                layer = (p.ndim > 1 and name.endswith("weight") and p not in words
                         and min(len(p), p[0].numel()) <= WIDEST)
                (layers if layer else rest).append(p)
        # torch's Muon takes matrices alone: these share their storage with the kernels.
        self.pairs = [(p, nn.Parameter(matrix(p.detach()))) for p in layers]
        self.parts = (
            torch.optim.Muon([flat for _, flat in self.pairs], lr=lr, weight_decay=decay,
                             adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(rest, lr=lr, betas=BETAS, weight_decay=decay, fused=True),
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def zero_grad(self) -> None:
        for p, flat in self.pairs:
            p.grad = flat.grad = None
        self.parts[1].zero_grad()

    def step(self) -> None:
        for p, flat in self.pairs:
            flat.grad = None if p.grad is None else like(p, p.grad)
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.parts[0].state_dict(), "adamw": self.parts[1].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for part, name in zip(self.parts, ("muon", "adamw"), strict=True):
            part.load_state_dict(state[name])


def matrix(p: Tensor) -> Tensor:
    """A kernel as a matrix in the same storage; RuntimeError where its strides allow none."""
    return rows(p, p).view(len(p), -1)


def like(p: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of p in the order of matrix(p)."""
    return rows(p, gradient).reshape(len(p), -1)


def rows(p: Tensor, x: Tensor) -> Tensor:
    """x with its channels last, if p's memory has them so."""
    last = p.ndim == 4 and not p.is_contiguous()
    return x.permute(0, 2, 3, 1) if last else x
