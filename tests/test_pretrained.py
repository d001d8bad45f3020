"""Models by name, folder and hub id: what comes back is what was saved, and damage is refused."""

import json
import re
import shutil

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from coursekit import manifest, pretrained
from coursekit.diffusion.schedule import Schedule
from coursekit.nets.unet import UNet

TINY = dict(channels=[8, 16], encoder=[1, 1], decoder=[1, 1], attention=[1], head_dim=8, groups=4)


@pytest.fixture
def net():
    """A tiny network of ours whose every weight is random: a fresh one puts out zeros."""
    net = UNet(**TINY)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.2)
    return net.eval()


@pytest.fixture
def folder(tmp_path, net):
    folder = pretrained.save(tmp_path / "mine", net, TINY, Schedule.cosine(), "v")
    (folder / "card.md").write_text("# A tiny model\n")
    return folder


@pytest.fixture
def shipped(tmp_path, monkeypatch, folder):
    """A weights folder with two models, `one` and `two`, of the same architecture."""
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "manifest.json").write_text("{}")
    monkeypatch.setattr(manifest, "WEIGHTS", weights)
    manifest.freeze(folder, "two")
    pretrained.save(folder, UNet(**TINY), TINY, Schedule.cosine(), "v")
    manifest.freeze(folder, "one")
    return weights


@pytest.fixture
def tiny_diffusers():
    return diffusers.UNet2DModel(
        sample_size=16, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "UpBlock2D"))


# ---- our own folders

def test_a_saved_network_comes_back(folder, net, generator):
    loaded = pretrained.load(folder)
    x, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([10, 900])
    halved = UNet(**TINY)
    halved.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    assert_close(loaded.net(x, t), halved(x, t), rtol=0, atol=0)
    assert not loaded.net.training and loaded.prediction == "v"
    assert_close(loaded.schedule.abar, Schedule.cosine().abar, rtol=0, atol=0)
    assert {p.dtype for p in loaded.net.parameters()} == {torch.float32}
    assert {v.dtype for v in load_file(folder / "model.safetensors").values()} == {torch.float16}
    assert loaded.card.read_text() == "# A tiny model\n"


def test_its_eps_is_the_converted_prediction(folder, generator):
    loaded = pretrained.load(str(folder))
    x = torch.randn(1, 3, 16, 16, generator=generator)
    abar = loaded.schedule.abar[400]
    v = loaded.net(x, torch.tensor([400]))
    assert_close(loaded.eps()(x, 400), (abar.sqrt() * v + (1 - abar).sqrt() * x).float())


def test_weights_that_fp16_cannot_hold_are_refused_before_writing(tmp_path, net):
    for value in (float("nan"), 1e6):
        with torch.no_grad():
            net.output.bias[0] = value
        with pytest.raises(ValueError, match="net.output.bias.*65504"):
            pretrained.save(tmp_path / "bad", net, TINY)
    assert not (tmp_path / "bad").exists()
    with pytest.raises(TypeError, match="Linear.*UNet"):
        pretrained.save(tmp_path / "bad", torch.nn.Linear(1, 1), {})


def rewrite(folder, **changes):
    page = json.loads((folder / "config.json").read_text())
    page.update(changes)
    (folder / "config.json").write_text(json.dumps(page))


@pytest.mark.parametrize("damage, words", [
    (lambda f: (f / "model.safetensors").unlink(), "model.safetensors' is missing"),
    (lambda f: (f / "model.safetensors").write_bytes(b"rubbish"), "no safetensors"),
    (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-9]),
     "damaged"),
    (lambda f: (f / "config.json").write_text("{"), "no JSON"),
    (lambda f: (f / "config.json").write_text("[]"), "no table"),
    (lambda f: rewrite(f, net="transformer"), "'transformer'.*judge, unet"),
    (lambda f: rewrite(f, config={"widths": [8]}), "describes no UNet"),
    (lambda f: rewrite(f, config=TINY | {"channels": [8, 24]}), "does not fit.*the network has"),
    (lambda f: rewrite(f, schedule={"name": "zigzag"}), "zigzag"),
], ids=["missing", "rubbish", "cut", "half-json", "list", "kind", "config", "shape", "schedule"])
def test_a_damaged_folder_is_refused_in_one_line(folder, damage, words):
    damage(folder)
    with pytest.raises(ValueError, match=words) as refusal:
        pretrained.load(folder)
    assert "\n" not in str(refusal.value)


