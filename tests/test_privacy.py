"""A prediction opens no connection and writes nothing but its output, watched from outside; libraries report nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import Predictor
from condseg_sdk.privacy import OPT_OUTS, disable_telemetry

# The kernel ends the process at the first socket of the internet, native code's look-up of a name included; Python's
# audit events name what is opened for writing.
WATCHED = """
import ctypes, os, platform, socket, struct, sys

SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
LOAD, EQUAL, RETURN, KILL, ALLOW = 0x20, 0x15, 0x06, 0x80000000, 0x7FFF0000
filter = b"".join(struct.pack("HBBI", *each) for each in [
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, SOCKET),  # the call's number
    (LOAD, 0, 0, 16), (EQUAL, 2, 0, socket.AF_INET), (EQUAL, 1, 0, socket.AF_INET6),  # its first argument
    (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL),
])
held = ctypes.create_string_buffer(filter, len(filter))
program = struct.pack("HxxxxxxP", len(filter) // 8, ctypes.addressof(held))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # no new privileges, which lets an ordinary user set a filter
assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())

def say_writes(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        print("written", os.path.abspath(os.fsdecode(arguments[0])), file=sys.stderr)

sys.addaudithook(say_writes)
"""
PREDICT = "from condseg_sdk.cli import main; sys.exit(main(['predict', *sys.argv[1:]]))"

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="watched by Linux's seccomp")


def run_watched(code: str, *arguments: str | Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run code watched, with a home, a cache and a temporary folder of its own, and without any opt-out of ours."""
    kept = {name: value for name, value in os.environ.items() if name not in OPT_OUTS and not name.startswith("HF_")}
    folders = {name: str(home) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "TMPDIR")}
    return subprocess.run(
        [sys.executable, "-c", WATCHED + code, *map(str, arguments)],
        env={**kept, **folders, "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=home,
        text=True,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    Predictor.from_pretrained(checkpoint, device="cpu").export_onnx(path)
    return path


@linux_only
@pytest.mark.parametrize(("model", "device"), [("checkpoint", "cpu"), ("exported", "cpu"), ("exported", "openvino")])
def test_a_prediction_opens_no_connection_and_writes_only_its_output(
    request: pytest.FixtureRequest, tmp_path: Path, model: str, device: str
) -> None:
    """In PyTorch, in ONNX Runtime, and in OpenVINO, whose import would report to its vendor."""
    if device == "openvino":
        find_spec("openvino") or pytest.skip("OpenVINO is an extra")
    home, images, out = (tmp_path / name for name in ("home", "images", "out"))
    for folder in (home, images):
        folder.mkdir()
    Image.fromarray(np.full((40, 30, 3), 90, np.uint8)).save(images / "a.png")
    chosen = ("--model", request.getfixturevalue(model), "--device", device)
    done = run_watched(PREDICT, images, *chosen, "--out", out, home=home)
    assert done.returncode == 0, done.stderr
    assert any(out.iterdir())
    written = {line.split(" ", 1)[1] for line in done.stderr.splitlines() if line.startswith("written ")}
    # Beside its output the command tries which names the file system takes, and leaves nothing there.
    assert {path for path in written if not Path(path).is_relative_to(out.parent)} <= {os.devnull}
    assert {*tmp_path.iterdir()} <= {home, images, out}
    assert list(home.iterdir()) == []
    assert [path.name for path in images.iterdir()] == ["a.png"]


@linux_only
@pytest.mark.parametrize("attempt", ["socket.socket()", "libc.socket(socket.AF_INET6, socket.SOCK_DGRAM, 0)"])
def test_the_watching_code_sees_a_connection(tmp_path: Path, attempt: str) -> None:
    assert run_watched("socket.socket(socket.AF_UNIX)", home=tmp_path).returncode == 0
    assert run_watched(attempt, home=tmp_path).returncode == -signal.SIGSYS


def test_the_watching_code_sees_a_file(tmp_path: Path) -> None:
    assert f"written {tmp_path / 'a'}" in run_watched("open('a', 'w')", home=tmp_path).stderr


def test_importing_the_package_opts_out_unless_the_user_has_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert OPT_OUTS.keys() <= os.environ.keys()  # by the import above
    for name in OPT_OUTS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    disable_telemetry()
    assert {name: os.environ[name] for name in OPT_OUTS} == {**OPT_OUTS, "ORT_DISABLE_TELEMETRY": "0"}


def test_no_library_is_loaded_before_the_opt_outs() -> None:
    """Each way into the package passes `condseg_sdk/__init__.py`, which must load none of these on its way."""
    code = (
        "import sys; from importlib.abc import MetaPathFinder\n"
        "class Finder(MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        import os\n"
        "        if name in ('onnxruntime', 'huggingface_hub', 'gradio', 'lightning') and 'ORT_DISABLE_TELEMETRY' not in os.environ:\n"
        "            sys.exit(f'{name} is loaded too early')\n"
        "sys.meta_path.insert(0, Finder()); import condseg_sdk.download, onnxruntime"
    )
    kept = {name: value for name, value in os.environ.items() if name not in OPT_OUTS}
    subprocess.run([sys.executable, "-c", code], env=kept, check=True)


def test_no_module_imports_onnx_runtime_at_its_top() -> None:
    """Sorted imports put it before condseg_sdk, and its telemetry begins with its import."""
    root = Path(__file__).parents[1]
    modules = [
        path for name in ("condseg_sdk", "benchmarks", "examples", "tools") for path in (root / name).rglob("*.py")
    ]
    assert len(modules) > 50
    assert [
        path.name
        for path in modules
        if re.search(r"^(import|from) onnxruntime", text := path.read_text(), re.MULTILINE)
        and 'setdefault("ORT_DISABLE_TELEMETRY", "1")' not in text.partition("import onnxruntime")[0]
    ] == []
