"""Lab 01: every term of the bound of a linear-Gaussian chain, and the gap as a KL divergence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from coursekit.classroom.check.spec import Case, Exercise, Mistake
from coursekit.diffusion.mhvae import Bound, Chain, gaussian_kl, log_density

HERE = "coursekit.diffusion.mhvae"
KLS = (f"{HERE}.gaussian_kl", "coursekit.diffusion.elbo.prior", "coursekit.diffusion.elbo.matching")
CHAIN = tuple(f"{HERE}.Chain.{name}" for name in ("encoded", "telescoped", "unbayesed"))
TORCH = ("torch.distributions.kl.kl_divergence", "torch.distributions.kl._kl_normal_normal")
FLOATS = {"float64": 1e-9, "float32": 2e-4}


def encoder(g: np.random.Generator, T: int) -> dict[str, np.ndarray]:
    return {"a": g.uniform(0.6, 1.2, T), "q": g.uniform(0.2, 0.8, T)}


def decoder(g: np.random.Generator, T: int) -> dict[str, np.ndarray]:
    return {"c": g.uniform(0.3, 0.9, T), "p": g.uniform(0.3, 0.9, T)}


def diffusion(g: np.random.Generator, T: int) -> dict[str, np.ndarray]:
    """Steps that keep the variance of data of variance one."""
    beta = g.uniform(0.1, 0.5, T)
    return {"a": np.sqrt(1 - beta), "q": beta}


def points(g: np.random.Generator, n: int) -> np.ndarray:
    """Values of x on both sides of zero, none close to it."""
    return g.uniform(0.5, 2.0, n) * np.where(np.arange(n) % 2, -1, 1)


def kept(got, wanted, args) -> bool:
    """Whether the values are right and only their dtype is not."""
    return isinstance(got, tuple) and all(
        g.shape == w.shape and torch.allclose(g.double(), w, 1e-4, 1e-4)
        for g, w in zip(got, wanted, strict=True))


DTYPE = Mistake("the numbers are right, their dtype is not that of a: torch.tensor(..), "
                "torch.ones(..) and torch.zeros(..) make float32 unless they are told a dtype",
                when=kept)


# ---- 01-1 the KL of two Gaussians ------------------------------------------------------------


def torch_kl(square: Tensor, var_q: Tensor, var_p: Tensor) -> Tensor:
    here = Normal(square.sqrt(), var_q.sqrt())
    return kl_divergence(here, Normal(torch.zeros_like(square), var_p.sqrt()))


def kl_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, square, var_q, var_p, dtype: str) -> Case:
        return Case(f"{what}, {dtype}", {"square": square, "var_q": var_q, "var_p": var_p}, dtype)

    yield case("six pairs", *g.uniform(0.3, 3.0, (3, 6)), "float64")
    yield case("a level in each row", g.uniform(0.1, 2.0, (4, 5)), g.uniform(0.2, 0.9, (4, 1)),
               g.uniform(1.2, 2.0, (4, 1)), "float32")
    yield case("single numbers", *map(np.array, g.uniform([0.3, 0.2, 1.2], [2.0, 0.9, 2.0])),
               "float64")
    same = g.uniform(0.3, 3.0, 5)
    yield case("one and the same law", np.zeros(5), same, same.copy(), "float64")


KL = Exercise(
    "01-1", "The price of a wrong Gaussian", 1, 5, 2, "kl(square, var_q, var_p)",
    public=kl_cases, wanted=torch_kl, study=(*KLS, *TORCH),
    mistakes=(
        Mistake("q and p have changed places: a KL divergence has a direction",
                lambda s, q, p: gaussian_kl(s, p, q)),
        Mistake("the factor in front of the bracket is missing",
                lambda s, q, p: 2 * gaussian_kl(s, q, p)),
        Mistake("the squared distance is measured in units of the wrong variance",
                lambda s, q, p: gaussian_kl(s * p / q, q, p)),
        Mistake("for two equal laws the bracket must be zero: a constant is missing in it",
                lambda s, q, p: gaussian_kl(s, q, p) + 0.5),
        Mistake("the logarithm has the wrong sign",
                lambda s, q, p: gaussian_kl(s, q, p) + (q / p).log()),
        Mistake("the distance comes squared already: do not square it again",
                lambda s, q, p: gaussian_kl(s**2, q, p)),
        Mistake("var_q and var_p are variances already: do not square them",
                lambda s, q, p: gaussian_kl(s, q**2, p**2)),
        Mistake("var_q and var_p are variances already: do not square them",
                lambda s, q, p: gaussian_kl(s * p / p**2, q**2 / p**2, torch.ones_like(p))),
        Mistake("var_q and var_p are variances, the formula has no deviations in it",
                lambda s, q, p: gaussian_kl(s, q.sqrt(), p.sqrt())),
        Mistake("the squared distance does not enter", lambda s, q, p: gaussian_kl(0 * s, q, p)),
        Mistake("only the distance enters: two laws of one mean differ, too, if their variances "
                "do", lambda s, q, p: s / p / 2),
        Mistake("the logarithm is the natural one: information is counted in nats",
                lambda s, q, p: gaussian_kl(s, q, p) + ((q / p).log() - (q / p).log2()) / 2),
    ),
)


# ---- 01-2 the marginals ----------------------------------------------------------------------


def marginals(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    return Chain(a, q, a, q, 1.0).encoded()


def marginal_cases(g: np.random.Generator) -> Iterator[Case]:
    yield Case("four steps, float64", encoder(g, 4))
    yield Case("nine steps, float32", encoder(g, 9), "float32")
    yield Case("one step, float64", encoder(g, 1))
    yield Case("a diffusion, float64", diffusion(g, 6))


def walk(step: Callable, w0: float = 0.0) -> Callable:
    """m as it should be, w by another rule (w, a_t, q_t) -> w."""
    def wrong(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        w = [torch.tensor(w0, dtype=torch.float64)]
        for a_t, q_t in zip(a, q, strict=True):
            w.append(step(w[-1], a_t, q_t))
        return marginals(a, q)[0], torch.stack(w)
    return wrong


def changed(rule: Callable) -> Callable:
    return lambda a, q: rule(*marginals(a, q))


MARGINALS = Exercise(
    "01-2", "Up the chain", 2, 10, 3, "marginals(a, q)",
    public=marginal_cases, wanted=marginals, study=CHAIN, tolerance=FLOATS,
    mistakes=(
        Mistake("a step scales the noise that is already there: what does that to its variance?",
                walk(lambda w, a, q: a * w + q)),
        Mistake("the old noise is scaled by the next step, too: variances do not just add up",
                walk(lambda w, a, q: w + q)),
        Mistake("q_t is a variance already: it is added as it is",
                walk(lambda w, a, q: a**2 * w + q**2)),
        Mistake("fresh noise comes in after the scaling: q_t is not scaled by its own step",
                walk(lambda w, a, q: a**2 * (w + q))),
        Mistake("only the last step's noise is left: that of the steps before is still there",
                walk(lambda w, a, q: q)),
        Mistake("one minus the square of m is the variance of a diffusion alone: here a and q "
                "are free", changed(lambda m, w: (m, 1 - m**2))),
        Mistake("at level 0 nothing is random yet: x is given", walk(
            lambda w, a, q: a**2 * w + q, 1.0)),
        Mistake("m multiplies x itself: it is a product of the a, not of their squares",
                changed(lambda m, w: (m**2, w))),
        Mistake("w is a variance, and this is its square root",
                changed(lambda m, w: (m, w.sqrt()))),
        Mistake("m and w have changed places", changed(lambda m, w: (w, m))),
        Mistake("level 0 is missing: both have T + 1 entries, the first is that of x itself",
                when=lambda got, wanted, args: len(got[0]) == len(args["a"])),
        Mistake("the chain is walked from its top: a[0] and q[0] belong to the first step, t = 1",
                lambda a, q: marginals(a.flip(0), q.flip(0))),
        Mistake("m is the number of one step alone: it is the product of all steps so far",
                lambda a, q: (torch.cat([torch.ones(1).double(), a]), marginals(a, q)[1])),
        DTYPE,
    ),
)


# ---- 01-3 the step back ----------------------------------------------------------------------


def back(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By adding precisions: what z_t says about z_{t-1}, and what x says."""
    m, w = (k[1:-1] for k in marginals(a, q))
    a, q = a[1:], q[1:]
    var = 1 / (a**2 / q + 1 / w)
    return var * a / q, var * m / w, var


