"""Lab 07: what text to image is made of, from the contrastive loss to the maps of words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from coursekit.classroom.check.calls.lab07 import (
    TIMES,
    Conditional,
    counted,
    others,
    starts,
)
from coursekit.classroom.check.compare import alike
from coursekit.classroom.check.spec import Case, Exercise, Mistake, named

CLIP, LATENT, MAPS = (f"coursekit.nets.{part}" for part in ("clip", "latent", "wordmaps"))


def unit(x: Tensor) -> Tensor:
    """Rows along the last axis scaled to length one."""
    return x / x.norm(dim=-1, keepdim=True)


def raw(x: Tensor) -> Tensor:
    return x


close = partial(alike, double=1e-7, single=3e-4)


def only(key: str, wrong: Callable) -> Callable:
    """Whether of several results this one alone is a wrong one's, the others being right."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        rest = all(close(got[k], wanted[k]) for k in wanted if isinstance(wanted[k], Tensor)
                   and k != key)
        return rest and not close(got[key], wanted[key]) and close(got[key], wrong(*args.values()))
    return when


def unequal(g: np.random.Generator, *shape: int, low: float = 0.4, high: float = 4) -> np.ndarray:
    """Lengths for vectors, far from one."""
    return g.uniform(low, high, (*shape, 1))


# ---- 07-1 the contrastive loss -----------------------------------------------------------------


def contrast_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, n: int, d: int, apart: float, scale: float, dtype: str) -> Case:
        pictures = g.standard_normal((n, d))
        texts = pictures + apart * g.standard_normal((n, d))
        if scale > 10:
            texts[:2] = texts[1::-1]
        return Case(f"{what}, {dtype}", {
            "pictures": pictures * unequal(g, n), "texts": texts * unequal(g, n),
            "log_scale": np.array(np.log(scale * g.uniform(0.97, 1.03)))}, dtype)

    yield case("pairs that fit", 6, 5, 0.5, 5.0, "float64")
    yield case("pairs that fit badly", 4, 8, 3.0, 3.0, "float32")
    yield case("a cold temperature, two captions exchanged", 5, 6, 0.1, 105.0, "float32")
    yield case("a larger batch", 40, 16, 1.0, 8.0, "float64")


def table(pictures: Tensor, texts: Tensor, log_scale: Tensor) -> Tensor:
    return log_scale.exp() * torch.einsum("id,jd->ij", unit(pictures), unit(texts))


def choosing(logits: Tensor, axis: int) -> Tensor:
    """How badly each row (axis 1) or column (axis 0) chooses its own, by the mean."""
    return (logits.logsumexp(axis) - logits.diagonal()).mean()


def both(logits: Tensor) -> Tensor:
    return (choosing(logits, 0) + choosing(logits, 1)) / 2


def scored(change: Callable = lambda logits: logits, end: Callable = both) -> Callable:
    """The loss with its logits or what is made of them altered."""
    return lambda pictures, texts, s: end(change(table(pictures, texts, s)))


def along(pictures: Callable = unit, texts: Callable = unit,
          scale: Callable = torch.exp) -> Callable:
    """The loss with its lengths or its scale altered."""
    return lambda p, t, s: both(scale(s) * pictures(p) @ texts(t).T)


