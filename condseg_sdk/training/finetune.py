"""Fine-tuning in one call: from images and masks to a checkpoint, its metrics and a report.

This module connects the parts. Data is read in `data/`, open settings are chosen in `plan.py`, a training step is
computed in `stages.py`, and the training loop is in `engine.py`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.loggers import Logger
from numpy.typing import NDArray

from condseg_sdk.checkpoints.config import as_json
from condseg_sdk.data import CachedPairs, Dataset, DatasetReport, DataSource, check_dataset, open_dataset
from condseg_sdk.errors import OptionError, errors_about
from condseg_sdk.files import is_utf8, real_path
from condseg_sdk.forking import fork_safe
from condseg_sdk.models import ConDSeg, ConsistencyNetwork
from condseg_sdk.options import check_flags, check_path
from condseg_sdk.predictor import Predictor
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.region_score import ScoreCalibration, peak_logit
from condseg_sdk.report import check_report_folder, write_report
from condseg_sdk.training.base import Base, base_images, open_base
from condseg_sdk.training.calibrate_score import MIN_IMAGES, calibrate_score
from condseg_sdk.training.config import FinetuneConfig
from condseg_sdk.training.distributed import barrier, is_rank_zero, rank_zero_info
from condseg_sdk.training.engine import fit
from condseg_sdk.training.history import read_history
from condseg_sdk.training.loaders import PairBatches
from condseg_sdk.training.optimizer import Optimization
from condseg_sdk.training.plan import check_precision, dataset_stats, detect_machine, make_plan
from condseg_sdk.training.run_folder import RunFolder
from condseg_sdk.training.select_threshold import (
    choose_threshold,
    ground_truth,
    predict_logits,
    trivial_baseline_iou,
)
from condseg_sdk.training.stages import ConsistencyStage, Recipe, SegmentationStage, Stage
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint
from condseg_sdk.words import pluralize

__all__ = ["FinetuneResult", "finetune"]

MAX_FOREGROUND_WEIGHT = 10.0
DATASET_OPTIONS = ("masks", "classes", "train_list", "val_list", "group_by")


@dataclass(frozen=True)
class FinetuneResult:
    """Result of a training run.

    Attributes:
        checkpoint_dir: Checkpoint folder, for `Predictor.from_pretrained`.
        metrics: "mIoU" and "mDSC" on the validation split at the network's size, in [0, 1], and the "threshold" that
            was chosen there.
        history: One dictionary per epoch, stage 1 first, with "stage", "epoch", "loss", "val_loss", "val_iou" and
            others; see `read_history`.
        report: Path of report.html, which needs no other file; None with `report=False`.

    Example:
        >>> result = finetune("my_dataset", output_dir="runs/new", epochs=1)  # doctest: +SKIP
        >>> result.predictor("frame.jpg").overlay().save("overlay.png")  # doctest: +SKIP
    """

    checkpoint_dir: Path
    metrics: dict[str, float]
    history: list[dict[str, float]]
    report: Path | None

    @cached_property
    def predictor(self) -> Predictor:
        """The checkpoint as a `Predictor`, loaded on first use.

        Example:
            >>> finetune("my_dataset", output_dir="runs/new", epochs=1).predictor.device  # doctest: +SKIP
            'cpu'
        """
        return Predictor.from_pretrained(self.checkpoint_dir)


@fork_safe
def finetune(
    data: DataSource | Dataset,
    *,
    output_dir: str | os.PathLike[str],
    config: FinetuneConfig | None = None,
    resume: bool = False,
    logger: Logger | Sequence[Logger] = (),
    progress: bool = True,
    report: bool = True,
    provenance: Mapping[str, object] | None = None,
    **overrides: object,
) -> FinetuneResult:
    """Train a network on your own images and masks: stage 2 of the paper, after stage 1 with `stage1_epochs`.

    The dataset is checked before the first step. Settings that are None are chosen from data and machine; each choice
    is printed with its reason and stored in `output_dir`/settings.json.

    Args:
        data: Folder, CSV or annotation file, list of pairs, or a `Dataset` from `open_dataset`, which has options for
            separate masks, lists and groups; see docs/data.md.
        output_dir: Folder of the run. The checkpoint is written to its subfolder "checkpoint".
        config: Settings of the run; default: `FinetuneConfig()`.
        resume: Whether to continue the run in `output_dir` from its last saved epoch. If it contains no run, a new one
            is started. The result is the same as without the interruption.
        logger: Loggers of Lightning, such as `WandbLogger`, in addition to TensorBoard and the CSV files.
        progress: Whether to show progress bars.
        report: Whether to evaluate the checkpoint on the validation split, at the images' own sizes, and to write
            report.html.
        provenance: Plain JSON values for the checkpoint's config and model card: "license" (an identifier of the Hub,
            such as "cc-by-4.0"), "attribution", "date", and the texts of the card's sections, "intended_use",
            "out_of_scope", "sites", "known_failures", "subgroups" and "calibration"; "data" is the name of the data and
            the number of images by default.
        **overrides: Settings to change in `config`, by name, such as `epochs=20`. docs/training.md lists all settings.

    Returns:
        The checkpoint's folder, its metrics, the history and the report.

    Raises:
        DatasetError: The data is incomplete or wrong; the message names the files and the remedy.
        OptionError: A setting is not allowed, or `output_dir` contains a different run.
        OutputError: A file cannot be written, or it would replace one that this package has not written.
        ModelNotFoundError: The base does not exist.
        CheckpointError: The base is damaged.
        TrainingError: The loss became NaN, the GPU's memory is too small, or files of the run are damaged.

    Example:
        >>> result = finetune("my_dataset", output_dir="runs/new", epochs=1, progress=False, report=False)
        >>> result.predictor("frame.jpg").mask.shape
        (90, 120)
    """
    config = _merge(config, overrides, data)
    loggers = _check_loggers(logger)
    check_flags(resume=resume, progress=progress, report=report)
    given = None if provenance is None else _check_provenance(provenance)
    run = _open_run(output_dir, data, report=report)
    is_first = is_rank_zero()
    config = run.resumed(config, resume=resume, first=is_first)

    if not isinstance(data, Dataset):
        data = open_dataset(data, val_fraction=config.val_fraction, seed=config.seed)
    checked = check_dataset(data, bits=config.bits, trained_on=base_images(config.base, config.network))
    with errors_about(data.source):
        checked.raise_if_wrong()
    base = open_base(config)
    machine = detect_machine(config)
    plan = make_plan(config, base, dataset_stats(checked), machine)
    config = plan.config
    if not run.is_finished:
        check_precision(config, machine)

    with run.alone(first=is_first), errors_about(run.path):
        if resume and run.is_begun:
            run.check_data(data, checked.content)
            given = run.provenance() if given is None else given
        elif is_first:
            run.begin(plan, data, checked, given or {})
        rank_zero_info("\n".join([str(checked), "", *plan.lines()]))
        if not run.is_finished:
            preprocessing = _preprocessing(config, base)
            train, validation = (
                CachedPairs(pairs, preprocessing, folder=run.path) for pairs in (data.train, data.validation)
            )
            seconds = _train(run, config, base, train, validation, loggers=loggers, progress=progress)
            if is_first:
                logits = predict_logits(base.network, validation, preprocessing)
                metrics = choose_threshold(logits, validation)
                _warn_if_not_learned(metrics["mIoU"], validation)
                card = _provenance(given or {}, config, checked, data, base, metrics)
                arguments = base.network.arguments
                score = _calibrated_score(logits, validation)
                checkpoint = CheckpointConfig(arguments, preprocessing, metrics["threshold"], card, score)
                save_checkpoint(run.checkpoint, base.network, checkpoint, digests=checked.training_digests)
                history = read_history(run.path)
                if report:
                    write_report(run.path, pairs=data.validation, history=history, seed=config.seed)
                run.finish({"metrics": metrics, "history": history, "seconds": seconds})
    barrier()
    result = run.result()
    return FinetuneResult(
        run.checkpoint, result["metrics"], result["history"], run.report if run.report.exists() else None
    )


def _merge(
    config: FinetuneConfig | None, overrides: Mapping[str, object], data: DataSource | Dataset
) -> FinetuneConfig:
    """Return the settings with the overrides and, for a dataset that is already split, its validation share."""
    for name in DATASET_OPTIONS:
        if name in overrides:
            raise OptionError(
                f"{name} is an option of the data: use finetune(open_dataset(data, {name}=...), ...)", option=name
            )
    if config is not None and not isinstance(config, FinetuneConfig):
        raise OptionError(f"config={config!r} must be a FinetuneConfig(...)", option="config")
    config = (config or FinetuneConfig()).override(**overrides)
    if not isinstance(data, Dataset):
        return config
    if config.val_fraction is not None:
        raise OptionError(
            "val_fraction has no effect on a Dataset, which is divided already: pass it to open_dataset",
            option="val_fraction",
        )
    return replace(config, val_fraction=data.val_fraction)


def _check_loggers(given: Any) -> list[Logger]:
    loggers = list(given) if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(logger, Logger) for logger in loggers):
        raise OptionError(
            f"logger={given!r} must be a logger of Lightning, such as WandbLogger(), or a list of them", option="logger"
        )
    return loggers


def _check_provenance(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise OptionError(
            f'provenance={given!r} must be a dictionary, such as {{"license": "cc-by-4.0"}}', option="provenance"
        )
    plain: dict[str, Any] = as_json("provenance", dict(given))
    return plain


def _open_run(output_dir: str | os.PathLike[str], data: DataSource | Dataset, *, report: bool) -> RunFolder:
    """Return the run's folder, after checks that it can be used. Nothing is written yet."""
    run = RunFolder(check_path("output_dir", output_dir))
    if not is_utf8(run.path.absolute()):
        raise OptionError(
            f"output_dir={os.fspath(output_dir)!r} is not UTF-8, which TensorBoard needs: choose another one",
            option="output_dir",
        )
    source = data.source if isinstance(data, Dataset) else data
    if isinstance(source, (str, os.PathLike)):
        check_path("data", source)
    # The report's images would be images without masks when the data is read again.
    if isinstance(source, (str, os.PathLike)) and real_path(run.path).is_relative_to(real_path(source)):
        raise OptionError(
            f"output_dir={run.path} lies inside the data: choose a folder outside of {source}", option="output_dir"
        )
    if report:
        check_report_folder(run.path)
    return run


