"""The command line as a real process' user meets it: files, exit codes, one-line errors."""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from condseg_sdk.cli import main
from condseg_sdk.cli.command import COMMANDS, make_parser
from condseg_sdk.cli.types import integer, real, reals


def image(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)).save(path)
    return path


def predict(checkpoint: Path, *arguments: str | Path) -> int:
    return main(["predict", "--model", str(checkpoint), *map(str, arguments)])


def test_predict_writes_the_requested_kinds(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    source = image(tmp_path / "frame.jpg")
    assert predict(checkpoint, source, "--out", out, "--save", "mask,overlay,json,probability") == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "frame.json",
        "frame_mask.png",
        "frame_overlay.png",
        "frame_probability.png",
    ]
    assert Image.open(out / "frame_mask.png").size == (40, 30)
    assert json.loads((out / "frame.json").read_text())["size"] == [30, 40]
    assert "1 segmented on cpu" in capsys.readouterr().out


def test_a_folder_keeps_its_shape_and_equal_names_keep_their_suffix(checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "b/1.jpg"):
        image(tmp_path / "in" / name)
    out = tmp_path / "out"
    assert predict(checkpoint, tmp_path / "in", "--out", out, "--save", "mask") == 0
    found = sorted(str(p.relative_to(out)) for p in out.rglob("*.png"))
    assert found == ["a/1_mask.png", "b/1.jpg_mask.png", "b/1.png_mask.png"]
    assert predict(checkpoint, tmp_path / "in/a/1.png", tmp_path / "in/b/1.png", "--out", out) == 2


def test_skipped_images_are_named_and_change_the_exit_code(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "in" / "good.png")
    (tmp_path / "in" / "bad.png").write_text("text")
    out = tmp_path / "out"
    assert predict(checkpoint, tmp_path / "in", "--out", out, "--on-error", "skip") == 1
    assert (out / "good_mask.png").exists()
    assert "bad.png" in capsys.readouterr().err
    assert predict(checkpoint, tmp_path / "in", "--out", out) == 2