CONTRAST = Exercise(
    "07-1", "The contrastive loss", 2, 10, 3, "contrastive(pictures, texts, log_scale)",
    public=contrast_cases, wanted=scored(), tolerance={"float64": 1e-9, "float32": 2e-4},
    study=("open_clip.loss.ClipLoss.forward", "open_clip.loss.ClipLoss.get_logits",
           "transformers.models.clip.modeling_clip.image_text_contrastive_loss"),
    mistakes=(
        Mistake("the embeddings are compared as they come: scale each of them to length one first",
                along(raw, raw)),
        Mistake("only one of the two sides has length one: both are needed", along(raw)),
        Mistake("only one of the two sides has length one: both are needed",
                along(texts=raw)),
        Mistake("lengths were taken down the batch: each row is an embedding and gets length "
                "one", along(*2 * (lambda x: F.normalize(x, dim=0),))),
        Mistake("only the pictures choose among the texts: the texts choose among the pictures, "
                "too, and the loss is the mean of both",
                scored(end=lambda logits: choosing(logits, 1))),
        Mistake("only the texts choose among the pictures: the pictures choose among the texts, "
                "too, and the loss is the mean of both",
                scored(end=lambda logits: choosing(logits, 0))),
        Mistake("the two directions are added: their mean is asked for",
                scored(end=lambda logits: 2 * both(logits))),
        Mistake("the pairs are added: their mean is asked for",
                scored(end=lambda logits: len(logits) * both(logits))),
        Mistake("the scale is given as a logarithm: its exponential multiplies the cosines",
                along(scale=lambda s: s)),
        Mistake("log_scale has no effect on the loss", along(scale=torch.ones_like)),
        Mistake("the cosines are divided by the scale: a scale above one must make them larger",
                along(scale=lambda s: (-s).exp())),
        Mistake("the softmax runs over the whole table: over one row, or one column, at a time",
                scored(end=lambda logits: logits.flatten().logsumexp(0)
                       - logits.diagonal().mean())),
        Mistake("the mean runs over the whole table: only what stands on its diagonal belongs "
                "together", scored(end=lambda logits: -(
                    logits.log_softmax(0) + logits.log_softmax(1)).mean() / 2)),
        Mistake("the softmax is taken twice: cross_entropy has it inside", scored(
            end=lambda logits: (choosing(logits.softmax(1), 1)
                                + choosing(logits.T.softmax(1), 1)) / 2)),
        Mistake("the logarithm of the probabilities is missing", scored(
            end=lambda logits: -(logits.softmax(0) + logits.softmax(1)).diagonal().mean() / 2)),
        Mistake("the exponential of a large logit has no room in float32: logsumexp, log_softmax "
                "and cross_entropy get along without it",
                when=lambda got, wanted, args: not bool(got.isfinite())),
        Mistake("a Python float cannot be trained on: return the tensor, which knows where it "
                "came from", when=lambda got, wanted, args: isinstance(got, float)),
    ),
)


# ---- 07-2 zero-shot ----------------------------------------------------------------------------


def zero_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, n: int, shape: tuple[int, int, int], dtype: str) -> Case:
        classes, templates, d = shape
        own = g.standard_normal((classes, 1, d))
        prompts = 0.8 * g.standard_normal(d) + own + 0.5 * g.standard_normal(shape)
        centres = prompts / np.linalg.norm(prompts, axis=2, keepdims=True)
        centres = centres.mean(1) / np.linalg.norm(centres.mean(1), axis=1, keepdims=True)
        pictures = []
        while len(pictures) < n:  # whose class no rounding can change
            x = own[g.integers(classes), 0] + g.standard_normal(d)
            second, first = np.sort(centres @ x / np.linalg.norm(x))[-2:]
            pictures += [x] if first - second > 0.02 else []
        return Case(f"{what}, {dtype}", {
            "pictures": np.stack(pictures) * unequal(g, n),
            "prompts": prompts * unequal(g, classes, templates)}, dtype)

    yield case("three templates", 9, (4, 3, 6), "float64")
    yield case("many classes", 12, (11, 4, 8), "float32")
    yield case("one template", 6, (3, 1, 5), "float64")
    yield case("two classes", 8, (2, 5, 7), "float32")


def zero(pictures: Tensor, prompts: Tensor) -> dict:
    """Unit centres, and the nearest of them: of unit vectors the nearest has the largest cosine."""
    centres = unit(unit(prompts).sum(1))
    return {"centres": centres, "classes": torch.cdist(unit(pictures), centres).argmin(1)}