def test_a_missing_weight_is_named(folder):
    state = load_file(folder / "model.safetensors")
    del state["output.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"output.bias is None, the network has \(12,\)"):
        pretrained.load(folder)


def test_a_network_without_schedule_predicts_no_noise(tmp_path, net):
    loaded = pretrained.load(pretrained.save(tmp_path / "reader", net, TINY))
    with pytest.raises(ValueError, match="predicts no noise"):
        loaded.eps()


# ---- shipped models

def test_shipped_models_load_by_name(shipped):
    assert pretrained.names() == ["one", "two"]
    assert pretrained.path("one") == shipped / "one"
    assert pretrained.load("two").source == shipped / "two"
    assert not torch.equal(pretrained.load("one").net.input.weight,
                           pretrained.load("two").net.input.weight)


def flip_a_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("damage, words", [
    (lambda w: flip_a_bit(w / "one/model.safetensors"), "model.safetensors is not the file"),
    (lambda w: shutil.copy(w / "two/model.safetensors", w / "one"), "model.safetensors is not"),
    (lambda w: rewrite(w / "one", prediction="eps"), "config.json is not the file"),
    (lambda w: (w / "one/card.md").unlink(), "card.md is missing"),
    (lambda w: (w / "one/model.bin").write_bytes(b""), "model.bin does not belong"),
], ids=["corrupted", "swapped", "edited", "missing", "extra"])
def test_a_shipped_folder_that_changed_is_refused(shipped, damage, words):
    damage(shipped)
    for use in (pretrained.load, pretrained.path):
        with pytest.raises(ValueError, match=f"'one': {words}"):
            use("one")
    pretrained.load("two")


def test_hidden_files_of_a_desktop_do_no_harm(shipped):
    (shipped / "one/.DS_Store").write_bytes(b"")
    pretrained.load("one")


def test_freeze_replaces_and_cleans(shipped, folder):
    before = manifest._sums()
    (shipped / "one/old.txt").write_text("stale")
    rewrite(folder, prediction="eps")
    manifest.freeze(folder, "one")
    assert pretrained.load("one").prediction == "eps"
    assert manifest._sums()["two"] == before["two"] and not (shipped / "one/old.txt").exists()


def test_freeze_takes_the_parts_of_a_pipeline_and_not_what_its_training_left(shipped, tmp_path):
    made = tmp_path / "pipeline"
    for file in ("unet/config.json", "autoencoder/config.json", "card.md", "checkpoint.pt"):
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        (made / file).write_text("{}")
    (made / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    frozen = manifest.freeze(made, "three")
    found = {p.relative_to(frozen).as_posix() for p in frozen.rglob("*") if p.is_file()}
    assert found == {"unet/config.json", "card.md", "model_index.json"}


def test_freeze_carries_a_measured_table_until_weights_come_without_one(shipped, folder):
    (shipped / "one" / manifest.STEPS_ETA).write_text("{}\n")
    with pytest.raises(ValueError, match="steps_eta.jsonl does not belong"):
        pretrained.path("one")
    manifest.freeze(shipped / "one", "one")  # in place, as a maintainer adds a file
    assert manifest._sums()["one"].keys() == {*manifest.OWN_FILES, manifest.STEPS_ETA}
    assert (pretrained.path("one") / manifest.STEPS_ETA).read_text() == "{}\n"
    (shipped / "one" / manifest.STEPS_ETA).write_text("{} \n")
    with pytest.raises(ValueError, match="steps_eta.jsonl is not the file"):
        pretrained.path("one")
    manifest.freeze(folder, "one")
    assert manifest._sums()["one"].keys() == set(manifest.OWN_FILES)
    assert not (pretrained.path("one") / manifest.STEPS_ETA).exists()


def test_freeze_wants_a_card_and_a_plain_name(shipped, folder):
    (folder / "card.md").unlink()
    with pytest.raises(ValueError, match="no card.md"):
        manifest.freeze(folder, "three")
    with pytest.raises(ValueError, match="lower-case"):
        manifest.freeze(folder, "../three")
    assert pretrained.names() == ["one", "two"] and not (shipped / "three").exists()


def test_freeze_takes_a_diffusers_folder_without_its_pickles(shipped, tmp_path, tiny_diffusers):
    tiny_diffusers.save_pretrained(tmp_path / "pipe/unet")
    (tmp_path / "pipe/card.md").write_text("# Card\n")
    (tmp_path / "pipe/training.pt").write_bytes(b"state")
    manifest.freeze(tmp_path / "pipe", "three")
    assert set(manifest._sums()["three"]) == {
        "card.md", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"}
    pretrained.path("three")


def test_everything_really_shipped_is_whole_and_small():
    for name in pretrained.names():
        pretrained.path(name)
    stray = [p.name for p in manifest.WEIGHTS.iterdir() if p.is_dir()]
    assert sorted(stray) == pretrained.names()
    assert sum(p.stat().st_size for p in manifest.WEIGHTS.rglob("*")) <= 80e6
    for page in manifest.WEIGHTS.rglob("*config.json"):  # where it was trained concerns nobody
        assert not re.search(r'"/\w+/', page.read_text(encoding="utf-8")), page


# ---- diffusers folders and hub ids

@pytest.mark.parametrize("said, ours", [("epsilon", "eps"), ("v_prediction", "v")])
def test_a_pipeline_brings_its_schedule(tmp_path, tiny_diffusers, generator, said, ours):
    scheduler = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type=said)
    diffusers.DDIMPipeline(tiny_diffusers, scheduler).save_pretrained(tmp_path)
    loaded = pretrained.load(tmp_path)
    assert loaded.prediction == ours and loaded.diffusers
    assert_close(loaded.schedule.abar[1:], scheduler.alphas_cumprod.double())
    x = torch.randn(1, 3, 16, 16, generator=generator)
    tiny_diffusers.eval()
    with torch.no_grad():
        out, abar = tiny_diffusers(x, 499).sample, loaded.schedule.abar[500]
        eps = out if ours == "eps" else (abar.sqrt() * out + (1 - abar).sqrt() * x).float()
        assert_close(loaded.eps()(x, 500), eps)


def test_a_bare_network_needs_to_be_told_its_schedule(tmp_path, tiny_diffusers):
    tiny_diffusers.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="bare UNet2DModel: give schedule= and prediction="):
        pretrained.load(tmp_path)
    loaded = pretrained.load(tmp_path, schedule=Schedule.linear(), prediction="eps")
    assert loaded.prediction == "eps" and loaded.schedule.T == 1000


def test_a_model_that_says_its_schedule_is_not_told_another(folder):
    with pytest.raises(ValueError, match="leave both out"):
        pretrained.load(folder, schedule=Schedule.linear(), prediction="eps")


def test_flow_matching_is_refused_not_guessed(tmp_path, tiny_diffusers):
    pipe = diffusers.DDPMPipeline(tiny_diffusers, diffusers.DDPMScheduler())
    pipe.save_pretrained(tmp_path)
    diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler.*beta_schedule"):
        pretrained.load(tmp_path)


def test_pickled_and_damaged_diffusers_weights_are_refused(tmp_path, tiny_diffusers):
    given = dict(schedule=Schedule.linear(), prediction="eps")
    tiny_diffusers.save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(ValueError, match="cannot be read"):
        pretrained.load(tmp_path / "pickled", **given)
    tiny_diffusers.save_pretrained(tmp_path / "cut")
    file = tmp_path / "cut/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        pretrained.load(tmp_path / "cut", **given)


def test_an_empty_folder_and_an_unreachable_hub_id_are_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        pretrained.load(tmp_path)
    with pytest.raises(ValueError, match="'nobody/nothing' holds no model.*network or its cache"):
        pretrained.load("nobody/nothing")


def test_unknown_names_list_the_known(shipped):
    for use in (pretrained.load, pretrained.path):
        with pytest.raises(ValueError, match="'three'.*one, two"):
            use("three")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "CPU", "", None])
def test_unknown_devices_are_refused(device):
    with pytest.raises(ValueError, match="accepted are cpu, cuda, cuda:N, mps"):
        pretrained.check_device(device)


def test_devices_that_are_not_here_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pretrained.check_device("cuda") == "cuda" and pretrained.check_device("cuda:0")
    for device in ("cuda:1", "mps"):
        with pytest.raises(ValueError, match=f"'{device}' is not available.*cpu, cuda:0, cuda"):
            pretrained.check_device(device)
