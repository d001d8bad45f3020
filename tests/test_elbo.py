"""Bounds: exact where everything is Gaussian, and every diffusion term against its definition."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_schedule import EXACT, pair
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.testing import assert_close

from coursekit.diffusion import elbo
from coursekit.diffusion.mhvae import Chain, gaussian_kl, log_density
from coursekit.diffusion.sample import posterior, sigma
from coursekit.diffusion.schedule import Schedule

LINEAR = Schedule.linear()
GRID = torch.linspace(-1, 1, 256, dtype=torch.float64)


def doubles(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gauss(mean: float, sd: float) -> Normal:
    """In double precision: Normal(0.0, 1.0) would work in single."""
    return Normal(*doubles(mean, sd))


# ---- a linear-Gaussian MHVAE ---------------------------------------------------------------

X = doubles(-2.0, -0.3, 0.0, 1.1, 4.0)
LOOSE = Chain(
    a=doubles(0.9, 0.7, 1.1, 0.5),
    q=doubles(0.3, 0.5, 0.2, 0.8),
    c=doubles(0.8, -0.2, 0.6, 0.9),
    p=doubles(0.4, 0.3, 0.9, 0.5),
    v=1.3,
)


def joints(chain: Chain) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Covariance of (x, z_1, .., z_T) under the decoder; mean slope and covariance of q(z | x)."""
    T = len(chain.a)
    down = torch.eye(T + 1, dtype=torch.float64)  # u_{t-1} = c_t u_t + sqrt(p_t) n, u_T = sqrt(v) n
    for t in range(T, 0, -1):
        down[t - 1, t:] = chain.c[t - 1] * down[t, t:]
    p = down @ torch.diag(torch.cat([chain.p, doubles(chain.v)])) @ down.T
    up, slope = torch.eye(T, dtype=torch.float64), torch.cumprod(chain.a, 0)
    for t in range(1, T):
        up[t, :t] = chain.a[t] * up[t - 1, :t]
    return p, slope, up @ torch.diag(chain.q) @ up.T


def test_bound_is_below_log_p_by_the_posterior_kl() -> None:
    """log p(x) - ELBO = KL(q(z | x) || p(z | x)), the right side from dense matrices."""
    p, slope, q_cov = joints(LOOSE)
    assert_close(LOOSE.log_evidence(X), gauss(0.0, float(p[0, 0].sqrt())).log_prob(X), **EXACT)
    cov = p[1:, 1:] - torch.outer(p[1:, 0], p[0, 1:]) / p[0, 0]
    for x, gap in zip(X, LOOSE.log_evidence(X) - LOOSE.telescoped(X).total, strict=True):
        q = MultivariateNormal(slope * x, q_cov)
        assert_close(gap, kl_divergence(q, MultivariateNormal(p[1:, 0] / p[0, 0] * x, cov)))
        assert gap > 0


def test_both_forms_of_the_bound_agree() -> None:
    ours, other = LOOSE.telescoped(X), LOOSE.unbayesed(X)
    assert_close(ours.total, other.total, **EXACT)
    assert (ours.inner - other.inner).abs().max() > 0.1  # they agree in sum, not term by term


def test_the_bound_is_the_expected_log_ratio() -> None:
    """E_q log p(x, z) - log q(z | x) by dense matrices, with no term named at all."""
    p, slope, q_cov = joints(LOOSE)
    for x, total in zip(X, LOOSE.telescoped(X).total, strict=True):
        mean = torch.cat([x[None], slope * x])
        cov = torch.block_diag(torch.zeros(1, 1, dtype=torch.float64), q_cov)
        square = (torch.linalg.inv(p) * (torch.outer(mean, mean) + cov)).sum()
        log_joint = -(len(mean) * math.log(2 * math.pi) + torch.logdet(p) + square) / 2
        entropy = MultivariateNormal(slope * x, q_cov).entropy()
        assert_close(total, log_joint + entropy, **EXACT)


