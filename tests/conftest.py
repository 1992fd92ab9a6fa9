"""What several test modules share: a small checkpoint on disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from condseg_sdk import ConDSeg, Preprocessing
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint
from tests.helpers.hub_server import HubServer
from tests.helpers.networks import TINY


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint folder of a tiny network with random weights."""
    torch.manual_seed(0)
    network = ConDSeg(**TINY)
    with torch.no_grad():  # spread the answers, so that masks are neither empty nor full
        network.output.logits.weight.mul_(100)
    config = CheckpointConfig(
        network=TINY,
        preprocessing=Preprocessing((64, 64), scale=1.0, mean=(127.0,) * 3, std=(128.0,) * 3),
        threshold=0.4,
        provenance={},
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    save_checkpoint(folder, network, config)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked `gpu` where there is none, so that every such test says so in one place."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on loopback: what HF_ENDPOINT would do, had it been set before huggingface_hub was imported."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield server


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    """Where downloads of a test go, as arguments of `resolve` and `from_pretrained`."""
    return {"cache_dir": tmp_path / "cache", "token": False}
