"""Fine-tuning in one call: data and settings in, a checkpoint folder, figures and a report out.

This module wires the parts: data in `data/`, choices in `plan.py`, steps in `stages.py`, the loop in `engine.py`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.loggers import Logger

from condseg_sdk.checkpoints.config import as_json
from condseg_sdk.data import (
    CachedPairs,
    Dataset,
    DatasetReport,
    DataSource,
    check_dataset,
    data_name,
    open_dataset,
)
from condseg_sdk.errors import OptionError
from condseg_sdk.field_of_view import FieldOfView
from condseg_sdk.files import is_utf8
from condseg_sdk.forking import fork_safe
from condseg_sdk.models import ConDSeg, ConsistencyNetwork
from condseg_sdk.options import check_flags, check_path
from condseg_sdk.report import check_report_folder, write_report
from condseg_sdk.training.base import Base, at_size, open_base
from condseg_sdk.training.config import Augmentation, FinetuneSettings, Precision, Schedule
from condseg_sdk.training.distributed import barrier, is_rank_zero, rank_zero_info
from condseg_sdk.training.engine import fit
from condseg_sdk.training.history import read_history
from condseg_sdk.training.loaders import PairBatches
from condseg_sdk.training.optimizer import Optimisation
from condseg_sdk.training.plan import TrainingPlan, check_precision, dataset_stats, make_plan, this_machine
from condseg_sdk.training.run_folder import RunFolder
from condseg_sdk.training.select_threshold import choose_threshold, trivial_baseline_iou
from condseg_sdk.training.stages import ConsistencyStage, Recipe, SegmentationStage, Stage
from condseg_sdk.weights.checkpoint import CheckpointConfig, save_checkpoint

if TYPE_CHECKING:
    from condseg_sdk.predictor import Predictor

__all__ = ["FinetuneResult", "check", "finetune"]

PathLike = str | os.PathLike[str]
MAX_FOREGROUND_WEIGHT = 10.0


@dataclass(frozen=True)
class FinetuneResult:
    """What a run leaves.

    Attributes:
        checkpoint_dir: a checkpoint folder, for `Predictor.from_pretrained`.
        metrics: mIoU and mDSC on the validation part at the network's size, and the threshold chosen there.
        history: a dictionary an epoch, stage 1 first: "stage", "epoch", "loss", "val_loss", "val_iou" and more, see
            `read_history`.
        report: report.html, which holds everything it shows; None with `report=False`.
    """

    checkpoint_dir: Path
    metrics: dict[str, float]
    history: list[dict[str, float]]
    report: Path | None

    @cached_property
    def predictor(self) -> Predictor:
        """The checkpoint, opened when first asked for."""
        from condseg_sdk.predictor import Predictor

        return Predictor.from_pretrained(self.checkpoint_dir)


def check(
    data: DataSource,
    *,
    masks: PathLike | None = None,
    train_list: PathLike | None = None,
    val_list: PathLike | None = None,
    groups: str | None = None,
    validation: float | None = None,
    seed: int = 0,
    bits: int | None = None,
) -> tuple[Dataset, DatasetReport]:
    """Find, divide and check a set as `finetune` does; arguments as there.

    Raises:
        DatasetError: there is nothing to check. What else is wrong is in the report.
    """
    options: dict[str, Any] = {"masks": masks, "train_list": train_list, "val_list": val_list}
    dataset = open_dataset(data, **options, group_by=groups, val_fraction=validation, seed=seed)
    return dataset, check_dataset(dataset, bits=bits)


@fork_safe
def finetune(
    data: DataSource,
    *,
    output_dir: PathLike,
    # the data
    masks: PathLike | None = None,
    train_list: PathLike | None = None,
    val_list: PathLike | None = None,
    groups: str | None = None,
    validation: float | None = None,
    # what is trained
    base: PathLike | None = None,
    network: str | Mapping[str, Any] | None = None,
    image_size: int | None = None,
    field_of_view: FieldOfView | None = None,
    # how long
    epochs: int | None = None,
    stage1_epochs: int | None = None,
    patience: int | None = None,
    train_size: int | None = None,
    finish_epochs: int = 0,
    # steps
    batch_size: int | None = None,
    learning_rate: float | None = None,
    encoder_learning_rate: float | None = None,
    weight_decay: float = 1e-2,
    schedule: Schedule = "one-cycle",
    gradient_clip: float = 1.0,
    ema_decay: float | None = None,
    freeze_encoder: bool = False,
    freeze_batchnorm: bool = False,
    # what is shown
    augmentation: Augmentation = "full",
    oversample: float | None = None,
    balanced_loss: bool = False,
    bits: int | None = None,
    # the machine
    precision: Precision = "auto",
    workers: int | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    strategy: str = "auto",
    num_nodes: int = 1,
    seed: int = 0,
    deterministic: bool = False,
    # the run
    resume: bool = False,
    logger: Logger | Sequence[Logger] = (),
    progress: bool = True,
    report: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> FinetuneResult:
    """Train a network on images and masks of your own: the paper's stage 2, and its stage 1 before if asked for.

    The set is checked before the first step. What is left open is chosen from data and machine; every choice and its
    reason is printed and stands in `output_dir`/settings.json. `docs/training.md` says more about each argument.

    Args:
        data: a folder, a CSV or annotation file, or a list of pairs; see `docs/data.md`.
        output_dir: folder of the run; the checkpoint appears in its subfolder "checkpoint".
        masks, train_list, val_list, groups, validation: as in `open_dataset`; a fifth of less than 200 pairs is held
            out, a tenth of more, where the data names no validation part.
        base: where weights come from: a name from `list_models()`, a checkpoint folder or "org/name" on the Hub,
            "imagenet:<encoder>", or "random"; default: "condseg-lite-polyp", for another network than condseg-lite
            ImageNet's weights of its encoder. A checkpoint keeps what it expects of its input, and, where it is named
            here, its size.
        network: a name in `NETWORKS` or arguments of `ConDSeg`; default: the base's.
        image_size: side of the checkpoint's input in pixels.
        field_of_view: What images are cut to, in training and by the checkpoint from then on: "endoscopy", the
            endoscope's picture without margins, text and small pictures beside it, or "none"; default: that of
            a base that is named.
        epochs, stage1_epochs: of stage 2 and of stage 1; 0 leaves stage 1 out.
        patience: end stage 2 after so many epochs without a better validation IoU. The best epoch is kept in any case.
        train_size, finish_epochs: train at a smaller size but for the last epochs of stage 2.
        batch_size: images a step, over all devices.
        learning_rate, encoder_learning_rate, weight_decay, schedule: of AdamW; the rates are peaks.
        gradient_clip: greatest norm of the gradient; 0: no limit.
        ema_decay: of the moving average of the weights, which is validated and kept; 0: none.
        freeze_encoder, freeze_batchnorm: what stays as it is.
        augmentation: "full", "endoscopy" with black corners, overlay boxes, highlights, noise, a low
            resolution and JPEG besides, "upright" for pictures that have an up, or "none".
        oversample: least share of an epoch's images that show foreground.
        balanced_loss: weigh foreground pixels up by their rarity, at most tenfold.
        bits: Number of bits in use in images with 16-bit values, 8 to 16; default: the smallest of 8, 10, 12, 14 and 16
            that holds the greatest value of all images. The checkpoint keeps it and reads such images with it.
        precision: of the computation; weights are kept in float32.
        workers, accelerator, devices, strategy, num_nodes: Lightning's. With several devices `torchrun` works, too.
        seed: of everything random, 0 to 2**32 - 1.
        deterministic: The same bits every time on the same machine with the same number of threads.
        resume: go on with the run in `output_dir` from its last saved epoch, or start one if there is none. The result
            is that of a run without interruption.
        logger: Lightning's, such as `WandbLogger`, besides TensorBoard and the CSV files that are always there.
        progress: show progress bars.
        report: measure the checkpoint on the validation part at the images' own sizes, and write report.html.
        provenance: written into the checkpoint's config and model card: "license" (a name of the Hub's, such as
            "cc-by-4.0"), "attribution", "date", and whatever else JSON holds; "data" without it is the name of `data`
            and the number of images.

    Raises:
        DatasetError: the data is incomplete or wrong; the message names files and remedy.
        OptionError: the settings do not fit, or `output_dir` holds another run.
        ModelNotFoundError, CheckpointError: the base is not there or damaged.

    Example:
        >>> result = finetune("my_dataset", output_dir="runs/mine")  # doctest: +SKIP
        >>> result.predictor("new.png").mask  # doctest: +SKIP
    """
    settings = FinetuneSettings(
        base=None if base is None else os.fspath(base),
        network=network,
        image_size=image_size,
        field_of_view=field_of_view,
        epochs=epochs,
        stage1_epochs=stage1_epochs,
        patience=patience,
        train_size=train_size,
        finish_epochs=finish_epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        encoder_learning_rate=encoder_learning_rate,
        weight_decay=weight_decay,
        schedule=schedule,
        gradient_clip=gradient_clip,
        ema_decay=ema_decay,
        freeze_encoder=freeze_encoder,
        freeze_batchnorm=freeze_batchnorm,
        augmentation=augmentation,
        oversample=oversample,
        balanced_loss=balanced_loss,
        validation=validation,
        bits=bits,
        precision=precision,
        workers=workers,
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        num_nodes=num_nodes,
        seed=seed,
        deterministic=deterministic,
    )
    if provenance is not None:
        provenance = _plain(provenance)
    loggers = _loggers(logger)
    run = RunFolder(check_path("output_dir", output_dir))
    if not is_utf8(run.path.absolute()):
        raise OptionError(
            f"output_dir={os.fspath(output_dir)!r}: TensorBoard needs a path in UTF-8; choose another one"
        )
    check_flags(resume=resume, progress=progress, report=report)
    _check_outside(run.path, data)
    if report:
        check_report_folder(run.path)
    first = is_rank_zero()
    settings = run.resumed(settings, resume=resume, first=first)
    dataset, checked = check(
        data, masks=masks, train_list=train_list, val_list=val_list, groups=groups,
        validation=settings.validation, seed=settings.seed, bits=settings.bits,
    )  # fmt: skip
    checked.raise_if_wrong()
    start = open_base(settings)
    machine = this_machine(settings)
    plan = make_plan(settings, start, dataset_stats(checked), machine)
    if not run.is_finished:
        check_precision(plan.settings, machine)
    with run.alone(first=first):
        if resume and run.is_begun:
            run.check_data(dataset, checked.content)
            provenance = run.provenance() if provenance is None else provenance
        elif first:
            run.begin(plan, dataset, checked, dict(provenance or {}))
        rank_zero_info("\n".join([str(checked), "", *plan.lines()]))
        if not run.is_finished:
            _train(
                run,
                plan,
                start,
                dataset,
                loggers=loggers,
                progress=progress,
                report=report,
                provenance={
                    "data": _data_seen(data, dataset, start),
                    **(provenance or {}),
                    **_attribution((provenance or {}).get("attribution"), start.attribution),
                },
                data=str((provenance or {}).get("data", data_name(data))),
            )
    barrier()
    result = run.result()
    return FinetuneResult(
        run.checkpoint, result["metrics"], result["history"], run.report if run.report.exists() else None
    )


def _plain(provenance: Any) -> dict[str, Any]:
    if not isinstance(provenance, Mapping):
        raise OptionError(f'provenance={provenance!r}: give a dictionary, such as {{"license": "cc-by-4.0"}}')
    plain: dict[str, Any] = as_json("provenance", dict(provenance))
    return plain


def _loggers(given: Any) -> list[Logger]:
    loggers = list(given) if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(logger, Logger) for logger in loggers):
        raise OptionError(f"logger={given!r}: give one of Lightning's loggers, such as WandbLogger(), or several")
    return loggers


def _check_outside(output_dir: Path, data: Any) -> None:
    """The report's pictures would be images without masks when the data is looked at again."""
    if isinstance(data, (str, os.PathLike)) and output_dir.resolve().is_relative_to(Path(data).resolve()):
        raise OptionError(f"output_dir={output_dir} lies inside the data: choose a folder outside of {data}")