def test_terms_before_bayes_are_not_expected_kls() -> None:
    """The form often printed, KL with z_t drawn afresh, overshoots by sum a c q / p."""
    m, w = LOOSE.encoded()
    z_square = m[:, None] ** 2 * X**2 + w[:, None]
    a, q, c, p = (k[1:, None] for k in (LOOSE.a, LOOSE.q, LOOSE.c, LOOSE.p))
    own_a, own_q = LOOSE.a[:-1, None], LOOSE.q[:-1, None]
    fresh = (1 - c * a) ** 2 * own_a**2 * z_square[:-2] + c**2 * (a**2 * own_q + q)
    excess = gaussian_kl(fresh, own_q, p) - LOOSE.unbayesed(X).inner
    assert_close(excess, (a * c * own_q / p).expand(-1, len(X)), **EXACT)
    assert excess.abs().min() > 0.05


@pytest.mark.parametrize("T", [50, 1000])
@pytest.mark.parametrize("var", [0.25, 1.0])
def test_gold_the_bound_is_tight_for_the_exact_reverse_process(T: int, var: float) -> None:
    """Gaussian data, exact denoiser and reverse variance: ELBO = log density at every x, any T."""
    chain = Chain.diffusion(Schedule.linear(T), var)
    truth = gauss(0.0, math.sqrt(var)).log_prob(X)
    for bound in (chain.log_evidence(X), chain.telescoped(X).total, chain.unbayesed(X).total):
        assert_close(bound, truth, atol=1e-10, rtol=0)


@pytest.mark.parametrize("T", [50, 1000])
def test_gold_the_diffusion_terms_add_up(T: int) -> None:
    """The same with the functions of `elbo`, expectations by (exact) Gauss-Hermite quadrature."""
    schedule, var = Schedule.linear(T), 0.25
    node, weight = (torch.from_numpy(k) for k in np.polynomial.hermite_e.hermegauss(3))
    x0 = (math.sqrt(var) * node).repeat_interleave(3)[:, None]  # (9, 1)
    noise, weight = node.repeat(3)[:, None], torch.outer(weight, weight).flatten()
    weight = weight / weight.sum()
    chain = Chain.diffusion(schedule, var)

    def believed(t: int) -> torch.Tensor:
        total = schedule.level(t) * var + 1 - schedule.level(t)
        return schedule.noise(x0, noise, t) * math.sqrt(schedule.level(t)) * var / total

    def negative_bound(variances: torch.Tensor) -> float:
        loss = elbo.prior(schedule, x0, var_p=chain.v)
        for t in range(2, T + 1):
            var_p = float(variances[t - 1])
            loss = loss + elbo.matching(schedule, x0, believed(t), t, t - 1, var_p=var_p)
        loss = loss - log_density((x0 - believed(1)) ** 2, chain.p[0])[:, 0]
        return float(weight @ loss)

    entropy = math.log(2 * math.pi * math.e * var) / 2
    assert abs(negative_bound(chain.p) - entropy) < 1e-10
    small = chain.p.clone()
    small[1:] = doubles(*(schedule.beta_tilde(t) for t in range(2, T + 1)))
    gap = negative_bound(small) - entropy
    assert 0.4 < gap < 3  # beta_tilde is right only when the data is a single point
    at_one_sd = replace(chain, p=small).telescoped(doubles(math.sqrt(var))).total
    assert_close(log_density(doubles(var), var) - at_one_sd, doubles(gap), atol=1e-10, rtol=0)


# ---- the terms of diffusion ----------------------------------------------------------------


def test_gaussian_kl_is_torchs() -> None:
    mean, other = doubles(0.3, -2.0, 1.0), doubles(0.1, 1.0, 1.0)
    sd, wide = doubles(0.2, 1.5, 1.0), doubles(0.7, 0.4, 1.0)
    ours = gaussian_kl((mean - other) ** 2, sd**2, wide**2)
    assert_close(ours, kl_divergence(Normal(mean, sd), Normal(other, wide)), **EXACT)
    assert ours[2] == 0 and (ours[:2] > 0).all()
    assert_close(log_density((mean - other) ** 2, sd**2), Normal(other, sd).log_prob(mean), **EXACT)


@pytest.mark.parametrize(("t", "s"), [(2, 1), (100, 99), (500, 400), (1000, 999)])
def test_matching_is_the_kl_of_two_steps(t: int, s: int) -> None:
    x0, eps = pair()
    x, x0_hat = LINEAR.noise(x0, eps, t), x0 + 0.1 * eps.flip(0)
    for sd in (sigma(LINEAR, t, s, 1.0), sigma(LINEAR, t, s, 0.3)):
        means = [posterior(LINEAR, x, k, t, s, sd) for k in (x0, x0_hat)]
        for var in (None, LINEAR.beta(t, s)):
            wide = sd if var is None else math.sqrt(var)
            direct = kl_divergence(Normal(means[0], sd), Normal(means[1], wide))
            ours = elbo.matching(LINEAR, x0, x0_hat, t, s, sd, var)
            assert_close(ours, direct.flatten(1).sum(1), atol=1e-9, rtol=1e-9)


