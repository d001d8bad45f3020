"""The judge's gates, measured on renders it has never seen; here the peer is the bar to reach.

Full world, film grain on. A categorical attribute counts as seen where any other of its values
would change at least 12 pixels by more than 0.08 in a channel; what is not seen is reported apart,
without a bar. The share that is seen is measured on SEEN portraits and on all that were misread.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from coursekit import portraits, pretrained
from coursekit.bench import Row
from coursekit.classroom import metrics
from coursekit.nets.judge import READ, Judge, Reading
from coursekit.portraits import CATEGORICAL, IDENTITY, TRAINING, Portraits, truth
from coursekit.recipes._changes import fitting

N, SEEN, PAIRS, SET = 2000, 200, 1000, 1000
PIXELS, THRESHOLD = 12, 0.08
HELD_OUT = 10**9  # seeds from here on are none of the training set's
BARS = {"age": 0.97, "smile": 0.97, "yaw": 0.97, "light": 0.97}


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """Gates of the shipped judge: accuracy, R^2, verification, silhouette, monotone distances."""
    judge = pretrained.load("judge", device).net
    generator = torch.Generator().manual_seed(HELD_OUT + seed)
    p = portraits.sample(N, generator, device=device)
    x = portraits.render(p)
    reading = metrics.readings(judge, x)
    yield from categorical(p, reading)
    for name in READ[len(IDENTITY):]:
        yield Row(f"{name}: R^2", r2(reading.value(name), getattr(p, name)), BARS.get(name),
                  "", "higher", N)
    fit = sum(r2(reading.value(name), getattr(p, name)) for name in IDENTITY) / len(IDENTITY)
    yield Row("identity parameters: mean R^2", fit, None, "", "higher", N)
    for name, kept in (("all else changed", ()), ("all but style changed", ("style",))):
        told, alike = verification(judge, generator, kept, device)
        yield Row(f"identity, {name}: AUC", told, 0.99, "", "higher", 2 * PAIRS)
        yield Row(f"identity, {name}: AUC of ID_w", alike, None, "", "higher", 2 * PAIRS)
    yield Row("silhouette: IoU", overlap(judge, p, x), 0.97, "", "higher", N)
    yield from growth(judge, generator, device)


# ---- attributes -----------------------------------------------------------------------------


def categorical(p: Portraits, reading: Reading) -> Iterator[Row]:
    """Two rows an attribute (seen, not seen), then the seen ones by style."""
    wrong, seen_wrong, seen_share = {}, {}, {}
    style = p.style
    for name in CATEGORICAL:
        wrong[name] = reading.index(name) != getattr(p, name)
        seen_wrong[name] = torch.zeros_like(wrong[name])
        rows_ = wrong[name].nonzero()[:, 0]
        if len(rows_):
            seen_wrong[name][rows_] = seen(p[rows_], name)
        seen_share[name] = seen(p[:SEEN], name)
        count = N * seen_share[name].float().mean().item()
        if count:
            yield Row(f"{name}: accuracy", 1 - seen_wrong[name].sum().item() / count, 0.99, "",
                      "higher", round(count))
        if N - count >= 1:
            hidden = wrong[name].sum().item() - seen_wrong[name].sum().item()
            yield Row(f"{name}, not seen: accuracy", max(0.0, 1 - hidden / (N - count)), None, "",
                      "higher", round(N - count))
    for k, value in enumerate(CATEGORICAL["style"]):
        mine, sub = style == k, style[:SEEN] == k
        errors = sum(int((seen_wrong[name] & mine).sum()) for name in CATEGORICAL)
        share = sum(seen_share[name][sub].float().mean().item() for name in CATEGORICAL)
        count = share * int(mine.sum())
        yield Row(f"style {value}: accuracy", 1 - errors / count, 0.99, "", "higher", round(count))


def seen(p: Portraits, name: str) -> Tensor:
    """(b,) bool: every other value of the attribute would change at least 12 pixels."""
    image = portraits.render(p)
    least = torch.full((len(p),), 64 * 64, device=p.device)
    for k in range(1, len(CATEGORICAL[name])):
        code = (getattr(p, name) + k) % len(CATEGORICAL[name])
        other = portraits.render(p.replace(**{name: code}))
        least = torch.minimum(least, truth.difference(image, other, THRESHOLD).sum((1, 2)))
    return least >= PIXELS


def r2(said: Tensor, true: Tensor) -> float:
    """Coefficient of determination: 1 - squared error over variance."""
    return float(1 - (said - true).square().mean() / true.var(correction=0))


# ---- identity and silhouette ----------------------------------------------------------------


def verification(judge: Judge, generator: torch.Generator, kept: tuple[str, ...],
                 device: str) -> tuple[float, float]:
    """The same person against another of the same subject, all but `kept` redrawn: AUC of the
    likelihood ratio `same_w`, and of the cosine `id_w`."""
    from sklearn.metrics import roc_auc_score  # it takes 1.5 s; `samples` needs only `blur`

    first, second, other = (portraits.sample(PAIRS, generator, device=device) for _ in range(3))
    same = {k: getattr(first, k) for k in ("subject", *kept)}
    second = fitting(second.replace(**same, **{k: getattr(first, k) for k in IDENTITY}))
    other = fitting(other.replace(**same))
    x, y, z = (portraits.render(q) for q in (first, second, other))
    right = [1] * PAIRS + [0] * PAIRS
    scores = (torch.cat([metric(judge, x, y), metric(judge, x, z)]).cpu()
              for metric in (metrics.same_w, metrics.id_w))
    return tuple(float(roc_auc_score(right, score)) for score in scores)


@torch.no_grad()
def overlap(judge: Judge, p: Portraits, x: Tensor) -> float:
    """Intersection over union of the silhouettes, mean over portraits."""
    said = torch.cat([judge.silhouette(some) for some in x.split(metrics.BATCH)])
    return float(metrics.iou(said, truth.silhouette(p)).mean())


# ---- distances ------------------------------------------------------------------------------


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of sigma pixels; the picture goes on beyond its border as a mirror."""
    if sigma == 0:
        return x
    half = int(3 * sigma + 1)
    line = torch.exp(-(torch.arange(-half, half + 1, device=x.device) ** 2) / (2 * sigma**2))
    line = (line / line.sum()).expand(3, 1, -1)
    x = F.pad(x, (half,) * 4, mode="reflect")
    x = F.conv2d(x, line[:, :, None], groups=3)
    return F.conv2d(x, line[..., None], groups=3)