def _train(
    run: RunFolder,
    plan: TrainingPlan,
    start: Base,
    dataset: Dataset,
    *,
    loggers: Sequence[Logger],
    progress: bool,
    report: bool,
    provenance: dict[str, Any],
    data: str,
) -> None:
    settings, network = plan.settings, start.network
    assert settings.image_size is not None
    assert settings.epochs is not None
    preprocessing = replace(at_size(start.preprocessing, settings.image_size), bits=settings.bits)
    train, held_out = (
        CachedPairs(part, preprocessing, folder=run.path) for part in (dataset.train, dataset.validation)
    )
    recipe = _recipe(settings, start, train)
    options: dict[str, Any] = {"settings": settings, "loggers": loggers, "progress": progress}
    seconds = {}

    def run_stage(stage: Stage, epochs: int) -> None:
        began = time.monotonic()
        batches = PairBatches(
            train, held_out, key=(settings.seed, stage.number), batch_size=settings.batch_size or 1,
            oversample=settings.oversample or 0.0, workers=settings.workers or 0,
        )  # fmt: skip
        fit(stage, batches, run.path / f"stage{stage.number}", epochs=epochs, **options)
        seconds[f"stage{stage.number}"] = round(time.monotonic() - began, 1)

    if settings.stage1_epochs:
        light = _light_network(network, settings.seed)
        run_stage(ConsistencyStage(light, recipe), settings.stage1_epochs)
        network.encoder.load_state_dict(light.encoder.state_dict())  # BatchNorm statistics included
    finish = None
    if settings.train_size not in (None, settings.image_size):
        finish = (settings.epochs - settings.finish_epochs, preprocessing.size)
    run_stage(SegmentationStage(network, recipe, finish=finish), settings.epochs)
    if is_rank_zero():
        metrics = choose_threshold(network, held_out, preprocessing)
        if metrics["mIoU"] <= trivial_baseline_iou(held_out):
            logging.getLogger("condseg_sdk").warning(
                "the network has not learned: its mIoU of %.3f on the validation part is no better than that of masks "
                "that are all full or all empty; train longer, or look at pictures and masks",
                metrics["mIoU"],
            )
        config = CheckpointConfig(
            network=network.arguments,
            preprocessing=preprocessing,
            threshold=metrics["threshold"],
            provenance={**provenance, "training": settings.to_dict(), "validation": {"dataset": data, **metrics}},
        )
        save_checkpoint(run.checkpoint, network, config)
        history = read_history(run.path)
        if report:
            write_report(run.path, pairs=dataset.validation, history=history, seed=settings.seed)
        run.finish({"metrics": metrics, "history": history, "seconds": seconds})


