"""What every test shares: no network, one seed, no oversubscribed processor."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import reads it: tests never reach for a hub
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with a fixed seed."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    """Fresh networks draw from torch's global generator: each test starts it anew."""
    torch.manual_seed(0)