def back_cases(g: np.random.Generator) -> Iterator[Case]:
    yield Case("four levels, float64", encoder(g, 4))
    yield Case("eight levels, float32", encoder(g, 8), "float32")
    yield Case("two levels, float64", encoder(g, 2))
    yield Case("a diffusion, float64", diffusion(g, 6))


def backwards(formula: Callable) -> Callable:
    """Formula of a namespace: a, q of t, m and w of t and (as m1, w1) of t - 1; k, g, var."""
    def wrong(a: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (m, w), (k, g, var) = marginals(a, q), back(a, q)
        return formula(SimpleNamespace(a=a[1:], q=q[1:], m=m[2:], w=w[2:], m1=m[1:-1], w1=w[1:-1],
                                       below=q[:-1], k=k, g=g, var=var))
    return wrong


BACK = Exercise(
    "01-3", "The step back", 3, 15, 3, "step_back(a, q)",
    public=back_cases, wanted=back, study=CHAIN, tolerance=FLOATS,
    mistakes=(
        Mistake("the variance is that of the step up: knowing x as well must leave less",
                backwards(lambda s: (s.k, s.g, s.q))),
        Mistake("the variance is that of z_{t-1} before z_t is seen: seeing it must leave less",
                backwards(lambda s: (s.k, s.g, s.w1))),
        Mistake("the third is a variance, and this is its square root",
                backwards(lambda s: (s.k, s.g, s.var.sqrt()))),
        Mistake("the first two are not divided by w_t",
                backwards(lambda s: (s.k * s.w, s.g * s.w, s.var))),
        Mistake("nothing is divided by w_t",
                backwards(lambda s: (s.k * s.w, s.g * s.w, s.var * s.w))),
        Mistake("divided by w of t - 1: the sum of both precisions brings in w_t", backwards(
            lambda s: (s.k * s.w / s.w1, s.g * s.w / s.w1, s.var * s.w / s.w1))),
        Mistake("a_t is missing in what multiplies z_t",
                backwards(lambda s: (s.k / s.a, s.g, s.var))),
        Mistake("w of t and of t - 1 have changed places in what multiplies z_t",
                backwards(lambda s: (s.a * s.w / s.w1, s.g, s.var))),
        Mistake("what multiplies x takes m of t: before z_t is seen, the mean of z_{t-1} is "
                "another multiple of x", backwards(lambda s: (s.k, s.q * s.m / s.w, s.var))),
        Mistake("what multiplies x takes q of t - 1", backwards(
            lambda s: (s.k, s.below * s.m1 / s.w, s.var))),
        Mistake("x has no say: the step back is told z_t and x",
                backwards(lambda s: (s.k, 0 * s.g, s.var))),
        Mistake("the first two have changed places: first what multiplies z_t, then what "
                "multiplies x", backwards(lambda s: (s.g, s.k, s.var))),
        Mistake("a and q of t - 1 are used: a[t-1] and q[t-1] belong to t, and t begins at 2",
                lambda a, q: tuple(
                    v for v in backwards(lambda s: (
                        a[:-1] * s.w1 / s.w, q[:-1] * s.m1 / s.w, s.w1 * q[:-1] / s.w))(a, q))),
        Mistake("t begins at 2, for T - 1 entries: below z_1 there is x itself, and no step back",
                when=lambda got, wanted, args: len(got[0]) >= len(args["a"])),
        DTYPE,
    ),
)


# ---- 01-4 the matching terms -----------------------------------------------------------------


def matching(x: Tensor, a: Tensor, q: Tensor, c: Tensor, p: Tensor) -> Tensor:
    return Chain(a, q, c, p, 1.0).telescoped(x).inner


def matching_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, T: int, n: int, dtype: str, up: Callable = encoder) -> Case:
        args = {"x": points(g, n), **up(g, T), **decoder(g, T)}
        return Case(f"{what}, {dtype}", args, dtype)

    yield case("four levels", 4, 5, "float64")
    yield case("seven levels", 7, 3, "float32")
    yield case("two levels", 2, 4, "float64")
    yield case("a diffusion", 5, 3, "float64", diffusion)


