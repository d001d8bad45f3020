"""The text-to-image recipe at its toy size, its data, and the bench that judges its result."""

from contextlib import closing

import diffusers
import numpy
import pytest
import tiny_sd
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from coursekit import images, portraits, pretrained, recipes
from coursekit.bench import text_to_image as bench
from coursekit.diffusion.sample import ddim, last
from coursekit.nets.judge import READ, SPREADS, Reading
from coursekit.portraits import CATEGORICAL
from coursekit.recipes import _twins, _words, portraits_ddpm, portraits_sd, portraits_vae

UNET, VAE = "unet/diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """Prepared data goes to a folder of these tests; a portrait is noise, a sheet is quick."""
    def renders(n, device):
        generator = torch.Generator().manual_seed(1)
        for i in range(0, n, 12):
            yield torch.rand(min(12, n - i), 3, 64, 64, generator=generator) * 2 - 1

    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(portraits_ddpm, "renders", renders)
        patch.setattr(portraits_sd, "STEPS", 2)
        yield cache / "coursekit"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of six updates, and its records."""
    out = tmp_path_factory.mktemp("whole") / "out"
    return out, list(portraits_sd.run(out, tiny=True, steps=6, seed=3))


# ---- the recipe -----------------------------------------------------------------------------


@torch.no_grad()
def test_it_leaves_a_genuine_pipeline(whole):
    out, updates = whole
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(out)
    assert isinstance(pipe.scheduler, diffusers.DDIMScheduler)
    assert {p.dtype for p in (*pipe.unet.parameters(), *pipe.text_encoder.parameters())} == {
        torch.float32}
    ema = updates[-1].ema
    half = {k: v.half().float() for k, v in ema.unet.state_dict().items()}
    assert_close(pipe.unet.state_dict(), half, rtol=0, atol=0)
    half = {k: v.half().float() for k, v in ema.text.state_dict().items()}
    assert_close(pipe.text_encoder.state_dict(), half, rtol=0, atol=0)

    sd = pretrained.load_latent(out)
    z = sd.noise(2, torch.Generator().manual_seed(0))
    prompts = ["a photo of a cat", "a portrait of a smiling woman"]
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(prompts, latents=z, num_inference_steps=9, guidance_scale=4.0,
                  output_type="latent").images
    ours = last(ddim(sd.eps(prompts, w=4.0), sd.schedule, z, sd.path(9))).x
    assert_close(ours, theirs, rtol=0, atol=1e-4)
    assert sd.path(9)[-2:] == [2, 1] and sd.prediction == "v"
    assert pipe(prompts[0], num_inference_steps=1).images[0].size == (64, 64)


def test_it_leaves_a_card_a_curve_and_a_sheet(whole):
    out, updates = whole
    assert (updates[-1].step, updates[-1].images) == (6, 48)
    assert any(u.step == 0 for u in updates)  # pictures, captions and latents were prepared
    card = (out / "card.md").read_text()
    assert "# portraits-sd" in card and "| Images seen | 48 |" in card and "12.5%" in card
    assert len((out / "log.txt").read_text().splitlines()) == 1
    assert [f.name for f in (out / "samples").iterdir()] == ["0000006.png"]
    assert "32 renders" in (out / "autoencoder/card.md").read_text()
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


@torch.no_grad()
def test_the_latents_have_unit_deviation_by_the_factor_that_is_shipped(whole):
    out, _ = whole
    sd = pretrained.load_latent(out)
    pixels = numpy.load(portraits_vae.pictures(portraits_vae.TINY_PORTRAITS))
    z = sd.encode(images.from_uint8(torch.from_numpy(pixels)))
    assert z.shape == (32, 4, 16, 16)
    assert_close(z.std(correction=0), torch.tensor(1.0), rtol=0, atol=5e-3)


@pytest.mark.slow
def test_stopped_in_either_stage_and_run_again_is_the_run_that_was_not(whole, tmp_path):
    out = tmp_path / "parts"
    for stage, stop in (("first", 2), ("second", 3)):
        stages = 0
        with closing(portraits_sd.run(out, tiny=True, steps=6, seed=3)) as updates:
            for update in updates:
                stages += update.step == 1 and stage == "second"
                if update.step == stop and (stage == "first" or update.steps == 6):
                    break
    *_, last_ = portraits_sd.run(out, tiny=True, steps=6, seed=3)
    assert last_.images == 48
    for file in (UNET, "text_encoder/model.safetensors", f"vae/{VAE}", f"autoencoder/{VAE}"):
        assert_close(load_file(out / file), load_file(whole[0] / file), rtol=0, atol=0)


