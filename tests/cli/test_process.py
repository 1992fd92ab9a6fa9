"""The `condseg` process in a hostile world: closed streams, other encodings, signals, an unknown user, a lost folder."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk.cli import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and names of bytes are POSIX")

COMMAND = [sys.executable, "-c", "import sys; from condseg_sdk.cli import main; sys.exit(main())"]
KINDS = ("--save", "mask,json,overlay")


@pytest.fixture(autouse=True, scope="module")
def interrupts() -> Iterator[None]:
    """A shell lets what it starts in the background ignore SIGINT, and so would its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def images(folder: Path, count: int, *, name: bytes = b"%03d.png") -> Path:
    """Write images, of which only the first twenty differ: encoding 1500 would take longer than segmenting a few."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(min(count, 20)):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(file, format="PNG")
        encoded.append(file.getvalue())
    for number in range(count):
        Path(folder, os.fsdecode(name % number)).write_bytes(encoded[number % len(encoded)])
    return folder


def start(*arguments: str | Path, cwd: Path, **options: object) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=cwd, text=True, errors="replace", **streams)  # type: ignore[call-overload, no-any-return]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_signal_before_the_work_causes_one_line_and_no_output(tmp_path: Path) -> None:
    images(tmp_path / "in", 1)
    ready = "import sys, os; from condseg_sdk.cli import main, interrupts; interrupts.install(); print(flush=True); "
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        command = [sys.executable, "-c", ready + "sys.exit(main())", "predict", "in"]
        process = subprocess.Popen(
            command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)  # into the loading of libraries
        process.send_signal(number)
        out, error = process.communicate(timeout=300)
        assert (process.returncode, out, error) == (code, "", "condseg: stopped\n")
        assert not (tmp_path / "condseg-out").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_the_work_leaves_complete_sets_and_a_summary(
    number: signal.Signals, code: int, checkpoint: Path, tmp_path: Path
) -> None:
    folder, out = images(tmp_path / "in", 1500), tmp_path / "out"
    (folder / "000.png").write_text("no image")
    process = start(
        "predict", folder, "--model", checkpoint, "--out", out, *KINDS, "--on-error", "skip", "--batch-size", 2,
        cwd=tmp_path,
    )  # fmt: skip
    wait_for(lambda: out.exists() and len(list(out.glob("*.json"))) >= 4)
    process.send_signal(number)
    printed, error = process.communicate(timeout=300)
    assert process.returncode == code
    names = [path.name for path in out.iterdir()]
    assert not [name for name in names if name.startswith(".")]
    sets = Counter(name[:3] for name in names)
    assert set(sets.values()) == {3}
    assert printed.startswith(f"{len(sets)} segmented on cpu")
    assert "skipped: " in error
    assert f"condseg: stopped; not segmented: {1500 - 1 - len(sets):,} of 1,500 images, such as " in error
    assert "Traceback" not in error


def test_the_second_signal_ends_at_once_and_leaves_no_partial_file(checkpoint: Path, tmp_path: Path) -> None:
    folder, out = images(tmp_path / "in", 1500), tmp_path / "out"
    process = start("predict", folder, "--model", checkpoint, "--out", out, *KINDS, cwd=tmp_path)
    wait_for(lambda: out.exists() and len(list(out.glob("*.json"))) >= 4)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 143
    assert "condseg: stopped" in error
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_printing_never_fails_a_run(checkpoint: Path, tmp_path: Path) -> None:
    """One run each with an encoding without the names' letters, closed streams, and a reader who has gone."""
    images(tmp_path / "\u6570\u636e", 2, name="\u80a0\u955c%d.png".encode())
    images(tmp_path / "bytes", 2, name=b"caf\xe9_%d.png")
    narrow = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    with Path(tmp_path, os.fsdecode(b"bytes/\xff.png")).open("wb") as file:
        file.write(b"no image")
    arguments = ("predict", "--model", checkpoint, *KINDS, "--on-error", "skip")
    process = start(*arguments, "\u6570\u636e", "bytes", "--out", "\u8f93\u51fa", cwd=tmp_path, env=narrow)
    printed, error = process.communicate(timeout=300)
    assert process.returncode == 1, error
    assert printed == "4 segmented on cpu, 4 with a region; files in \\u8f93\\u51fa\n"
    assert "skipped: bytes/\\udcff.png" in error
    assert len(list((tmp_path / "\u8f93\u51fa").iterdir())) == 12

    line = " ".join(["exec", *(f'"{part}"' for part in (sys.executable, "-m", "condseg_sdk.cli", *arguments))])
    closed = subprocess.run(["sh", "-c", f"{line} bytes --out closed >&- 2>&- <&-"], cwd=tmp_path, check=False)
    assert closed.returncode == 1
    assert len(list((tmp_path / "closed").iterdir())) == 6
    assert all(path.stat().st_size > 0 for path in (tmp_path / "closed").iterdir())

    process = start(*arguments, "bytes", "--out", "gone", cwd=tmp_path)
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert process.wait(timeout=300) == 1
    assert len(list((tmp_path / "gone").iterdir())) == 6


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_lost_on_a_full_disk_is_reported(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("models", cwd=tmp_path, stdout=full)
        _, error = process.communicate(timeout=300)
    assert process.returncode == 1
    assert error.startswith("condseg: the output above is incomplete")


def test_a_deleted_current_folder_ends_in_one_line(tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    lost.mkdir()
    script = f'cd "{lost}" && rmdir "{lost}" && exec "{sys.executable}" -m condseg_sdk.cli models'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "condseg: error: the current folder no longer exists; change to another one (cd)\n"


def test_one_image_that_cannot_be_written_costs_that_image(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images(tmp_path / "in", 3)
    write = Path.write_bytes

    def full_disk(path: Path, data: bytes) -> int:
        if Path(path).suffix == ".png" and failing.pop("next", None):
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    arguments = ["predict", str(tmp_path / "in"), "--model", str(checkpoint), "--save", "json,mask"]
    failing = {"next": True}
    assert main([*arguments, "--out", str(tmp_path / "out"), "--on-error", "skip"]) == 1
    printed = capsys.readouterr()
    assert "2 segmented" in printed.out
    assert "skipped: " in printed.err
    assert "No space left on device" in printed.err
    assert len(list((tmp_path / "out").iterdir())) == 4  # of the third not even its JSON
    failing = {"next": True}
    assert main([*arguments, "--out", str(tmp_path / "all"), "--on-error", "raise"]) == 2
    assert "condseg: error: " in capsys.readouterr().err


def test_a_user_without_a_name_can_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    import getpass
    import pwd

    from condseg_sdk.user import ensure_user_name

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("LOGNAME", "")  # so that monkeypatch puts it back
    ensure_user_name()
    assert getpass.getuser() == f"uid_{os.getuid()}"


REMEDIES: list[tuple[list[str], str, list[str]]] = [
    (["--out", "condseg-lite-polyp"], "choose another name", ["--out", "other"]),
    (["--out", "drawn"], "add --overwrite", ["--out", "drawn", "--overwrite"]),
    (["--out", "drawn"], "choose another output folder", ["--out", "elsewhere"]),
    (["--device", "mps:3"], "has cpu here", ["--device", "cpu"]),
    (["--save", "png"], "is not one of mask", ["--save", "mask"]),
    (["--threshold", "5"], "between 0 and 1", ["--threshold", "0.5"]),
    (["--tile", "3"], "at least 32", ["--tile", "32"]),
    (["--batch-size", "0"], "whole number, from 1", ["--batch-size", "1"]),
    (["--model", "condseg-lite-polip"], "condseg-lite-polyp", ["--model", "condseg-lite-polyp"]),
]


@pytest.mark.parametrize(("wrong", "remedy", "right"), REMEDIES, ids=lambda value: str(value)[:30])
def test_following_a_remedy_helps(
    wrong: list[str], remedy: str, right: list[str], checkpoint: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "in", 1)
    images(tmp_path / "drawn", 1, name=b"%03d_mask.png")
    base = ["predict", "in", "--model", str(checkpoint)]
    assert main([*base, *wrong]) == 2
    error = capsys.readouterr().err
    assert remedy in error
    assert error.count("\n") == 1
    assert main([*base, *right]) == 0


@pytest.mark.slow
def test_an_export_replaces_only_exports(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"of another program")
    arguments = ["export", str(checkpoint), str(path), "--static", "--no-verify"]
    assert main(arguments) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"of another program"
    assert main([*arguments, "--overwrite"]) == 0
    assert main(arguments) == 0
    assert main(["predict", str(images(tmp_path / "in", 1)), "--model", str(path), "--out", str(tmp_path / "out")]) == 0


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_the_command_wait_without_spinning_unless_the_user_wants_it(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    code = (
        "import atexit, os, sys; from condseg_sdk.cli import main; "
        "atexit.register(lambda: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)); sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{expected} False"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("3", "3")])
def test_the_command_starts_as_many_threads_as_it_has_cores(
    given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.cpu_count() == 1:
        pytest.skip("one core is no limit here")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    code = (
        "import atexit, os, sys; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); "
        "from condseg_sdk.cli import main; "
        "atexit.register(lambda: print(os.environ['OMP_NUM_THREADS'])); sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == expected