def _train(
    run: RunFolder,
    config: FinetuneConfig,
    base: Base,
    train: CachedPairs,
    validation: CachedPairs,
    *,
    loggers: Sequence[Logger],
    progress: bool,
) -> dict[str, float]:
    """Train the base's network in both stages; return the seconds that each of them took."""
    assert config.epochs is not None
    assert config.image_size is not None
    recipe = _recipe(config, base, train)
    seconds = {}

    def run_stage(stage: Stage, epochs: int) -> None:
        start = time.monotonic()
        folder = run.path / f"stage{stage.number}"
        batches = PairBatches(
            train,
            validation,
            key=(config.seed, stage.number),
            batch_size=config.batch_size or 1,
            oversample=config.oversample or 0.0,
            num_workers=config.num_workers or 0,
        )
        fit(stage, batches, folder, epochs=epochs, config=config, loggers=loggers, progress=progress)
        seconds[folder.name] = round(time.monotonic() - start, 1)

    if config.stage1_epochs:
        light = _consistency_network(base.network, config.seed)
        run_stage(ConsistencyStage(light, recipe), config.stage1_epochs)
        base.network.encoder.load_state_dict(light.encoder.state_dict())  # BatchNorm statistics included
    finish = None
    if config.train_image_size not in (None, config.image_size):
        finish = (config.epochs - config.finish_epochs, (config.image_size, config.image_size))
    run_stage(SegmentationStage(base.network, recipe, finish=finish), config.epochs)
    return seconds