@pytest.mark.slow
def test_the_first_stage_stands_still_once_the_second_has_begun(whole, tmp_path, own_cache):
    out, latents = tmp_path / "out", len(list(own_cache.glob("latents-*")))
    list(portraits_sd.run(out, tiny=True, steps=1, seed=3))
    before = (out / "autoencoder" / VAE).read_bytes()
    list(portraits_sd.run(out, tiny=True, minutes=0.5, steps=2, seed=3))
    assert (out / "autoencoder" / VAE).read_bytes() == before
    assert len(list(own_cache.glob("latents-*"))) == latents


@pytest.mark.slow
def test_minutes_count_both_stages(tmp_path):
    out = tmp_path / "out"
    *_, update = portraits_sd.run(out, tiny=True, minutes=0.02)
    assert update.seconds >= 1.2 and (out / "model_index.json").exists()
    assert list(portraits_sd.run(out, tiny=True, minutes=0.02)) == []  # they are over


@pytest.mark.slow
def test_from_begins_with_those_weights_and_keeps_their_autoencoder(whole, tmp_path):
    out, _ = whole
    first = next(u for u in portraits_sd.run(tmp_path / "next", tiny=True, steps=2, seed=9,
                                             start=str(out)) if u.step == 1)
    begun = load_file(out / UNET)
    assert max(float((v - begun[k]).abs().max())
               for k, v in first.ema.unet.state_dict().items()) < 1e-3
    *_, _ = portraits_sd.run(tmp_path / "next", tiny=True, steps=2, seed=9, start=str(out))
    assert_close(load_file(tmp_path / "next/vae" / VAE), load_file(out / "vae" / VAE), rtol=0,
                 atol=0)
    assert not (tmp_path / "next/autoencoder").exists()
    assert_close(load_file(tmp_path / "next" / TEXT), load_file(out / TEXT), rtol=0, atol=0)


@torch.no_grad()
def test_words_that_the_text_model_has_closed_are_opened_and_others_left_alone():
    words = _words.tokenizer()
    ids = [words.convert_tokens_to_ids(f"{w}</w>") for w in ("happy", "smiling", "sad", "frowning")]
    net = portraits_sd.Painter(portraits_sd.UNET | portraits_sd.TINY_UNET, portraits_sd.TEXT)
    vectors = net.text.get_input_embeddings().weight
    old = vectors.clone()
    assert not portraits_sd.reopen(net.text, words, 0)
    assert vectors.equal(old)  # a fresh one tells them apart

    vectors[ids] = vectors[ids].mean(0).expand(4, -1).clone()
    rest = vectors.clone()
    assert portraits_sd.reopen(net.text, words, 0)
    happy, smiling, sad, frowning = vectors[ids]
    assert happy.equal(smiling) and sad.equal(frowning)
    assert not happy.equal(sad)
    others = torch.ones(len(vectors), dtype=torch.bool)
    others[ids] = False
    assert vectors[others].equal(rest[others])
    seen = [net.text(torch.tensor(words([f"a photo of a {w} senior fox"])["input_ids"]))[0]
            for w in ("happy", "frowning")]
    assert (seen[0] - seen[1]).norm(dim=-1).max() > portraits_sd.CLOSED
    assert not portraits_sd.reopen(net.text, words, 1)


def test_from_a_pipeline_the_autoencoder_keeps_its_latents(whole, tmp_path):
    out, _ = whole
    list(portraits_vae.run(tmp_path / "better", tiny=True, steps=2, start=str(out)))
    before, after = (load_file(p / VAE) for p in (out / "vae", tmp_path / "better"))
    moved = {k.partition(".")[0] for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"decoder", "post_quant_conv"}
    old, new = (portraits_vae.read(p) for p in (out / "vae", tmp_path / "better"))
    assert new.config.scaling_factor == old.config.scaling_factor != 0.18215
    assert portraits_sd.latents(32, new) == portraits_sd.latents(32, old)
    list(portraits_vae.run(tmp_path / "other", tiny=True, steps=1, start=str(out / "autoencoder")))
    other = portraits_vae.read(tmp_path / "other")
    assert portraits_sd.latents(32, other) != portraits_sd.latents(32, old)


