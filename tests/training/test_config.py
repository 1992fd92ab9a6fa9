"""One place for settings: the call, the command line, settings.json and the documentation are derived from it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from condseg_sdk import FinetuneConfig
from condseg_sdk.cli.command import make_parser
from condseg_sdk.errors import OptionError
from condseg_sdk.training.config import PREVIOUS_NAMES, SHORT_NAMES, settings
from tests.helpers.networks import TINY
from tests.helpers.settings_tables import PAGE, page_with_tables


def test_every_setting_is_a_flag_with_the_same_default() -> None:
    line = ["finetune", "data", "--out", "run"]
    parsed = vars(make_parser(line).parse_args(line))
    assert {name: parsed[name] for name in settings()} == FinetuneConfig().to_dict()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--epochs", "3"], {"epochs": 3}),
        (["--learning-rate", "1e-3"], {"learning_rate": 0.001}),
        (["--freeze-encoder"], {"freeze_encoder": True}),
        (["--augmentation", "upright"], {"augmentation": "upright"}),
        (["--devices", "0,2"], {"devices": "0,2"}),
    ],
)
def test_flags_are_read_with_the_type_of_the_setting(flags: list[str], expected: dict[str, Any]) -> None:
    line = ["finetune", "data", "--out", "run", *flags]
    parsed = vars(make_parser(line).parse_args(line))
    assert {name: parsed[name] for name in expected} == expected


def test_the_documentation_lists_the_settings_of_today() -> None:
    assert PAGE.read_text() == page_with_tables(), "run python -m tests.helpers.settings_tables"


def test_every_help_text_is_a_sentence() -> None:
    for setting in settings().values():
        assert setting.help[0].isupper(), setting.name
        assert setting.help.endswith("."), setting.name


def test_overrides_change_a_copy() -> None:
    config = FinetuneConfig(epochs=20)
    assert config.override(batch_size=4, epochs=30) == FinetuneConfig(batch_size=4, epochs=30)
    assert config.epochs == 20


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("epoch", "did you mean epochs"),
        ("learningrate", "did you mean learning_rate"),
        ("patience", "did you mean early_stopping_patience"),
        ("lr", "did you mean learning_rate?"),
        ("bs", "did you mean batch_size?"),
        ("wd", "did you mean weight_decay?"),
        ("size", "did you mean image_size?"),
        ("workers", "did you mean num_workers?"),
        ("xyz", "docs/training.md lists all"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest_names(name: str, remedy: str) -> None:
    with pytest.raises(
        OptionError, match=f"{name!r} is not a setting of a training run; {re.escape(remedy)}"
    ) as caught:
        FinetuneConfig().override(**{name: 1})
    assert caught.value.option == name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, r"epochs=0 must be a whole number in \[1, inf\)"),
        ({"epochs": 1.5}, "must be a whole number"),
        ({"epochs": True}, "must be a whole number"),
        ({"epochs": "3"}, "must be a whole number"),
        ({"image_size": 25600}, r"image_size=25600 must be a whole number in \[16, 2048\]"),
        ({"train_image_size": 5000}, r"in \[16, 2048\]"),
        ({"val_fraction": 0.0}, r"val_fraction=0.0 must be a number in \(0, 1\)"),
        ({"val_fraction": 1.0}, r"in \(0, 1\)"),
        ({"ema_decay": 1.0}, r"in \[0, 1\)"),
        ({"learning_rate": float("nan")}, r"in \[0, inf\)"),
        ({"learning_rate": float("inf")}, r"in \[0, inf\)"),
        ({"seed": -1}, r"seed=-1 must be a whole number in \[0, 4294967295\]"),
        ({"seed": None}, "must be a whole number"),
        ({"bits": 17}, r"in \[8, 16\]"),
        ({"devices": [0]}, r"devices=\[0\] must be a whole number"),
        ({"freeze_encoder": 1}, "freeze_encoder=1 must be True or False"),
        ({"strategy": ""}, "strategy='' must be a string"),
        ({"schedule": "step"}, "'one-cycle', 'cosine'"),
        ({"field_of_view": "ultrasound"}, "field_of_view='ultrasound'"),
        ({"network": "unet"}, "condseg-lite"),
        ({"network": {"encoder": object()}}, "network must contain plain JSON values"),
        ({"freeze_encoder": True, "stage1_epochs": 1}, "stage 1 trains the encoder"),
        ({"finish_epochs": 1}, "train_image_size"),
        ({"finish_epochs": 3, "train_image_size": 32, "epochs": 2}, "at most epochs=2"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FinetuneConfig(**values)


def test_saved_settings_are_plain_json_and_read_back() -> None:
    config = FinetuneConfig(base=Path("weights"), network=TINY, epochs=3, learning_rate=1)
    saved = json.loads(json.dumps(config.to_dict()))
    assert saved["base"] == "weights"
    assert FinetuneConfig.from_dict(saved) == config


def test_settings_of_version_0_1_0_are_read_under_their_new_names() -> None:
    old = {"train_size": 64, "validation": 0.3, "workers": 2, "gradient_clip": 0.5, "patience": 4}
    assert FinetuneConfig.from_dict(old) == FinetuneConfig(
        train_image_size=64,
        val_fraction=0.3,
        num_workers=2,
        max_grad_norm=0.5,
        early_stopping_patience=4,
        field_of_view="none",  # there was no such setting yet, and images were not cut
    )
    assert old.keys() == PREVIOUS_NAMES.keys()


def test_every_short_name_stands_for_a_setting() -> None:
    assert set(SHORT_NAMES.values()) <= set(settings())
    assert not set(SHORT_NAMES) & set(settings())
