"""What several test modules share: a Hub on loopback, and where GPUs or browsers are missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from tests.helpers.browser import missing_for_browser_tests
from tests.helpers.hub_server import HubServer
from tests.helpers.traces import kept_traces


@pytest.fixture(scope="session", autouse=True)
def traces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Trace a network once in a session, in whichever test process it is exported first."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # that of all processes
    folder = folder / "traces"
    folder.mkdir(exist_ok=True)
    with kept_traces(folder):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need a GPU or a browser where there is none, so that each kind says so in one place."""
    missing = {
        "gpu": None if torch.cuda.is_available() else "needs a CUDA device",
        "browser": missing_for_browser_tests(),
    }
    for item in items:
        for name, reason in missing.items():
            if reason is not None and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


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
