"""What every output states about where it comes from."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import condseg_sdk
from condseg_sdk import Predictor
from condseg_sdk.checksums import sha256_of
from condseg_sdk.errors import OptionError
from condseg_sdk.origin import ModelFile, model_label, utc_now
from condseg_sdk.provenance import is_ours
from condseg_sdk.segmentation import Segmentation

FRAME = np.zeros((40, 50, 3), np.uint8)


@pytest.fixture(scope="module")
def predictor(checkpoint: Path) -> Predictor:
    return Predictor.from_pretrained(checkpoint, device="cpu")


def test_json_png_and_jpeg_state_model_sha256_version_threshold_runtime_device_and_time(
    predictor: Predictor, checkpoint: Path, tmp_path: Path
) -> None:
    seg = predictor(FRAME, threshold=0.3)
    expected = {
        "model": f"{checkpoint.parent.name}/{checkpoint.name}",
        "model_sha256": sha256_of(checkpoint / "model.safetensors"),
        "version": condseg_sdk.__version__,
        "runtime": "torch",
        "device": "cpu",
    }
    values = json.loads(seg.encode("json"))
    date = values["origin"].pop("date")
    assert values["origin"] == expected
    assert values["threshold"] == 0.3
    assert date.endswith("+00:00")
    for kind, suffix in [("mask", ".png"), ("overlay", ".png"), ("probability", ".png"), ("overlay", ".jpg")]:
        with Image.open(io.BytesIO(seg.encode(kind, suffix=suffix))) as image:
            stated = image.info["condseg_sdk" if suffix == ".png" else "comment"]
        assert json.loads(stated) == {"threshold": 0.3, **expected, "date": date}
    assert is_ours(seg.save(tmp_path / "mask.png"))
    assert seg.seconds is not None
    assert seg.seconds > 0


def test_with_a_fixed_time_the_same_prediction_gives_the_same_files(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    one, other = predictor(FRAME), predictor.predict([FRAME])[0]
    assert one.to_dict()["origin"]["date"] == "1970-01-02T00:00:00.000+00:00"
    for kind in ("mask", "overlay", "json"):
        assert one.encode(kind) == other.encode(kind)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(OptionError, match="SOURCE_DATE_EPOCH='yesterday' must be a number of seconds"):
        utc_now()


def test_a_prediction_made_by_hand_has_no_origin() -> None:
    seg = Segmentation(np.zeros((2, 2), np.float32), (2, 2), threshold=0.5, source=b"", name="a")
    assert json.loads(seg.encode("json"))["origin"] is None
    with Image.open(io.BytesIO(seg.encode("mask"))) as image:
        assert json.loads(image.text["condseg_sdk"]) == {"threshold": 0.5}


def test_weights_that_changed_since_they_were_opened_have_no_sha256(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"one")
    kept, changed, removed = ModelFile(path), ModelFile(path), ModelFile(path)
    copy = pickle.loads(pickle.dumps(kept))
    path.write_bytes(b"another")
    assert changed.sha256 is None
    assert "has changed since it was opened" in caplog.text
    path.unlink()
    assert removed.sha256 is None
    assert copy.sha256 == kept.sha256 is not None


def test_only_the_end_of_a_path_names_a_model() -> None:
    assert model_label(Path("/home/jane/runs/mine/model.onnx")) == "mine/model.onnx"
    assert model_label("org/name@main") == "org/name@main"