def centred(centres: Callable) -> Callable:
    return lambda pictures, prompts: centres(prompts)


def chosen(choose: Callable) -> Callable:
    """Whether the centres are right and the classes are those of another choice."""
    def when(got: dict, wanted: dict, args: dict) -> bool:
        cosines = unit(args["pictures"]) @ wanted["centres"].T
        return isinstance(got["classes"], Tensor) and bool(
            torch.equal(got["classes"], choose(cosines)) and not torch.equal(
                got["classes"], wanted["classes"]))
    return when


def floating(got: dict, wanted: dict, args: dict) -> bool:
    return close(got["centres"], wanted["centres"]) and got["classes"].is_floating_point()


ZERO = Exercise(
    "07-2", "Zero-shot classes", 2, 10, 3, "zero_shot(pictures, prompts)",
    public=zero_cases, wanted=zero,
    study=(f"{CLIP}.Clip.concept", "open_clip.zero_shot_classifier.build_zero_shot_classifier"),
    mistakes=(
        Mistake("the mean is taken of prompts as they come, so that long ones count for more: "
                "scale each to length one first", centred(lambda p: unit(p.mean(1)))),
        Mistake("a mean of unit vectors is shorter than one: scale the centres, too",
                centred(lambda p: unit(p).mean(1))),
        Mistake("a sum of unit vectors is longer than one: scale the centres, too",
                centred(lambda p: unit(p).sum(1))),
        Mistake("neither the prompts nor the centres have length one",
                centred(lambda p: p.mean(1))),
        Mistake("lengths were taken along the templates: the last axis holds an embedding",
                centred(lambda p: unit(F.normalize(p).mean(1)))),
        Mistake("lengths were taken along the templates: the last axis holds an embedding",
                centred(lambda p: F.normalize(F.normalize(p).mean(1)))),
        Mistake("the mean runs over the classes: it must run over the templates of each class",
                centred(lambda p: unit(unit(p).mean(0)))),
        Mistake("only the first template is used", centred(lambda p: unit(p[:, 0]))),
        Mistake("these are the least likely classes: the largest cosine wins",
                when=chosen(lambda cosines: cosines.argmin(1))),
        Mistake("a picture was chosen for each class: choose a class for each picture",
                when=chosen(lambda cosines: cosines.argmax(0))),
        Mistake("similarities came back: the number of the class is asked for, an int64 a picture",
                when=floating),
        Mistake("the classes come second: return (centres, classes)",
                when=lambda got, wanted, args: torch.equal(got["centres"], wanted["classes"])),
        Mistake("two things are returned, in a tuple: centres, classes",
                when=lambda got, wanted, args: got is not None and not isinstance(got, dict)),
    ),
)


# ---- 07-3 the directional loss -----------------------------------------------------------------


def turn_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, b: int, d: int, still: list[int], dtype: str) -> Case:
        reference = g.standard_normal((b, d))
        generated = reference + 0.7 * g.standard_normal((b, d))
        generated, reference = (x * unequal(g, b) for x in (generated, reference))
        generated[still] = reference[still]
        source, target = g.standard_normal((2, d)) * unequal(g, 2)
        return Case(f"{what}, {dtype}", {"generated": generated, "reference": reference,
                                         "source": source, "target": target}, dtype)

    yield case("pictures that have moved", 5, 6, [], "float64")
    yield case("a larger space", 3, 64, [], "float32")
    yield case("one that has not moved, among others", 4, 8, [int(g.integers(4))], "float64")
    yield case("none has moved", 3, 5, [0, 1, 2], "float32")


def turn(generated: Tensor, reference: Tensor, source: Tensor, target: Tensor) -> dict:
    """One minus the cosine, which is 0 / tiny where nothing moved; and that there is a pull."""
    move, words = unit(generated) - unit(reference), unit(target) - unit(source)
    length = (move.norm(dim=1) * words.norm()).clamp_min(1e-12)
    return {"loss": 1 - move @ words / length, "its gradient": "finite"}


