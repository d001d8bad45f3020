"""Answers to 11-4: wrong_* must be told what their docstring says, right_* must pass."""

import torch
from torch import nn
from torch.nn import functional as F


class Low(nn.Module):
    """The whole, in methods that the wrong ones replace."""

    def __init__(self, layer, r, alpha, generator):
        super().__init__()
        self.layer, self.r, self.alpha = layer, r, alpha
        self.freeze()
        d, k = layer.weight.shape
        self.A = nn.Parameter(self.drawn(r, k, generator))
        self.B = nn.Parameter(self.begun(d, r, generator))

    def freeze(self):
        self.layer.requires_grad_(False)

    def drawn(self, r, k, generator):
        return torch.randn(r, k, generator=generator, dtype=self.layer.weight.dtype) / r

    def begun(self, d, r, generator):
        return torch.zeros(d, r, dtype=self.layer.weight.dtype)

    @property
    def s(self):
        return self.alpha / self.r

    def update(self, x):
        return F.linear(F.linear(x, self.A), self.B)

    def forward(self, x):
        return self.layer(x) + self.s * self.update(x)

    def merged(self):
        return self.layer.weight + self.s * self.B @ self.A


class right_plain(Low):
    pass


class right_written_out(nn.Module):
    """Every weight by its own name; the merged weight is what a pass uses."""

    def __init__(self, layer, r, alpha, generator):
        super().__init__()
        self.layer, self.by = layer, alpha / r
        for p in layer.parameters():
            p.requires_grad = False
        like = layer.weight
        A = torch.empty(r, like.shape[1], dtype=like.dtype).normal_(0, 1 / r, generator=generator)
        self.A, self.B = nn.Parameter(A), nn.Parameter(0 * like[:, :1].repeat(1, r))

    def merged(self):
        return self.by * torch.einsum("dr,rk->dk", self.B, self.A) + self.layer.weight

    def forward(self, x):
        return F.linear(x, self.merged(), self.layer.bias)


class right_wide(Low):
    """Drawn in double precision, the update taken by matrices."""

    def drawn(self, r, k, generator):
        return (torch.randn(r, k, generator=generator, dtype=torch.float64) / r).to(
            self.layer.weight)

    def update(self, x):
        return x @ self.A.T @ self.B.T


class wrong_no_alpha(Low):
    """alpha is missing"""
    s = property(lambda self: 1 / self.r)


class wrong_no_factor(Low):
    """the factor alpha / r is missing"""
    s = 1.0


class wrong_no_rank(Low):
    """r is missing"""
    s = property(lambda self: self.alpha)


class wrong_factor_turned(Low):
    """turned about: alpha / r"""
    s = property(lambda self: self.r / self.alpha)


class wrong_times_rank(Low):
    """not times r"""
    s = property(lambda self: self.alpha * self.r)


class wrong_root(Low):
    """not by r's root"""
    s = property(lambda self: self.alpha / self.r**0.5)


class wrong_factor_twice(Low):
    """the factor is there twice"""

    def update(self, x):
        return self.s * super().update(x)


class wrong_merged_factor(Low):
    """the factor alpha / r is missing"""

    def merged(self):
        return self.layer.weight + self.B @ self.A


class wrong_replaced(Low):
    """takes the place of the layer"""

    def forward(self, x):
        return self.s * self.update(x)


class wrong_all_scaled(Low):
    """the factor multiplies the layer, too"""

    def forward(self, x):
        return self.s * (self.layer(x) + self.update(x))


class wrong_taken_off(Low):
    """the update is taken off"""

    def forward(self, x):
        return self.layer(x) - self.s * self.update(x)


class wrong_no_effect(Low):
    """the update has no effect"""

    def forward(self, x):
        return self.layer(x)


class wrong_no_bias(Low):
    """the bias is missing, or there twice"""

    def forward(self, x):
        return x @ self.merged().T


class wrong_bias_twice(Low):
    """the bias is missing, or there twice"""

    def forward(self, x):
        extra = 0 if self.layer.bias is None else self.layer.bias
        return super().forward(x) + extra


class wrong_merged_lacks_weight(Low):
    """lacks the layer's weight"""

    def merged(self):
        return self.s * self.B @ self.A


class wrong_merged_lacks_update(Low):
    """lacks the update"""

    def merged(self):
        return self.layer.weight.clone()


class wrong_merged_with_bias(Low):
    """has the bias in it"""

    def merged(self):
        bias = self.layer.bias
        return super().merged() + (0 if bias is None else bias[:, None])