def test_e19_weight_of_the_noise_error() -> None:
    """gamma(sd) is the KL's weight; DDPM's closed form at beta_tilde only; it grows as sd -> 0."""
    x0, eps = pair()
    for t, s in [(2, 1), (100, 99), (600, 500)]:
        wrong, x = eps + 0.1 * eps.flip(0), LINEAR.noise(x0, eps, t)
        square = (wrong - eps).square().flatten(1).sum(1)
        weights = []
        for eta in (1.0, 0.5, 0.01):
            sd = sigma(LINEAR, t, s, eta)
            direct = elbo.matching(LINEAR, x0, LINEAR.denoise(x, wrong, t), t, s, sd)
            assert_close(elbo.gamma(LINEAR, t, s, sd) * square, direct, atol=0, rtol=1e-9)
            weights.append(elbo.gamma(LINEAR, t, s, sd))
            beta, keep = LINEAR.beta(t, s), 1 - LINEAR.beta(t, s)
            ddpm = beta**2 / (2 * sd**2 * keep * (1 - LINEAR.level(t)))
            assert (weights[-1] == pytest.approx(ddpm, rel=1e-9)) == (eta == 1)
        assert weights[-1] > 100 * weights[0]


def test_matched_terms_are_differences_of_snr() -> None:
    x0, eps = pair()
    for t, s in [(2, 1), (100, 99), (1000, 500)]:
        weight = (elbo.snr(LINEAR, s) - elbo.snr(LINEAR, t)) / 2
        ours = elbo.matching(LINEAR, x0, x0 + eps, t, s)
        assert_close(ours, weight * eps.square().flatten(1).sum(1), atol=0, rtol=1e-9)


def test_prior_is_a_kl_and_tiny() -> None:
    x0, _ = pair()
    for t in (1, 400, 1000):
        q = Normal(math.sqrt(LINEAR.level(t)) * x0, math.sqrt(1 - LINEAR.level(t)))
        direct = kl_divergence(q, Normal(torch.zeros_like(x0), 1.0)).flatten(1).sum(1)
        assert_close(elbo.prior(LINEAR, x0, t), direct, atol=1e-11, rtol=1e-11)
    bits = elbo.bits_per_dim(elbo.prior(LINEAR, torch.full((1, 1), 0.5).double()), 1)
    assert f"{float(bits):.0e}" == "7e-06"  # more than 1e-3 would mean a wrong index or schedule


@pytest.mark.parametrize("sd", [1e-3, 0.02, 0.3, 50.0])
@pytest.mark.parametrize("mean", [-1.3, 0.0, 0.5012, 1.0])
def test_discretised_decoder_is_a_distribution(mean: float, sd: float) -> None:
    log_p = elbo.discretised(GRID, torch.full_like(GRID, mean), sd)
    assert_close(log_p.exp().sum(), doubles(1.0)[0], atol=1e-12, rtol=0)
    assert log_p.isfinite().all()  # 2,300 sd away, where a difference of cdfs is 0
    edges = torch.cat([doubles(-math.inf), (GRID[1:] + GRID[:-1]) / 2, doubles(math.inf)])
    direct = gauss(mean, sd).cdf(edges).diff()
    seen = direct > 1e-3
    assert_close(log_p[seen], direct[seen].log(), atol=1e-10, rtol=0)


def test_decoder_accepts_float32_grids() -> None:
    x = (torch.arange(256, dtype=torch.uint8).float() / 127.5 - 1)[None]
    log_p = elbo.discretised(x, torch.zeros_like(x), 0.4)
    assert_close(log_p[0], elbo.discretised(GRID, 0 * GRID, 0.4), atol=1e-4, rtol=0)


def test_bits_per_dim_of_a_uniform_guess_is_eight() -> None:
    assert elbo.bits_per_dim(3 * 64 * 64 * math.log(256), 3 * 64 * 64) == pytest.approx(8)


# ---- the whole bound of a model ------------------------------------------------------------