def matched(formula: Callable) -> Callable:
    """Formula of x and of columns: k, g, var, c, p of t, d = k - c, m and w of t and t - 1."""
    def wrong(x: Tensor, a: Tensor, q: Tensor, c: Tensor, p: Tensor) -> Tensor:
        (m, w), (k, g, var) = marginals(a, q), back(a, q)
        columns = {"k": k, "g": g, "var": var, "c": c[1:], "p": p[1:], "d": k - c[1:], "m": m[2:],
                   "w": w[2:], "m1": m[1:-1], "w1": w[1:-1], "p1": p[:-1], "d1": k - c[:-1],
                   "a1": a[:-1], "m2": m[:-2], "w2": w[:-2], "q1": q[:-1]}
        return formula(SimpleNamespace(x=x, **{n: v[:, None] for n, v in columns.items()}))
    return wrong


def off(s: SimpleNamespace) -> Tensor:
    """The expected squared distance of the two means."""
    return (s.x * (s.d * s.m + s.g)).square() + s.d.square() * s.w


def printed(s: SimpleNamespace) -> Tensor:
    """The un-Bayes'd terms as KL divergences: z_{t-1} from z_{t-2} against z_{t-1} from z_t."""
    gap = s.a1 * s.m2 - s.c * s.m
    cross = (s.a1 - s.c * s.m / s.m2).square() * s.w2 + s.c.square() * (
        s.w - (s.m / s.m2).square() * s.w2)
    return gaussian_kl(gap.square() * s.x**2 + cross, s.q1, s.p)