def growth(judge: Judge, generator: torch.Generator, device: str) -> Iterator[Row]:
    """How much FID_w and LPIPS_w grow with each step of harm, at the smallest: the bar is 1."""
    reference, p = (portraits.sample(SET, generator, device=device, **TRAINING) for _ in range(2))
    ideal = metrics.statistics(judge, portraits.render(reference))
    x = portraits.render(p)
    noise = torch.randn(x.shape, generator=generator).to(device)
    tint = torch.tensor([1.0, 0.0, -1.0], device=device).view(3, 1, 1)
    harms: dict[str, tuple[Callable[[float], Tensor], tuple[float, ...]]] = {
        "blur 0 to 2 px": (lambda s: blur(x, s), (0, 0.5, 1, 1.5, 2)),
        "noise 0 to 0.4": (lambda s: (x + s * noise).clamp(-1, 1), (0, 0.05, 0.1, 0.2, 0.4)),
        "colour shift 0 to 0.4": (lambda s: (x + s * tint).clamp(-1, 1), (0, 0.05, 0.1, 0.2, 0.4)),
    }
    for name, (harm, strengths) in harms.items():
        yield _steps(f"FID_w, {name}", [
            metrics.frechet(metrics.statistics(judge, harm(s)), ideal) for s in strengths])
        yield _steps(f"LPIPS_w, {name}", [
            metrics.lpips_w(judge, x, harm(s)).mean().item() for s in strengths[1:]])
    keep = [x[p.subject < len(CATEGORICAL["subject"]) - k] for k in range(5)]
    fewest = len(keep[-1])
    yield _steps("FID_w, 0 to 4 subjects dropped", [
        metrics.frechet(metrics.statistics(judge, some[:fewest]), ideal) for some in keep])


def _steps(name: str, values: list[float]) -> Row:
    least = min(b / a for a, b in zip(values, values[1:], strict=False))
    return Row(f"{name}: least growth", least, 1.0, "x", "higher", SET)