def turned(move: Callable = lambda x, r, s, t: x - r, words: Callable = lambda s, t: t - s,
           end: Callable = lambda a, b: 1 - F.cosine_similarity(a, b, dim=-1),
           pictures: Callable = unit, texts: Callable = unit) -> Callable:
    """The loss with one of its parts altered."""
    def wrong(x, r, s, t):
        x, r, s, t = pictures(x), pictures(r), texts(s), texts(t)
        return end(move(x, r, s, t), words(s, t))
    return wrong


def still(args: dict) -> Tensor:
    return (args["generated"] == args["reference"]).all(1)


def gradient(kind: str) -> Callable:
    return lambda got, wanted, args: got["its gradient"] == kind and close(got["loss"],
                                                                           wanted["loss"])


TURN = Exercise(
    "07-3", "The directional loss", 3, 15, 4, "directional(generated, reference, source, target)",
    public=turn_cases, wanted=turn, tolerance={"float64": 1e-6, "float32": 2e-4},
    study=tuple(f"{CLIP}.{f}" for f in ("directional_loss", "direction", "global_loss")),
    mistakes=(
        Mistake("differences are taken of embeddings as they come: scale each to length one first",
                turned(pictures=raw, texts=raw)),
        Mistake("the pictures' embeddings are used as they come: scale each to length one first",
                turned(pictures=raw)),
        Mistake("the texts' embeddings are used as they come: scale each to length one first",
                turned(texts=raw)),
        Mistake("one of the two directions is reversed: pictures go from the reference to the "
                "generated one, words from source to target", turned(words=lambda s, t: s - t)),
        Mistake("this is the cosine: the loss is one minus it",
                turned(end=lambda a, b: F.cosine_similarity(a, b, dim=-1))),
        Mistake("picture and text are compared with each other: compare how they move",
                turned(move=lambda x, r, s, t: x, words=lambda s, t: t)),
        Mistake("the picture's direction begins at the text: it begins at the reference picture",
                turned(move=lambda x, r, s, t: x - s)),
        Mistake("only the end of the pictures' move is used: take the reference off",
                turned(move=lambda x, r, s, t: x)),
        Mistake("only the target text is used: take the source off", turned(words=lambda s, t: t)),
        Mistake("nothing seems to have moved: take the reference off the generated picture",
                turned(move=lambda x, r, s, t: 0 * x)),
        Mistake("the two differences must have length one before they are multiplied",
                turned(end=lambda a, b: 1 - a @ b)),
        Mistake("the angle came: the loss is one minus its cosine",
                turned(end=lambda a, b: F.cosine_similarity(a, b, dim=-1).acos())),
        Mistake("a picture that has not moved has a direction of length zero: bound the length "
                "from below before you divide by it",
                when=lambda got, wanted, args: bool(got["loss"][still(args)].isnan().any())),
        Mistake("a picture that has not moved gets the best loss there is, zero: it must get one",
                when=lambda got, wanted, args: bool(
                    (got["loss"][still(args)].abs() < 1e-3).any())),
        Mistake("the loss is right, its gradient is not: where(..) and nan_to_num hide a 0/0 from "
                "the value alone, and the root of a square has no slope at zero; bound the length "
                "from below before you divide", when=gradient("not finite")),
        Mistake("no gradient reaches the generated pictures: detach, item and no_grad cut it off",
                when=gradient("none")),
    ),
)


# ---- 07-4 latents of unit size -----------------------------------------------------------------