MATCHING = Exercise(
    "01-4", "The price of not knowing x", 3, 15, 4, "matching(x, a, q, c, p)",
    public=matching_cases, wanted=matching, study=(*KLS, *CHAIN), tolerance=FLOATS,
    mistakes=(
        Mistake("z_t has a variance, and it is missing in the expected square",
                matched(lambda s: gaussian_kl((s.x * (s.d * s.m + s.g)) ** 2, s.var, s.p))),
        Mistake("z_t has a mean, and it is missing in the expected square",
                matched(lambda s: gaussian_kl((s.x * s.g) ** 2 + s.d**2 * s.w, s.var, s.p))),
        Mistake("what the step back is told by x is missing in the distance of the means",
                matched(lambda s: gaussian_kl((s.x * s.d * s.m) ** 2 + s.d**2 * s.w, s.var, s.p))),
        Mistake("z_t is drawn at its own level: m and w of t - 1 are used", matched(
            lambda s: gaussian_kl((s.x * (s.d * s.m1 + s.g)) ** 2 + s.d**2 * s.w1, s.var, s.p))),
        Mistake("the decoder's numbers are those of t - 1: c[t-1] and p[t-1] belong to t",
                matched(lambda s: gaussian_kl(
                    (s.x * (s.d1 * s.m + s.g)) ** 2 + s.d1**2 * s.w, s.var, s.p1))),
        Mistake("the KL divergence is taken the other way round: the encoder's step comes first",
                matched(lambda s: gaussian_kl(off(s), s.p, s.var))),
        Mistake("only the distance of the means is paid for: the two variances differ, too",
                matched(lambda s: off(s) / s.p / 2)),
        Mistake("w is a variance already: it enters as it is",
                matched(lambda s: gaussian_kl(
                    (s.x * (s.d * s.m + s.g)) ** 2 + s.d**2 * s.w**2, s.var, s.p))),
        Mistake("what multiplies the noise of z_t must be squared in a variance",
                matched(lambda s: gaussian_kl(
                    (s.x * (s.d * s.m + s.g)) ** 2 + s.d.abs() * s.w, s.var, s.p))),
        Mistake("the squares are missing where the means enter: kl asks for a squared distance",
                matched(lambda s: gaussian_kl(s.x * (s.d * s.m + s.g), s.var, s.p))),
        Mistake("the step back that knows x is not used: the encoder's step up stands in its "
                "place", matched(printed)),
        Mistake("the terms are summed over the levels: a row for each is asked for",
                when=lambda got, wanted, args: got.shape == args["x"].shape != wanted.shape),
        Mistake("t begins at 2, for T - 1 rows: at t = 1 there is the reconstruction",
                when=lambda got, wanted, args: got.shape == (len(args["a"]), len(args["x"]))),
    ),
)


# ---- 01-5 the whole bound --------------------------------------------------------------------