def _preprocessing(config: FinetuneConfig, base: Base) -> Preprocessing:
    """Return the preprocessing of the checkpoint: the base's preprocessing at another size."""
    assert config.image_size is not None
    return replace(base.preprocessing, size=(config.image_size, config.image_size), bits=config.bits)


def _recipe(config: FinetuneConfig, base: Base, train: CachedPairs) -> Recipe:
    """Return the parameters of both stages."""
    assert config.learning_rate is not None
    assert config.encoder_learning_rate is not None
    side = config.train_image_size or config.image_size
    assert side is not None
    return Recipe(
        preprocessing=base.preprocessing,
        optimization=Optimization(
            config.learning_rate, config.encoder_learning_rate, config.weight_decay, config.schedule
        ),
        size=(side, side),
        seed=config.seed,
        augmentation=config.augmentation,
        freeze_encoder=config.freeze_encoder,
        freeze_batchnorm=config.freeze_batchnorm,
        foreground_weight=_foreground_weight(train) if config.balanced_loss else 1.0,
    )


def _foreground_weight(train: CachedPairs) -> float:
    """Return the square root of background to foreground pixels, from 1 to `MAX_FOREGROUND_WEIGHT`."""
    masks = train.values[:, 3]
    share = int(torch.count_nonzero(masks)) / masks.numel()  # a mean would copy the masks, in float32
    return min(max(((1 - share) / max(share, 1e-6)) ** 0.5, 1.0), MAX_FOREGROUND_WEIGHT)


