"""What every test shares: no network, one seed, no oversubscribed processor."""

import os
import signal

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import reads it: tests never reach for a hub
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in a shell's background; but some
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests press Ctrl-C in a child

import pytest
import torch

TOPOLOGIES = ("sd15", "sd21", "sdxl")  # the makers of tiny_sd, which is slow to import


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    """Fresh networks draw from torch's global generator: each test starts it anew."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict:
    """Tiny untrained checkpoints of Stable Diffusion, by topology; to be read only."""
    import tiny_sd

    torch.manual_seed(3)
    root = tmp_path_factory.mktemp("checkpoints")
    return {name: tiny_sd.MAKERS[name](root / name) for name in TOPOLOGIES}


@pytest.fixture(scope="session")
def models(folders) -> dict:
    """What `load_latent` makes of them."""
    from coursekit import pretrained

    return {name: pretrained.load_latent(folder) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def doubles(folders) -> dict:
    """The same in float64, for identities."""
    from coursekit import pretrained

    found = {name: pretrained.load_latent(folder) for name, folder in folders.items()}
    for sd in found.values():
        for part in (sd.unet, sd.vae, *sd.encoders):
            part.double()
    return found


@pytest.fixture(params=TOPOLOGIES)
def topology(request) -> str:
    """Each kind of Stable Diffusion in turn."""
    return request.param


@pytest.fixture
def sd(models, topology):
    """The tiny model of that kind."""
    return models[topology]


@pytest.fixture
def exact(doubles, topology):
    """The tiny model of that kind in float64."""
    return doubles[topology]


def pytest_terminal_summary(terminalreporter) -> None:
    """How many cells of notebooks were executed and compared, over all workers of a run."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    found = [dict(r.user_properties) for r in reports if getattr(r, "when", "") == "call"]
    runs = [properties for properties in found if "compared" in properties]
    if runs:
        executed, compared = (sum(p[name] for p in runs) for name in ("executed", "compared"))
        terminalreporter.write_line(f"{len(runs)} runs of notebooks: {executed:,} cells executed, "
                                    f"{compared:,} compared")
