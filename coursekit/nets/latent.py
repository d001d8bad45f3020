"""Stable Diffusion of any size as one object: text, latents, and a noise predictor over them.

    sd = pretrained.load_latent("portraits-sd")            or a folder, or a hub id
    eps = sd.eps("a photo of a cat", w=5.0)                an Eps like any other
    z = sd.noise(1, generator)
    x = sd.decode(last(ddim(eps, sd.schedule, z, sd.path(30))).x)

The parts are diffusers' and transformers' own, so the same code runs on a model of five million
weights and on Stable Diffusion 1.x, 2.x (eps or v) and XL.

    z = s (E(x) - m)      Rombach et al. 2022, section 3.1: s makes the latents of unit size
    eps_w = eps(z, negative) + w (eps(z, prompt) - eps(z, negative))       Ho & Salimans 2022
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coursekit import images
from coursekit.diffusion.predict import Eps, from_diffusers
from coursekit.diffusion.sample import randn_like
from coursekit.diffusion.schedule import Schedule
from coursekit.nets import checkpoint, parts

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Text:
    """What the network sees of n sentences.

    tokens  (n, l, width) one vector a token, for cross-attention
    pooled  (n, width) one vector a sentence, where the network takes one (XL), else None
    """

    tokens: Tensor
    pooled: Tensor | None = None

    def rows(self, b: int) -> Text:
        """The text for b pictures: one sentence for all, or as many as there are pictures."""
        n = len(self.tokens)
        if n not in (1, b):
            raise ValueError(f"prompt: {n} sentences for {b} pictures, accepted are 1 and {b}")
        pooled = None if self.pooled is None else self.pooled.expand(b, -1)
        return Text(self.tokens.expand(b, -1, -1), pooled)

    def then(self, other: Text) -> Text:
        """The rows of both, these first."""
        pooled = None if self.pooled is None else torch.cat([self.pooled, other.pooled])
        return Text(torch.cat([self.tokens, other.tokens]), pooled)


Prompt = str | Sequence[str] | Text
Beside = Callable[[Tensor, int, dict[str, Any], int], dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Latent:
    """A text-to-image model that works on latents; all parts frozen, in evaluation mode.

    unet, vae              UNet2DConditionModel, AutoencoderKL
    tokenizers, encoders   one of each; two for XL
    schedule, prediction   what the U-Net was trained with; "eps", "x0" or "v"
    end                    the time where a path ends: 1 for Stable Diffusion, whose last level is
                           that of its first training step (set_alpha_to_one=False), else 0
    offset, trailing       the spacing of diffusers' scheduler, which `path` repeats
    zeros                  an empty negative prompt is a text of zeros (XL)
    source                 the folder or hub id it was read from
    beside                 None, or a network beside the U-Net, as a ControlNet is: at each call
                           beside(x, t, inputs, n) -> further inputs of the U-Net. The last n rows
                           of x are those of the prompt, any before them those of the negative
    """

    unet: Any
    vae: Any
    tokenizers: tuple[Any, ...]
    encoders: tuple[Any, ...]
    schedule: Schedule
    prediction: str
    end: int = 0
    offset: int = 0
    trailing: bool = False
    zeros: bool = False
    source: str = ""
    beside: Beside | None = None
    _warned: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, device: str = "cpu",
                        dtype: torch.dtype = torch.float32) -> Latent:
        """Reads a pipeline from a folder or by hub id, in float32, float16 or bfloat16.

        ValueError in one line: no pipeline there, or one of another kind; a hub id that is missing,
        gated or out of reach; weights that do not fit into the free memory of the device.
        """
        return _load(checkpoint.find(source), device, dtype)

    # ---- pictures and latents ---------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def factor(self) -> int:
        """Pixels a side of the square that one latent stands for."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    @property
    def size(self) -> int:
        """The side in pixels of the pictures that the model was trained on."""
        return self.unet.config.sample_size * self.factor

    def encode(self, x: Tensor) -> Tensor:
        """Pictures (b, 3, h, w) in [-1, 1] -> latents (b, c, h / factor, w / factor).

        The mean of the posterior, so that the same picture always has the same latent.
        """
        images.check(x)
        self._check_size(*x.shape[2:])
        self.check_place("x", x)
        mean = self.vae.encode(x.to(self.vae.dtype)).latent_dist.mean.to(x.dtype)
        shift, scale = self._affine(x)
        return (mean - shift) * scale

    def decode(self, z: Tensor) -> Tensor:
        """Latents (b, c, h, w) -> pictures (b, 3, factor h, factor w), about [-1, 1], not clipped.
        """
        images.check(z, "z", self.vae.config.latent_channels)
        self.check_place("z", z)
        shift, scale = self._affine(z)
        return self.vae.decode((z / scale + shift).to(self.vae.dtype)).sample.to(z.dtype)

    def noise(self, n: int, generator: torch.Generator | None = None,
              size: tuple[int, int] | None = None) -> Tensor:
        """x_T for n pictures of size (h, w) pixels, the model's own if None; float32."""
        h, w = size or (self.size, self.size)
        self._check_size(h, w)
        like = torch.empty(n, self.unet.config.in_channels, h // self.factor, w // self.factor,
                           device=self.device)
        return randn_like(like, generator)

    def path(self, S: int) -> list[int]:
        """S hops from noisy to clean, at the times and down to the level of diffusers' scheduler.

        Stable Diffusion: 982, 962, .., 2, 1. Invert along it too: it starts at level 1.
        """
        times = self.schedule.trailing(S) if self.trailing else self.schedule.leading(
            S, self.offset)
        return [*(t for t in times[:-1] if t > self.end), self.end]

    def _affine(self, like: Tensor) -> tuple[Any, Any]:
        """shift and scale in z = (E(x) - shift) * scale: numbers, or (1, c, 1, 1) for some XL."""
        config = self.vae.config
        scale = config.scaling_factor
        if config.latents_mean is not None and config.latents_std is not None:
            mean, std = (torch.tensor(v).to(like).view(1, -1, 1, 1)
                         for v in (config.latents_mean, config.latents_std))
            return mean, scale / std
        return config.shift_factor or 0.0, scale

    # ---- text -------------------------------------------------------------------------------

    @property
    def tokenizer(self) -> Any:
        return self.tokenizers[0]

    @property
    def context(self) -> int:
        """The most tokens a prompt may have, with its start and its end."""
        return min(min(t.model_max_length, e.config.max_position_embeddings)
                   for t, e in zip(self.tokenizers, self.encoders, strict=True))

    def text(self, prompt: Prompt) -> Text:
        """What the network sees of a sentence or of several; a `Text` is given back as it is.

        "" is a text too: that of the unconditional prediction. A word that the model never saw is
        warned of once, where its tokenizer says which words it saw. ValueError where a prompt is
        longer than `context`.
        """
        if isinstance(prompt, Text):
            return prompt
        sentences = _sentences(prompt)
        self._warn_of_unknown(sentences)
        ids = [self._ids(tokenizer, sentences) for tokenizer in self.tokenizers]
        if len(self.encoders) == 1:
            return Text(self.encoders[0](ids[0]).last_hidden_state)
        # XL: the last but one layer of both encoders side by side, and the second one's summary
        out = [encoder(i, output_hidden_states=True)
               for encoder, i in zip(self.encoders, ids, strict=True)]
        return Text(torch.cat([o.hidden_states[-2] for o in out], -1), out[-1].text_embeds)

    def words(self, prompt: str, pattern: str = r"\S+") -> list[tuple[str, list[int]]]:
        """The words of a prompt in order, each with the positions of its tokens (0 is the start).

        The positions are those of the last axis of a cross-attention's probabilities. A word is
        what `pattern` matches: as it stands, all between two blanks.
        """
        spans = self.tokenizer(prompt, return_offsets_mapping=True,
                               verbose=False)["offset_mapping"]
        return [(m[0], [i for i, (a, b) in enumerate(spans)
                        if a < m.end() and b > m.start()])
                for m in re.finditer(pattern, prompt)]

    def _ids(self, tokenizer: Any, sentences: list[str]) -> Tensor:
        for sentence in sentences:
            n = len(tokenizer(sentence, verbose=False)["input_ids"])  # we refuse, it would warn
            if n > self.context:
                raise ValueError(f"prompt={sentence!r:.60} has {n} tokens with its start and end: "
                                 f"accepted are at most {self.context}")
        padded = tokenizer(sentences, padding="max_length", max_length=self.context)
        return torch.tensor(padded["input_ids"], device=self.device)

    def _warn_of_unknown(self, sentences: list[str]) -> None:
        known = self.tokenizer.init_kwargs.get("words")
        if not known:
            return
        said = {w for s in sentences for w in re.findall(r"[^\s.,;:!?\"'()]+", s.lower())}
        strange = sorted(said - set(known) - self._warned)
        if strange:
            self._warned.update(strange)
            warnings.warn(f"prompt: '{self.source}' never saw the words {', '.join(strange)}: what "
                          "it makes of them is a guess", stacklevel=4)

    # ---- the predictor ----------------------------------------------------------------------

    def eps(self, prompt: Prompt, negative: Prompt = "", w: float = 1.0) -> Eps:
        """The noise predictor under guidance; w = 1 is the plain conditional one.

        prompt, negative  one sentence for all pictures, or one for each; or a `Text`
        With w != 1 the network is called once a step, with 2b rows: the b of `negative`, then the b
        of `prompt`. For w = 1 `negative` is not read and the network sees b rows.

        An empty `negative` is the unconditional text. An empty `prompt` is accepted where it means
        something: for w = 1, with a `negative` that is not empty, or with a network beside.
        """
        if w != 1 and not isinstance(prompt, Text) and not any(_sentences(prompt)) and \
                negative == "" and self.beside is None:
            raise ValueError(f"prompt is empty, as is negative: w={w:g} has nothing to guide to; "
                             "accepted are a prompt, or w=1 for the unconditional prediction")
        wanted = self.text(prompt)
        if w == 1:
            return lambda x, t: self._predict(x, t, wanted.rows(len(x)), len(x))
        if self.zeros and negative == "":
            avoided = Text(torch.zeros_like(wanted.tokens[:1]), torch.zeros_like(wanted.pooled[:1]))
        else:
            avoided = self.text(negative)

        def eps(x: Tensor, t: int) -> Tensor:
            rows = avoided.rows(len(x)).then(wanted.rows(len(x)))
            base, cond = self._predict(torch.cat([x, x]), t, rows, len(x)).chunk(2)
            return base + w * (cond - base)

        return eps

    def _predict(self, x: Tensor, t: int, text: Text, n: int) -> Tensor:
        self.check_place("x", x)
        conditions = self.conditions(x, text)
        if self.beside is not None:
            conditions |= self.beside(x, t, conditions, n)
        return from_diffusers(self.unet, self.schedule, self.prediction, **conditions)(x, t)

    def conditions(self, x: Tensor, text: Text) -> dict[str, Any]:
        """What the U-Net is told of latents x (b, c, h, w) and their b texts, besides the time."""
        conditions: dict[str, Any] = {"encoder_hidden_states": text.tokens}
        if text.pooled is not None:
            h, w = (self.factor * n for n in x.shape[2:])
            ids = text.tokens.new_tensor([h, w, 0, 0, h, w])  # made as, cut at, shown as
            conditions["added_cond_kwargs"] = {"text_embeds": text.pooled,
                                               "time_ids": ids.expand(len(x), -1)}
        return conditions

    # ---- refusals ---------------------------------------------------------------------------

    def check_place(self, name: str, x: Tensor) -> None:
        """ValueError where x, the argument `name`, is on another device than the model."""
        if x.device != self.device:
            raise ValueError(f"{name} is on {x.device}, the model on {self.device}: accepted is "
                             "one device")

    def _check_size(self, h: int, w: int) -> None:
        if h % self.factor or w % self.factor or not h or not w:
            raise ValueError(f"size: {h}x{w} pixels, each side must be a multiple of {self.factor} "
                             "(the autoencoder's factor)")


