"""Sampling loops beside those of diffusers: the same network, and what a step costs without one."""

from collections.abc import Iterator

import torch
from torch import Tensor

from coursekit.bench import Row, medians
from coursekit.diffusion.predict import from_diffusers
from coursekit.diffusion.sample import ddim, last
from coursekit.diffusion.schedule import Schedule

LOOP_STEPS, LOOP_BATCH, LOOP_N = 10, 1, 11
STUB_STEPS, STUB_N = 200, 15


def rows(*, seed: int, device: str) -> Iterator[Row]:
    """A U-Net of 1.1 M parameters in both loops; a stub network that costs nothing, eta 0 and 1."""
    yield _loop(seed, device)
    for eta in (0.0, 1.0):
        yield _overhead(seed, device, eta)


def _loop(seed: int, device: str) -> Row:
    from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        unet = UNet2DModel(
            sample_size=32,
            layers_per_block=1,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        )
    unet.to(device).eval()
    scheduler = DDIMScheduler(clip_sample=False)
    pipeline = DDIMPipeline(unet, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    schedule = Schedule.from_diffusers(scheduler)
    eps, path = from_diffusers(unet, schedule), schedule.leading(LOOP_STEPS)

    def ours() -> Tensor:
        g = torch.Generator().manual_seed(seed)
        x = torch.randn(LOOP_BATCH, 3, 32, 32, generator=g).to(device)
        with torch.no_grad():
            return (last(ddim(eps, schedule, x, path)).x / 2 + 0.5).clamp(0, 1).cpu()

    def peer() -> Tensor:
        g = torch.Generator().manual_seed(seed)
        run = pipeline(LOOP_BATCH, g, num_inference_steps=LOOP_STEPS, output_type="pt")
        return run.images.cpu()

    torch.testing.assert_close(ours(), peer(), atol=1e-3, rtol=0)  # both draw the same pictures
    seconds = medians(ours, peer, n=LOOP_N)
    return Row("UNet2DModel loop v. DDIMPipeline", *seconds, "s", "lower", LOOP_N)


def _overhead(seed: int, device: str, eta: float) -> Row:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(STUB_STEPS)
    schedule = Schedule.from_diffusers(scheduler)
    path = schedule.leading(STUB_STEPS)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)).to(device)

    def stub(x: Tensor, t: int) -> Tensor:
        return x

    def ours() -> None:
        g = torch.Generator().manual_seed(seed)
        last(ddim(stub, schedule, x, path, eta, g)).x.cpu()

    def peer() -> None:
        g, y = torch.Generator().manual_seed(seed), x
        for k in scheduler.timesteps:
            y = scheduler.step(stub(y, k), k, y, eta=eta, generator=g).prev_sample
        y.cpu()

    micro = [seconds / STUB_STEPS * 1e6 for seconds in medians(ours, peer, n=STUB_N)]
    return Row(f"overhead a step, stub network, eta {eta:g}", *micro, "us", "lower", STUB_N)