def _consistency_network(network: ConDSeg, seed: int) -> ConsistencyNetwork:
    """Return the network of stage 1: the same encoder with a light head."""
    arguments = network.arguments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        light = ConsistencyNetwork(encoder=arguments["encoder"], full_resolution=arguments["full_resolution"])
    light.encoder.load_state_dict(network.encoder.state_dict())
    return light


def _warn_if_not_learned(miou: float, validation: CachedPairs) -> None:
    if miou <= trivial_baseline_iou(validation):
        logging.getLogger("condseg_sdk").warning(
            "The network has not learned: its mIoU of %.3f on the validation split is no better than with masks "
            "that are all full or all empty. Train longer, or check images and masks.",
            miou,
        )


def _calibrated_score(logits: Sequence[NDArray[np.float32]], validation: CachedPairs) -> ScoreCalibration | None:
    """Calibrate the score of images on the validation split, where it has images with and without a region."""
    has_region = [bool(mask.any()) for mask in ground_truth(validation)]
    score = calibrate_score([peak_logit(x) for x in logits], has_region)
    if score is None:
        shown = sum(has_region)
        rank_zero_info(
            f"Segmentation.score is not calibrated: the validation split has {pluralize(shown, 'image')} with a "
            f"region and {len(has_region) - shown} without one; at least {MIN_IMAGES} of each are needed that the "
            "network tells apart"
        )
    return score


def _provenance(
    given: Mapping[str, Any],
    config: FinetuneConfig,
    checked: DatasetReport,
    dataset: Dataset,
    base: Base,
    metrics: Mapping[str, float],
) -> dict[str, Any]:
    """Return the origin of a checkpoint for its config and model card."""
    counts = f"{pluralize(len(dataset.train), 'image')} ({len(dataset.validation)} more chose epoch and threshold)"
    groups = [checked.splits[split].groups for split in ("train", "validation")]
    before = "" if base.data is None else f"; before: {base.data}"
    attributions = [str(name) for name in (given.get("attribution"), base.attribution) if name is not None]
    return {
        "data": f"{dataset.name}, {counts}{before}",
        **({"groups": f"{groups[0]} in training, {groups[1]} held out"} if all(groups) else {}),
        **given,
        **({"attribution": "; ".join(attributions)} if attributions else {}),
        "training": config.to_dict(),
        "validation": {"dataset": str(given.get("data", dataset.name)), **metrics},
    }
