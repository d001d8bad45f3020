"""Stable Diffusion as one object: equal to diffusers' own pipelines on three topologies."""

import shutil
from copy import deepcopy
from types import SimpleNamespace

import diffusers
import huggingface_hub
import pytest
import tiny_sd
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, StableDiffusionXLPipeline
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from coursekit import pretrained
from coursekit.diffusion.sample import ddim, invert, last
from coursekit.nets import checkpoint
from coursekit.nets.control import controlled, trace
from coursekit.nets.latent import Latent

CAT, DOG = "a photo of a cat", "a dog"


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of the smallest checkpoint, to damage."""
    return shutil.copytree(folders["sd15"], tmp_path / "copy")


@pytest.fixture(scope="module")
def pipes(folders):
    """diffusers' own pipelines of the same folders, with its DDIM scheduler."""
    found = {}
    for name, folder in folders.items():
        kind = StableDiffusionXLPipeline if name == "sdxl" else StableDiffusionPipeline
        pipe = found[name] = kind.from_pretrained(folder)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
    return found


@torch.no_grad()
def draw(sd, z, steps, *args, **more):
    return last(ddim(sd.eps(*args, **more), sd.schedule, z, sd.path(steps))).x


# ---- beside diffusers -----------------------------------------------------------------------


def test_a_few_steps_are_the_pipelines(pipes, topology, sd, generator):
    for w, negative, size in ((1.0, None, None), (5.0, None, None), (3.0, "a horse", (64, 96))):
        z = sd.noise(2, generator, size)
        h, v = (sd.factor * n for n in z.shape[2:])
        theirs = pipes[topology](
            [CAT, DOG], negative_prompt=negative and [negative] * 2, latents=z, guidance_scale=w,
            num_inference_steps=2, height=h, width=v, output_type="latent").images
        assert_close(draw(sd, z, 2, [CAT, DOG], negative or "", w), theirs, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_thirty_guided_steps_are_the_pipelines(pipes, topology, sd, generator):
    z = sd.noise(1, generator)
    theirs = pipes[topology](CAT, latents=z, guidance_scale=5.0, num_inference_steps=30,
                             output_type="pt").images
    z = draw(sd, z, 30, CAT, w=5.0)
    assert_close((sd.decode(z) / 2 + 0.5).clamp(0, 1), theirs, rtol=0, atol=1e-4)


@torch.no_grad()
def test_text_is_the_pipelines(pipes, topology, sd):
    """Both texts, and what stands for no negative prompt."""
    pipe = pipes[topology]
    if topology == "sdxl":
        tokens, none, pooled, no_pool = pipe.encode_prompt(CAT, device="cpu")
        assert_close(sd.text(CAT).pooled, pooled)
        assert none.abs().max() == 0 and no_pool.abs().max() == 0 and sd.zeros
    else:
        tokens, none = pipe.encode_prompt(CAT, "cpu", 1, True)
        assert_close(sd.text("").tokens, none)
        assert sd.text(CAT).pooled is None and not sd.zeros
    assert_close(sd.text(CAT).tokens, tokens)


@torch.no_grad()
@pytest.mark.parametrize("change", [
    {"shift_factor": 0.1}, {"latents_mean": [0.1, 0, -0.1, 0.2], "latents_std": [1, 2, 1, 3]}])
def test_latents_are_the_autoencoders(folder, generator, change):
    tiny_sd.rewrite(folder / "vae/config.json", **change)
    sd = pretrained.load_latent(folder)
    x = torch.rand(2, 3, 32, 48, generator=generator) * 2 - 1
    vae = diffusers.AutoencoderKL.from_pretrained(folder / "vae")
    mean = vae.encode(x).latent_dist.mean
    if "latents_mean" in change:
        m, s = (torch.tensor(change[k]).view(1, 4, 1, 1) for k in ("latents_mean", "latents_std"))
        expected = (mean - m) * 0.18215 / s
    else:
        expected = (mean - change.get("shift_factor", 0)) * 0.18215
    z = sd.encode(x)
    assert_close(z, expected)
    assert_close(sd.decode(z), vae.decode(mean).sample, rtol=0, atol=1e-5)
    assert z.shape == (2, 4, 4, 6) and sd.factor == 8


@pytest.mark.parametrize("changes, expected", [
    ({}, [982, 962, 2, 1]),
    ({"set_alpha_to_one": True}, [982, 962, 2, 0]),
    ({"steps_offset": 0, "set_alpha_to_one": True}, [981, 961, 1, 0]),
    ({"steps_offset": 0}, [981, 961, 21, 1]),
    ({"timestep_spacing": "trailing"}, [1000, 980, 20, 1]),
])
def test_the_path_has_the_schedulers_times_and_last_level(folder, changes, expected):
    """At level 1 already, a last step from time 1 would move nothing: the path leaves it out."""
    file = folder / "scheduler/scheduler_config.json"
    tiny_sd.rewrite(file, **changes)
    path = pretrained.load_latent(folder).path(50)
    assert [*path[:2], *path[-2:]] == expected
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(50)
    times = [int(k) + 1 for k in scheduler.timesteps]
    assert path[:-1] == [t for t in times if t > path[-1]]


@torch.no_grad()
def test_velocity_is_read_as_velocity(models, generator):
    sd = models["sd21"]
    x, t = sd.noise(1, generator), 700
    v = sd.unet(x, t - 1, sd.text(CAT).tokens).sample
    abar = sd.schedule.abar[t]
    assert sd.prediction == "v"
    assert_close(sd.eps(CAT)(x, t), (abar.sqrt() * v + (1 - abar).sqrt() * x).float())


# ---- guidance -------------------------------------------------------------------------------


@torch.no_grad()
def test_guidance_is_linear_in_w_and_a_swap_reflects_it(sd, generator):
    x = sd.noise(1, generator)
    at = {w: sd.eps(CAT, DOG, w)(x, 500) for w in (0.0, 1.0, 4.0)}
    assert_close(at[4.0], at[0.0] + 4 * (at[1.0] - at[0.0]), rtol=0, atol=2e-5)
    assert_close(at[0.0], sd.eps(DOG)(x, 500), rtol=0, atol=2e-5)
    assert_close(sd.eps(DOG, CAT, -3.0)(x, 500), at[4.0], rtol=0, atol=2e-5)


@torch.no_grad()
def test_the_prompt_as_its_own_negative_makes_w_irrelevant(sd, generator):
    x = sd.noise(1, generator)
    assert_close(sd.eps(CAT, CAT, 7.5)(x, 500), sd.eps(CAT, CAT, 3.0)(x, 500), rtol=0, atol=2e-5)


@torch.no_grad()
def test_a_guided_pair_is_one_call_and_w_one_is_half_of_it(sd, generator):
    seen, x = [], sd.noise(2, generator)
    hook = sd.unet.register_forward_pre_hook(
        lambda _m, args, kw: seen.append((args[0].shape[0], kw["encoder_hidden_states"])),
        with_kwargs=True)
    sd.eps([CAT, DOG], "a horse", w=4.0)(x, 10)
    sd.eps([CAT, DOG], "", w=1)(x, 10)
    hook.remove()
    (rows, text), (plain, _) = seen
    assert (rows, plain) == (4, 2)
    assert_close(text, torch.cat([sd.text(["a horse"] * 2).tokens, sd.text([CAT, DOG]).tokens]))


def test_gradients_reach_an_embedding_and_no_weight(sd, generator):
    free = sd.text("")
    free.tokens.requires_grad_()
    sd.eps(CAT, free, 3.0)(sd.noise(1, generator), 300).square().mean().backward()
    assert free.tokens.grad.abs().max() > 0
    assert not any(p.requires_grad for m in (sd.unet, sd.vae, *sd.encoders) for p in m.parameters())


@torch.no_grad()
def test_inversion_along_the_path_starts_at_its_last_level(models, generator):
    sd = models["sd21"]
    z, path = 0.5 * sd.noise(1, generator), sd.path(10)
    up = list(invert(sd.eps(CAT), sd.schedule, z, path))
    back = last(ddim(sd.eps(CAT), sd.schedule, up[-1].x, path)).x
    assert (up[0].t, up[-1].t) == (1, 902)
    assert (back - z).square().mean().sqrt() < 0.3 * z.std()


# ---- the seam -------------------------------------------------------------------------------

BLOCKS = {"sd15": 16, "sd21": 16, "sdxl": 70}


@torch.no_grad()
def test_the_topology_is_the_real_ones(sd, topology, generator):
    text = sd.text(CAT)
    eps, x = sd.eps(text), sd.noise(1, generator)
    with controlled(sd.unet) as sites:
        eps(x, 500)
    assert len(sites) == 2 * BLOCKS[topology]
    assert [s.is_cross for s in sites] == [False, True] * BLOCKS[topology]
    if topology != "sdxl":
        blocks = [f"down_blocks.{i}.attentions.{j}" for i in (0, 1, 2) for j in (0, 1)]
        blocks += ["mid_block.attentions.0"]
        blocks += [f"up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in (0, 1, 2)]
        assert [s.name for s in sites][::2] == [
            f"{b}.transformer_blocks.0.attn1" for b in blocks]
        assert [s.size[0] for s in sites][::2] == [16, 16, 8, 8, 4, 4, 2, *[4] * 3, *[8] * 3,
                                                   *[16] * 3]
        assert trace(sd.unet, x, 3, text.tokens) == sites


@torch.no_grad()
def test_an_identity_control_is_exact(sd, generator):
    x, eps = sd.noise(1, generator), sd.eps(CAT, w=5.0)
    plain, words = eps(x, 500), []
    with controlled(sd.unet, qkv=lambda site, q, k, v: (q, k, v)):
        assert_close(eps(x, 500), plain, rtol=0, atol=0)

    def same(site, A):
        if site.is_cross:
            words.append(A.shape[-1])
        return A

    with controlled(sd.unet, probs=same):
        assert_close(eps(x, 500), plain, rtol=0, atol=2e-5)
    assert set(words) == {sd.context}


def test_words_know_their_tokens(models):
    sd, prompt = models["sd15"], "a  photo of a HORSE, please"
    assert sd.words(prompt) == [
        ("a", [1]), ("photo", [2]), ("of", [3]), ("a", [4]),
        ("HORSE,", [5, 6, 7, 8, 9, 10]), ("please", [11, 12, 13, 14, 15, 16])]
    pieces = sd.tokenizer.convert_ids_to_tokens(sd.tokenizer(prompt)["input_ids"])
    assert "".join(pieces[5:10]) == "horse</w>" and sd.words("") == []


# ---- precision and memory -------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name, dtype", [("sd21", torch.float16), ("sd15", torch.bfloat16)])
def test_half_precision_stays_inside_the_networks(folders, models, name, generator, dtype):
    sd, whole = pretrained.load_latent(folders[name], dtype=dtype), models[name]
    assert {p.dtype for m in (sd.unet, *sd.encoders) for p in m.parameters()} == {dtype}
    assert sd.vae.dtype == torch.float32  # each of these says force_upcast
    x = sd.noise(1, generator)
    out = sd.eps(CAT, w=2.0)(x, 700)
    assert out.dtype == x.dtype == torch.float32
    assert_close(out, whole.eps(CAT, w=2.0)(x, 700), rtol=0, atol=0.1)
    picture = sd.decode(out)
    assert picture.dtype == torch.float32 and sd.encode(picture.clamp(-1, 1)).isfinite().all()


def test_an_autoencoder_that_does_not_ask_for_it_is_not_widened(folder):
    tiny_sd.rewrite(folder / "vae/config.json", force_upcast=False)
    sd = pretrained.load_latent(folder, dtype=torch.bfloat16)
    assert sd.vae.dtype == torch.bfloat16
    assert sd.encode(torch.zeros(1, 3, 32, 32)).dtype == torch.float32


def test_what_does_not_fit_is_refused_before_it_is_read(folders, models, monkeypatch):
    sd, folder = models["sdxl"], folders["sdxl"]
    numbers = sum(t.numel() for m in (sd.unet, sd.vae, *sd.encoders)
                  for t in m.state_dict().values())
    monkeypatch.setattr(checkpoint, "free_memory", lambda device: 4 * numbers - 1)
    with monkeypatch.context() as patch:
        patch.setattr(diffusers.UNet2DConditionModel, "from_pretrained", None)
        with pytest.raises(ValueError, match=r"does not fit.* M weights take .* GB in float32, "
                                             r"device 'cpu' has .* GB free; dtype=torch.float16"):
            pretrained.load_latent(folder)
    pretrained.load_latent(folder, dtype=torch.float16)


def test_free_memory_is_a_number_here():
    assert 1e6 < checkpoint.free_memory("cpu") < 1e14


@pytest.mark.parametrize("dtype, expected", [(torch.float32, [None, 1]),
                                             (torch.float16, ["fp16", 2])])
def test_variants_and_shards_are_found(folder, models, dtype, expected):
    """An fp16 copy in two shards beside the whole weights: half precision reads that one."""
    unet = deepcopy(models["sd15"].unet).half()
    size = sum(p.numel() * 2 for p in unet.parameters())
    unet.save_pretrained(folder / "unet", variant="fp16", max_shard_size=size * 2 // 3)
    variant, files = checkpoint.find(folder).weights("unet", dtype)
    assert [variant, len(files)] == expected
    assert pretrained.load_latent(folder, dtype=dtype).unet.dtype == dtype


# ---- the hub --------------------------------------------------------------------------------


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The copy as a repository: what the hub's client would answer, and what was fetched."""
    fetched = []

    def header(self, source, file):
        state = load_file(folder / file)
        return SimpleNamespace(parameter_count={"F32": sum(t.numel() for t in state.values())})

    def snapshot(source, allow_patterns=None, local_files_only=False):
        fetched.extend(allow_patterns)
        return str(folder)

    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    listing = SimpleNamespace(siblings=[SimpleNamespace(rfilename=n) for n in names])
    api = huggingface_hub.HfApi
    monkeypatch.setattr(api, "model_info", lambda self, source, timeout: listing)
    monkeypatch.setattr(api, "parse_safetensors_file_metadata", header)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda source, file: folder / file)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return fetched


def test_a_hub_id_is_fetched_without_what_is_not_needed(hub, folder):
    (folder / "unet/diffusion_pytorch_model.bin").write_bytes(b"pickled")
    sd = pretrained.load_latent("somebody/something")
    assert sd.source == "somebody/something"
    weights = [f for f in hub if f.endswith(".safetensors")]
    assert sorted(weights) == ["text_encoder/model.safetensors",
                               "unet/diffusion_pytorch_model.safetensors",
                               "vae/diffusion_pytorch_model.safetensors"]
    assert not any(f.endswith(".bin") for f in hub)


def test_what_does_not_fit_is_not_downloaded(hub, monkeypatch):
    monkeypatch.setattr(checkpoint, "free_memory", lambda device: 1000)
    with pytest.raises(ValueError, match="'somebody/something' does not fit"):
        pretrained.load_latent("somebody/something")
    assert hub == []


def refuse(kind):
    def ask(*_, **__):
        raise kind("many\nlines", response=SimpleNamespace(headers={}, request=None))

    return ask


@pytest.mark.parametrize("kind, words", [
    (GatedRepoError, "'somebody/something' is gated: accept its terms"),
    (RepositoryNotFoundError, "'somebody/something' is not on the hub, or private"),
])
def test_missing_and_gated_models_are_refused(hub, monkeypatch, kind, words):
    """Gated ones let their files be listed, and refuse at the first that is asked for."""
    place = huggingface_hub if kind is GatedRepoError else huggingface_hub.HfApi
    what = "hf_hub_download" if kind is GatedRepoError else "model_info"
    monkeypatch.setattr(place, what, refuse(kind))
    refused(words, "somebody/something")


def test_without_the_hub_a_copy_is_used_and_its_lack_is_said(hub, folder, monkeypatch):
    refused("'nobody/nothing' is not in the cache and the hub cannot be reached", "nobody/nothing",
            restored=monkeypatch)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse(ConnectionError))
    monkeypatch.setattr(huggingface_hub, "snapshot_download",
                        lambda source, local_files_only: str(folder))
    assert pretrained.load_latent("somebody/something").path(2) == [502, 2, 1]


# ---- refusals -------------------------------------------------------------------------------


def refused(words, source, restored=None, **more):
    if restored is not None:
        restored.undo()
    with pytest.raises(ValueError, match=words) as refusal:
        pretrained.load_latent(source, **more)
    assert "\n" not in str(refusal.value)


def cut(file):
    file.write_bytes(file.read_bytes()[:-20])


def lose_a_weight(file):
    state = load_file(file)
    del state[sorted(state)[0]]
    save_file(state, file, {"format": "pt"})


def pickled(folder):
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()


UNET, TEXT = "unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"


@pytest.mark.parametrize("damage, words", [
    (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    (lambda f: (f / "model_index.json").write_text("{"), "model_index.json is damaged"),
    (lambda f: (f / "model_index.json").write_text("[1]"), "holds no table"),
    (lambda f: tiny_sd.rewrite(f / "model_index.json", transformer=["diffusers", "Flux"]),
     r"of .*transformer \(Flux\).*: accepted is Stable Diffusion 1, 2 or XL"),
    (lambda f: tiny_sd.rewrite(f / "model_index.json", text_encoder=["transformers", "T5"]),
     r"text_encoder \(T5\)"),
    (pickled, "no safetensors weights in unet/"),
    (lambda f: cut(f / UNET), "is damaged or no safetensors file"),
    (lambda f: lose_a_weight(f / UNET), "unet' lacks 1 weights, as conv_in.bias"),
    (lambda f: lose_a_weight(f / TEXT), "text_encoder' lacks 1 weights"),
    (lambda f: tiny_sd.rewrite(f / "unet/config.json", cross_attention_dim=8), "cannot be read"),
    (lambda f: tiny_sd.rewrite(f / "scheduler/scheduler_config.json", prediction_type="flow"),
     "prediction_type='flow'"),
    (lambda f: tiny_sd.rewrite(f / "scheduler/scheduler_config.json",
                               rescale_betas_zero_snr=True), "stay > 0; ends at 0"),
    (lambda f: diffusers.FlowMatchEulerDiscreteScheduler().save_pretrained(f / "scheduler"),
     "FlowMatchEulerDiscreteScheduler: accepted is a scheduler with a beta_schedule"),
], ids=lambda v: v if isinstance(v, str) else "")
def test_damaged_folders_are_refused_in_one_line(folder, damage, words):
    damage(folder)
    refused(words, folder)


def test_other_pipelines_are_refused(folder, tmp_path):
    words = tiny_sd.tokenizer()
    net = tiny_sd.unet("cccp", 16, (8, 16, 16, 16), attention_head_dim=2, in_channels=9)
    inpainting = tiny_sd.sd15(tmp_path / "inpainting", unet=net, tokenizer=words)
    refused("9 channels .*accepted is text to image, 4 channels", inpainting)
    net = tiny_sd.unet("cccp", 16, (8, 16, 16, 16), attention_head_dim=2, time_cond_proj_dim=8)
    refused("time_cond_proj_dim", tiny_sd.sd15(tmp_path / "distilled", unet=net))
    refused("has no model_index.json", folder / "unet")
    with pytest.raises(ValueError, match="text to image is read by load_latent"):
        pretrained.load(folder)


def test_unknown_sources_places_and_precisions_are_refused(folder):
    refused("source='no such folder' is not known", "no such folder")
    refused("device='gpu' is not known", folder, device="gpu")
    refused("dtype=torch.float64: accepted are torch.float32", folder, dtype=torch.float64)
    with pytest.raises(ValueError, match="source='nothing here' is not known: accepted are a fold"):
        Latent.from_pretrained("nothing here")


@pytest.mark.parametrize("call, words", [
    (lambda sd: sd.text("a " * 40), "prompt='a a .* has 42 tokens .* at most 24"),
    (lambda sd: sd.text([]), "prompt holds nothing"),
    (lambda sd: sd.text(["a", 3]), "prompt holds int"),
    (lambda sd: sd.eps("", w=3.0), "prompt is empty, as is negative: w=3 has nothing"),
    (lambda sd: sd.eps(["a", "b"])(torch.zeros(3, 4, 8, 8), 1), "2 sentences for 3 pictures"),
    (lambda sd: sd.eps("a")(torch.zeros(1, 3, 8, 8), 1), "x: 3 channels, the network takes 4"),
    (lambda sd: sd.eps("a")(torch.zeros(1, 4, 8, 8, device="meta"), 1), "x is on meta, the model"),
    (lambda sd: sd.encode(torch.zeros(1, 3, 64, 60)), "64x60 pixels.* multiple of 8"),
    (lambda sd: sd.encode(torch.zeros(1, 4, 64, 64)), r"accepted is \(b, 3, h, w\)"),
    (lambda sd: sd.decode(torch.full((1, 4, 8, 8), torch.nan)), "z has 256 values that are NaN"),
    (lambda sd: sd.noise(1, size=(0, 64)), "0x64 pixels"),
])
def test_bad_input_is_named_in_one_line(models, call, words):
    with pytest.raises(ValueError, match=words) as refusal:
        call(models["sd15"])
    assert "\n" not in str(refusal.value)


@torch.no_grad()
def test_an_empty_prompt_is_the_unconditional_prediction(models, generator):
    sd = models["sd15"]
    x = sd.noise(1, generator)
    assert_close(sd.eps("")(x, 9), sd.eps(CAT, w=0)(x, 9), rtol=0, atol=2e-5)
    sd.eps("", DOG, w=3.0)(x, 9)  # away from dogs, towards nothing


def test_unknown_words_are_allowed_and_warned_of_once(tmp_path, recwarn):
    words = tiny_sd.tokenizer(words=["a", "photo", "of", "cat", "pixel-art"])
    sd = pretrained.load_latent(tiny_sd.sd15(tmp_path / "knows", tokenizer=words))
    sd.text("A photo of a cat, (pixel-art).")
    assert [w for w in recwarn if "prompt" in str(w.message)] == []
    with pytest.warns(UserWarning, match="never saw the words horse, xylophone: what") as caught:
        sd.eps("a xylophone of a horse")
        sd.text("a horse")
    assert len(caught) == 1 and caught[0].filename == __file__