def test_the_shipped_size_is_below_nine_megabytes():
    from diffusers import AutoencoderKL

    parts = [portraits_sd.Painter(portraits_sd.UNET, portraits_sd.TEXT),
             AutoencoderKL(**portraits_vae.CONFIG)]
    bytes_ = sum(2 * t.numel() for part in parts for t in part.state_dict().values())
    assert 7.5e6 < bytes_ < 9e6
    with torch.no_grad():
        z = parts[1].encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
        v = parts[0](z, torch.tensor([1000]), torch.zeros(1, 48, dtype=torch.long))
    assert z.shape == v.shape == (1, 4, 16, 16)


def test_text_attends_at_16_and_8():
    from coursekit.nets.control import trace

    net = portraits_sd.Painter(portraits_sd.UNET, portraits_sd.TEXT).unet
    sites = trace(net, torch.zeros(1, 4, 16, 16), 3, torch.zeros(1, 5, portraits_sd.WIDTH))
    assert {(s.place, s.size[0]) for s in sites if s.is_cross} == {
        ("down", 16), ("down", 8), ("mid", 4), ("up", 8), ("up", 16)}


# ---- the data -------------------------------------------------------------------------------


def test_pictures_and_captions_are_of_the_same_records(monkeypatch):
    """By the recipe's own draw of records, with the real renderer's arguments caught."""
    drawn = []
    monkeypatch.undo()

    def render(people, size):
        drawn.extend(people.describe(i) for i in range(len(people)))
        return torch.zeros(len(people), 3, size, size)

    n = 300
    monkeypatch.setattr(portraits, "render", render)
    for batch in portraits_ddpm.records(n):
        portraits.render(batch, 64)
    words = _words.tokenizer()
    list(portraits_sd.tell(n, words, None))
    tokens = numpy.load(portraits_sd.captions(n))
    assert tokens.shape == (n, portraits_sd.CAPTIONS, _words.CONTEXT)
    for i in (0, 5, 255, 256, 299):
        texts = [words.decode(row, skip_special_tokens=True) for row in tokens[i].tolist()]
        record = drawn[i]
        nouns = portraits.captions.phrases("subject")[record["subject"]]
        assert all(any(noun in text for noun in nouns) for text in texts)
        longest = max(texts, key=len)
        if record["hat"] != "none" and " in a" in longest and len(longest) > 120:
            assert any(p in longest for p in portraits.captions.phrases("hat")[record["hat"]])
    assert len({len(t.split()) for t in texts}) > 1  # short ones and long ones


def test_twins_differ_in_one_thing_and_their_captions_in_its_words():
    n = 300
    chunks = list(_twins.pairs(n))
    assert [len(first) for first, _, _ in chunks] == [256, 44]
    for (first, second, names), training in zip(chunks, portraits_ddpm.records(n), strict=True):
        assert set(names) == set(_twins.CHANGED)
        for i, name in enumerate(names):
            assert first.describe(i) == training.describe(i)
            before, after = first.describe(i), second.describe(i)
            changed = {k for k in before if before[k] != after[k]}
            assert changed == {name} or (name, changed) == ("age", {"age", "beard"})
    words = _words.tokenizer()
    list(_twins.tell(n, portraits_sd.NAMING, 2, words, None))
    tokens = numpy.load(_twins.captions(n, portraits_sd.NAMING, 2, words))
    assert tokens.shape == (n, 2, 2, _words.CONTEXT)
    for i in range(256):  # each caption says of its own portrait what was changed
        a, b = (words.decode(row, skip_special_tokens=True) for row in tokens[i, 1].tolist())
        name = chunks[0][2][i]
        plain = portraits.caption(chunks[0][0][i : i + 1], None, 0)
        own, others = (portraits.recaption(plain, p[i : i + 1], name)[0] for p in chunks[0][:2])
        assert a != b
        for text, said in ((a, own), (b, others)):
            spoken = [phrase for phrases in portraits.captions.phrases(name).values()
                      for phrase in phrases if phrase in text]
            assert bool(said.naming(name)) == bool(spoken)


