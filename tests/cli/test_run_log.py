"""The log of `condseg predict`, and the DICOM segmentations that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from condseg_sdk.checksums import sha256_of
from condseg_sdk.cli import main
from condseg_sdk.cli.run_log import RunLog
from condseg_sdk.errors import ImageError, OutputError
from condseg_sdk.provenance import is_ours
from condseg_sdk.segmentation import Segmentation
from tests.helpers.dicom import PATIENT, ULTRASOUND_MULTI_FRAME, make_dataset, save_dataset


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def segmentation() -> Segmentation:
    return Segmentation(np.zeros((2, 2), np.float32), (2, 2), threshold=0.5, source=b"", name="a")


def append(path: Path, source: Path) -> None:
    with RunLog(path) as log:
        log.done(source, segmentation(), [Path("out/a_mask.png")], seconds=0.5)


@pytest.fixture(scope="module")
def run(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after a run over an image, a recording and an object without an image."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "in").mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (3, 40, 50, 3), np.uint8)
    Image.fromarray(pictures[0]).save(folder / "in" / "a.png")
    save_dataset(make_dataset(pictures, "RGB", sop_class=ULTRASOUND_MULTI_FRAME), folder / "in" / "cine.dcm")
    report = make_dataset(pictures[0], "RGB")
    for name in ("PixelData", "Rows", "BitsAllocated"):
        del report[name]
    save_dataset(report, folder / "in" / "report.dcm")
    command = ["predict", str(folder / "in"), "--model", str(checkpoint), "--device", "cpu", "--on-error", "skip"]
    command += ["--out", str(folder / "out"), "--save", "json,dicom-seg", "--log", str(folder / "logs" / "run.jsonl")]
    assert main([*command, "--segment-type", "41329004,SCT,Polyp"]) == 1
    return folder


def test_each_image_and_frame_gets_a_line(run: Path, checkpoint: Path) -> None:
    lines = {(Path(line["source"]).name, line["frame"]): line for line in lines_of(run / "logs" / "run.jsonl")}
    # An image that is no DICOM file has no DICOM segmentation, and gets no file at all.
    assert lines.keys() == {("a.png", None), ("report.dcm", None), *(("cine.dcm", n) for n in (None, 0, 1, 2))}
    done = lines["cine.dcm", 1]
    assert done["status"] == "done"
    assert done["outputs"] == [str(run / "out" / "cine_000001.json")]
    assert done["source_sha256"] == sha256_of(run / "in" / "cine.dcm")
    assert done["model_sha256"] == sha256_of(checkpoint / "model.safetensors")
    assert (done["threshold"], done["device"], done["runtime"], done["error"]) == (0.4, "cpu", "torch", None)
    assert done["seconds"] > 0
    assert lines["cine.dcm", None]["outputs"] == [str(run / "out" / "cine_seg.dcm")]
    for name, reason in [("a.png", "is not a DICOM file"), ("report.dcm", "without an image")]:
        failed = lines[name, None]
        assert (failed["status"], failed["outputs"]) == ("failed", [])
        assert reason in failed["error"]


def test_a_recording_gets_one_segmentation_and_no_name_gets_into_other_files(run: Path) -> None:
    written = sorted(path.name for path in (run / "out").iterdir())
    assert written == ["cine_000000.json", "cine_000001.json", "cine_000002.json", "cine_seg.dcm"]
    assert is_ours(run / "out" / "cine_seg.dcm")
    seg = pydicom.dcmread(run / "out" / "cine_seg.dcm")
    assert seg.NumberOfFrames == 3
    assert seg.SegmentSequence[0].SegmentLabel == "Polyp"
    for path in (run / "logs" / "run.jsonl", *(run / "out").glob("*.json")):
        assert PATIENT not in path.read_text()


def test_a_segmentation_of_another_program_is_not_replaced(
    run: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_dataset(make_dataset(np.zeros((4, 4), np.uint8)), tmp_path / "cine_seg.dcm")
    before = other.read_bytes()
    command = ["predict", str(run / "in" / "cine.dcm"), "--model", str(checkpoint), "--out", str(tmp_path)]
    assert main([*command, "--save", "dicom-seg"]) == 2
    assert "cine_seg.dcm was not written by condseg" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert main([*command, "--segment-label", "Mass"]) == 2
    assert "--segment-label is for DICOM segmentations" in capsys.readouterr().err


def test_lines_are_appended_and_a_torn_line_stays_alone(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    append(path, tmp_path / "missing.png")
    append(path, tmp_path / "missing.png")
    with path.open("ab") as file:
        file.write(b'{"software": "condseg_sdk 0')  # killed within a line
    append(path, tmp_path / "missing.png")
    lines = path.read_text().splitlines()
    assert [line.endswith("}") for line in lines] == [True, True, False, True]
    assert json.loads(lines[3])["source_sha256"] is None


def test_a_log_is_complete_up_to_its_last_line_while_the_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with RunLog(path) as log:
        assert not path.exists()
        for number in range(3):
            log.failed(None, ImageError(f"{number} is damaged"), frame=number)
            assert [line["frame"] for line in lines_of(path)] == [*range(number + 1)]


@pytest.mark.parametrize(
    "content", [b"a,b\n1,2\n", b'{"a": 1}\n', b"[]\n", b'{"software": "other 1.0"}\n', b"\xff\xfe", b"[" * 10**5]
)
def test_a_file_of_another_program_is_not_touched(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_bytes(content)
    with pytest.raises(OutputError, match="is not a log that condseg wrote"):
        RunLog(path)
    assert path.read_bytes() == content
    with pytest.raises(OutputError, match="is not a log that condseg wrote"):
        RunLog(tmp_path)