def _sentences(prompt: str | Sequence[str]) -> list[str]:
    sentences = [prompt] if isinstance(prompt, str) else list(prompt)
    wrong = [s for s in sentences if not isinstance(s, str)]
    if wrong or not sentences:
        found = type(wrong[0]).__name__ if wrong else "nothing"
        raise ValueError(f"prompt holds {found}: accepted are a sentence, several, or a Text")
    return sentences


# ---- loading --------------------------------------------------------------------------------


def _load(found: checkpoint.Checkpoint, device: str, dtype: torch.dtype) -> Latent:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTokenizer

    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}: accepted are {', '.join(map(str, DTYPES))}")
    index = found.index()
    texts = parts.text_kinds(found.source, index)
    weights = {part: found.weights(part, dtype) for part in ("unet", "vae", *texts)}
    files = [file for _, some in weights.values() for file in some]
    checkpoint.check_room(found.source, sum(map(found.count, files)), dtype, device)
    folder = found.fetch(files)
    scheduling = parts.scheduling(folder, found.source)

    def read(build: Any, part: str, dtype: torch.dtype = dtype) -> Any:
        net = parts.read(build, folder, part, weights[part][0], dtype)
        return net.to(device).eval().requires_grad_(False)

    # XL's autoencoder overflows in float16 and says so
    wide = AutoencoderKL.load_config(folder, subfolder="vae").get("force_upcast", False)
    vae = read(AutoencoderKL, "vae", torch.float32 if wide else dtype)
    unet = read(UNet2DConditionModel, "unet")
    parts.check_unet(found.source, unet.config, vae.config.latent_channels)
    tokenizers = (CLIPTokenizer.from_pretrained(folder / part.replace("text_encoder", "tokenizer"))
                  for part in texts)
    zeros = len(texts) == 2 and index.get("force_zeros_for_empty_prompt", True)
    return Latent(unet, vae, tuple(tokenizers), tuple(read(k, p) for p, k in texts.items()),
                  **scheduling, zeros=zeros, source=found.source)
