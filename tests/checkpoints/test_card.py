"""The model card: its sections, what a checkpoint's provenance adds to them, and what is said where nothing is known."""

from __future__ import annotations

import re

from condseg_sdk.checkpoints.card import model_card
from condseg_sdk.checkpoints.config import CheckpointConfig
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.region_score import ScoreCalibration

SECTIONS = ["Facts", "Intended use", "Out of scope", "Data and sites", "Performance", "Known failures", "Calibration"]
UNKNOWN = CheckpointConfig({}, Preprocessing((64, 64)), 0.5, {})


def test_a_card_says_what_nobody_has_recorded_or_measured() -> None:
    card = model_card(UNKNOWN)
    assert re.findall(r"^## (.*)", card, re.MULTILINE) == [*SECTIONS, "Use", "Citation"]
    assert card.count("not recorded") == 4  # license, data, sites, groups
    assert "Not described by its author" in card
    assert "## Performance\n\nNot measured." in card
    assert "## Known failures\n\nNot measured." in card
    assert "is not calibrated" in card
    assert "Not a medical device" in card


def test_a_card_shows_what_is_known() -> None:
    texts = ("intended_use", "out_of_scope", "sites", "known_failures", "subgroups", "calibration")
    provenance = {name: f"Text of {name}." for name in texts}
    provenance |= {"groups": "12 in training, 3 held out", "command": "condseg finetune a; condseg finetune b"}
    config = CheckpointConfig({}, Preprocessing((64, 64)), 0.5, provenance, ScoreCalibration(0.5, -1.0))
    card = model_card(config)
    assert all(f"Text of {name}." in card for name in texts)
    assert "- Groups, such as patients: 12 in training, 3 held out" in card
    assert "is calibrated (slope 0.5, intercept -1). Text of calibration." in card
    assert "```bash\ncondseg finetune a\ncondseg finetune b\n```" in card