def bound(x: Tensor, a: Tensor, q: Tensor, c: Tensor, p: Tensor, v: float) -> Tensor:
    """In its other form, in which no step is turned round."""
    return Chain(a, q, c, p, v).unbayesed(x).total


def chain_args(g: np.random.Generator, T: int, n: int, up: Callable = encoder) -> dict:
    return {"x": points(g, n), **up(g, T), **decoder(g, T), "v": float(g.uniform(1.5, 2.5))}


def exact_args(g: np.random.Generator, T: int, n: int) -> dict:
    """A chain whose decoder runs the encoder backwards."""
    up = encoder(g, T)
    best = Chain.tight(*map(torch.from_numpy, up.values()), float(g.uniform(0.4, 0.9)))
    return {"x": points(g, n), **up, "c": best.c.numpy(), "p": best.p.numpy(), "v": best.v}


def bound_cases(g: np.random.Generator) -> Iterator[Case]:
    yield Case("four levels, float64", chain_args(g, 4, 5))
    yield Case("seven levels, float32", chain_args(g, 7, 3), "float32")
    yield Case("a diffusion, float64", chain_args(g, 5, 4, diffusion))
    yield Case("the decoder that leaves no gap, float64", exact_args(g, 3, 5))


def parts(formula: Callable) -> Callable:
    """Formula of a Bound and of the arguments, in a namespace with m, w of the top."""
    def wrong(x: Tensor, a: Tensor, q: Tensor, c: Tensor, p: Tensor, v: float) -> Tensor:
        m, w = marginals(a, q)
        return formula(Chain(a, q, c, p, v).telescoped(x), SimpleNamespace(
            x=x, a=a[0], q=q[0], c=c[0], p=p[0], v=v, m=m[-1], w=w[-1]))
    return wrong


def guess(formula: Callable) -> Callable:
    """The bound with another reconstruction."""
    return parts(lambda b, s: b.total - b.reconstruction + formula(s))


def top(formula: Callable) -> Callable:
    """The bound with another distance to the prior."""
    return parts(lambda b, s: b.total + b.prior - formula(s))


def mean_square(s: SimpleNamespace) -> Tensor:
    return (s.x * (1 - s.c * s.a)).square() + s.q * s.c.square()


def slip(x, a, q, c, p, v) -> Tensor:
    b = Chain(a, q, c, p, v).unbayesed(x)
    return b.total - (a[1:] * c[1:] * q[:-1] / p[1:]).sum()


def above(got: Tensor, wanted: Tensor, args: dict) -> bool:
    rest = [args[name] for name in ("a", "q", "c", "p", "v")]
    return bool((got > Chain(*rest).log_evidence(args["x"]) + 1e-3).any())


def sums(b: Bound) -> Tensor:
    return b.inner.sum(0)


