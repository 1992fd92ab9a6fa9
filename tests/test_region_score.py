"""The score of an image: worked out by hand, kept in checkpoints, stated in outputs, and as a limit for masks."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import OptionError, Predictor
from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.cli import main
from condseg_sdk.errors import CheckpointError
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.region_score import ScoreCalibration, peak_logit
from condseg_sdk.segmentation import Segmentation
from condseg_sdk.training.calibrate_score import calibrate_score
from tests.helpers.datasets import picture, save

CURVE = ScoreCalibration(slope=0.5, intercept=-1.0)


def seg_of(logits: np.ndarray, **options: object) -> Segmentation:
    size = (2 * logits.shape[0], 2 * logits.shape[1])
    return Segmentation(logits.astype(np.float32), size, threshold=0.5, source=b"", name="a", **options)  # type: ignore[arg-type]


def test_the_peak_is_the_mean_of_the_highest_half_percent() -> None:
    logits = np.full((20, 40), -5, np.float32)  # of 800 pixels, four count
    logits[3, 5:9] = (1, 2, 3, 6)
    assert peak_logit(logits) == 3
    assert peak_logit(np.float32([[-1, 4]])) == 4  # at least one


def test_the_score_is_the_calibrated_probability_of_a_region() -> None:
    logits = np.full((10, 10), -5.0)
    logits[0, 0] = 4
    assert seg_of(logits, score_calibration=CURVE).score == pytest.approx(1 / (1 + math.exp(-(0.5 * 4 - 1))))
    assert seg_of(logits).score == pytest.approx(1 / (1 + math.exp(-4)))  # not calibrated
    assert (
        seg_of(logits, score_calibration=CURVE).resized((7, 9)).score == seg_of(logits, score_calibration=CURVE).score
    )
    assert (CURVE(-1e9), CURVE(1e9)) == (0, 1)


def test_below_the_lowest_score_the_mask_is_empty_and_the_probability_stays() -> None:
    logits = np.full((10, 10), -5.0)
    logits[4:6, 4:6] = 4  # a score of 0.731
    below, above = (seg_of(logits, score_calibration=CURVE, min_score=limit) for limit in (0.74, 0.73))
    assert (below.area, below.is_empty, below.regions()) == (0, True, [])
    assert above.area > 0
    assert below.probability.max() == above.probability.max() > 0.9
    assert (below.to_dict()["score"], below.to_dict()["min_score"]) == (pytest.approx(0.7311, abs=1e-4), 0.74)
    assert below.statement() == {"threshold": 0.5, "min_score": 0.74}
    assert "min_score" not in seg_of(logits).statement()


@pytest.mark.parametrize("limit", [0, 1, -0.1, float("nan"), "high", True])
def test_a_lowest_score_out_of_range_is_refused(limit: object) -> None:
    with pytest.raises(OptionError, match="min_score="):
        seg_of(np.zeros((2, 2)), min_score=limit)


def test_a_checkpoint_keeps_its_calibration() -> None:
    config = CheckpointConfig({}, Preprocessing((64, 64)), 0.5, {}, CURVE)
    values = json.loads(json.dumps(config.to_dict()))
    assert (values["format_version"], values["score"]) == (2, {"slope": 0.5, "intercept": -1.0})
    assert CheckpointConfig.from_dict(values) == config
    assert "score" not in replace(config, score=None).to_dict()
    for wrong in ({"slope": -1, "intercept": 0}, {"slope": 1}, {"slope": 1, "intercept": float("nan")}, 3, None):
        with pytest.raises(CheckpointError, match="slope|score|intercept"):
            CheckpointConfig.from_dict({**values, "score": wrong})
    with pytest.raises(CheckpointError, match="format_version 1 does not support score"):
        CheckpointConfig.from_dict({**values, "format_version": 1})


@pytest.fixture(scope="module")
def calibrated(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint with a calibration."""
    folder = tmp_path_factory.mktemp("calibrated") / "tiny"
    shutil.copytree(checkpoint, folder)
    values = json.loads((folder / "config.json").read_text())
    values |= {"format_version": 2, "score": CURVE.to_dict()}
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_predictions_have_the_calibration_of_their_checkpoint(calibrated: Path) -> None:
    image = picture("a", (90, 120))
    predictor = Predictor.from_pretrained(calibrated)
    seg = predictor(image)
    assert seg.score == CURVE(peak_logit(seg.logits))
    assert not seg.is_empty
    above = (seg.score + 1) / 2
    assert predictor(image, min_score=above).is_empty
    assert [found.is_empty for found in predictor.predict([image], min_score=above)] == [True]
    assert [found.is_empty for found in predictor.stream([image], min_score=above)] == [True]
    with pytest.raises(OptionError, match="min_score=2"):
        predictor.predict([image], min_score=2)


def test_the_command_empties_masks_below_the_lowest_score(
    calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path / "a.png", picture("a", (90, 120)))
    out = tmp_path / "out"
    options = ["--model", str(calibrated), "--out", str(out), "--save", "mask,json,csv", "--log", str(tmp_path / "log")]
    assert main(["predict", str(path), *options, "--min-score", "0.999"]) == 0
    assert "0 with a region" in capsys.readouterr().out
    assert not np.asarray(Image.open(out / "a_mask.png")).any()
    values = json.loads((out / "a.json").read_text())
    assert (values["min_score"], values["area"]) == (0.999, 0)
    line = json.loads((tmp_path / "log").read_text())
    assert (line["min_score"], line["score"]) == (0.999, pytest.approx(values["score"], abs=1e-6))
    assert f",{values['score']:.6f}".rstrip("0") in (out / "measurements.csv").read_text()


def test_the_curve_is_that_of_a_logistic_regression_with_platts_targets() -> None:
    """At the minimum the gradient vanishes: the targets and the probabilities have the same sum and moment."""
    rng = np.random.default_rng(0)
    peaks = np.concatenate([rng.normal(6, 4, 60), rng.normal(-3, 5, 30)])
    has_region = np.arange(90) < 60
    curve = calibrate_score(peaks.tolist(), has_region.tolist())
    assert curve is not None
    target = np.where(has_region, 61 / 62, 1 / 32)
    error = np.array([curve(peak) for peak in peaks]) - target
    assert error.sum() == pytest.approx(0, abs=1e-3)
    assert error @ peaks == pytest.approx(0, abs=1e-2)


def test_a_curve_needs_images_of_both_kinds_in_the_right_order() -> None:
    assert calibrate_score([1.0] * 20, [True] * 20) is None
    assert calibrate_score([1.0] * 16 + [-1.0] * 4, [True] * 16 + [False] * 4) is None
    assert calibrate_score([-4.0] * 10 + [4.0] * 10, [True] * 10 + [False] * 10) is None  # higher without a region
    separated = calibrate_score([40.0] * 10 + [-40.0] * 10, [True] * 10 + [False] * 10)
    assert separated is not None
    assert 0.9 < separated(40) < 1