def scale_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, shape: tuple, size: float, dtype: str) -> Case:
        seed, sizes = int(g.integers(2**31)), np.linspace(0.5, 1.5, shape[0]).reshape(-1, 1, 1, 1)
        pictures = size * sizes * g.standard_normal(shape)
        return Case(f"{what}, {dtype}", {"vae": named("autoencoder", seed=seed),
                                         "pictures": pictures}, dtype)

    yield case("two small pictures", (2, 3, 4, 4), 0.6, "float64")
    yield case("many pictures", (12, 3, 8, 6), 0.8, "float32")
    yield case("faint pictures", (3, 3, 6, 4), 0.1, "float64")


def scaled(vae: Any, pictures: Tensor) -> dict:
    z, (x, drawn) = vae.encode(pictures), others(pictures)
    s = float((z - z.mean()).square().mean().rsqrt())
    return {"scale": s, "encode": torch.mul(vae.encode(x), s), "decode": vae.decode(drawn / s)}


def measure(number: Callable) -> Callable:
    """Another number in the scale's place."""
    return lambda vae, pictures: float(number(vae.encode(pictures), pictures))


def deviation(z: Tensor, *, dim: Any = None) -> Tensor:
    return z.std(dim=dim, correction=0)


def through(part: str, wrong: Callable) -> Callable:
    """Whether one of the two functions does something else: wrong(vae, x or z, s, mean)."""
    def altered(vae: Any, pictures: Tensor) -> Tensor:
        mean = vae.encode(pictures).mean()
        given = others(pictures)[part == "decode"]
        return wrong(vae, given, scaled(vae, pictures)["scale"], mean)
    return only(part, altered)


SCALE = Exercise(
    "07-4", "Latents of unit size", 1, 10, 2, "unit_latents(vae, pictures)",
    public=scale_cases, wanted=scaled,
    study=tuple(f"{LATENT}.Latent.{f}" for f in ("encode", "decode", "_affine")),
    mistakes=(
        Mistake("this is the deviation itself: s times it must be one",
                measure(lambda z, x: deviation(z))),
        Mistake("this is one over the variance: a square root is missing",
                measure(lambda z, x: 1 / deviation(z) ** 2)),
        Mistake("torch's deviation divides by one less than the number of values: correction=0 "
                "divides by the number itself", measure(lambda z, x: 1 / z.std())),
        Mistake("a deviation is taken about the mean, which is not zero here",
                measure(lambda z, x: z.square().mean().rsqrt())),
        Mistake("this is the deviation of the pictures: that of their latents is asked for",
                measure(lambda z, x: 1 / deviation(x))),
        Mistake("one deviation a picture, then their mean: all values have one deviation together",
                measure(lambda z, x: 1 / deviation(z, dim=(1, 2, 3)).mean())),
        Mistake("one deviation a channel, then their mean: all values have one deviation together",
                measure(lambda z, x: 1 / deviation(z, dim=(0, 2, 3)).mean())),
        Mistake("this is the scale of Stable Diffusion's autoencoder: each has one of its own",
                measure(lambda z, x: 0.18215)),
        Mistake("encode forgets s", when=through("encode", lambda vae, x, s, m: vae.encode(x))),
        Mistake("encode divides by s: it multiplies, so that the deviation becomes one",
                when=through("encode", lambda vae, x, s, m: vae.encode(x) / s)),
        Mistake("encode scales the picture: scale its latent",
                when=through("encode", lambda vae, x, s, m: vae.encode(s * x))),
        Mistake("encode takes the mean off: it only scales",
                when=through("encode", lambda vae, x, s, m: s * (vae.encode(x) - m))),
        Mistake("decode forgets s: the autoencoder must get latents of its own size",
                when=through("decode", lambda vae, z, s, m: vae.decode(z))),
        Mistake("decode multiplies by s: it must undo what encode did",
                when=through("decode", lambda vae, z, s, m: vae.decode(s * z))),
        Mistake("decode scales the picture: the latent is scaled, before it is decoded",
                when=through("decode", lambda vae, z, s, m: vae.decode(z) / s)),
        Mistake("three things are returned, in a tuple: s, and two functions",
                when=lambda got, wanted, args: got is not None and not isinstance(got, dict)),
    ),
)


