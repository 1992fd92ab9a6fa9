"""Evaluation: metrics of known predictions, saved files, and the command line."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from condseg_sdk import DatasetError, OptionError, Predictor
from condseg_sdk.cli import main
from condseg_sdk.data import Pair, load_mask, open_dataset, resize_mask
from condseg_sdk.evaluation.card_section import evaluation_card, extend_card
from condseg_sdk.evaluation.evaluate import choose_pairs, evaluate
from condseg_sdk.evaluation.result import Evaluation
from condseg_sdk.images.load import load_image
from condseg_sdk.metrics import score
from condseg_sdk.preprocessing import resize_logits
from condseg_sdk.segmentation import Segmentation
from tests.helpers.datasets import make_set, save

NAMES = ("a", "b", "c", "d", "e")
HARD = 8.0  # a logit that is as good as certain


class Predictions:
    """In a predictor's place: its logits for each image, by the file's stem."""

    model_id, device, providers, threshold, training_images = "predictions", "cpu", ("none",), 0.5, None

    def __init__(self, logits: dict[str, NDArray[np.float32]]) -> None:
        self.logits = logits

    def __repr__(self) -> str:
        return "Predictions()"

    def stream(self, source: Sequence[Path], *, threshold: float | None = None, **_: Any) -> Iterator[Segmentation]:
        for path in source:
            logits, size = self.logits[path.stem], load_image(path).shape[:2]
            branch = -np.abs(logits)
            yield Segmentation(
                logits, size, threshold=threshold or 0.5, source=path, name=str(path), branch_logits=branch
            )


@pytest.fixture
def known(tmp_path: Path) -> tuple[Predictions, list[Pair]]:
    """Four images of 256x256: all right, half of it missed, nothing found, nothing there and nothing found."""
    target = np.zeros((256, 256), np.uint8)
    target[64:192, 64:192] = 255
    half = target.copy()
    half[:, 128:] = 0
    nothing = np.zeros_like(target)
    masks = {"right": (target, target), "half": (target, half), "missed": (target, nothing), "nothing": (nothing,) * 2}
    return made(tmp_path, masks)


def made(folder: Path, masks: dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> tuple[Predictions, list[Pair]]:
    """Predictions and images with these masks: the ground truth and what is predicted, by name."""
    logits = {}
    for name, (target, predicted) in masks.items():
        save(folder / "images" / f"{name}.png", np.zeros((*target.shape, 3), np.uint8))
        save(folder / "masks" / f"{name}.png", target)
        logits[name] = np.where(predicted > 0, HARD, -HARD).astype(np.float32)
    return Predictions(logits), choose_pairs(folder, names=list(masks))


def test_ground_truth_outside_of_the_field_of_view_is_missed(tmp_path: Path) -> None:
    """Half of the region lies outside; inside of it the network is right everywhere."""
    target = np.zeros((100, 200), np.uint8)
    target[20:60, 60:140] = 255
    save(tmp_path / "images" / "a.png", np.zeros((100, 200, 3), np.uint8))
    save(tmp_path / "masks" / "a.png", target)
    logits = np.where(target[:, 100:] > 0, HARD, -HARD).astype(np.float32)

    class Cut(Predictions):
        def stream(self, *args: Any, **options: Any) -> Iterator[Segmentation]:
            for seg in super().stream(*args, **options):
                yield replace(seg, branch_logits=None, field_of_view=(100, 0, 200, 100))

    (image,) = evaluate(Cut({"a": logits}), choose_pairs(tmp_path)).images
    assert (image.own.recall, image.own.precision, image.own.iou) == (0.5, 1, 0.5)
    assert image.small.recall == pytest.approx(0.5, abs=0.02)
    assert image.small.precision == pytest.approx(1, abs=0.02)
    assert image.foreground == pytest.approx(40 * 80 / (100 * 200))


def test_metrics_of_known_predictions_are_correct(known: tuple[Predictions, list[Pair]]) -> None:
    half, missed, nothing, right = evaluate(*known).images  # by name
    assert (right.own.iou, right.own.dice, right.own.hd95, right.own.assd, right.own.boundary_iou) == (1, 1, 0, 0, 1)
    assert (half.own.iou, half.own.dice, half.own.precision, half.own.recall) == (0.5, pytest.approx(2 / 3), 1, 0.5)
    assert half.own.f2 == pytest.approx(5 * 0.5 / (4 + 0.5))
    assert half.own.accuracy == 1 - 128 * 64 / 256**2
    assert half.own.hd95 == 64  # from the far edge of the ground truth to that of the prediction
    certain = 1 / (1 + math.exp(-HARD))
    assert half.own.mae == pytest.approx(1 - certain + (2 * certain - 1) * 128 * 64 / 256**2, abs=1e-6)
    assert all(image.own == image.small for image in (half, missed, nothing, right))  # all are 256x256


def test_metrics_of_empty_masks_are_defined(known: tuple[Predictions, list[Pair]]) -> None:
    evaluation = evaluate(*known)
    _, missed, nothing, _ = evaluation.images
    assert (missed.own.dice, missed.own.hd95, missed.empty) == (0, math.hypot(256, 256), "prediction")
    assert (nothing.own.dice, nothing.own.precision, nothing.own.hd95, nothing.empty) == (1, 1, 0, "both")
    assert [image.foreground for image in evaluation.images] == [0.25, 0.25, 0, 0.25]
    assert evaluation.half_empty == 1


@pytest.fixture
def whole_images(tmp_path: Path) -> Evaluation:
    """Six images of two hospitals: c1 with three regions, c2 with one, and two images without one."""

    def box(*boxes: tuple[slice, slice]) -> NDArray[np.uint8]:
        mask = np.zeros((100, 100), np.uint8)
        for rows, columns in boxes:
            mask[rows, columns] = 255
        return mask

    small, large = box((slice(10), slice(20))), box((slice(50), slice(50)))
    elsewhere, two = box((slice(80, 90), slice(80, 90))), box((slice(10), slice(10)), (slice(50, 60), slice(50, 70)))
    masks = {
        "c1_found": (small, small),  # 2 % of the image
        "c1_elsewhere": (small, elsewhere),
        "c1_unmarked": (large, box()),  # 25 % of the image
        "c2_found": (large, large),
        "c2_alarm": (box(), two),
        "c2_quiet": (box(), box()),
    }
    predictions, _ = made(tmp_path, masks)
    predictions.logits["c1_unmarked"][0, :50] = -1  # half a percent of the pixels, a score of 0.27
    return evaluate(predictions, tmp_path, group_by=r"^(c\d)_")  # type: ignore[arg-type]


def test_missed_regions_and_false_alarms_are_counted_in_whole_images(whole_images: Evaluation) -> None:
    found = whole_images.detection
    assert (found["missed"].value, found["missed"].images) == (0.5, 4)  # one is marked elsewhere, one not at all
    assert found["nothing marked"].value == 0.25
    assert (found["false alarms"].value, found["false alarms"].images) == (0.5, 2)
    assert found["false alarms"].low == pytest.approx(0.0945, abs=1e-4)  # Wilson's interval of 1 of 2
    assert found["area of false alarms"].value == pytest.approx((0.03 + 0) / 2)
    assert found["regions of false alarms"].value == (2 + 0) / 2
    # 4 x 2 pairs: three regions tie with the alarm and beat the quiet image; one loses and wins.
    assert found["AUROC of the score"].value == pytest.approx((3 * 1.5 + 1) / 8)


def test_subgroups_are_measured_apart(whole_images: Evaluation) -> None:
    small, large, none = whole_images.by_size
    assert (small.name, small.images, small.missed.value) == ("small, under 5 %", 2, 0.5)
    assert small.iou.value == pytest.approx(0.5, abs=1e-3)  # resized to 256x256
    assert (large.images, large.iou.value, large.missed.value) == (2, pytest.approx(0.5, abs=1e-3), 0.5)
    assert (none.name, none.images, none.false_alarms.value, none.iou.images) == ("no region", 2, 0.5, 0)
    first, second = whole_images.by_group
    assert (first.name, first.images, first.missed.value, first.false_alarms.images) == (
        "c1",
        3,
        pytest.approx(2 / 3),
        0,
    )
    assert (second.name, second.iou.value, second.dice.images, second.false_alarms.value) == (
        "c2",
        pytest.approx(1, abs=1e-2),
        1,
        0.5,
    )


def test_the_table_of_lowest_scores_says_what_each_would_change(whole_images: Evaluation) -> None:
    table = {limit.min_score: limit for limit in whole_images.by_min_score}
    assert (table[None].missed.value, table[None].false_alarms.value) == (0.5, 0.5)
    assert (table[0.9].missed.value, table[0.9].false_alarms.value) == (0.5, 0.5)  # its score is 0.9997


def test_results_of_whole_images_are_shown_and_saved(whole_images: Evaluation, tmp_path: Path) -> None:
    summary = json.loads((whole_images.save(tmp_path / "out") / "summary.json").read_text())
    assert summary["detection"]["false alarms"]["value"] == 0.5
    assert [row["name"] for row in summary["by_group"]] == ["c1", "c2"]
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert (rows["c2_alarm"]["regions"], rows["c2_alarm"]["group"], rows["c2_alarm"]["missed"]) == ("2", "c2", "0")
    assert float(rows["c2_alarm"]["marked"]) == pytest.approx(0.03)
    assert rows["c1_elsewhere"]["missed"] == "1"
    for text in (str(whole_images), evaluation_card(whole_images)):
        assert re.search(r"false alarms\W+0.5000 \(0.0945 to 0.9055\)", text)
        assert "small, under 5 %" in text
        assert re.search(r"^\W*c2 ", text, re.MULTILINE)


def test_images_without_any_empty_mask_have_no_false_alarms(evaluation: Evaluation) -> None:
    assert "missed" in evaluation.detection
    assert not {"false alarms", "AUROC of the score"} & set(evaluation.detection)
    assert {limit.false_alarms.images for limit in evaluation.by_min_score} == {0}
    assert evaluation.by_group == []


def test_means_over_images_have_intervals(known: tuple[Predictions, list[Pair]]) -> None:
    means = evaluate(*known).means()
    assert means["mIoU"].value == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert means["mDSC"].value == pytest.approx((1 + 2 / 3 + 0 + 1) / 4)
    assert means["mIoU"].low < means["mIoU"].value < means["mIoU"].high


def test_calibration_and_error_detection_of_known_predictions_are_correct(
    known: tuple[Predictions, list[Pair]],
) -> None:
    evaluation = evaluate(*known, branch_uncertainty=True)
    # Only two images have wrong pixels, and all pixels are equally certain: no better than guessing.
    assert evaluation.reliability["AUROC of uncertainty"].value == 0.5
    assert evaluation.reliability["AUROC of uncertainty"].images == 2
    assert evaluation.reliability["errors in the top 5 % of branch uncertainty"].value == pytest.approx(0.05)
    # Among the pixels predicted as background, an eighth of one image and a quarter of another are foreground.
    certain = 1 / (1 + math.exp(-HARD))
    wrong = (128 * 64 + 128 * 128) / (4 * 256**2)
    assert evaluation.reliability["ECE"].value == pytest.approx(wrong, abs=2 * (1 - certain))


def test_the_curve_over_thresholds_of_known_predictions_is_correct(known: tuple[Predictions, list[Pair]]) -> None:
    evaluation = evaluate(*known)
    assert evaluation.curve.recall[50] == pytest.approx(1.5 / 3)
    assert evaluation.curve.precision[50] == 1
    assert evaluation.curve.dice[50] == pytest.approx(evaluation.means()["mDSC"].value)


def test_the_threshold_changes_the_metrics(known: tuple[Predictions, list[Pair]]) -> None:
    predictions, pairs = known
    predictions.logits["right"] = np.where(predictions.logits["right"] > 0, np.float32(0.1), np.float32(-0.1))
    assert evaluate(predictions, pairs[:1]).images[0].own.dice == 1
    assert evaluate(predictions, pairs[:1], threshold=0.6).images[0].own.dice == 0
    assert evaluate(predictions, pairs[:1], threshold=0.4).images[0].own.recall == 1
    assert evaluate(predictions, pairs[:1], threshold=0.4).threshold == 0.4


def test_a_seed_is_checked_before_the_work(known: tuple[Predictions, list[Pair]]) -> None:
    with pytest.raises(OptionError, match="seed=4294967296 must be"):
        evaluate(*known, seed=2**32, on_start=lambda _: pytest.fail("work has begun"))
    assert evaluate(*known, seed=2**32 - 1).means()["mIoU"].low > 0


def test_spacing_adds_distances_in_millimeters(known: tuple[Predictions, list[Pair]]) -> None:
    evaluation = evaluate(*known, spacing=(0.5, 0.25))
    half = evaluation.images[0]
    assert (half.own.hd95, half.own.hd95_mm) == (64, 16)
    assert math.isnan(half.small.hd95_mm)
    assert "HD95 (mm)" in evaluation.means("own")
    assert "HD95 (mm)" not in evaluation.means("256")
    with pytest.raises(OptionError, match="spacing="):
        evaluate(*known, spacing=-1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("set"), NAMES)


@pytest.fixture(scope="module")
def evaluation(checkpoint: Path, data: Path) -> Evaluation:
    command = "condseg evaluate tiny data"
    return evaluate(
        Predictor.from_pretrained(checkpoint), data, branch_uncertainty=True, model_name="tiny", command=command
    )


def test_repeated_evaluations_give_the_same_metrics(checkpoint: Path, data: Path, evaluation: Evaluation) -> None:
    again = evaluate(Predictor.from_pretrained(checkpoint), data, branch_uncertainty=True)
    assert again.means() == evaluation.means()
    assert again.reliability == evaluation.reliability


def test_a_network_is_evaluated_at_both_sizes(checkpoint: Path, data: Path, evaluation: Evaluation) -> None:
    predictor = Predictor.from_pretrained(checkpoint)
    # In one call, as `evaluate` does it: alone an image's logits differ in the last bits, and a pixel may tip over.
    predictions = predictor.predict([image.pair.image for image in evaluation.images])
    for image, seg in zip(evaluation.images, predictions, strict=True):
        target = load_mask(image.pair.mask)
        assert image.own.dice == score(seg.mask, target).dice
        at_256 = resize_logits(seg.logits, (256, 256)) >= math.log(predictor.threshold / (1 - predictor.threshold))
        assert image.small.iou == score(at_256, resize_mask(target, (256, 256))).iou
    dices = [image.small.dice for image in evaluation.images]
    assert evaluation.means()["mDSC"].value == pytest.approx(np.mean(dices))


def test_saved_files_hold_metrics_and_options(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "out")
    with (tmp_path / "out" / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == list(NAMES)
    assert [float(row["dice_256"]) for row in rows] == [image.small.dice for image in evaluation.images]
    assert {row["width"] for row in rows} == {"30"}
    assert rows[0]["hd95_mm_own"] == ""
    assert 0 <= float(rows[0]["branch_uncertainty_auroc"]) <= 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    mean = np.mean([float(row["iou_own"]) for row in rows])
    assert summary["means"]["own size"]["mIoU"]["value"] == pytest.approx(mean)
    assert summary["images"] == 5
    assert summary["environment"]["device"] == "cpu"
    assert summary["threshold"] == 0.4


def test_metrics_and_model_card_agree(evaluation: Evaluation, tmp_path: Path) -> None:
    metrics = evaluation.metrics
    assert json.loads(json.dumps(metrics)) == metrics
    value = evaluation.means()["mDSC"].value
    assert metrics["mDSC"] == round(value, 4)
    assert metrics["intervals"]["mDSC"][0] <= metrics["mDSC"] <= metrics["intervals"]["mDSC"][1]
    card = evaluation_card(evaluation)
    assert f"| mDSC | {evaluation.means()['mDSC']} |" in card
    assert "condseg evaluate tiny data" in card
    assert "Not a medical device" in card
    assert "The interval of ECE is biased upward" in card
    path = tmp_path / "README.md"
    path.write_text("# tiny\n\nText.\n\n## Citation\n\nLei et al.\n")
    for _ in range(2):  # the second time it replaces the first
        extend_card(path, evaluation)
    assert path.read_text() == f"# tiny\n\nText.\n\n{card}\n## Citation\n\nLei et al.\n"


def test_images_are_chosen_by_list_or_split(tmp_path: Path) -> None:
    folder = make_set(tmp_path, ["a", "b"], "train/images", "train/masks")
    make_set(tmp_path, ["c"], "test/images", "test/masks")
    assert [pair.name for pair in choose_pairs(folder)] == ["a", "b", "c"]
    assert [pair.name for pair in choose_pairs(folder, split="test")] == ["c"]
    assert [pair.name for pair in choose_pairs(folder, names=["b"])] == ["b"]
    (tmp_path / "names.txt").write_text("c\na.png\n")
    assert [pair.name for pair in choose_pairs(folder, names=tmp_path / "names.txt")] == ["c", "a"]
    with pytest.raises(OptionError, match="cannot be combined"):
        choose_pairs(folder, names=["a"], split="test")
    with pytest.raises(OptionError, match="split='dev'"):
        choose_pairs(folder, split="dev")  # type: ignore[arg-type]


def test_a_dataset_is_evaluated_as_a_whole_or_by_split(tmp_path: Path) -> None:
    dataset = open_dataset(make_set(tmp_path / "set", NAMES), val_fraction=0.4)
    assert [pair.name for pair in choose_pairs(dataset)] == list(NAMES)
    assert choose_pairs(dataset, split="validation") == dataset.validation
    assert [pair.name for pair in choose_pairs(dataset, names=["b", "a"])] == ["b", "a"]
    with pytest.raises(DatasetError, match="5 pairs defines no test split"):
        choose_pairs(dataset, split="test")


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_split_that_the_data_does_not_name_is_refused(tmp_path: Path, part: Any) -> None:
    """Drawn at random it would contain images that were trained on."""
    with pytest.raises(DatasetError, match=rf"plain defines no {part} split: leave split out"):
        choose_pairs(make_set(tmp_path / "plain", NAMES), split=part)
    folder = make_set(tmp_path / "named", NAMES, "train/images", "train/masks")
    make_set(folder, ["f"], "test/images", "test/masks")
    with pytest.raises(DatasetError, match="defines no validation split"):
        choose_pairs(folder, split="validation")
    assert [pair.name for pair in choose_pairs(folder, split="train")] == list(NAMES)  # none of it held out


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Path:
    """A folder as `finetune` leaves it, trained on a, b, c with d, e held out."""
    run = tmp_path / "run"
    shutil.copytree(checkpoint, run / "checkpoint")
    split = {"layout": "images/ and masks/", "train": [*"abc"], "validation": [*"de"], "test": []}
    (run / "settings.json").write_text(json.dumps({"split": split}))
    return run


def test_the_split_of_a_training_run_is_used(
    run: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor.from_pretrained(run / "checkpoint")
    held_out = evaluate(predictor, data, split="validation")
    assert [image.pair.name for image in held_out.images] == ["d", "e"]
    assert [image.pair.name for image in evaluate(predictor, data, split="train").images] == ["a", "b", "c"]
    assert not caplog.records
    with pytest.raises(DatasetError, match="defines no test split"):
        evaluate(predictor, data, split="test")
    with pytest.raises(DatasetError, match="defines no validation split"):  # of other data
        evaluate(predictor, make_set(tmp_path / "other", ["a", "d", "x"]), split="validation")
    parted = make_set(tmp_path / "parted", ["x"], "val/images", "val/masks")  # what the data says goes first
    assert [image.pair.name for image in evaluate(predictor, parted, split="validation").images] == ["x"]


def test_a_model_name_is_never_the_checkpoint_of_a_run(
    run: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(run)
    predictor = Predictor.from_pretrained("condseg-lite-polyp")
    with pytest.raises(DatasetError, match="defines no validation split"):
        evaluate(predictor, data, split="validation")
    assert not caplog.records


def test_images_without_masks_in_a_split_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_set(tmp_path, NAMES, "test/images", "test/masks")
    (folder / "test" / "masks" / "b.png").unlink()
    assert [pair.name for pair in choose_pairs(folder, split="test")] == ["a", "c", "d", "e"]
    (record,) = caplog.records
    assert re.match(r"left out: 1 image without.*: .*b\.png", record.getMessage())


def test_training_images_are_counted_in_a_warning(
    run: Path, checkpoint: Path, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    evaluate(Predictor.from_pretrained(run / "checkpoint"), data)
    assert [record.getMessage()[:42] for record in caplog.records] == ["3 of 5 images have names of training image"]
    caplog.clear()
    evaluate(Predictor.from_pretrained(run / "checkpoint"), data, names=["d", "e"])
    evaluate(Predictor.from_pretrained(checkpoint), data)
    (run / "settings.json").write_text("[]")  # of another program
    evaluate(Predictor.from_pretrained(run / "checkpoint"), data)
    assert not caplog.records


def test_data_may_have_only_a_test_split(tmp_path: Path) -> None:
    folder = make_set(tmp_path, NAMES, "test/images", "test/masks")
    assert len(choose_pairs(folder, split="test")) == len(NAMES)


def test_a_mask_of_other_proportions_is_named_in_the_error(checkpoint: Path, tmp_path: Path) -> None:
    make_set(tmp_path, ["a"])
    save(tmp_path / "masks" / "a.png", np.full((30, 30), 255, np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png is 30x20 but its mask .*a\.png 30x30"):
        evaluate(Predictor.from_pretrained(checkpoint), tmp_path)


def test_masks_at_another_scale_are_resized(checkpoint: Path, tmp_path: Path) -> None:
    make_set(tmp_path, ["a"])
    mask = np.asarray(Image.open(tmp_path / "masks" / "a.png"))
    expected = evaluate(Predictor.from_pretrained(checkpoint), tmp_path).images[0].own
    save(tmp_path / "masks" / "a.png", mask.repeat(2, 0).repeat(2, 1))
    assert evaluate(Predictor.from_pretrained(checkpoint), tmp_path).images[0].own == expected


# The command


def test_the_command_prints_and_saves_the_metrics(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "names.txt").write_text("a\nd\n")
    arguments = ["evaluate", str(checkpoint), str(data), "--list", str(tmp_path / "names.txt"), "--tta"]
    assert main([*arguments, "--spacing", "0.5", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "2 images, threshold 0.4" in printed
    assert re.search(r"^mDSC +0\.\d{4} \(0\.\d{4} to 0\.\d{4}\) ", printed, re.MULTILINE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model_card.md",
        "per_image.csv",
        "summary.json",
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["model"], summary["tta"], summary["spacing_mm"]) == ("tiny", True, [0.5, 0.5])
    words = ["condseg", *arguments[:-1], "--spacing", "0.5", "--tta"]
    assert summary["command"] == " ".join(words)


def test_masks_may_be_in_another_folder(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_set(tmp_path, NAMES, "frames/all", "drawn/by_hand")
    arguments = ["evaluate", str(checkpoint), str(tmp_path / "frames"), "--masks", str(tmp_path / "drawn")]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "frames: 5 images" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["command"] == " ".join(["condseg", *arguments])
    assert main([*arguments[:3]]) == 2
    assert "pass masks= (--masks)" in capsys.readouterr().err
    make_set(tmp_path, ["f"], "parted/test", "drawn_parts/test")
    (pair,) = choose_pairs(tmp_path / "parted", masks=tmp_path / "drawn_parts", split="test")
    assert pair.mask == tmp_path / "drawn_parts" / "test" / "f.png"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{checkpoint}", "{data}/nowhere"], "nowhere"),
        (["{data}", "{data}"], "config.json"),
        (["{checkpoint}", "{data}", "--list", "missing.txt"], "missing.txt"),
        (["{checkpoint}", "{data}", "--split", "test"], "no test split"),
        (["{checkpoint}", "{data}", "--threshold", "1"], "threshold=1.0"),
        (["{checkpoint}", "{data}", "--spacing", "1", "2", "3"], "spacing="),
        (["{checkpoint}", "{data}", "--seed", "-1"], "seed=-1 must be a whole number from 0 to 4294967295"),
        (["{checkpoint}", "{data}", "--report"], "--out"),
        (["{checkpoint}", "{data}", "--out", "{data}/images/a.png"], "cannot be created"),
    ],
)
def test_errors_of_the_command_are_one_line(
    checkpoint: Path, data: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = [argument.format(checkpoint=checkpoint, data=data) for argument in arguments]
    assert main(["evaluate", *filled]) == 2
    lines = [line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "error" in line]
    assert len(lines) == 1
    assert lines[0].startswith("condseg: error: ")
    assert message in lines[0]


def test_refused_data_leaves_no_output_folder(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(checkpoint), str(data), "--split", "test", "--out", str(tmp_path / "a" / "out")]) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_benchmark_script_gives_the_same_metrics(
    checkpoint: Path, data: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "accuracy.py"
    command = [sys.executable, str(script), str(checkpoint), str(data), "--json", str(tmp_path / "metrics.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    means = evaluation.means()
    assert f"256x256  mIoU {means['mIoU'].value:.4f}  mDSC {means['mDSC'].value:.4f}" in done.stdout
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["own size"]["mDSC"] == pytest.approx(evaluation.means("own")["mDSC"].value)


def test_anything_but_a_predictor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="must be a Predictor: use Predictor.from_pretrained") as caught:
        evaluate("condseg-lite-polyp", tmp_path)  # type: ignore[arg-type]
    assert caught.value.option == "predictor"


@pytest.mark.parametrize("names", [3, [3]])
def test_names_of_the_wrong_type_are_refused(known: tuple[Predictions, list[Pair]], names: Any) -> None:
    _, pairs = known
    with pytest.raises(OptionError, match="must be a list of strings, or a text file"):
        choose_pairs(pairs, names=names)


def test_results_know_with_how_many_bits_their_images_were_read(checkpoint: Path, tmp_path: Path) -> None:
    scan = np.random.default_rng(0).integers(0, 4096, (40, 40), np.uint16)
    for folder, pixels in (("images", scan), ("masks", (scan > 2000).astype(np.uint8))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels).save(tmp_path / folder / "scan.png")
    predictor = Predictor.from_pretrained(checkpoint)
    assert [image.bits for image in evaluate(predictor, tmp_path).images] == [12]
    assert [image.bits for image in evaluate(predictor, tmp_path, bits=14).images] == [14]
