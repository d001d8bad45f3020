"""The benches of editing by words: perfect and idle editors score what they must."""

import math
import re

import pytest
import torch

from coursekit import portraits, pretrained
from coursekit.bench import _edits, guided_inversion, prompt_cost, prompt_editing
from coursekit.bench._edits import ATTRIBUTES, RESTYLED, Scored, Task, matched, ratio, share, task
from coursekit.classroom import metrics
from coursekit.portraits import truth


@pytest.fixture(scope="module")
def judge():
    return pretrained.load("judge").net


@pytest.fixture(scope="module")
def sd():
    return pretrained.load_latent("portraits-sd")


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [task([name], 12, i, "cpu") for i, name in enumerate(ATTRIBUTES)]


@pytest.fixture(autouse=True)
def two_steps(monkeypatch):
    monkeypatch.setattr(prompt_editing, "STEPS", 2)
    monkeypatch.setattr(guided_inversion, "STEPS", 2)


def named(rows) -> dict:
    return {row.name: row for row in rows}


def the(rows: dict, start: str):
    found = [row for name, row in rows.items() if name.startswith(start)]
    assert len(found) == 1, list(rows)
    return found[0]


# ---- the edits ------------------------------------------------------------------------------


@pytest.mark.parametrize("attributes", [*((name,) for name in ATTRIBUTES), RESTYLED])
def test_an_edit_changes_its_attributes_in_the_record_and_in_the_words(attributes):
    some = task(attributes, 12, 0, "cpu")
    assert len(some) == len(some.p) == len(some.prompts) == len(some.targets) == 12
    follows = {"subject": {"hair_style", "beard"}}.get(attributes[0], set())  # no hair on a fox
    for i in range(12):
        old, new = some.p.describe(i), some.truth.record.describe(i)
        changed = {name for name in old if old[name] != new[name]}
        assert set(attributes) <= changed <= set(attributes) | follows
        assert some.prompts[i] != some.targets[i]
    assert torch.equal(some.truth.source, portraits.render(some.p))
    assert torch.equal(some.truth.image, portraits.render(some.truth.record))
    assert torch.equal(some.truth.mask, truth.difference(some.truth.source, some.truth.image))