# ---- 07-5 guidance -----------------------------------------------------------------------------


def guide_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, w: float, dtype: str, length: int = 4) -> Case:
        cond, null = g.standard_normal((2, 1, length, 5))
        eps = named("conditional", seed=int(g.integers(2**31)))
        return Case(f"{what}, {dtype}", {"eps": eps, "cond": cond, "null": null, "w": w}, dtype)

    yield case("a weight above one", float(g.uniform(2, 8)), "float64")
    yield case("weight one", 1.0, "float32")
    yield case("weight zero", 0.0, "float64")
    yield case("a weight between zero and one", float(g.uniform(0.2, 0.4)), "float32", 2)
    yield case("a weight below zero", -float(g.uniform(1, 3)), "float64")


def parts(eps: Conditional, cond: Tensor, null: Tensor, which: int = 0) -> tuple[Tensor, Tensor]:
    """What the network says of one of the check's batches, without and with the text."""
    x, t = starts(cond)[which], TIMES[which]
    return tuple(eps(x, t, text.repeat(len(x), 1, 1)) for text in (null, cond))


def guide(eps: Conditional, cond: Tensor, null: Tensor, w: float) -> dict:
    """By its weights: 1 - w of the one and w of the other."""
    first, second = ((1 - w) * a + w * b for a, b in (parts(eps, cond, null, i) for i in (0, 1)))
    rows = [["null"] * len(x) * (w != 1) + ["cond"] * len(x) for x in starts(cond)]
    return {"predictor": first, "predictor, next batch": second,
            "rows asked": list(map(counted, rows)), "times asked": list(TIMES)}


def mixing(mix: Callable) -> Callable:
    """Another mixture, told by what the first batch gets."""
    return lambda eps, cond, null, w: mix(*parts(eps, cond, null), w)


def shortcut(eps: Conditional, cond: Tensor, null: Tensor, w: float) -> Tensor:
    if w >= 1:
        raise ValueError("there it is right")
    return parts(eps, cond, null)[1]


def of_texts(eps: Conditional, cond: Tensor, null: Tensor, w: float) -> Tensor:
    return eps(starts(cond)[0], TIMES[0], (null + w * (cond - null)).repeat(3, 1, 1))


def asking(rows: Callable) -> Callable:
    """Whether values are right, and the rows asked for are of a kind: rows(list, w) -> bool."""
    return lambda got, wanted, args: close(
        got["predictor"], wanted["predictor"]) and rows(got["rows asked"], args["w"])


