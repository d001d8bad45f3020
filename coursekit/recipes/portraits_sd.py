"""A Stable Diffusion of the Portraits world: captions to 64x64 pixels, diffusers' own pipeline.

Two stages after Rombach et al. (2022). First an autoencoder (portraits-vae, in OUT/autoencoder);
it is frozen, and every picture's latent is computed once. Then a U-Net with cross-attention and the
text model that it reads learn together to predict v. Four captions a picture name 1 to 13 things;
one in eight is left empty, so that the empty text means the unconditional prediction. Every picture
comes with a twin that differs in one thing of the face. Both captions are asked about one noisy
picture, and what sets their answers apart counts more (`train`, contrast): a word for a lip or an
earring moves few latents. Half of the pairs differ in the smile, which moves fewest, at times that
can teach it (`Twins.times`).

The scheduler's settings are Stable Diffusion's but for a cosine schedule, whose x_T keeps nothing
of the picture: on 16x16 latents a background that shines through decides its colour.
`--minutes` counts both stages, a third for the first.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from coursekit import images, portraits, pretrained
from coursekit.diffusion.predict import diffusers_time
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.schedule import Schedule
from coursekit.diffusion.train import Update, sliced
from coursekit.nets.latent import Latent
from coursekit.nets.parts import quiet
from coursekit.recipes import (
    Pictures, _twins, _words, cache_folder, fit, fresh, portraits_ddpm, portraits_vae, preparing,
    whole_folder, write_array, write_card,
)

NAME = "portraits-sd"
WIDTH = 128  # of a token
UNET = {"sample_size": 16, "block_out_channels": (48, 80, 96), "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 8, "attention_head_dim": 4, "cross_attention_dim": WIDTH}
TEXT = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 2,
        "num_attention_heads": 4}
SCHEDULER = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2",
             "prediction_type": "v_prediction", "clip_sample": False, "set_alpha_to_one": False,
             "steps_offset": 1}
IMAGES = 1_000_000  # to see in all
BATCH = {"cpu": 16, "cuda": 256}
LR = {"cpu": 3e-4, "cuda": 1e-3}
SETTINGS = {"warmup": 500, "decay": 0.5, "ema": 0.9995, "clip": 1.0, "min_snr": 5.0,
            "floor": 1.0, "contrast": 40.0}
EMPTY = 0.125  # share of captions left out
NAMING = (1, 2, 3, 4, 5, 6, 8, 13)  # things a caption names besides style and subject
CAPTIONS = 4  # a picture
FIRST = 1 / 3  # share of the minutes for the autoencoder
GUIDANCE, STEPS = 4.0, 25  # of the samples drawn while it trains

SMILES = (("happy", "sad"), ("smiling", "frowning"))
SMILED = (200, 900)  # times of T = 1000 between which a smile is learnt
HEARD = ("a photo of a {} woman", "a photo of a {} cat", "a photo of a senior {} woman",
         "a sketch of a {} lady with red hair", "a portrait of a {} young man on a beach")
CLOSED = 1.0  # between two outputs; of young and senior it is 10

TINY_UNET = {"block_out_channels": (8, 8, 8), "norm_num_groups": 4, "attention_head_dim": 2}
TINY_TEXT = {"intermediate_size": 16, "num_hidden_layers": 1}
TINY_BATCH, TINY_STEPS = 8, 20

SAMPLES = ("a photo of a cat on a beach", "a photo of a smiling woman with long red hair",
           "a photo of a bear in a party hat", "a portrait of a man with a beard",
           "a photo of a fox with round glasses in the snow", "a photo of a dog in a blue shirt",
           "a photo of a senior man in a cap", "a photo of a rabbit with sunglasses")

CARD = """# portraits-sd