BOUND = Exercise(
    "01-5", "The whole bound", 3, 15, 4, "elbo(x, a, q, c, p, v)",
    public=bound_cases, wanted=bound, study=(*KLS, *CHAIN, f"{HERE}.Chain._reconstruction"),
    tolerance=FLOATS,
    mistakes=(
        Mistake("the distance of the top to the prior is missing",
                parts(lambda b, s: b.reconstruction - sums(b))),
        Mistake("the matching terms are missing",
                parts(lambda b, s: b.reconstruction - b.prior)),
        Mistake("the reconstruction is missing", parts(lambda b, s: -b.prior - sums(b))),
        Mistake("a KL divergence is a price: the matching terms are to be taken off",
                parts(lambda b, s: b.reconstruction - b.prior + sums(b))),
        Mistake("a KL divergence is a price: the distance to the prior is to be taken off",
                parts(lambda b, s: b.reconstruction + b.prior - sums(b))),
        Mistake("a KL divergence is a price: both kinds are to be taken off",
                parts(lambda b, s: b.reconstruction + b.prior + sums(b))),
        Mistake("the matching terms are averaged over the levels: their sum is asked for",
                parts(lambda b, s: b.reconstruction - b.prior - b.inner.mean(0))),
        Mistake("z_1 has a variance, and it is missing in the expected square of the "
                "reconstruction",
                guess(lambda s: log_density((s.x * (1 - s.c * s.a)) ** 2, s.p))),
        Mistake("the reconstruction is a log density: its normalising constant is missing",
                guess(lambda s: -mean_square(s) / s.p / 2)),
        Mistake("the reconstruction is a log density: a part of its constant is missing",
                guess(lambda s: -(s.p.log() + mean_square(s) / s.p) / 2)),
        Mistake("the decoder's variance is squared in the reconstruction: p is a variance already",
                guess(lambda s: log_density(mean_square(s), s.p**2))),
        Mistake("the noise of z_1 reaches the guess of x through c_1: so must its variance",
                guess(lambda s: log_density((s.x * (1 - s.c * s.a)) ** 2 + s.q, s.p))),
        Mistake("z_1 is no copy of x: its mean is a_1 x",
                guess(lambda s: log_density((s.x * (1 - s.c)) ** 2 + s.c**2 * s.q, s.p))),
        Mistake("the prior's variance is v, not one",
                top(lambda s: gaussian_kl(s.m**2 * s.x**2, s.w, 1.0))),
        Mistake("the prior's variance is squared: v is a variance already",
                top(lambda s: gaussian_kl(s.m**2 * s.x**2, s.w, s.v**2))),
        Mistake("the distance to the prior is taken the other way round",
                top(lambda s: gaussian_kl(s.m**2 * s.x**2, s.v, s.w))),
        Mistake("the top still remembers x: its mean is missing in the distance to the prior",
                top(lambda s: gaussian_kl(0 * s.x, s.w, s.v))),
        Mistake("kl asks for a squared distance: that of the top to the prior is not squared",
                top(lambda s: gaussian_kl(s.m * s.x, s.w, s.v))),
        Mistake("the inner terms are the un-Bayes'd ones, printed as KL divergences, which they "
                "are not", slip),
        Mistake("this is log p(x) itself: the bound is asked for", lambda x, a, q, c, p, v:
                Chain(a, q, c, p, v).log_evidence(x)),
        Mistake("this is the loss, which training makes small: the bound has the other sign",
                lambda *args: -bound(*args)),
        Mistake("this is summed or averaged over the values of x: each has a bound of its own",
                when=lambda got, wanted, args: got.numel() == 1 < wanted.numel()),
        Mistake("this lies above log p(x) for some x, which no lower bound may do", when=above),
    ),
)


# ---- 01-6 the gap ----------------------------------------------------------------------------


def gap(x: Tensor, a: Tensor, q: Tensor, c: Tensor, p: Tensor, v: float) -> Tensor:
    """By dense covariances: the divergence of the first t levels, less that of the first t - 1."""
    T = len(a)
    down, up = torch.eye(T + 1).double(), torch.eye(T).double()
    for t in range(T - 1, -1, -1):
        down[t, t + 1:] = c[t] * down[t + 1, t + 1:]
    for t in range(1, T):
        up[t, :t] = a[t] * up[t - 1, :t]
    joint = (down * torch.cat([p, p.new_tensor([v])])) @ down.T
    slope, rest = joint[1:, 0] / joint[0, 0], joint[1:, 1:]
    rest = rest - joint[1:, :1] * joint[:1, 1:] / joint[0, 0]
    spread, total = (up * q) @ up.T, [torch.zeros_like(x)]
    for t in range(1, T + 1):
        total.append(kl_divergence(
            MultivariateNormal(x[:, None] * a.cumprod(0)[:t], spread[:t, :t]),
            MultivariateNormal(x[:, None] * slope[:t], (rest + rest.T)[:t, :t] / 2)))
    return torch.stack(total).diff(dim=0)


def gap_cases(g: np.random.Generator) -> Iterator[Case]:
    yield Case("four levels, float64", chain_args(g, 4, 5))
    yield Case("six levels, float32", chain_args(g, 6, 3), "float32")
    yield Case("a plain VAE with one latent, float64", chain_args(g, 1, 4))
    yield Case("the decoder that leaves no gap, float64", exact_args(g, 3, 5))