GUIDE = Exercise(
    "07-5", "Classifier-free guidance", 3, 15, 4, "guide(eps, cond, null, w)",
    public=guide_cases, wanted=guide,
    study=(f"{LATENT}.Latent.eps", "coursekit.diffusion.predict.guided",
           "coursekit.diffusion.predict.mixed",
           "diffusers.guiders.classifier_free_guidance.ClassifierFreeGuidance.forward"),
    mistakes=(
        Mistake("this w is counted from the conditional prediction, as in the paper of 2022: here "
                "weight one is the conditional prediction, weight zero the other",
                mixing(lambda n, c, w: c + w * (c - n))),
        Mistake("the two halves have changed places", mixing(lambda n, c, w: c + w * (n - c))),
        Mistake("w multiplies the whole conditional prediction: it multiplies the difference",
                mixing(lambda n, c, w: n + w * c)),
        Mistake("the difference has the wrong sign: it points from null to cond",
                mixing(lambda n, c, w: n - w * (c - n))),
        Mistake("only the difference is left: it is added to the prediction without a text",
                mixing(lambda n, c, w: w * (c - n))),
        Mistake("below weight one guidance goes on: only w = 1 leaves the null rows out", shortcut),
        Mistake("w has no effect: this is the conditional prediction",
                mixing(lambda n, c, w: c)),
        Mistake("w has no effect: this is the prediction without a text",
                mixing(lambda n, c, w: n)),
        Mistake("the texts are mixed: ask about both and mix the predictions", of_texts),
        Mistake("the network is called twice a step: one call with the rows of both is asked for",
                when=asking(lambda rows, w: len(rows) > len(TIMES) and w != 1 and not any(
                    "," in row for row in rows))),
        Mistake("the network is asked more often than once a step: keep its answer",
                when=asking(lambda rows, w: len(rows) > len(TIMES) and w == 1)),
        Mistake("for w = 1 the null rows change nothing: leave them out",
                when=asking(lambda rows, w: w == 1 and any("null" in row for row in rows))),
        Mistake("weight zero has no shortcut here: only w = 1 leaves rows out",
                when=asking(lambda rows, w: w == 0 and not any("cond" in row for row in rows))),
        Mistake("the rows of null come first, those of cond second",
                when=asking(lambda rows, w: any(row.endswith("null") and row.count(",") == 1
                                                for row in rows))),
        Mistake("null and cond take turns: all rows of null come first",
                when=asking(lambda rows, w: any(row.count(",") > 1 for row in rows))),
        Mistake("one text stands for all pictures: give it as many rows as x has, twice as many "
                "in all", raised="one text for each row"),
        Mistake("a function of x and t is asked for, to be called at every step",
                when=lambda got, wanted, args: got is not None and not isinstance(got, dict)),
    ),
)


# ---- 07-6 maps of words ------------------------------------------------------------------------


def map_cases(g: np.random.Generator) -> Iterator[Case]:
    def case(what: str, b: int, heads: int, size: tuple[int, int], lengths: list[int],
             dtype: str) -> Case:
        h, w = size
        order = list(map(int, 1 + g.permutation(sum(lengths) + 2)))  # 0 is the start token
        ends = np.cumsum(lengths)
        words = [sorted(order[end - n:end]) for n, end in zip(lengths, ends, strict=True)]
        q = 1.5 * g.standard_normal((b, heads, h * w, 4))
        k = 1.5 * g.standard_normal((b, heads, sum(lengths) + 4, 4))
        return Case(f"{what}, {dtype}", {"q": q, "k": k, "words": words, "size": size}, dtype)

    yield case("two words, one of two tokens", 2, 3, (2, 3), [1, 2], "float64")
    yield case("words of one token", 1, 2, (4, 2), [1, 1, 1], "float32")
    yield case("a square, many heads", 3, 5, (4, 4), [1, 3], "float32")
    yield case("one head", 2, 1, (3, 5), [2, 1], "float64")


def maps(q: Tensor, k: Tensor, words: Sequence[Sequence[int]], size: Sequence[int]) -> Tensor:
    """By fused attention to values that say which word a token belongs to."""
    value = q.new_zeros(*k.shape[:3], len(words))
    for i, tokens in enumerate(words):
        value[..., tokens, i] = 1
    out = F.scaled_dot_product_attention(q, k, value)  # b heads n words
    return out.mean(1).mT.unflatten(2, tuple(size))


def looked(scale: Callable = lambda q, k: q.shape[3] ** -0.5,
           softmax: Callable = lambda logits: logits.softmax(-1),
           heads: Callable = lambda m: m.mean(1), join: Callable = lambda m: m.sum(-1),
           shape: Callable = lambda m, h, w: m.unflatten(2, (h, w))) -> Callable:
    """The maps with one of their parts altered."""
    def wrong(q, k, words, size):
        m = heads(softmax(torch.einsum("bhnd,bhld->bhnl", q, k) * scale(q, k)))  # b n l
        return shape(torch.stack([join(m[..., tokens]) for tokens in words], 1), *size)
    return wrong


