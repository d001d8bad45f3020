"""The ControlNet recipe at its toy size: what it leaves, that it goes on, what it refuses."""

import importlib
import json
from contextlib import closing

import numpy
import pytest
import tiny_sd
import torch
from diffusers import AutoencoderKL, ControlNetModel, StableDiffusionControlNetPipeline
from safetensors.torch import load_file
from torch.testing import assert_close

from coursekit import portraits, pretrained
from coursekit.diffusion.predict import from_eps
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.train import Update
from coursekit.edits import controlnet
from coursekit.edits.controlnet import Control, as_hint, under
from coursekit.recipes import (
    _words, fresh, portraits_controlnet, portraits_ddpm, portraits_sd, portraits_vae,
)
from coursekit.recipes.portraits_controlnet import HINTS, Follower, Hinted, Page, run

WEIGHTS = "diffusion_pytorch_model.safetensors"
N = portraits_vae.TINY_PORTRAITS


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Prepared data goes to a folder of these tests; a portrait is noise."""
    def renders(n, device):
        generator = torch.Generator().manual_seed(1)
        for i in range(0, n, 12):
            yield torch.rand(min(12, n - i), 3, 64, 64, generator=generator) * 2 - 1

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(portraits_ddpm, "renders", renders)
        patch.setattr(portraits_controlnet, "WIDTHS", (4, 4, 4))
        yield cache / "coursekit"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A portraits-sd of the toy size, not trained; its zeros are shaken."""
    painter, _ = portraits_sd.begin(None, True, 3)
    vae = fresh(AutoencoderKL, portraits_vae.CONFIG | portraits_vae.TINY, 3)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in painter.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    out = tmp_path_factory.mktemp("base")
    update = Update(0, 1, 0, 0.0, 0.0, 0.0, 0.0, 0.0, painter)
    portraits_sd.Studio(vae, _words.tokenizer()).export(out, update, None, "# base", "cpu")
    return str(out)


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """An uninterrupted run of six updates with a look at every second, and its records."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portraits_controlnet, "EVERY", 2)
        return out, list(run(out, tiny=True, steps=6, seed=3, start=base))


def page(out) -> dict:
    return json.loads((out / "fidelity.json").read_text())


# ---- the recipe -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("guess", [False, True])
def test_it_leaves_a_genuine_controlnet_for_the_pipeline(whole, base, guess):
    out, updates = whole
    net = ControlNetModel.from_pretrained(out)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    half = {k: v.half().float() for k, v in updates[-1].ema.net.state_dict().items()}
    assert_close(net.state_dict(), half, rtol=0, atol=0)
    assert_close(controlnet.load(out).state_dict(), half, rtol=0, atol=0)

    for p in net.parameters():  # six updates do little
        p.add_(0.05 * torch.randn_like(p))
    sd, people = pretrained.load_latent(base), portraits.sample(2, torch.Generator().manual_seed(0))
    z, hint = sd.noise(2, torch.Generator().manual_seed(0)), as_hint(portraits.silhouette(people))
    pipe = StableDiffusionControlNetPipeline.from_pretrained(base, controlnet=net)
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a photo of a cat", "a portrait of a smiling woman"]
    theirs = pipe(prompts, image=hint, latents=z, num_inference_steps=3, guidance_scale=4.0,
                  output_type="latent", guess_mode=guess).images
    held = under(sd, Control(net, hint, negative_hint=not guess, fade=guess))
    ours = last(ddim(held.eps(prompts, w=4.0), sd.schedule, z, sd.path(3))).x
    assert_close(ours, theirs, rtol=0, atol=1e-4)
    plain = last(ddim(sd.eps(prompts, w=4.0), sd.schedule, z, sd.path(3))).x
    assert (ours - plain).abs().max() > 1e-2
    if not guess:
        drawing = pipe.control_image_processor.numpy_to_pil(hint[:1].permute(0, 2, 3, 1).numpy())
        one, same = (pipe(prompts[0], image=h, latents=z[:1], num_inference_steps=1,
                          output_type="latent").images for h in (drawing, hint[:1]))
        assert_close(one, same)  # a picture of the silhouette does as well


def test_it_leaves_a_card_a_curve_and_a_sheet(whole):
    out, updates = whole
    assert (updates[-1].step, updates[-1].images) == (6, 48)
    card = (out / "card.md").read_text()
    assert card.startswith("# portraits-controlnet\n") and "hints (silhouette), 64x64" in card
    assert "| Images seen | 48 |" in card and "joints began as zero convolutions" in card
    own = sum(p.numel() for p in ControlNetModel.from_pretrained(out).parameters())
    assert f"| Parameters | {own} |" in card
    assert len((out / "log.txt").read_text().splitlines()) == 1
    assert [f.name for f in (out / "samples").iterdir()] == ["0000006.png"]
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def test_fidelity_stands_beside_the_loss(whole):
    out, updates = whole
    said, losses = page(out), [u.loss for u in updates if u.step]
    assert (said["hint"], said["gaussian"]) == ("silhouette", False)
    rows = said["rows"]
    assert [(r["step"], r["images"]) for r in rows] == [(0, 0), (2, 16), (4, 32), (6, 48)]
    assert rows[0]["loss"] is None
    for i, row in enumerate(rows[1:]):
        assert row["loss"] == pytest.approx(sum(losses[2 * i:2 * i + 2]) / 2, abs=1e-5)
    assert all(0 <= r[name] <= 1 for r in rows for name in ("iou", "outline"))
    assert f"IoU of {rows[-1]['iou']:.3f}" in (out / "card.md").read_text()


def test_only_the_copy_learns_and_only_it_is_kept(whole, base):
    out, updates = whole
    state = torch.load(out / "checkpoint.pt", weights_only=True)["net"]
    own = ControlNetModel.from_pretrained(out).state_dict()
    assert state.keys() == {f"net.{name}" for name in own}
    sd = pretrained.load_latent(base)
    assert_close(updates[-1].ema.sd.unet.state_dict(), sd.unet.state_dict(), rtol=0, atol=0)
    moved = [name for name, value in state.items()
             if name.removeprefix("net.") in sd.unet.state_dict()
             and not torch.equal(value, sd.unet.state_dict()[name.removeprefix("net.")])]
    assert len(moved) > 20  # the encoder woke


def test_stopped_and_run_again_is_the_run_that_was_not(whole, base, tmp_path, monkeypatch):
    monkeypatch.setattr(portraits_controlnet, "EVERY", 2)
    out = tmp_path / "parts"
    with closing(run(out, tiny=True, steps=6, seed=3, start=base)) as updates:
        for update in updates:
            if update.step == 3:
                break
    *_, last_ = run(out, tiny=True, steps=6, seed=3, start=base)
    assert last_.images == 48
    assert_close(load_file(out / WEIGHTS), load_file(whole[0] / WEIGHTS), rtol=0, atol=0)
    rows, wanted = page(out)["rows"], page(whole[0])["rows"]
    assert [r["step"] for r in rows] == [0, 2, 4, 6]
    assert [r["iou"] for r in rows] == [r["iou"] for r in wanted]
    before = (out / "fidelity.json").read_bytes()
    assert [u.step for u in run(out, tiny=True, steps=6, seed=3, start=base)] == [6]
    assert (out / "fidelity.json").read_bytes() == before  # all was done


def test_rows_that_a_killed_run_was_ahead_by_are_dropped(tmp_path):
    said, found = Page({"hint": "edges"}), {"iou": 0.5, "outline": 0.25}
    for step in (0, 200, 400, 200):
        said.add(tmp_path, step, 16 * step, 1.0, found)
    assert [r["step"] for r in page(tmp_path)["rows"]] == [0, 200]
    assert "After 200 updates" in str(said)


def test_minutes_end_a_run_and_a_controlnet_goes_on_from_another(whole, base, tmp_path,
                                                                 monkeypatch):
    monkeypatch.setattr(portraits_controlnet, "BASE", base)
    first = next(u for u in run(tmp_path / "next", tiny=True, minutes=0.02, seed=9,
                                start=str(whole[0])) if u.step == 1)
    begun = load_file(whole[0] / WEIGHTS)
    assert max(float((v - begun[k]).abs().max())
               for k, v in first.ema.net.state_dict().items()) < 1e-3
    *_, update = run(tmp_path / "next", tiny=True, minutes=0.02, seed=9, start=str(whole[0]))
    assert update.seconds >= 1.2 and (tmp_path / "next" / WEIGHTS).exists()


@pytest.mark.slow
@pytest.mark.parametrize("name, hint, gaussian", [
    ("portraits-controlnet", "silhouette", False), ("portraits-controlnet-edges", "edges", False),
    ("portraits-controlnet-depth", "depth", False),
    ("portraits-controlnet-gaussian", "silhouette", True)])
def test_every_kind_is_a_recipe_for_the_shipped_model(tmp_path, name, hint, gaussian):
    module = importlib.import_module(f"coursekit.recipes.{name.replace('-', '_')}")
    assert module.NAME == name
    *_, update = module.run(tmp_path, tiny=True, steps=2)
    assert (update.step, page(tmp_path)["hint"], page(tmp_path)["gaussian"]) == (2, hint, gaussian)
    assert (tmp_path / "card.md").read_text().startswith(f"# {name}\n")
    controlnet.check_fit(pretrained.load_latent("portraits-sd"), controlnet.load(tmp_path))


def test_the_shipped_size_is_below_three_megabytes(monkeypatch):
    monkeypatch.undo()
    sd = pretrained.load_latent("portraits-sd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(portraits_controlnet, "WIDTHS", (8, 16, 32))
        net = portraits_controlnet.copied(sd.unet, False)
    assert 2 * sum(t.numel() for t in net.state_dict().values()) < 3e6
    controlnet.check_fit(sd, net)


# ---- the loss, the joints -------------------------------------------------------------------


def test_the_network_that_learns_is_the_predictor_that_samples(base):
    sd, net = portraits_controlnet.begin(base, True, 0, "cpu")
    z, t = sd.noise(2, torch.Generator().manual_seed(0)), 400
    words = ["a photo of a cat", ""]
    tokens = sd.tokenizer(words, padding="max_length", max_length=sd.context, return_tensors="pt")
    hint = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        v = Follower(sd, net)(z, torch.tensor([t, t]), tokens.input_ids, hint)
        eps = under(sd, Control(net, hint)).eps(words)(z, t)
        plain = sd.eps(words)(z, t)
    assert_close(from_eps(sd.schedule, "v", eps, z, t), v, rtol=0, atol=1e-5)
    assert (eps - plain).abs().max() > 1e-2


def test_joints_begin_at_zero_or_as_the_seed_says(base):
    nets = [portraits_controlnet.begin(base, gaussian, seed, "cpu")[1]
            for gaussian, seed in ((False, 0), (True, 0), (True, 0), (True, 1))]
    zero, *normal = ([net.controlnet_cond_embedding.conv_out, *net.controlnet_down_blocks,
                      net.controlnet_mid_block] for net in nets)
    assert not any(p.any() for joint in zero for p in joint.parameters())
    for a, b, c in zip(*normal, strict=True):
        assert torch.equal(a.weight, b.weight) and not torch.equal(a.weight, c.weight)
        assert not a.bias.any()
    weights = torch.cat([a.weight.flatten() * a.weight[0].numel() ** 0.5 for a in normal[0]])
    assert abs(weights.std() - 1) < 0.1
    for net in nets:  # the rest is the copy, and it learns
        assert torch.equal(net.conv_in.weight, nets[0].conv_in.weight)
        assert all(p.requires_grad for p in net.parameters())


# ---- the data -------------------------------------------------------------------------------


@pytest.mark.parametrize("hint", HINTS)
def test_hints_are_those_of_the_pictures_and_are_drawn_once(hint):
    updates = list(portraits_controlnet.sketch(N, hint, "cpu", None))
    rows = numpy.load(portraits_controlnet.hints(N, hint))
    assert rows.shape == (N, 4096 if hint == "depth" else 512) and rows.dtype == numpy.uint8
    assert not list(portraits_controlnet.sketch(N, hint, "cpu", None)) and len(updates) <= 1
    people = next(portraits_ddpm.records(N))
    wanted = HINTS[hint](people).float().view(N, 64, 64)
    found = portraits_controlnet.unpacked(rows, hint)
    assert_close(found, wanted, rtol=0, atol=0.51 / 255 if hint == "depth" else 0)
    assert 0.01 < found.mean() < 0.99
    assert portraits_controlnet.hints(N, hint) != portraits_controlnet.hints(N + 1, hint)


def test_batches_are_a_function_of_k_with_half_of_the_captions_empty(whole, base):
    sd = pretrained.load_latent(base)
    one, again, other = (Hinted(N, sd, "silhouette", 8, seed) for seed in (0, 0, 1))
    maps = portraits.silhouette(next(portraits_ddpm.records(N)))
    for k in (5, 0, 5):
        (z, c), (z2, c2) = one(k), again(k)
        assert torch.equal(z, z2) and all(torch.equal(c[n], c2[n]) for n in ("tokens", "hint"))
        assert torch.equal(c["hint"], as_hint(maps[one.rows(k)]))
        assert_close(z, sd.vae.config.scaling_factor * torch.from_numpy(
            one.pixels[one.rows(k)]).float(), rtol=0, atol=0)
    assert not torch.equal(other(5)[0], one(5)[0])
    empty = torch.cat([(one(k)[1]["tokens"] == one.empty).all(1) for k in range(200)])
    assert abs(empty.float().mean() - 0.5) < 0.04


def test_agreement_is_one_with_itself_and_falls_with_distance(generator):
    maps = portraits.silhouette(portraits.sample(8, generator, **portraits.TRAINING))
    agreement = portraits_controlnet.agreement
    assert agreement(maps, maps) == {"iou": 1.0, "outline": 1.0}
    box = torch.zeros(1, 20, 20, dtype=torch.bool)
    box[:, 5:15, 5:15] = True
    moved = box.roll(1, 2)
    assert agreement(moved, box) == {"iou": round(90 / 110, 4), "outline": 1.0}  # within a pixel
    away = agreement(box.roll(4, 2), box)
    assert away["iou"] == round(60 / 140, 4) and 0.3 < away["outline"] < 0.7
    nothing = torch.zeros_like(box)
    assert agreement(nothing, box) == agreement(nothing, nothing) == {"iou": 0.0, "outline": 0.0}
    someone = agreement(maps.roll(1, 0), maps)
    assert 0.6 < someone["iou"] < 0.95 and someone["outline"] < 0.8


# ---- refusals -------------------------------------------------------------------------------


def test_folders_several_devices_and_unknown_hints_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="data='x': portraits-controlnet-edges renders its own"):
        next(run(tmp_path, data="x", hint="edges"))
    with pytest.raises(ValueError, match="hint='pose': accepted are silhouette, edges, depth"):
        next(run(tmp_path, hint="pose"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE=2: portraits-controlnet trains on one device"):
        next(run(tmp_path))


def test_what_it_cannot_begin_with_is_refused(whole, base, tmp_path, monkeypatch):
    def refused(words, **asked):
        with pytest.raises(ValueError, match=words) as refusal:
            next(run(tmp_path / "out", tiny=True, **asked))
        assert "\n" not in str(refusal.value) and not (tmp_path / "out").exists()

    refused("has another tokenizer or prediction: accepted is a model of the recipe portraits-sd",
            start=str(tiny_sd.sd15(tmp_path / "sd")))
    refused("'judge' is no ControlNet", start="judge")
    refused("net has block_out_channels=.*accepted is a ControlNet that was made for it",
            start=str(whole[0]))  # of the toy model, not of the shipped one
    monkeypatch.setattr(portraits_controlnet, "BASE", base)
    refused("brings its own joints: gaussian accepts none", start=str(whole[0]), gaussian=True)


def test_a_run_of_another_kind_does_not_go_on(whole, base, tmp_path):
    for asked, words in (({"hint": "edges"}, "was begun with hint=silhouette, now it is edges"),
                         ({"gaussian": True}, "was begun with gaussian=False, now it is True")):
        with pytest.raises(ValueError, match=words):
            next(run(whole[0], tiny=True, start=base, **asked))
    with pytest.raises(ValueError, match="was begun with base=.*another folder, or --no-resume"):
        next(run(whole[0], tiny=True))