def test_a_batch_of_twins_is_a_function_of_k(whole):
    out, _ = whole
    vae, words = portraits_vae.read(out / "autoencoder"), _words.tokenizer()
    first, again = (portraits_sd.Twins(32, vae, words, 8, 0) for _ in range(2))
    for k in (5, 0, 5):
        (z, c), (z2, c2) = first(k), again(k)
        assert_close(z, z2, rtol=0, atol=0)
        assert torch.equal(c["tokens"], c2["tokens"]) and z.shape == (8, 4, 16, 16)
    second = torch.cat([portraits.render(some) for _, some, _ in _twins.pairs(32)])
    with torch.no_grad():
        wanted = vae.encode(images.from_uint8(images.to_uint8(second))).latent_dist.mean
    rows, (z, _) = first.rows(7)[2:], first(7)  # two pairs of smiles come before
    assert_close(z[5::2] / first.scale, wanted[rows], rtol=0, atol=2e-2)
    assert_close(z[4::2], first.scale * torch.from_numpy(numpy.load(
        portraits_sd.latents(32, vae))[rows]).float())


def test_half_of_the_twins_differ_in_the_smile_at_times_that_can_teach_it(whole):
    out, _ = whole
    vae, words = portraits_vae.read(out / "autoencoder"), _words.tokenizer()
    twins, empty = portraits_sd.Twins(32, vae, words, 8, 0), 0
    happy, sad = map(set, zip(*portraits_sd.SMILES, strict=True))
    for k in range(100):
        z, conditions = twins(k)
        texts = words.batch_decode(conditions["tokens"], skip_special_tokens=True)
        empty += texts.count("")
        assert not torch.equal(z[0], z[1]) and not torch.equal(z[2], z[3])
        for a, b in (texts[:2], texts[2:4]):
            one, other = set(a.split()) - set(b.split()), set(b.split()) - set(a.split())
            assert a == b == "" or (one & happy and other & sad) or (one & sad and other & happy)
    assert abs(empty / 800 - portraits_sd.EMPTY) < 0.05
    drawn = torch.stack([twins.times(4, torch.Generator().manual_seed(s)) for s in range(500)])
    early, late = portraits_sd.SMILED
    assert drawn[:, :2].min() > early and drawn[:, :2].max() <= late
    assert drawn[:, 2:].min() >= 1 and drawn[:, 2:].max() <= 1000
    assert abs(drawn[:, 2:].float().mean() - 500) < 20


def test_batches_are_a_function_of_k_with_some_captions_empty(whole):
    out, _ = whole
    vae = portraits_vae.read(out / "autoencoder")
    words = _words.tokenizer()
    list(portraits_sd.tell(32, words, None))
    first, again, other = (portraits_sd.Captioned(32, vae, words, 8, seed) for seed in (0, 0, 1))
    for k in (5, 0, 5):
        (z, c), (z2, c2) = first(k), again(k)
        assert_close(z, z2, rtol=0, atol=0)
        assert torch.equal(c["tokens"], c2["tokens"])
    assert not torch.equal(other(5)[0], first(5)[0])
    empty = torch.cat([(first(k)[1]["tokens"] == first.empty).all(1) for k in range(100)])
    assert abs(empty.float().mean() - portraits_sd.EMPTY) < 0.05
    rows, (z, c) = first.rows(7), first(7)
    assert_close(z, first.scale * torch.from_numpy(first.pixels[rows]).float())
    for row, tokens in zip(rows, c["tokens"], strict=True):
        told = [*torch.from_numpy(first.tokens[row].astype(int)), first.empty]
        assert any(torch.equal(tokens, t) for t in told)


def test_the_autoencoders_loss_is_its_closed_form():
    net = diffusers.AutoencoderKL(**portraits_vae.CONFIG | portraits_vae.TINY)
    x, noise = torch.rand(3, 3, 64, 64) * 2 - 1, torch.randn(3, 4, 16, 16)
    said = portraits_vae.objective(net, (x, noise), "cpu")
    posterior = net.encode(x).latent_dist
    y = net.decode(posterior.mean + posterior.std * noise).sample
    law = torch.distributions.Normal(posterior.mean, posterior.std)
    kl = torch.distributions.kl_divergence(law, torch.distributions.Normal(0.0, 1.0))
    def mean(y):
        return (y - x).square().mean((1, 2, 3)).prod() ** (1 / 3)

    assert_close(said, mean(y) + portraits_vae.KL * kl.sum() / 3)
    net.quant_conv.requires_grad_(False)
    alone = portraits_vae.objective(net, (x, noise), "cpu")
    assert_close(alone, mean(net.decode(posterior.mean).sample) + portraits_vae.KL * kl.sum() / 3)