def test_the_same_seed_draws_the_same_edits_and_another_others():
    texts = [task(["glasses"], 6, seed, "cpu").targets for seed in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_new_clothes_and_backdrops_leave_the_outline():
    some = task(RESTYLED, 12, 0, "cpu")
    assert torch.equal(truth.silhouette(some.p), truth.silhouette(some.truth.record))


def test_the_judge_sees_the_perfect_edit_and_no_edit(judge, tasks):
    done = torch.cat([t.hits(judge, t.truth.image) for t in tasks])
    idle = torch.cat([t.hits(judge, t.truth.source) for t in tasks])
    assert done.float().mean() >= 0.95 and idle.float().mean() <= 0.05


# ---- their numbers --------------------------------------------------------------------------


def test_a_perfect_editor_and_one_that_copies(judge, tasks):
    sources = [t.truth.source for t in tasks]
    perfect = _edits.scored(judge, tasks, lambda k: tasks[k].truth.image, sources)
    copy = _edits.scored(judge, tasks, sources.__getitem__, sources)
    assert perfect.mean("lpips_w_cf") == 0 and perfect.mean("psnr_cf") == metrics.PSNR_CAP
    assert perfect.mean("outside") < 1e-3 < perfect.mean("inside")  # below a level is no change
    assert perfect.mean("tas") >= 0.95 and copy.mean("tas") <= 0.05
    assert all(copy.mean(name) == 0 for name in ("inside", "outside", "moved", "ntd"))
    assert copy.mean("id_w") == pytest.approx(1) and copy.mean("psnr_cf") < 40
    assert perfect.kinds.tolist() == [k for k in range(5) for _ in range(12)]
    assert perfect.calls == 0


def test_rows_hold_every_column_and_leave_out_a_network_that_was_not_asked():
    some = made([1, 0, 1, 1], 0.5)
    assert [row.ours for row in some.rows("it", ["tas", "lpips_w_cf"])] == [0.75, 0.5]
    assert all(row.n == 4 for row in some.rows("it"))
    assert len(list(some.rows("it"))) == len(_edits.COLUMNS)
    called = Scored(some.columns, some.kinds, 2.0, 30.0)
    assert [row.ours for row in called.rows("it")][-2:] == [2.0, 30.0]


def test_latents_are_counted_until_the_end_of_the_block(sd):
    z = sd.noise(3, torch.Generator().manual_seed(0))
    with torch.no_grad(), _edits.counted(sd) as shown:
        sd.eps("a cat")(z, 500)
        assert shown() == 3
        sd.eps("a cat", w=2.0)(z, 500)
    with torch.no_grad():
        sd.eps("a cat")(z, 500)
    assert shown() == 9


# ---- comparing ------------------------------------------------------------------------------


def made(hits, distance: float) -> Scored:
    n = len(hits)
    columns = {name: torch.zeros(n) for name in (*_edits.COLUMNS, "moved")}
    columns |= {"tas": torch.tensor(hits).float(), "lpips_w_cf": torch.full((n,), distance)}
    return Scored(columns, torch.arange(n) % 5, 0.0, 0.0)


def test_the_strength_of_the_nearest_success_is_compared():
    sweep = {0.3: made([0, 0, 0, 0], 0.1), 0.5: made([1, 1, 0, 0], 0.4), 0.9: made([1] * 4, 0.9)}
    assert [matched(aim, sweep) for aim in (0.0, 0.2, 0.4, 0.7, 1.0)] == [0.3, 0.3, 0.5, 0.5, 0.9]


def test_of_equal_success_the_one_nearer_to_the_truth_is_compared():
    sweep = {1.0: made([1, 0], 0.4), 2.0: made([0, 1], 0.2), 4.0: made([1, 1], 0.1)}
    assert matched(0.5, sweep) == 2.0
    assert matched(0.75, sweep) == 4.0  # as far above as the others are below


def test_intervals():
    n, z = 40, 1.959964
    low, high = share(torch.ones(n))
    assert high == 1 and low == pytest.approx(n / (n + z**2), rel=1e-5)  # Wilson's where all hit
    assert share(torch.zeros(n)) == pytest.approx((1 - high, 1 - low))
    b = torch.rand(50, generator=torch.Generator().manual_seed(1))
    assert ratio(3 * b, b) == pytest.approx((3, 3))  # pairs stay together
    a = torch.cat([3 * b, torch.tensor([math.nan])])
    assert ratio(a, torch.cat([b, torch.ones(1)])) == pytest.approx((3, 3))
    low, high = ratio(1 + b, 1 + b.flip(0))
    assert 0.8 < low < 1 < high < 1.25


# ---- coursekit bench prompt-editing ---------------------------------------------------------


@pytest.fixture(scope="module")
def given(sd) -> list:
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(prompt_editing, "STEPS", 2)
        return [prompt_editing.Given(sd, task([name], 2, i, "cpu"), 0)
                for i, name in enumerate(ATTRIBUTES)]


def perfect(g, strength: float = 0.0) -> torch.Tensor:
    return g.task.truth.image


def test_the_table_of_a_perfect_editor_beside_idle_ones(judge, given):
    editors = {"Prompt-to-Prompt": perfect, "plain DDIM": prompt_editing.plain,
               "SDEdit": lambda g, t0: perfect(g) if t0 == 0.5 else g.task.truth.source}
    with torch.no_grad():
        found = named(prompt_editing.table(judge, given, editors, 1))
    whole = the(found, "Prompt-to-Prompt: all, target success")
    assert whole.ours >= 0.9 and whole.peer == 0.85 and whole.n == 10
    assert all(the(found, f"Prompt-to-Prompt: {name}, target").n == 2 for name in ATTRIBUTES)
    gone = [row for name, row in found.items() if "outside the mask since the render" in name]
    assert len(gone) in (2, 3) and all(row.ours < 1e-3 < row.peer for row in gone)
    for row, w in zip((gone[0], gone[-1]), (prompt_editing.W, prompt_editing.GUIDED), strict=True):
        assert f"plain DDIM, w {w:g} (" in row.name  # between them, at matched success
    row = next(row for name, row in found.items() if "peer: SDEdit, t0 / T 0.5" in name)
    assert row.ours == row.peer == 0  # of the sweep, the strength at which it is perfect, too
    row = next(row for name, row in found.items() if "LPIPS_w" in name and "peer: plain" in name)
    assert row.ours == 0 < row.peer
    copied = found["copy the source: change outside the mask"]
    assert copied.ours == 0 and found["copy the source: target success"].ours == 0
    ceiling = found["the perfect edit through the autoencoder: PSNR to the counterfactual"]
    assert 20 < ceiling.ours < 40
    assert found["generate: latents through the network"].ours == 4  # 2 hops under guidance


def test_the_layout_of_a_perfect_edit_and_of_one_that_moved(judge, sd):
    with torch.no_grad():
        g = prompt_editing.Given(sd, task(RESTYLED, 4, 0, "cpu"), 0)
        good = named(prompt_editing.layout(judge, g, perfect))
        bad = named(prompt_editing.layout(judge, g, lambda g: perfect(g).roll(16, 3)))
    kept, moved = (the(rows, "Plug-and-Play, new clothes and backdrop: IoU") for rows in (good, bad))
    assert kept.ours >= 0.95 and moved.ours < kept.peer == 0.85
    assert the(good, "Plug-and-Play, new clothes and backdrop: target").ours == 1


@pytest.mark.slow
def test_the_bench_runs_on_the_shipped_model(sd, monkeypatch):
    monkeypatch.setattr(prompt_editing, "SWEEPS", {
        "Prompt-to-Prompt": ("window", (prompt_editing.TAU,)),
        "plain DDIM": ("w", (prompt_editing.GUIDED, prompt_editing.W)),
        "plain DDIM away from the old caption": ("w", (2.0,)),
        "SDEdit": ("t0 / T", (0.5,))})
    found = named(prompt_editing.gates(sd, 0, "cpu", n=5, seeds=2))
    row = the(found, "Prompt-to-Prompt: all, target success")
    assert row.n == 10 and len(re.search(r"; ([\d. ]+)\)", row.name)[1].split()) == 2
    # two hops: source and target twice under guidance; the states are at hand
    calls = f"Prompt-to-Prompt, window {prompt_editing.TAU:g}: latents through the network"
    assert found[calls].ours == 8
    assert the(found, "Plug-and-Play, new clothes and backdrop: IoU").n == 5


def test_too_few_renders_are_refused_in_one_line(sd):
    for bench in (prompt_editing, guided_inversion):
        with pytest.raises(ValueError, match="^n=4.*accepted are 5") as refusal:
            next(bench.gates(sd, 0, "cpu", n=4))
        assert "\n" not in str(refusal.value)


# ---- coursekit bench guided-inversion -------------------------------------------------------


def inverted(sd, judge, hops, methods) -> dict:
    """Rows of methods on three edits."""
    with torch.no_grad():
        some = task(["hair_colour"], 3, 0, "cpu")
        jobs = [guided_inversion.Job(sd, some, sd.encode(some.truth.source), sd.path(hops))]
        return named(row for name in methods for row in guided_inversion.table(
            name, guided_inversion.METHODS[name], sd, judge, jobs))


@pytest.fixture(scope="module")
def inversions(sd, judge) -> dict:
    return inverted(sd, judge, 2, guided_inversion.METHODS)


def test_exact_inversions_reach_the_ceiling_and_plain_ones_do_not(inversions):
    psnr = {name: the(inversions, f"{name}: PSNR") for name in guided_inversion.METHODS}
    for name in ("direct", "EDICT", "edit-friendly"):
        assert psnr[name].ours == pytest.approx(psnr[name].peer, abs=1e-3)
    plain, guided = psnr["DDIM, w = 1"], psnr[f"DDIM, w = {guided_inversion.W:g}"]
    assert guided.ours < plain.ours < plain.peer
    assert psnr["negative prompt"].ours == pytest.approx(plain.ours, abs=1e-3)  # whatever w
    assert psnr["null-text"].ours > guided.ours


def test_solved_hops_come_back_nearer_than_plain_ones(sd, judge):
    plain = f"DDIM, w = {guided_inversion.W:g}"
    # of two hops the first is too long: under guidance eight iterations leave it unsolved
    found = inverted(sd, judge, 8, (plain, "fixed point"))
    assert the(found, "fixed point: PSNR").ours > the(found, f"{plain}: PSNR").ours


def test_latents_through_the_network_are_those_of_the_algorithms(inversions):
    S = 2
    calls = {name: the(inversions, f"{name}: there and back, latents").ours
             for name in guided_inversion.METHODS}
    guided = calls[f"DDIM, w = {guided_inversion.W:g}"]
    assert (calls["DDIM, w = 1"], guided) == (2 * S, 3 * S) == (4, calls["negative prompt"])
    assert calls["direct"] == S + 2 * S + 2 * S  # the pivot, its offsets, the replay
    assert calls["EDICT"] == 2 * 2 * 2 * S and calls["edit-friendly"] == 2 * S + 2 * S
    assert 4 * S < calls["fixed point"] <= 2 * S * (guided_inversion.ITERATIONS + 1)
    assert 3 * S <= calls["null-text"] <= S + S * (1 + 10 + 1)


def test_null_text_of_one_picture_stands_beside_its_bar(sd):
    some = task(["smile"], 2, 0, "cpu")
    with torch.no_grad():
        job = guided_inversion.Job(sd, some, sd.encode(some.truth.source), sd.path(2))
        row = guided_inversion.null_text_alone(job)
    assert 0 < row.ours < row.peer == 180 and "one picture, 2 steps" in row.name


# ---- coursekit bench prompt-cost ------------------------------------------------------------

kernel_tells = pytest.mark.skipif(not prompt_cost.RESET.exists(), reason="no /proc/self/clear_refs")


def test_what_is_timed_shows_the_network_what_it_should(sd):
    S, found = 5, {}
    for name, run in prompt_cost.works(sd, 0, steps=S).items():
        with _edits.counted(sd) as shown:
            run()
        found[name] = shown()
    two, pair, blended, pnp, masactrl = (found[name] for name in prompt_cost.METHODS)
    assert two == pair == 4 * S and blended == pair + 1  # traced once
    assert pnp == 1 + 4 + 2 * S  # the source in 4 of 5 hops
    assert masactrl == 1 + 2 * S + 2 * S


def test_times_are_medians_beside_the_same_two_images(sd):
    found = list(prompt_cost.times(sd, 0, steps=2, runs=1))
    assert len(found) == 5 and {row.peer for row in found[:4]} == {found[0].peer}
    assert all(row.ours > 0 and row.unit == "s" for row in found)
    assert sum("bar 1.25 x" in row.name for row in found) == 2


@kernel_tells
def test_the_kernel_tells_the_highest_since_it_was_told_to_forget():
    prompt_cost.RESET.write_text("5")
    before = prompt_cost.held("VmRSS")
    torch.ones(64, 2**20).sum()  # 256 MiB, held and let go; a worker may free some of its own
    high = prompt_cost.held("VmHWM")
    assert high - before > 200 * 2**20
    prompt_cost.RESET.write_text("5")
    assert prompt_cost.held("VmHWM") < high - 100 * 2**20


@kernel_tells
@pytest.mark.slow
def test_a_figure_is_the_child_s_and_not_its_parent_s():
    weight = torch.ones(3, 2**28)  # 3 GiB in here
    peak = prompt_cost.peak_of(prompt_cost.PAIR, "cpu", 0, 2)
    assert weight.numel() and 0 < peak.above < 2**28 < peak.whole < 3 * 2**30


@kernel_tells
def test_memory_stands_beside_that_of_two_images(monkeypatch):
    monkeypatch.setattr(prompt_cost, "METHODS", prompt_cost.METHODS[:2])
    monkeypatch.setattr(prompt_cost, "peak_of", lambda name, *_: {
        prompt_cost.TWO: prompt_cost.Peak(2**30, 2**20),
        prompt_cost.PAIR: prompt_cost.Peak(2**30, 3 * 2**20)}[name])
    whole, above = prompt_cost.memory("cpu", 0)
    assert (whole.ours, whole.peer, above.ours, above.peer) == (1024, 1024, 3, 1)
    assert above.ratio == 3 and "bar 1.3 x" in above.name


def test_a_measuring_process_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(prompt_cost, "RETURNED", {"PYTHONHOME": "/nowhere"})
    with pytest.raises(RuntimeError, match="the process that measures it ended with") as refusal:
        prompt_cost.peak_of(prompt_cost.TWO, "cpu", 0, 2)
    assert "\n" not in str(refusal.value)