@pytest.mark.parametrize("variance", [None, LINEAR.beta])
def test_terms_of_a_path_estimate_the_exact_bound(variance, generator: torch.Generator) -> None:
    """50 hops of an exact denoiser on N(0, 1/16): the mean over draws meets the Gaussian chain."""
    path, var, n = LINEAR.trailing(50), 1 / 16, 4000
    chosen = Schedule(LINEAR.abar[path[::-1]])
    chain = Chain.diffusion(chosen, var)
    spread = [(variance or LINEAR.beta_tilde)(t, s) for t, s in pairwise(path[:-1])][::-1]
    chain = replace(chain, v=1.0, p=torch.cat([chain.p[:1], doubles(*spread)]))
    x0 = torch.full((n, 1), 0.25, dtype=torch.float64)

    def eps(x: torch.Tensor, t: int) -> torch.Tensor:
        level = LINEAR.level(t)
        return x * math.sqrt(1 - level) / (level * var + 1 - level)

    def decoder(x0: torch.Tensor, x0_hat: torch.Tensor) -> torch.Tensor:
        return log_density((x0 - x0_hat) ** 2, chain.p[0])

    parts = list(elbo.terms(eps, LINEAR, x0, path, generator, variance, decoder))
    assert [p.t for p in parts] == [1000, *path[:-1]]
    assert [p.name for p in parts] == ["prior", *["matching"] * 49, "decoder"]
    loss = torch.stack([p.nats for p in parts]).sum(0)
    exact = chain.telescoped(x0[:1, 0])
    assert abs(float(loss.mean() + exact.total)) < 4 * float(loss.std()) / math.sqrt(n)
    inner = torch.stack([p.nats for p in parts[1:-1]]).mean(1).flip(0)
    assert_close(inner, exact.inner[:, 0], atol=0.02, rtol=0.15)


def test_a_point_model_codes_its_picture_in_few_bits(generator: torch.Generator) -> None:
    """A predictor that knows the picture pays for the last noise only; one that errs pays more."""
    x0 = GRID[torch.randint(256, (2, 3, 4, 4), generator=generator)]
    path = LINEAR.trailing(1000)

    def knowing(believed: torch.Tensor):
        return lambda x, t: (x - LINEAR.scales(t, x)[0] * believed) / LINEAR.scales(t, x)[1]

    bits = [
        elbo.bits_per_dim(sum(p.nats for p in elbo.terms(eps, LINEAR, x0, path, generator)), 48)
        for eps in (knowing(x0), knowing(x0 + 0.05))
    ]
    assert (bits[0] < 1.5).all()
    assert (bits[1] > bits[0] + 5).all()


PICTURE = torch.zeros(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Chain(X, X[:3], X, X, 1.0), r"q: torch.float64 \(3,\)"),
        (lambda: Chain(X, X**2, X, X.float(), 1.0), "p: torch.float32"),
        (lambda: replace(LOOSE, v=0.0), "smallest variance is 0"),
        (lambda: gaussian_kl(1.0, 0.0, 1.0), "var_q: 0 is not > 0"),
        (lambda: elbo.gamma(LINEAR, 5, 4, 0.0), "sd: 0 is outside 0 < sd"),
        (lambda: elbo.gamma(LINEAR, 5, 4, 0.9), "sd: 0.9 is outside"),
        (lambda: elbo.snr(LINEAR, 0), r"t: 0 is outside 1\.\.1000"),
        (lambda: elbo.matching(LINEAR, X, X, 2, 1, var_p=-1.0), "var_p: -1 is not > 0"),
        (lambda: elbo.discretised(2 * GRID, GRID, 0.1), r"x: -2 \.\. 2 is outside \[-1, 1\]"),
        (lambda: elbo.discretised(GRID, GRID, 0.0), "sd: 0.0 is not > 0"),
        (lambda: elbo.bits_per_dim(1.0, 0), "dims: 0 is not an int >= 1"),
        (lambda: elbo.terms(None, LINEAR, PICTURE, [9, 1]), "path: ends at 1 after 1 hops"),
        (lambda: elbo.terms(None, LINEAR, PICTURE, [9, 0]), "path: ends at 0 after 1 hops"),
        (lambda: elbo.terms(None, LINEAR, PICTURE / 0, [9, 1, 0]), "x: 96 of 96 values are NaN"),
    ],
)
def test_bad_input_is_named_in_one_line(call, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