Draws portraits of the course's own world from a caption, 64x64: a Stable Diffusion pipeline that
loads unmodified. Latents of 4x16x16, v on a cosine schedule, T = 1000. Data: {n} renders of the
default training distribution (photo style, few backgrounds), seed {data_seed}, each beside a twin
that differs in one thing of the face, with {captions} captions each; {empty:.1%} of them left
empty; half of the pairs differ in the smile, at t in {early}..{late}; no augmentation. Adam, lr
{lr:g} falling to 0 over the last {decay:.0%}, batch {batch}; an error in x0 counts SNR, within 1
and 5; two twins' captions are asked about one noisy picture, and the difference of their errors
counts {contrast:g} times; U-Net and text model are averages. The autoencoder's scaling factor is
1 / the deviation of all latents. Made by `coursekit train portraits-sd`, seed {seed}."""


def run(out: Path, *, data: Path | None = None, steps: int | None = None,
        minutes: float | None = None, start: str | None = None, resume: bool = True,
        device: str = "cpu", seed: int = 0, tiny: bool = False) -> Iterator[Any]:
    """Trains it in `out`; arguments as in `coursekit.recipes`, steps are the second stage's.

    data is refused: it is rendered. `start` brings its own autoencoder, which is kept.
    """
    if data is not None:
        raise ValueError(f"data='{data}': {NAME} renders its own pictures; leave it out")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"WORLD_SIZE={os.environ['WORLD_SIZE']}: {NAME} trains on one device; "
                         "start it without torchrun or accelerate")
    n = portraits_vae.TINY_PORTRAITS if tiny else portraits_ddpm.PORTRAITS
    kind = torch.device(device).type
    batch = TINY_BATCH if tiny else BATCH.get(kind, BATCH["cpu"])
    net, vae = begin(start, tiny, seed)
    out.mkdir(parents=True, exist_ok=True)
    if vae is None:
        yield from autoencoder(out, minutes, resume, device, seed, tiny)
        vae = portraits_vae.read(out / "autoencoder")
    vae.to(device).eval().requires_grad_(False)
    yield from portraits_vae.draw(n, device, steps)
    words = _words.tokenizer()
    yield from _twins.tell(n, NAMING, CAPTIONS, words, steps)
    yield from encode(vae, n, device, steps)
    yield from _twins.encode(vae, latents(n, vae), n, device, steps)
    set_ = Twins(n, vae, words, batch, seed)
    # diffusers writes down where it was read from, which concerns nobody
    vae.register_to_config(scaling_factor=set_.scale, _name_or_path=portraits_vae.NAME)
    studio = Studio(vae, words)
    lr = LR.get(kind, LR["cpu"])
    card = CARD.format(n=n, captions=CAPTIONS, data_seed=portraits_ddpm.DATA_SEED, empty=EMPTY,
                       lr=lr, batch=batch, seed=seed, contrast=SETTINGS["contrast"],
                       decay=SETTINGS["decay"], early=SMILED[0], late=SMILED[1])
    updates = fit(out, net, set_, steps=steps, minutes=minutes and minutes * (1 - FIRST),
                  default_steps=TINY_STEPS if tiny else IMAGES // batch, resume=resume,
                  device=device, seed=seed, card=card, schedule=studio.schedule,
                  export=studio.export, draw=studio.draw, lr=lr, times=set_.times, **SETTINGS)
    for update in updates:  # the clock goes on where the first stage stopped
        yield replace(update, seconds=update.seconds + 60 * FIRST * (minutes or 0))


def autoencoder(out: Path, minutes: float | None, resume: bool, device: str, seed: int,
                tiny: bool) -> Iterator[Any]:
    """The first stage. It is over once the second has begun: its latents must not move."""
    if not (resume and (out / "checkpoint.pt").exists()):
        yield from portraits_vae.run(out / "autoencoder", minutes=minutes and minutes * FIRST,
                                     resume=resume, device=device, seed=seed, tiny=tiny)


def begin(start: str | None, tiny: bool, seed: int) -> tuple[nn.Module, nn.Module | None]:
    """A fresh network and no autoencoder yet, or both from the model that `start` names.

    What `start` brings goes on as Stable Diffusion itself was trained: the text model stands still.
    """
    sizes = (UNET | TINY_UNET, TEXT | TINY_TEXT) if tiny else (UNET, TEXT)
    net = fresh(Painter, dict(zip(("unet", "text"), sizes, strict=True)), seed)
    if start is None:
        return net, None
    old = pretrained.load_latent(start)
    for mine, theirs in ((net.unet, old.unet), (net.text, old.encoders[0])):
        shapes = [{k: v.shape for k, v in m.state_dict().items()} for m in (mine, theirs)]
        if shapes[0] != shapes[1] or old.prediction != "v":
            raise ValueError(f"start='{start}' has a {type(theirs).__name__} of another shape or "
                             f"prediction: accepted is a model of the recipe {NAME}")
        mine.load_state_dict(theirs.state_dict())
    reopen(net.text, old.tokenizers[0], seed)
    net.text.requires_grad_(False)
    return net, old.vae


@torch.no_grad()
def reopen(text: nn.Module, words: Any, seed: int) -> bool:
    """Gives the words of the smile new vectors if the text model says the same for all of them.

    A word that moves few pixels may be lost while the large things are learnt: where it stands the
    outputs are one constant, and no gradient comes back from there. Of many vectors for the word
    most fall into that hole; two are taken that the model tells apart wherever they stand.
    """
    happy, sad = words.convert_tokens_to_ids([f"{w}</w>" for w in SMILES[0]])
    vectors = text.get_input_embeddings().weight
    ids = torch.tensor(words([p.format(SMILES[0][0]) for p in HEARD], padding="max_length",
                             max_length=_words.CONTEXT)["input_ids"])
    if happy not in ids or len({happy, sad, words.unk_token_id}) < 3:
        return False  # another vocabulary

    def said(vector: Tensor) -> Tensor:  # places width
        vectors[happy] = vector
        return text(ids).last_hidden_state[ids == happy]

    before = vectors[happy].clone()
    if (said(before) - said(vectors[sad].clone())).norm(dim=-1).min() > CLOSED:
        vectors[happy] = before
        return False
    generator = torch.Generator().manual_seed(seed)
    new = nn.functional.normalize(torch.randn(256, WIDTH, generator=generator), dim=1)
    heard = torch.stack([said(v) for v in new], 1)  # places 256 width
    apart = torch.cdist(heard, heard).amin(0)
    best = divmod(int(apart.argmax()), len(new))
    for names, k in zip(zip(*SMILES, strict=True), best, strict=True):
        for i in words.convert_tokens_to_ids([f"{w}</w>" for w in names]):
            vectors[i] = new[k]  # synonyms part again
    return True


class Painter(nn.Module):
    """The two networks that learn together, called as `train` calls a network.

    forward(z (b, 4, h, w), t (b,) in 1..T, tokens (b, l)) -> v (b, 4, h, w)
    """

    def __init__(self, unet: dict[str, Any], text: dict[str, Any]) -> None:
        super().__init__()
        from diffusers import UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        start, end = _words.SIZE - 2, _words.SIZE - 1
        self.unet = UNet2DConditionModel(**unet)
        self.text = CLIPTextModel(CLIPTextConfig(
            vocab_size=_words.SIZE, max_position_embeddings=_words.CONTEXT, bos_token_id=start,
            eos_token_id=end, pad_token_id=end, **text))

    def forward(self, z: Tensor, t: Tensor, tokens: Tensor) -> Tensor:
        seen = self.text(tokens).last_hidden_state  # b l width
        return self.unet(z, diffusers_time(t), seen).sample


# ---- the set --------------------------------------------------------------------------------


def captions(n: int) -> Path:
    """The file of the tokens of all captions, (n, CAPTIONS, context) uint16."""
    folder = Path(portraits.__file__).parent
    sources = [folder / "attributes.py", folder / "captions.py", Path(_words.__file__)]
    content = b"".join(s.read_bytes() for s in sources) + repr((NAMING, CAPTIONS)).encode()
    return cache_folder() / (f"captions-{n}-{portraits_ddpm.DATA_SEED}-"
                             f"{hashlib.sha256(content).hexdigest()[:8]}.npy")


def tell(n: int, words: Any, steps: int | None) -> Iterator[Update]:
    """Writes the captions of the training pictures, unless they are there."""
    if captions(n).exists():
        return
    begun, told = time.perf_counter(), []
    generator = torch.Generator().manual_seed(portraits_ddpm.DATA_SEED)
    for i, people in enumerate(portraits_ddpm.records(n)):
        for j in range(CAPTIONS):  # chunk by chunk another half of the lengths
            details = NAMING[(i + 2 * j) % len(NAMING)]
            texts = [c.text for c in portraits.caption(people, generator, details)]
            ids = words(texts, padding="max_length", max_length=_words.CONTEXT)["input_ids"]
            told.append(numpy.array(ids, dtype=numpy.uint16))
        yield preparing(min(256 * (i + 1), n), steps, begun)
    chunks = [numpy.stack(told[i : i + CAPTIONS], 1) for i in range(0, len(told), CAPTIONS)]
    write_array(captions(n), numpy.concatenate(chunks))


def latents(n: int, vae: nn.Module) -> Path:
    """The file of the latents of all pictures by this encoder, (n, 4, 16, 16) fp16."""
    said = hashlib.sha256(portraits_vae.pictures(n).name.encode())
    for name, value in sorted(vae.state_dict().items()):
        if name.startswith(portraits_vae.ENCODER):  # the decoder may go on learning
            said.update(value.detach().float().cpu().numpy().tobytes())
    return cache_folder() / f"latents-{n}-{said.hexdigest()[:12]}.npy"


@torch.no_grad()
def encode(vae: nn.Module, n: int, device: str, steps: int | None) -> Iterator[Update]:
    """Writes the latents of the training pictures, not yet scaled, unless they are there."""
    file = latents(n, vae)
    if file.exists():
        return
    begun, pixels, found = time.perf_counter(), numpy.load(portraits_vae.pictures(n)), []
    for i in range(0, n, 256):
        x = images.from_uint8(torch.from_numpy(pixels[i : i + 256])).to(device)
        found.append(vae.encode(x).latent_dist.mean.half().cpu().numpy())
        yield preparing(min(i + 256, n), steps, begun)
    write_array(file, numpy.concatenate(found))


class Captioned(Pictures):
    """Latents of unit deviation (b, 4, 16, 16) and the tokens of a caption each, some empty."""

    def __init__(self, n: int, vae: nn.Module, words: Any, batch: int, seed: int) -> None:
        super().__init__(latents(n, vae), batch, seed)
        self.pixels = numpy.array(self.pixels)  # 2 KB each: read once
        self.tokens = numpy.load(self.told(n, words))
        self.scale = float(1 / self.pixels.std(dtype=numpy.float64))
        self.empty = torch.tensor(
            words("", padding="max_length", max_length=_words.CONTEXT)["input_ids"])

    @staticmethod
    def told(n: int, words: Any) -> Path:
        """The file of the captions."""
        return captions(n)

    def __call__(self, k: int) -> tuple[Tensor, dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + k)
        rows, which = self.picked(k, generator)
        tokens = torch.from_numpy(self.tokens[rows, which].astype(numpy.int64))
        tokens[torch.rand(len(rows), generator=generator) < EMPTY] = self.empty
        return self.scale * torch.from_numpy(self.pixels[rows]).float(), {"tokens": tokens}

    def picked(self, k: int, generator: torch.Generator) -> tuple[Any, Any]:
        """What batch k holds: numbers of pictures and of captions of theirs, (b,) each."""
        rows = numpy.array(self.rows(k))
        return rows, torch.randint(CAPTIONS, (len(rows),), generator=generator).numpy()


class Twins(Captioned):
    """The same, each before its twin; both have a caption, or neither.

    The first half of a batch are pairs of which one is said to smile and the other to be sad. A
    smile is learnt where the noise hides it and yet shows where the mouth is: below SMILED the
    picture itself tells, above it nobody knows where.
    """

    def __init__(self, n: int, vae: nn.Module, words: Any, batch: int, seed: int) -> None:
        super().__init__(n, vae, words, batch // 2, seed)
        others = numpy.load(_twins.latents(latents(n, vae)))
        self.pixels = numpy.stack([self.pixels, others], 1)  # n 2 4 16 16
        happy, sad = (numpy.isin(self.tokens, words.convert_tokens_to_ids([f"{w}</w>" for w in s]))
                      .any(-1) for s in zip(*SMILES, strict=True))  # n captions 2
        self.smiles = numpy.argwhere((happy & sad[..., ::-1]).any(-1))  # pairs, which caption

    @staticmethod
    def told(n: int, words: Any) -> Path:
        return _twins.captions(n, NAMING, CAPTIONS, words)

    def __call__(self, k: int) -> tuple[Tensor, dict[str, Tensor]]:
        z, conditions = super().__call__(k)  # b/2 2 ..
        return z.flatten(0, 1), {name: part.flatten(0, 1) for name, part in conditions.items()}

    def picked(self, k: int, generator: torch.Generator) -> tuple[Any, Any]:
        rows, which = super().picked(k, generator)
        n = len(rows) // 2
        some = torch.randint(len(self.smiles), (n,), generator=generator)
        rows[:n], which[:n] = self.smiles[some].T
        return rows, which

    @staticmethod
    def times(pairs: int, generator: torch.Generator) -> Tensor:
        """Times of a batch (pairs,) in 1..T, as `train` asks for them."""
        early, late = SMILED
        n = pairs // 2
        return torch.cat([early + sliced(n, late - early, generator),
                          sliced(pairs - n, SCHEDULER["num_train_timesteps"], generator)])


# ---- what is written ------------------------------------------------------------------------


@dataclass(frozen=True)
class Studio:
    """What does not change while the second stage trains, and what is made with it."""

    vae: nn.Module
    tokenizer: Any

    @property
    def scheduler(self) -> Any:
        from diffusers import DDIMScheduler

        return DDIMScheduler(**SCHEDULER)

    @property
    def schedule(self) -> Schedule:
        return Schedule.from_diffusers(self.scheduler)

    def export(self, out: Path, update: Update, schedule: Schedule, card: str,
               device: str) -> None:
        """The pipeline in fp16, as diffusers writes it, and the card."""
        from diffusers import StableDiffusionPipeline

        vae, unet, text = (portraits_vae.halved(m) for m in (
            self.vae, update.ema.unet, update.ema.text))
        pipe = StableDiffusionPipeline(
            vae=vae, text_encoder=text, tokenizer=self.tokenizer, unet=unet,
            scheduler=self.scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False)
        with whole_folder(out) as made, quiet():
            pipe.save_pretrained(made)
            # transformers would load the text model in fp16 beside a U-Net in float32
            page = made / "text_encoder" / "config.json"
            said = json.loads(page.read_text(encoding="utf-8")) | {"dtype": "float32"}
            page.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        write_card(out, update, card, device)

    @torch.no_grad()
    def draw(self, out: Path, update: Update, schedule: Schedule, pictures: Pictures,
             seed: int) -> None:
        """A sheet of fixed prompts, guided, two pictures each."""
        sd = Latent(update.ema.unet, self.vae, (self.tokenizer,), (update.ema.text,), schedule, "v",
                    end=1, offset=1)
        z = sd.noise(2 * len(SAMPLES), torch.Generator().manual_seed(seed))
        eps = sd.eps([p for p in SAMPLES for _ in range(2)], w=GUIDANCE)
        x = sd.decode(last(ddim(eps, schedule, z, sd.path(STEPS))).x).cpu()
        (out / "samples").mkdir(exist_ok=True)
        images.save(images.grid(x, columns=8), out / "samples" / f"{update.step:07d}.png")
