"""Settings that are chosen from data, machine and base."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from condseg_sdk import ConDSeg, FinetuneConfig, Predictor
from condseg_sdk.errors import (
    OptionError,
)
from condseg_sdk.models import NETWORKS
from condseg_sdk.training.base import Base, open_base
from condseg_sdk.training.plan import DatasetStats, Machine, check_precision, detect_machine, make_plan

CPU = Machine("cpu", 1, 0, bfloat16=False, cores=2)


@pytest.fixture(scope="module")
def lite() -> Base:
    return open_base(FinetuneConfig(base="random"))


@pytest.mark.parametrize(
    ("stats", "machine", "expected"),
    [
        (
            DatasetStats(880, 88, 1000, 1.0),
            CPU,
            {"batch_size": 8, "image_size": 256, "precision": "float32", "epochs": 10},
        ),
        (DatasetStats(48, 12, 1000, 1.0), CPU, {"batch_size": 4, "epochs": 83}),
        (DatasetStats(20, 5, 100, 1.0), CPU, {"batch_size": 4, "image_size": 128, "epochs": 100}),
        (DatasetStats(3, 1, 30, 1.0), CPU, {"batch_size": 3, "image_size": 64}),
        (DatasetStats(1000, 100, 900, 0.2), CPU, {"oversample": 0.5}),
        (
            DatasetStats(2000, 200, 600, 1.0),
            Machine("gpu", 2, 80.0, bfloat16=True, cores=32),
            {"batch_size": 64, "precision": "bfloat16", "num_workers": 0, "epochs": 100},
        ),
        (DatasetStats(2000, 200, 600, 1.0), Machine("gpu", 1, 11.0, bfloat16=False, cores=8), {"precision": "float32"}),
        (DatasetStats(60_000, 100, 600, 1.0), Machine("gpu", 2, 11.0, bfloat16=False, cores=8), {"num_workers": 3}),
    ],
)
def test_choices_follow_from_data_and_machine(
    lite: Base, stats: DatasetStats, machine: Machine, expected: dict[str, Any]
) -> None:
    plan = make_plan(FinetuneConfig(), lite, stats, machine)
    values = plan.config.to_dict()
    assert {name: values[name] for name in expected} == expected
    assert None not in [values[name] for name in plan.reasons]
    assert len(plan.lines()) == len(plan.reasons)


def test_a_named_base_keeps_its_size_and_the_default_base_takes_that_of_the_data() -> None:
    stats = DatasetStats(20, 5, 100, 1.0)
    for settings, side in ((FinetuneConfig(), 128), (FinetuneConfig(base="condseg-lite-polyp"), 256)):
        assert make_plan(settings, open_base(settings), stats, CPU).config.image_size == side


def test_more_devices_than_pairs_are_refused_with_a_remedy_that_works(lite: Base) -> None:
    seven = Machine("cpu", 7, 0.0, bfloat16=False, cores=8)
    with pytest.raises(OptionError, match="6 training pairs are fewer than the 7 devices: use fewer devices"):
        make_plan(FinetuneConfig(), lite, DatasetStats(6, 2, 300, 1.0), seven)
    assert (
        make_plan(FinetuneConfig(), lite, DatasetStats(6, 2, 300, 1.0), replace(seven, devices=2)).config.batch_size
        == 6
    )


def test_a_missing_accelerator_is_refused_with_a_remedy() -> None:
    with pytest.raises(
        OptionError, match=r"^accelerator='tpu' cannot be used on this machine \(.*--accelerator cpu\)$"
    ):
        detect_machine(FinetuneConfig(accelerator="tpu"))
    assert detect_machine(FinetuneConfig(accelerator="cpu")).kind == "cpu"


def test_given_settings_are_kept(lite: Base) -> None:
    settings = FinetuneConfig(batch_size=2, epochs=7, precision="float16", ema_decay=0.0)
    plan = make_plan(settings, lite, DatasetStats(100, 10, 300, 1.0), Machine("gpu", 1, 11.0, bfloat16=False, cores=8))
    assert (plan.config.batch_size, plan.config.epochs, plan.config.precision) == (2, 7, "float16")
    assert plan.config.ema_decay == 0.0
    assert plan.reasons["epochs"] == "as given"


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precisions_are_refused_on_a_cpu(lite: Base, precision: Any) -> None:
    plan = make_plan(FinetuneConfig(precision=precision), lite, DatasetStats(100, 10, 300, 1.0), CPU)
    with pytest.raises(OptionError, match="is for GPUs"):
        check_precision(plan.config, CPU)
    check_precision(plan.config, Machine("gpu", 1, 11.0, bfloat16=False, cores=8))


def test_bases_have_the_weights_and_preprocessing_of_their_names(lite: Base) -> None:
    weights: Callable[[ConDSeg], torch.Tensor] = lambda network: next(network.encoder.parameters())  # noqa: E731
    polyp = open_base(FinetuneConfig(base="condseg-lite-polyp"))
    for base in (polyp, open_base(FinetuneConfig(base="imagenet:efficientnet_lite0"))):
        assert base.network.arguments["encoder"] == "efficientnet_lite0"
        assert base.preprocessing.mean[0] == 127.0
        assert not torch.equal(weights(base.network), weights(lite.network))
    for same in ({}, {"network": "condseg-lite"}, {"network": NETWORKS["condseg-lite"]}):
        default = open_base(FinetuneConfig(**same))
        assert default.name == polyp.name
        assert torch.equal(weights(default.network), weights(polyp.network))
    wider = {**NETWORKS["condseg-lite"], "sid_channels": 128}
    assert open_base(FinetuneConfig(network=wider)).name == "imagenet:efficientnet_lite0"
    assert polyp.is_checkpoint
    assert polyp.attribution is not None
    assert re.search(r"Kvasir-SEG .*\(cc-by-4.0\)$", polyp.attribution)
    assert polyp.preprocessing == Predictor.from_pretrained("condseg-lite-polyp").preprocessing


def test_the_field_of_view_is_as_given_or_as_in_a_named_base() -> None:
    def view(**settings: Any) -> str:
        return open_base(FinetuneConfig(**settings)).preprocessing.field_of_view

    assert view(base="condseg-lite-polyp") == "endoscopy"
    assert view() == "none"  # the same weights, and perhaps glands on white glass
    assert view(base="condseg-lite-polyp", field_of_view="none") == "none"
    assert view(field_of_view="endoscopy") == "endoscopy"
    assert view(base="random") == "none"
    with pytest.raises(OptionError, match="field_of_view='ultrasound'"):
        FinetuneConfig(field_of_view="ultrasound")  # type: ignore[arg-type]
