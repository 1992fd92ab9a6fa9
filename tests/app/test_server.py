"""What the server sends and refuses, without a browser."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra [app]")  # of which gradio is loaded by the tests: it takes long

from fastapi.testclient import TestClient

from condseg_sdk.app.models import Models
from condseg_sdk.app.page import NOT_MEDICAL, _Handlers, _only_uploads
from condseg_sdk.app.server import make_server
from condseg_sdk.app.settings import AppSettings


def client_of(settings: AppSettings, folder: Path) -> Any:
    return TestClient(make_server(settings, Models(settings), folder), base_url="http://127.0.0.1:7860")


@pytest.fixture(scope="module")
def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    settings = AppSettings(model=str(checkpoint), device="cpu", max_upload=1)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("app")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        with client_of(settings, folder) as client:
            yield client


def test_the_page_loads_nothing_from_another_host(client: Any) -> None:
    answer = client.get("/")
    assert NOT_MEDICAL in answer.text
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "https:" not in answer.headers["content-security-policy"]
    loaded = re.findall(r"""<(?:script|link)[^>]*(?:src|href)=["']([^"']+)""", answer.text)
    assert loaded
    assert not [address for address in loaded if "//" in address]
    assert "url(http" not in client.get("/theme.css").text


def test_a_foreign_name_of_this_machine_is_refused(client: Any) -> None:
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200
    assert client.get("/", headers={"host": "evil.example:7860"}).status_code == 421


def test_a_file_above_the_limit_is_refused_by_the_server_too(client: Any) -> None:
    assert client.post("/gradio_api/upload", files={"files": ("a.png", bytes(900_000))}).status_code == 200
    assert client.post("/gradio_api/upload", files={"files": ("a.png", bytes(1_100_000))}).status_code == 413


def test_files_of_the_machine_are_not_given_out(client: Any) -> None:
    assert client.get(f"/gradio_api/file={Path(__file__).resolve()}").status_code == 403


def test_there_is_no_interface_but_the_page(client: Any) -> None:
    assert client.get("/gradio_api/info").json()["named_endpoints"] == {}


def test_an_address_is_never_downloaded() -> None:
    import gradio

    component = _only_uploads(gradio.File())
    with pytest.raises(gradio.Error, match="not downloaded"):
        asyncio.run(component.async_move_resource_to_block_cache("http://192.0.2.1/a.png"))


def test_nothing_is_there_before_the_login(checkpoint: Path, tmp_path: Path) -> None:
    settings = AppSettings(model=str(checkpoint), device="cpu", user="jane", password="right")
    with client_of(settings, tmp_path) as client:
        assert NOT_MEDICAL not in client.get("/").text
        assert client.get("/config").status_code == 401
        assert client.post("/gradio_api/upload", files={"files": ("a.png", b"a")}).status_code == 401
        assert client.post("/login", data={"username": "jane", "password": "wrong"}).status_code == 400
        assert client.post("/login", data={"username": "jane", "password": "right"}).status_code == 200
        assert NOT_MEDICAL in client.get("/").text


def test_requests_beyond_the_queue_are_refused_in_words_and_the_others_are_served_one_by_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, finish = threading.Semaphore(0), threading.Event()
    running: list[int] = []
    most: list[int] = []

    def write(*_: Any) -> tuple[None, str]:
        running.append(1)
        most.append(len(running))
        started.release()
        assert finish.wait(30)
        running.pop()
        return None, "written"

    monkeypatch.setattr(_Handlers, "write", write)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    settings = AppSettings(model=str(checkpoint), device="cpu", queue=2)
    with client_of(settings, tmp_path) as client:
        events = client.get("/config").json()["dependencies"]
        number = next(event["id"] for event in events if len(event["outputs"]) == 2 and len(event["inputs"]) == 3)

        def join(session: str) -> Any:
            body = {"data": [None, 0.5, ["mask"]], "fn_index": number, "session_hash": session}
            return client.post("/gradio_api/queue/join", json=body)

        assert join("first").status_code == 200
        assert started.acquire(timeout=30)  # it runs and waits no longer
        assert [join(f"waiting {i}").status_code for i in range(2)] == [200, 200]
        refused = join("one too many")
        assert refused.status_code == 503
        assert refused.json()["detail"].startswith("Queue is full. Max size is 2")
        finish.set()
        assert all(started.acquire(timeout=30) for _ in range(2))
        assert join("later").status_code == 200
        assert started.acquire(timeout=30)
    assert max(most) == 1
