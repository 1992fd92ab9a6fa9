"""The report: whole, self-contained, with the right pictures; of an evaluation and of a training run."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condseg_sdk import OptionError, Predictor
from condseg_sdk.cli import main
from condseg_sdk.data import find_pairs
from condseg_sdk.report import write_report
from condseg_sdk.report.overlays import ERROR_COLORS, error_overlay
from condseg_sdk.training.history import COLUMNS, read_history
from tests.helpers.datasets import make_set

NAMES = [f"image{i}" for i in range(10)]
CHARTS = ["dice_images", "dice_size", "dice_thresholds", "precision_recall", "reliability"]


class Page(HTMLParser):
    """What a page refers to, what it says, and whether its tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.alternatives: list[str | None] = []
        self.open: list[str] = []
        self.rows = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [values[key] or "" for key in ("src", "href", "srcset", "action") if key in values]
        if tag == "img":
            self.alternatives.append(values.get("alt"))
        self.rows += tag == "tr"
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_self_contained(text: str) -> Page:
    page = Page(text)
    assert page.open == []
    assert page.references
    assert all(reference.startswith("data:image/") for reference in page.references)
    for reference in page.references:
        Image.open(io.BytesIO(base64.b64decode(reference.partition(",")[2]))).verify()
    for loading in ("http:", "https:", "@import", "url(", "fetch(", "<link"):
        assert loading not in text
    assert all(page.alternatives)
    assert "Not a medical device" in text
    return page


def test_the_report_of_an_evaluation_is_complete(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_set(tmp_path / "set", NAMES), tmp_path / "out"
    for _ in range(2):  # again into the same folder
        assert (
            main(["evaluate", str(checkpoint), str(data), "--out", str(out), "--report", "--branch-uncertainty"]) == 0
        )
    assert str(out / "report.html") in capsys.readouterr().out
    text = (out / "report.html").read_text(encoding="utf-8")
    page = check_self_contained(text)
    assert page.rows > len(NAMES)
    summary = json.loads((out / "summary.json").read_text())
    assert f"{summary['means']['256x256']['mDSC']['value']:.4f}" in text
    assert summary["environment"]["torch"] in text
    pictures = [f"{group}_{rank}" for group in ("best", "median", "worst") for rank in (1, 2, 3)]
    assert sorted(path.stem for path in (out / "report").iterdir()) == sorted([*CHARTS, *pictures])
    for path in (out / "report").iterdir():
        Image.open(path).verify()
    assert "Stage 2" not in text


@pytest.mark.parametrize(
    ("names", "groups"), [(["<b>&amp;"], {"median_1"}), (["image0", "<b>&amp;"], {"worst_1", "best_1"})]
)
def test_a_few_images_are_shown_once_and_their_names_escaped(
    checkpoint: Path, tmp_path: Path, names: list[str], groups: set[str]
) -> None:
    data, out = make_set(tmp_path / "set", names), tmp_path / "out"
    assert main(["evaluate", str(checkpoint), str(data), "--out", str(out), "--report"]) == 0
    assert {path.stem for path in (out / "report").iterdir()} - set(CHARTS) == groups
    text = (out / "report.html").read_text(encoding="utf-8")
    check_self_contained(text)
    assert "&lt;b&gt;&amp;amp;" in text
    assert "<b>&amp;" not in text


def test_a_report_folder_with_other_files_is_refused_before_the_work(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_set(tmp_path / "set", NAMES[:1]), tmp_path / "out"
    (out / "report").mkdir(parents=True)
    (out / "report" / "thesis.tex").touch()
    assert main(["evaluate", str(checkpoint), str(data), "--out", str(out), "--report"]) == 2
    printed = capsys.readouterr()
    assert "has other files, such as thesis.tex" in printed.err
    assert "mIoU" not in printed.out
    assert [path.name for path in out.iterdir()] == ["report"]


def run_folder(folder: Path, checkpoint: Path, stages: tuple[int, ...]) -> Path:
    """A folder as `finetune` leaves it."""
    (folder / "checkpoint").mkdir(parents=True)
    for file in checkpoint.iterdir():
        (folder / "checkpoint" / file.name).write_bytes(file.read_bytes())
    settings = {
        "settings": {"epochs": 3, "base": "imagenet:efficientnet_lite0"},
        "reasons": {"epochs": "little data"},
        "split": {"layout": "images/ and masks/", "train": ["a", "b"], "validation": ["c"], "test": []},
        "environment": {"torch": "2.13.0"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "check.txt").write_text("2 pairs, nothing wrong <ok>")
    for stage in stages:
        rows = [
            f"{epoch},{epoch * 5},{1 / (epoch + 1)},{1.2 / (epoch + 1)},{0.3 + 0.1 * epoch},1e-3,1e-4,65"
            for epoch in range(3)
        ]
        (folder / f"stage{stage}").mkdir()
        (folder / f"stage{stage}" / "metrics.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return folder


@pytest.mark.parametrize("stages", [(1, 2), (2,)])
def test_the_report_of_a_training_run_is_complete(checkpoint: Path, tmp_path: Path, stages: tuple[int, ...]) -> None:
    folder = run_folder(tmp_path / "run", checkpoint, stages)
    pairs = find_pairs(make_set(tmp_path / "set", NAMES[:4]))
    assert write_report(folder, pairs=pairs, history=read_history(folder)) == folder / "report.html"
    text = (folder / "report.html").read_text(encoding="utf-8")
    check_self_contained(text)
    curves = {f"stage{stage}_{what}" for stage in stages for what in ("loss", "iou")}
    assert {path.stem for path in (folder / "report").iterdir()} >= curves | set(CHARTS)
    for words in (
        "little data",
        "2 pairs, nothing wrong &lt;ok&gt;",
        "3 epochs, 3 min 15 s",
        "chosen on these same images",
        "Validation: cross-entropy and Dice loss of the mask alone.",
        "best 0.500 in epoch 3",
        "counted from 1 here, and from 0 in the stages' metrics.csv",
    ):
        assert words in text
    assert ("Stage 1" in text) == (1 in stages)
    card = (folder / "checkpoint" / "README.md").read_text()
    assert card.index("## Evaluation") < card.index("## Citation")
    assert "4 images of the run's validation split" in card
    assert "chosen on these same images" in card
    assert f"condseg evaluate {folder}/checkpoint TEST_DATA" in text
    assert str(tmp_path) not in card  # which may be published
    assert Predictor.from_pretrained(folder / "checkpoint").threshold == 0.4
    assert (folder / "per_image.csv").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"settings\.json .*finished run"):
        write_report(tmp_path, pairs=[], history=[])


def test_overlay_colors_each_kind_of_pixel() -> None:
    target, prediction = np.zeros((2, 90, 120), bool)
    target[:, :60], prediction[:, 30:90] = True, True
    drawn = np.asarray(error_overlay(np.full((90, 120, 3), 100, np.uint8), prediction, target), np.int64)
    spots = {"missed": drawn[45, 15], "found": drawn[45, 45], "too much": drawn[45, 75]}
    for kind, strength in (("missed", 0.6), ("found", 0.25), ("too much", 0.6)):
        expected = 100 + strength * (np.array(ERROR_COLORS[kind]) - 100)
        assert np.abs(spots[kind] - expected).max() <= 1
    assert (drawn[45, 110] == 100).all()
    assert (drawn[45, 59] > 200).all()  # the outline of the ground truth
    large = error_overlay(
        np.zeros((1000, 2000, 3), np.uint8), np.zeros((1000, 2000), bool), np.zeros((1000, 2000), bool)
    )
    assert large.size == (560, 280)
