"""CLIP: pictures and texts in one space, and directions in it, for any open_clip model.

    clip = load(folder or hub id)                    the right mean, std and size come with it
    clip.images(x), clip.texts(["a photo of a cat"])  unit vectors (b, d), float32
    dT = clip.text_direction("a man", "a man in a beanie")
    loss = directional_loss(clip.images(x_gen), clip.images(x_ref), dT).mean()

    E_I, E_T          Clip.images, Clip.texts (unit length; the libraries' own are not)
    dI, dT            direction(a, b) = (b - a) / ||b - a||
    L_direction       directional_loss: 1 - cos(dI, dT)      StyleGAN-NADA (Gal et al. 2022), eq. 2
    L_global          global_loss: 1 - cos(E_I, E_T)         the same, eq. 1

A picture of a hat and the words for it lie far apart (the modality gap of Liang et al. 2022), but
putting on a hat moves both alike: this is why directions are compared. Two pictures of one edit
are close, so their difference is taken in float32 whatever the network computes in. Networks are
frozen, yet gradients reach the pictures.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from coursekit import images

CONFIG = "open_clip_config.json"
TEMPLATES = ("a photo of {}", "a portrait of {}")
EPS = 1e-7  # below this length a direction is none: its gradient stays finite
BATCH = 256  # texts at once
HIGHEST = images.DISPLAY_LIMIT


class Clip(nn.Module):
    """An open_clip model with its tokenizer: frozen, in evaluation mode whatever is called.

    model       with `encode_image`, `encode_text` and `visual.preprocess_cfg`
    tokenizer   texts -> (n, context) token numbers
    source      what a refusal names
    """

    def __init__(self, model: nn.Module, tokenizer: Any, source: str | Path = "clip") -> None:
        super().__init__()
        self.model, self.tokenizer, self.source = model, tokenizer, source
        said = model.visual.preprocess_cfg
        size = said["size"]
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.resize_mode = said["resize_mode"]
        if self.resize_mode not in ("shortest", "squash"):
            raise ValueError(f"'{source}' has resize_mode={self.resize_mode!r}: accepted are "
                             "shortest, squash")
        for name in ("mean", "std"):
            column = torch.tensor(said[name]).view(1, 3, 1, 1)
            self.register_buffer(name, column, persistent=False)
        self._strange: set[str] = set()
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Clip:
        """Stays in evaluation mode: a network that is tuned against it must not change it."""
        return super().train(False)

    @property
    def dtype(self) -> torch.dtype:
        return self.model.logit_scale.dtype

    def images(self, x: Tensor) -> Tensor:
        """Unit embeddings (b, d) in float32 of pictures x (b, 3, h, w) in [-1, 1], any size."""
        top = float(images.check(x).detach().abs().max())
        if top > HIGHEST:
            raise ValueError(f"x reaches {top:.4g} in magnitude: accepted is [-1, 1], and an "
                             f"overshoot up to {HIGHEST:g}")
        x = (self._resized(x.float()) + 1) / 2
        x = (x - self.mean.float()) / self.std.float()
        with torch.autocast(x.device.type, enabled=False):
            return F.normalize(self.model.encode_image(x.to(self.dtype)).float(), dim=-1)

    def texts(self, texts: str | Sequence[str]) -> Tensor:
        """Unit embeddings (n, d) in float32, one a text; "" is a text.

        ValueError for a text that has more tokens than the context; one warning for each word that
        the model never saw, where its tokenizer says which words it saw.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        self._check_texts(texts)
        device = self.model.logit_scale.device
        with torch.autocast(device.type, enabled=False):
            parts = [self.model.encode_text(self.tokenizer(texts[i : i + BATCH]).to(device))
                     for i in range(0, len(texts), BATCH)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    def concept(self, words: str, templates: Sequence[str] = TEMPLATES) -> Tensor:
        """(d,) the mean over templates of "a photo of {words}" and the like, of unit length."""
        return F.normalize(self.texts(_filled(words, templates)).mean(0), dim=0)

    def text_direction(self, source: str, target: str,
                       templates: Sequence[str] = TEMPLATES) -> Tensor:
        """dT (d,): from "a man" to "a man in a beanie", averaged over templates."""
        ends = [self.texts(_filled(words, templates)).mean(0) for words in (source, target)]
        return direction(*ends)

    def _resized(self, x: Tensor) -> Tensor:
        """As open_clip's own preprocessing: short side to size and centre cut, or squashed."""
        if tuple(x.shape[2:]) == self.size:
            return x
        (h, w), (high, wide) = x.shape[2:], self.size
        grown = self.size
        if self.resize_mode == "shortest":
            scale = max(high / h, wide / w)
            grown = (max(high, round(h * scale)), max(wide, round(w * scale)))
        x = F.interpolate(x, grown, mode="bicubic", antialias=True, align_corners=False)
        top, left = round((grown[0] - high) / 2), round((grown[1] - wide) / 2)
        return x[:, :, top : top + high, left : left + wide]

    def _check_texts(self, texts: list[str]) -> None:
        if not texts:
            raise ValueError("texts is empty: accepted is at least one text")
        limit = self.tokenizer.context_length
        inner = getattr(self.tokenizer, "tokenizer", None)  # of transformers; else open_clip's own
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"texts holds a {type(text).__name__}: accepted is str")
            if len(text) < limit - 2:  # a token is at least one character
                continue
            n = len(inner(text, verbose=False).input_ids if inner else self.tokenizer.encode(text))
            n += 0 if inner else 2
            if n > limit:
                raise ValueError(f"the text {text[:40]!r}.. has {n} tokens: '{self.source}' "
                                 f"accepts at most {limit}")
        known = inner.init_kwargs.get("words") if inner else None
        if known:
            said = {w for text in texts for w in re.findall(r"[^\s.,;:!?\"'()]+", text.lower())}
            strange = sorted(said - set(known) - self._strange)
            if strange:
                self._strange.update(strange)
                warnings.warn(f"'{self.source}' never saw the words {', '.join(strange)}: what it "
                              "makes of them is a guess", stacklevel=3)