def _data_seen(data: DataSource, dataset: Dataset, start: Base) -> str:
    """For the model card: this run's images, and those its base has seen before."""
    seen = f"{data_name(data)}, {len(dataset.train)} images ({len(dataset.validation)} more chose epoch and threshold)"
    return seen if start.data is None else f"{seen}; before: {start.data}"


def _attribution(given: Any, of_base: str | None) -> dict[str, str]:
    """Whom the card names: for these images and for what the base has seen."""
    names = [str(name) for name in (given, of_base) if name is not None]
    return {"attribution": "; ".join(names)} if names else {}


def _recipe(settings: FinetuneSettings, start: Base, train: CachedPairs) -> Recipe:
    assert settings.learning_rate is not None
    assert settings.encoder_learning_rate is not None
    side = settings.train_size or settings.image_size
    assert side is not None
    weight = 1.0
    if settings.balanced_loss:
        planes = train.values[:, 3]
        share = int(torch.count_nonzero(planes)) / planes.numel()  # a mean would copy the set, in float32
        weight = min(max(((1 - share) / max(share, 1e-6)) ** 0.5, 1.0), MAX_FOREGROUND_WEIGHT)
    return Recipe(
        preprocessing=start.preprocessing,
        optimisation=Optimisation(
            settings.learning_rate, settings.encoder_learning_rate, settings.weight_decay, settings.schedule
        ),
        size=(side, side),
        seed=settings.seed,
        augmentation=settings.augmentation,
        freeze_encoder=settings.freeze_encoder,
        freeze_batchnorm=settings.freeze_batchnorm,
        foreground_weight=weight,
    )


def _light_network(network: ConDSeg, seed: int) -> ConsistencyNetwork:
    """Stage 1's: the encoder with a light head."""
    arguments = network.arguments
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        light = ConsistencyNetwork(encoder=arguments["encoder"], full_resolution=arguments["full_resolution"])
    light.encoder.load_state_dict(network.encoder.state_dict())
    return light