def test_a_folder_is_written_whole_or_left_alone(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), recipes.whole_folder(tmp_path) as made:
        (made / "a.txt").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with recipes.whole_folder(tmp_path) as made:
        (made / "deep").mkdir()
        (made / "deep/a.txt").write_text("new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert (tmp_path / "deep/a.txt").read_text() == "new"


# ---- refusals -------------------------------------------------------------------------------


def test_folders_and_several_devices_are_refused(tmp_path, monkeypatch):
    for recipe in (portraits_sd, portraits_vae):
        with pytest.raises(ValueError, match="data='x'.*renders its own pictures"):
            next(recipe.run(tmp_path, data="x"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="WORLD_SIZE=2: portraits-sd trains on one device"):
        next(portraits_sd.run(tmp_path))


def test_weights_of_another_shape_are_refused(whole, tmp_path):
    out, _ = whole
    with pytest.raises(ValueError, match="UNet2DConditionModel of another shape or prediction"):
        next(portraits_sd.run(tmp_path / "out", start=str(tiny_sd.sd15(tmp_path / "sd"))))
    with pytest.raises(ValueError, match="autoencoder of another shape: accepted is one of the"):
        next(portraits_vae.run(tmp_path / "out", start=str(out / "vae")))
    with pytest.raises(ValueError, match="holds no autoencoder that can be read"):
        next(portraits_vae.run(tmp_path / "out", start=str(out / "unet")))


# ---- the bench ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_bench_prints_every_gate(whole, monkeypatch):
    monkeypatch.setattr(bench, "WEIGHTS", (1.0, 3.0))
    monkeypatch.setattr(bench, "STEPS", 2)
    monkeypatch.setattr(bench, "RUNS", 1)
    rows = list(bench.gates(pretrained.load_latent(whole[0]), 0, "cpu", 4, 12, 6))
    found = {row.name.partition(";")[0]: row for row in rows}
    assert found["autoencoder: PSNR"].ours < 30  # four updates on noise do not pass
    assert found["the judge on the renders themselves: mean"].ours > 0.9
    assert found["largest difference from diffusers' latents, 2 steps"].ours <= 1e-4
    for w in (1, 3):
        assert found[f"w = {w}: named attributes read, mean"].ours < 0.9
        assert found[f"w = {w}: FID_w"].ours > found[f"w = {w}: FID_w"].peer
    assert found["place of the samples from floor (0) to blur (1)"].ours > 1
    assert sum("subject (renders" in name for name in found) == 1


def reading_of(p):
    """What a judge without error would say of the records."""
    logits = {name: 9.0 * torch.nn.functional.one_hot(getattr(p, name), len(values)).float()
              for name, values in CATEGORICAL.items()}
    mean = torch.zeros(len(p), len(READ))
    for name in ("age", "smile"):
        k = READ.index(name)
        low, high = portraits.CONTINUOUS[name]
        mean[:, k] = (getattr(p, name) - (low + high) / 2) / SPREADS[k]
    return Reading(logits, mean, mean)


def test_an_error_free_judge_reads_every_named_attribute(generator):
    p, captions = bench.told(200, 0, "cpu")
    found = bench.accuracies(reading_of(p), p, captions)
    assert {share for share, _ in found.values()} == {1.0} and bench.mean(found) == 1
    assert set(found) == set(portraits.captions.NAMED) - {"style"}
    assert found["subject"][1] == 200 and 0 < found["hat"][1] < 200


def test_what_is_read_otherwise_counts_as_missed():
    p, captions = bench.told(200, 0, "cpu")
    other = p.replace(hat=(p.hat + 1) % 4, age=1 - p.age, smile=-p.smile)
    found = bench.accuracies(reading_of(other), p, captions)
    assert found["hat"][0] == found["smile"][0] == 0 and found["subject"][0] == 1
    assert found["age"][0] < 0.2  # 0.75 turned round is 0.25: no caption's word for both