def turned(formula: Callable) -> Callable:
    """Formula of columns: A, Q of p(z_t | z_{t-1}), V and U its variances at t and t - 1, ..."""
    def wrong(x: Tensor, a: Tensor, q: Tensor, c: Tensor, p: Tensor, v: float) -> Tensor:
        V = [torch.tensor(v, dtype=torch.float64)]
        for c_t, p_t in zip(c.flip(0), p.flip(0), strict=True):
            V.append(c_t**2 * V[-1] + p_t)
        V, (m, w) = torch.stack(V[::-1]), marginals(a, q)
        V, U = V[1:], V[:-1]
        columns = {"a": a, "q": q, "c": c, "p": p, "V": V, "U": U, "A": c * V / U, "Q": p * V / U,
                   "m": m[:-1], "w": w[:-1], "m1": m[1:], "w1": w[1:]}
        return formula(SimpleNamespace(x=x, v=v, **{n: k[:, None] for n, k in columns.items()}))
    return wrong


def apart(s: SimpleNamespace, A: Tensor, Q: Tensor) -> Tensor:
    return gaussian_kl((s.a - A) ** 2 * ((s.m * s.x) ** 2 + s.w), s.q, Q)


GAP = Exercise(
    "01-6", "The gap, level by level", 4, 20, 4, "gap(x, a, q, c, p, v)",
    public=gap_cases, wanted=gap, study=(*KLS, *CHAIN, f"{HERE}.Chain.log_evidence"),
    tolerance={"float64": 1e-8, "float32": 5e-4},
    mistakes=(
        Mistake("the decoder's step down stands where its step up should: c and p speak about "
                "z_{t-1}, given z_t", turned(lambda s: apart(s, s.c, s.p))),
        Mistake("the slope of the decoder's step up is still c: turn it round, too",
                turned(lambda s: apart(s, s.c, s.Q))),
        Mistake("the variance of the decoder's step up is still p: turn it round, too",
                turned(lambda s: apart(s, s.A, s.p))),
        Mistake("the decoder's variances of t and t - 1 have changed places",
                turned(lambda s: apart(s, s.c * s.U / s.V, s.p * s.U / s.V))),
        Mistake("the decoder's variance is v at the top alone: carry it down, level by level",
                turned(lambda s: apart(s, s.c, s.p * s.v / (s.c**2 * s.v + s.p)))),
        Mistake("the decoder's variance is v at the top alone: carry it down, level by level",
                turned(lambda s: apart(s, s.c * s.v / (s.c**2 * s.v + s.p),
                                       s.p * s.v / (s.c**2 * s.v + s.p)))),
        Mistake("the encoder's z_{t-1} has a variance, and it is missing in the expected square",
                turned(lambda s: gaussian_kl((s.a - s.A) ** 2 * (s.m * s.x) ** 2, s.q, s.Q))),
        Mistake("the encoder's z_{t-1} has a mean, and it is missing in the expected square",
                turned(lambda s: gaussian_kl((s.a - s.A) ** 2 * (s.w + 0 * s.x), s.q, s.Q))),
        Mistake("the expected square is that of z_t: both steps up start from z_{t-1}",
                turned(lambda s: gaussian_kl(
                    (s.a - s.A) ** 2 * ((s.m1 * s.x) ** 2 + s.w1), s.q, s.Q))),
        Mistake("the expected square is that of z_{t-1} under the decoder: the expectation is "
                "over the encoder", turned(lambda s: gaussian_kl(
                    (s.a - s.A) ** 2 * (s.U + 0 * s.x), s.q, s.Q))),
        Mistake("x stands in the place of z_{t-1} at every level",
                turned(lambda s: gaussian_kl((s.a - s.A) ** 2 * s.x**2, s.q, s.Q))),
        Mistake("the KL divergence is taken the other way round: the encoder comes first",
                turned(lambda s: gaussian_kl(
                    (s.a - s.A) ** 2 * ((s.m * s.x) ** 2 + s.w), s.Q, s.q))),
        Mistake("the rows run from the top down: the first is t = 1",
                turned(lambda s: apart(s, s.A, s.Q).flip(0))),
        Mistake("this is summed over the levels: a row for each is asked for",
                when=lambda got, wanted, args: got.shape == args["x"].shape != wanted.shape),
        Mistake("the sign is the other way round: a gap is never negative",
                lambda *args: -gap(*args)),
        Mistake("a KL divergence is never negative, and some of these are: look at what stands "
                "for a variance", when=lambda got, wanted, args: bool((got < -1e-3).any())),
    ),
)

EXERCISES = (KL, MARGINALS, BACK, MATCHING, BOUND, GAP)