# ---- directions and losses ------------------------------------------------------------------


def direction(before: Tensor, after: Tensor) -> Tensor:
    """(after - before) in float32 and of unit length along the last axis; zero where equal."""
    return F.normalize(after.float() - before.float(), dim=-1, eps=EPS)


def directional_loss(generated: Tensor, reference: Tensor, towards: Tensor) -> Tensor:
    """(b,) 1 - cos(dI, dT) in [0, 2]; 1 where the picture has not moved.

    generated, reference   unit embeddings (b, d) of x_gen and x_ref
    towards                dT (d,) or one a picture (b, d); any length but zero
    """
    if not bool((towards.float().norm(dim=-1) > EPS).all()):
        raise ValueError("towards is zero or NaN: source and target texts have one embedding")
    return 1 - (direction(reference, generated) * F.normalize(towards.float(), dim=-1)).sum(-1)


def global_loss(generated: Tensor, text: Tensor) -> Tensor:
    """(b,) 1 - cos(E_I, E_T) for embeddings (b, d) and (d,) or (b, d).

    It has adversarial optima, pictures that please the network and nobody else: an ablation.
    """
    return 1 - F.cosine_similarity(generated.float(), text.float(), dim=-1)


def _filled(words: str, templates: Sequence[str]) -> list[str]:
    bad = [t for t in templates if "{}" not in t]
    if bad or not templates:
        raise ValueError(f"templates={tuple(templates)!r}: accepted are texts that hold {{}}")
    return [template.format(words) for template in templates]


# ---- loading --------------------------------------------------------------------------------


def load(source: str | Path, device: torch.device | str = "cpu") -> Clip:
    """A folder that holds open_clip_config.json, weights and tokenizer, or a hub id owner/name.

    Weights in a folder are read from safetensors alone. ValueError says in one line what is wrong.
    """
    import open_clip  # pulls in torchvision, timm and transformers

    folder = Path(source)
    if folder.is_dir():
        for wanted in (CONFIG, "*.safetensors"):
            if not any(folder.glob(wanted)):
                raise ValueError(f"'{folder}' has no {wanted}: it is no open_clip folder")
        name = f"local-dir:{folder}"
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        name = f"hf-hub:{source}"
    else:
        raise ValueError(f"source='{source}': accepted is a folder or a hub id owner/name")
    try:
        model = open_clip.create_model(name, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
    except Exception as problem:  # open_clip, the hub, torch and safetensors each raise their own
        raise ValueError(f"'{source}' cannot be read as an open_clip model "
                         f"({' '.join(str(problem).split())[:200]})") from problem
    return Clip(model, tokenizer, source).to(device)
