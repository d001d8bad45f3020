"""What real data hides and this world knows: masks, depth, edges, and the perfect edit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .attributes import Portraits
from .render import CHUNK, SUPERSAMPLING, check_size, group_codes, render, visibility
from .scene import GROUPS, build

LEVEL = 2 / 255
"""One grey level of an 8-bit picture, in [-1, 1] units: less than this is no difference."""


@dataclass(frozen=True)
class Counterfactual:
    """The perfect edit of b portraits: same people, same scenes, only the named change.

    record: the edited records. source, image: pictures before and after, (b, 3, h, w) in [-1, 1].
    mask: (b, h, w) bool, true where the two pictures differ.
    """

    record: Portraits
    source: Tensor
    image: Tensor
    mask: Tensor


def counterfactual(
    p: Portraits, size: int = 64, **changes: str | float | Tensor
) -> Counterfactual:
    """Render `p` with and without `changes`; film grain and all fine detail stay the same.

    Args:
        p: b records.
        size: side in pixels, 32 to 256.
        changes: attribute = value, as in `Portraits.replace`; at least one.
    """
    if not changes:
        raise ValueError("changes must name at least one attribute, e.g. hat='beanie'")
    record = p.replace(**changes)
    source, image = render(p, size), render(record, size)
    return Counterfactual(record, source, image, difference(source, image))


def difference(a: Tensor, b: Tensor, threshold: float = LEVEL) -> Tensor:
    """Where two pictures (b, 3, h, w) differ by more than `threshold` in a channel: (b, h, w)."""
    if a.shape != b.shape or a.ndim != 4:
        raise ValueError(
            f"pictures must have one shape (b, 3, h, w), got {tuple(a.shape)}, {tuple(b.shape)}"
        )
    return (a - b).abs().amax(1) > threshold


def labels(p: Portraits, size: int = 64) -> Tensor:
    """Code of the group (see `GROUPS`) that most samples of each pixel show: (b, h, w) uint8.

    Equal counts go to the group nearer to the end of `GROUPS`: thin things stay connected.
    """
    return torch.cat([_labels(p[i : i + CHUNK], size) for i in range(0, len(p), CHUNK)])


def _labels(p: Portraits, size: int) -> Tensor:
    check_size(size)
    scene = build(p)
    part = visibility(p, scene, size * SUPERSAMPLING).part
    code = group_codes(scene, p.device)[(part + 1).long()]
    counts = torch.stack([
        F.avg_pool2d((code == k).float()[:, None], SUPERSAMPLING)[:, 0] + 1e-3 * k
        for k in range(len(GROUPS))
    ])  # fmt: skip
    return counts.argmax(0).to(torch.uint8)


def part_masks(p: Portraits, size: int = 64) -> dict[str, Tensor]:
    """A mask (b, h, w) bool for each group: background, clothes, skin, hair, ears, eyes, brows,
    mouth, beard, glasses, hat, earrings. Every pixel is in exactly one. Groups are what is seen:
    the eyes behind sunglasses are not."""
    code = labels(p, size)
    return {name: code == k for k, name in enumerate(GROUPS)}


def silhouette(p: Portraits, size: int = 64) -> Tensor:
    """Where the portrait hides the backdrop: (b, h, w) bool."""
    return labels(p, size) != GROUPS.index("background")


def depth(p: Portraits, size: int = 64) -> Tensor:
    """Depth (b, 1, h, w) in [0, 1]: 0 the backdrop, 1 the nearest that a face can come."""
    check_size(size)
    maps = []
    for i in range(0, len(p), CHUNK):
        some = p[i : i + CHUNK]
        z = visibility(some, build(some), size * SUPERSAMPLING).depth
        maps.append(F.avg_pool2d(((z + 0.8) / 1.8).clamp(0, 1)[:, None], SUPERSAMPLING))
    return torch.cat(maps)


def edges(p: Portraits, size: int = 64) -> Tensor:
    """A line drawing (b, 1, h, w) in {0, 1}: where the group changes or the depth jumps."""
    code, z = labels(p, size).float()[:, None], depth(p, size)
    line = torch.zeros_like(z, dtype=torch.bool)
    for field, jump in ((code, 0.5), (z, 0.06)):
        line[..., :-1] |= (field[..., 1:] - field[..., :-1]).abs() > jump
        line[..., :-1, :] |= (field[..., 1:, :] - field[..., :-1, :]).abs() > jump
    return line.to(z.dtype)


def strokes(images: Tensor, colours: int = 6, kernel: int = 7) -> Tensor:
    """A stroke painting of any pictures, the guide of SDEdit (Meng et al. 2022, appendix C).

    A median filter wipes out detail, then each picture keeps a palette of a few colours. The
    paper's filter is 23 pixels wide at 256 pixels; 7 is about the same share of 64.

    Args:
        images: (b, 3, h, w) in [-1, 1].
        colours: size of the palette, at least 2.
        kernel: side of the median filter, odd.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"images must have shape (b, 3, h, w), got {tuple(images.shape)}")
    if colours < 2:
        raise ValueError(f"colours must be at least 2, got {colours}")
    if kernel < 1 or kernel % 2 == 0:
        raise ValueError(f"kernel must be odd and positive, got {kernel}")
    half = kernel // 2
    padded = F.pad(images, (half,) * 4, mode="reflect")
    patches = padded.unfold(2, kernel, 1).unfold(3, kernel, 1).flatten(4)  # b 3 h w k*k
    return torch.stack([_posterise(image, colours) for image in patches.median(-1).values])


def _posterise(image: Tensor, colours: int, rounds: int = 12) -> Tensor:
    """Lloyd's k-means on the pixels of one picture, started at quantiles of the brightness."""
    pixels = image.flatten(1).T  # h*w 3
    order = pixels.sum(1).argsort()
    start = torch.linspace(0, len(order) - 1, 2 * colours + 1, device=image.device)[1::2].long()
    centres = pixels[order[start]]
    for _ in range(rounds):
        nearest = torch.cdist(pixels, centres).argmin(1)
        member = F.one_hot(nearest, colours).to(pixels.dtype)
        count = member.sum(0)[:, None]
        centres = torch.where(count > 0, member.T @ pixels / count.clamp(min=1), centres)
    nearest = torch.cdist(pixels, centres).argmin(1)
    return centres[nearest].T.reshape(image.shape)