def early(q: Tensor, k: Tensor, words: Sequence[Sequence[int]], size: Sequence[int]) -> Tensor:
    """The softmax over the tokens of words alone."""
    used = sorted(token for tokens in words for token in tokens)
    return maps(q, k[:, :, used], [[used.index(token) for token in tokens] for tokens in words],
                size)


def moved(by: int) -> Callable:
    return lambda q, k, words, size: maps(q, k, [[t + by for t in word] for word in words], size)


MAP = Exercise(
    "07-6", "The maps of words", 4, 20, 4, "word_maps(q, k, words, size)",
    public=map_cases, wanted=maps,
    study=tuple(f"{MAPS}.{f}" for f in ("look", "joined", "watched")) + (
        "diffusers.models.attention_processor.Attention.get_attention_scores",),
    mistakes=(
        Mistake("the logits are not divided: the root of the width of a head is missing",
                looked(scale=lambda q, k: 1)),
        Mistake("the root is of the width of one head, d: not of all heads together",
                looked(scale=lambda q, k: (q.shape[1] * q.shape[3]) ** -0.5)),
        Mistake("the root is of the width d of a head: not of the number of tokens or pixels",
                looked(scale=lambda q, k: k.shape[2] ** -0.5)),
        Mistake("the root is of the width d of a head: not of the number of tokens or pixels",
                looked(scale=lambda q, k: q.shape[2] ** -0.5)),
        Mistake("the logits are divided by the width itself: a root is missing",
                looked(scale=lambda q, k: 1 / q.shape[3])),
        Mistake("the logits are multiplied by the root: they are divided",
                looked(scale=lambda q, k: q.shape[3] ** 0.5)),
        Mistake("the softmax runs over the pixels: each pixel shares itself out over the tokens",
                looked(softmax=lambda logits: logits.softmax(-2))),
        Mistake("the softmax is missing: what a pixel gives to all tokens must sum to one",
                looked(softmax=lambda logits: logits)),
        Mistake("heads are averaged before the softmax: every head has one of its own",
                looked(softmax=lambda logits: logits.mean(1, keepdim=True).softmax(-1))),
        Mistake("heads are added: their mean is asked for", looked(heads=lambda m: m.sum(1))),
        Mistake("only the first head is used", looked(heads=lambda m: m[:, 0])),
        Mistake("the tokens of a word are averaged: they are added, so that shares stay shares",
                looked(join=lambda m: m.mean(-1))),
        Mistake("of a word's tokens the largest is taken: they are added",
                looked(join=lambda m: m.amax(-1))),
        Mistake("only one token of each word is used: add all of them",
                looked(join=lambda m: m[..., 0])),
        Mistake("only one token of each word is used: add all of them",
                looked(join=lambda m: m[..., -1])),
        Mistake("the softmax runs over the tokens of words alone: all others take part, too",
                early),
        Mistake("the positions were moved by one: they count the start token, which is 0",
                moved(1)),
        Mistake("the positions were moved by one: they count the start token, which is 0",
                moved(-1)),
        Mistake("the pixels were read column by column: row by row, w of them in a row",
                looked(shape=lambda m, h, w: m.unflatten(2, (w, h)).mT)),
        Mistake("height and width have changed places",
                looked(shape=lambda m, h, w: m.unflatten(2, (w, h)))),
        Mistake("height and width have changed places",
                looked(shape=lambda m, h, w: m.unflatten(2, (h, w)).mT)),
        Mistake("the words stand in the last axis: they are the second, before the picture's rows",
                looked(shape=lambda m, h, w: m.mT.unflatten(1, (h, w)))),
        Mistake("the pixels stand in one axis: cut it into h rows of w",
                looked(shape=lambda m, h, w: m)),
        Mistake("each map is divided by its own peak: the shares are asked for",
                looked(shape=lambda m, h, w: (m / m.amax(2, True)).unflatten(2, (h, w)))),
    ),
)

EXERCISES = (CONTRAST, ZERO, TURN, SCALE, GUIDE, MAP)