def test_a_second_call_does_not_segment_what_the_first_one_wrote(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`condseg predict .` writes to ./condseg-out; a folder of predictions may still be segmented on request."""
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    command = ["predict", ".", "--model", str(checkpoint)]
    for source in (".", ".", "*/*.png"):
        assert main(["predict", source, "--model", str(checkpoint)]) == (2 if "*" in source else 0)
    printed = capsys.readouterr()
    assert printed.out.count("1 segmented on") == 2
    assert "contains only files in condseg-out" in printed.err
    assert sorted(path.name for path in (tmp_path / "condseg-out").iterdir()) == ["a_mask.png", "a_overlay.png"]
    command[1] = "condseg-out"
    assert main([*command, "--out", "again"]) == 0
    assert "2 segmented on" in capsys.readouterr().out


def test_a_prediction_never_replaces_one_of_the_images(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(tmp_path / "a.png")
    drawn = image(tmp_path / "a_mask.png").read_bytes()  # by hand, beside its image
    assert predict(checkpoint, tmp_path, "--out", tmp_path) == 2
    assert "a_mask.png is one of the images, and " in capsys.readouterr().err
    assert (tmp_path / "a_mask.png").read_bytes() == drawn
    assert predict(checkpoint, tmp_path, "--out", tmp_path, "--save", "json") == 0
    assert predict(checkpoint, tmp_path, "--out", tmp_path / "out") == 0


def test_models_lists_names_and_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    assert "condseg-lite-polyp" in capsys.readouterr().out
    assert main(["models", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert "condseg-lite-polyp" in [entry["name"] for entry in entries]


def _bomb(path: Path) -> Path:
    """A PNG whose header promises 60000x60000 pixels."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    return path


def _truncated(path: Path) -> Path:
    image(path, (400, 300))
    path.write_bytes(path.read_bytes()[:3000])
    return path


def _text(path: Path) -> Path:
    path.write_text("hello")
    return path


def _empty(path: Path) -> Path:
    path.write_bytes(b"")
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


BAD_SOURCES = {
    "missing file": lambda tmp: tmp / "missing.jpg",
    "empty file": lambda tmp: _empty(tmp / "empty.png"),
    "truncated JPEG": lambda tmp: _truncated(tmp / "cut.jpg"),
    "text renamed .png": lambda tmp: _text(tmp / "text.png"),
    "empty folder": lambda tmp: _folder(tmp / "nothing"),
    "decompression bomb": lambda tmp: _bomb(tmp / "bomb.png"),
}


@pytest.mark.parametrize("kind", BAD_SOURCES)
def test_bad_sources_are_one_line_with_the_files_name(
    kind: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = BAD_SOURCES[kind](tmp_path)
    assert predict(checkpoint, source, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err.strip()
    lines = [line for line in error.splitlines() if line.startswith("condseg: ")]
    assert len(lines) == 1
    assert source.name in lines[0]
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "condseg-lite-polip"], "condseg-lite-polyp"),
        (["--model", "{tmp}"], "config.json"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--device", "cpu", "--precision", "float16"], "precision='float16' needs a GPU"),
        (["--save", "mask,gif"], "gif"),
        (["--threshold", "2"], "threshold=2"),
    ],
)
def test_bad_options_are_one_line_with_the_remedy(
    arguments: list[str], message: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = image(tmp_path / "frame.png")
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert predict(checkpoint, source, "--out", tmp_path / "out", *given) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_corrupted_weights_file_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert predict(broken, image(tmp_path / "frame.png")) == 2
    assert "model.safetensors" in capsys.readouterr().err


def test_the_real_command_prints_one_line_and_exits_2(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from condseg_sdk.cli import main; raise SystemExit(main())"]
    done = subprocess.run(
        [*command, "predict", "nowhere.jpg"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("condseg: error: nowhere.jpg")
    assert done.stderr.count("\n") == 1


def test_an_output_folder_that_cannot_be_made_ends_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = image(tmp_path / "frame.png")
    assert predict(checkpoint, source, "--out", source) == 2
    assert "cannot be created" in capsys.readouterr().err


def film(path: Path, count: int = 30) -> Path:
    codec = {".mp4": "mp4v", ".wmv": "WMV2"}.get(path.suffix, "MJPG")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 10, (64, 48))
    if not writer.isOpened():
        pytest.skip(f"this OpenCV writes no {path.suffix}")
    for number in range(count):
        writer.write(np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8))
    writer.release()
    return path


def test_a_damaged_video_keeps_its_numbers_and_changes_the_exit_code(
    checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray(film(tmp_path / "film.avi").read_bytes())
    assert predict(checkpoint, tmp_path / "*.avi", "--out", tmp_path / "whole", "--save", "mask") == 0
    data[len(data) // 2 : len(data) // 2 + len(data) // 8] = bytes(len(data) // 8)
    (tmp_path / "hole.avi").write_bytes(data)
    assert predict(checkpoint, tmp_path / "hole.avi", "--out", tmp_path / "out", "--save", "mask") == 1
    whole, left = ({p.name[-15:] for p in (tmp_path / name).glob("*_mask.png")} for name in ("whole", "out"))
    assert len(whole) == 30
    assert left < whole
    assert "000029_mask.png" in left
    assert f"{30 - len(left)} of 30 frames are missing" in caplog.text


def test_a_damaged_wmv_video_changes_the_exit_code(checkpoint: Path, tmp_path: Path) -> None:
    path = film(tmp_path / "film.wmv")
    data = path.read_bytes()
    middle, size = len(data) // 2, len(data) // 8
    holed = data[:middle] + bytes(size) + data[middle + size :]
    for name, content, code in (("whole", data, 0), ("half", data[:middle], 1), ("hole", holed, 1)):
        path.write_bytes(content)
        assert predict(checkpoint, path, "--out", tmp_path / name, "--save", "mask") == code
    assert (tmp_path / "hole" / "film_000029_mask.png").is_file()


@pytest.mark.parametrize("name", ["clip.jpg", "clip"])
def test_a_video_under_another_name_is_refused(
    name: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = film(tmp_path / "film.mp4", 3).rename(tmp_path / name)
    assert predict(checkpoint, path, "--out", tmp_path / "out", "--save", "mask") != 0
    assert f"{path} is a video, not an image; rename it to clip.mp4" in capsys.readouterr().err + caplog.text
    path = path.rename(tmp_path / "clip.mp4")
    assert predict(checkpoint, path, "--out", tmp_path / "renamed", "--save", "mask") == 0


def test_bits_of_16_bit_images_can_be_given(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.full((20, 30), 3000, np.uint16)).save(tmp_path / "a.png")
    arguments = [tmp_path / "a.png", "--save", "mask", "--out"]
    assert predict(checkpoint, *arguments, tmp_path / "12", "--bits", "12") == 0
    assert predict(checkpoint, *arguments, tmp_path / "10", "--bits", "10") == 2
    assert "more than bits=10 can hold; pass bits=12" in capsys.readouterr().err
    assert predict(checkpoint, *arguments, tmp_path / "20", "--bits", "20") == 2


def test_an_export_of_an_export_asks_for_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "model.onnx"), str(tmp_path / "again.onnx")]) == 2
    message = capsys.readouterr().err
    assert "model.onnx is an ONNX file already; pass the checkpoint that it was exported from" in message
    assert "runtime=" not in message


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--spacing", "abc"], "--spacing: 'abc' is not a number, or several with commas between them"),
        (["--threshold", "half"], "--threshold: 'half' is not a number, such as 0.5"),
        (["--batch-size", "1.5"], "--batch-size: '1.5' is not a whole number, such as 8"),
    ],
)
def test_a_value_that_is_no_number_is_named_in_plain_words(
    option: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "frame.jpg", *option])
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_no_message_about_a_value_names_a_function(command: str) -> None:
    commands = next(a for a in make_parser([command])._actions if isinstance(a, argparse._SubParsersAction))
    types = {action.type for action in commands.choices[command]._actions}
    assert types <= {None, str, Path, integer, real, reals}