class wrong_merged_turned(Low):
    """turned about: B A has the shape"""

    def merged(self):
        square = len(set(self.layer.weight.shape)) == 1
        BA = (self.B @ self.A).T if square else self.B @ self.A
        return self.layer.weight + self.s * BA


class wrong_merged_writes(Low):
    """merged() writes into the layer"""

    def merged(self):
        self.layer.weight.data += self.s * self.B.detach() @ self.A.detach()
        return self.layer.weight


class wrong_both_random(Low):
    """B begins at zero"""

    def begun(self, d, r, generator):
        return torch.randn(d, r, generator=generator, dtype=self.layer.weight.dtype)


class wrong_a_zero(wrong_both_random):
    """B begins at zero"""

    def drawn(self, r, k, generator):
        return torch.zeros(r, k, dtype=self.layer.weight.dtype)


class wrong_both_zero(Low):
    """neither ever moves"""

    def drawn(self, r, k, generator):
        return torch.zeros(r, k, dtype=self.layer.weight.dtype)


class wrong_names_exchanged(Low):
    """A reads what the layer reads"""

    def __init__(self, layer, r, alpha, generator):
        super().__init__(layer, r, alpha, generator)
        self.A, self.B = self.B, self.A

    def update(self, x):
        return F.linear(F.linear(x, self.B), self.A)

    def merged(self):
        return self.layer.weight + self.s * self.A @ self.B


class wrong_turned_factors(Low):
    """A reads what the layer reads"""

    def drawn(self, r, k, generator):
        return super().drawn(r, k, generator).T.contiguous()

    def update(self, x):
        return F.linear(x @ self.A, self.B)

    def merged(self):
        return self.layer.weight + self.s * self.B @ self.A.T


class wrong_deviation(Low):
    """normal with deviation 1 / r"""

    def drawn(self, r, k, generator):
        return torch.randn(r, k, generator=generator, dtype=self.layer.weight.dtype) / (r + 3)


class wrong_uniform(Low):
    """normal with deviation 1 / r"""

    def drawn(self, r, k, generator):
        return (torch.rand(r, k, generator=generator, dtype=self.layer.weight.dtype) - 0.5) / r


class wrong_no_generator(Low):
    """with the generator that is given"""

    def drawn(self, r, k, generator):
        return torch.randn(r, k, dtype=self.layer.weight.dtype) / r


class wrong_own_generator(Low):
    """with the generator that is given"""

    def drawn(self, r, k, generator):
        return super().drawn(r, k, torch.Generator().manual_seed(0))


class wrong_not_frozen(Low):
    """the layer is not frozen"""

    def freeze(self):
        pass


class wrong_bias_not_frozen(Low):
    """the layer is not frozen"""

    def freeze(self):
        self.layer.weight.requires_grad_(False)


class wrong_no_parameters(nn.Module):
    """make both an nn.Parameter"""

    def __init__(self, layer, r, alpha, generator):
        super().__init__()
        inner = Low(layer, r, alpha, generator)
        self.s, self.layer = inner.s, layer
        self.A, self.B = inner.A.detach().requires_grad_(), inner.B.detach().requires_grad_()

    forward, merged, update = Low.forward, Low.merged, Low.update


class wrong_no_grad(Low):
    """under no_grad nothing learns"""

    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


class wrong_dtype(Low):
    """the dtype of the layer's weight"""

    def drawn(self, r, k, generator):
        return torch.randn(r, k, generator=generator) / r

    def begun(self, d, r, generator):
        return torch.zeros(d, r)


class wrong_names(nn.Module):
    """the names are A, B and merged"""

    def __init__(self, layer, r, alpha, generator):
        super().__init__()
        inner = Low(layer, r, alpha, generator)
        self.layer, self.down, self.up = layer, inner.A, inner.B

    def forward(self, x):
        return self.layer(x) + F.linear(F.linear(x, self.down), self.up)


class wrong_order(Low):
    """x A^T, then B^T"""

    def update(self, x):
        return x @ self.B @ self.A

    def forward(self, x):
        return self.layer(x) + self.s * (self.update(x) if x.shape[-1] != len(self.B)
                                         else Low.update(self, x))


def wrong_function(layer, r, alpha, generator):
    """must be a class"""
    return lambda x: layer(x)


class wrong_library(Low):
    """own refuses while your answer runs"""

    def forward(self, x):
        from coursekit.nets.lora import Factors
        from coursekit.nets.lora import LoRALinear as Theirs
        return Theirs(self.layer, Factors(self.A, self.B, self.alpha))(x)
