"""Fine-tuning in one call: data and settings in, a checkpoint folder and its validation figures out.

This module wires the parts; the loop is Lightning's, steps are in `stages.py`, data in `data/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateMonitor, ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from condseg_sdk.errors import DatasetError, OptionError
from condseg_sdk.files import make_folder
from condseg_sdk.models import NETWORKS, ConDSeg, ConsistencyNetwork
from condseg_sdk.training.data import CachedPairs, EpochSampler, Pair, open_dataset
from condseg_sdk.training.metrics import mean_scores, score
from condseg_sdk.training.settings import FinetuneSettings
from condseg_sdk.training.stages import ConsistencyStage, Optimisation, SegmentationStage, Stage
from condseg_sdk.weights.checkpoint import CheckpointConfig, load_checkpoint, save_checkpoint
from condseg_sdk.weights.hub import resolve
from condseg_sdk.weights.imagenet import load_imagenet_encoder

THRESHOLDS = tuple(round(0.2 + 0.05 * i, 2) for i in range(13))


@dataclass(frozen=True)
class FinetuneResult:
    """What a run leaves.

    Attributes:
        checkpoint_dir: a checkpoint folder, for `Predictor.from_pretrained`.
        metrics: mIoU and mDSC on the held-out part at the network's size, and the threshold chosen there.
    """

    checkpoint_dir: Path
    metrics: dict[str, float]


def finetune(
    data: str | Path,
    *,
    output_dir: str | Path,
    train_list: str | Path | None = None,
    val_list: str | Path | None = None,
    settings: FinetuneSettings | None = None,
    provenance: dict[str, Any] | None = None,
) -> FinetuneResult:
    """Train a network on a folder of images and masks.

    Both stages of the paper run one after the other. Starting the same call again after an interruption continues
    from the last finished epoch.

    Args:
        data: folder with images/ and masks/, same names.
        output_dir: folder of the run; the checkpoint appears in its subfolder "checkpoint".
        train_list: text file with the names to use, one a line; default: all.
        val_list: the same for the validation part; default: a share of the training pairs.
        settings: see `FinetuneSettings`.
        provenance: data name, licence and the like, written into the checkpoint's config.

    Raises:
        DatasetError: the data is incomplete or wrong.
        OptionError: the settings do not fit, or `output_dir` belongs to a run with other settings.
    """
    settings = settings or FinetuneSettings()
    folder = Path(output_dir)
    dataset = open_dataset(
        data, train_list=train_list, val_list=val_list, validation=settings.validation, seed=settings.seed
    )
    training, held_out = dataset.train, dataset.validation
    if len(training) < settings.batch_size:
        raise DatasetError(
            f"{len(training)} training pairs are less than one batch of {settings.batch_size}: lower batch_size"
        )
    L.seed_everything(settings.seed)
    network = _base(settings)
    _claim(folder, settings, training, held_out)
    loaders = _loaders(settings, training, held_out)
    if settings.stage1_epochs:
        _run_stage1(settings, network, loaders, folder / "stage1")
    _run_stage2(settings, network, loaders, folder / "stage2")
    metrics = _choose_threshold(network, settings, loaders[1])
    config = CheckpointConfig(
        network=NETWORKS[settings.network],
        preprocessing=settings.preprocessing(),
        threshold=metrics["threshold"],
        provenance={**(provenance or {}), "training": asdict(settings), "validation": metrics},
    )
    save_checkpoint(folder / "checkpoint", network, config)
    return FinetuneResult(folder / "checkpoint", metrics)


def _base(settings: FinetuneSettings) -> ConDSeg:
    """The network to start from."""
    network = ConDSeg(**NETWORKS[settings.network])
    if settings.base == "imagenet":
        load_imagenet_encoder(network.encoder)
    elif settings.base != "random":
        base, config = load_checkpoint(resolve(settings.base))
        if base.arguments != network.arguments:
            raise OptionError(f"base={settings.base!r} is no {settings.network}: choose a checkpoint of that network")
        if replace(config.preprocessing, size=(1, 1)) != replace(settings.preprocessing(), size=(1, 1)):
            raise OptionError(
                f"base={settings.base!r} expects other pixel values than training gives it: choose another"
            )
        network.load_state_dict(base.state_dict())
    return network


def _claim(folder: Path, settings: FinetuneSettings, training: Sequence[Pair], held_out: Sequence[Pair]) -> None:
    """Write the run's settings and split into its folder, or check that they are the ones already there."""
    state = {
        "settings": asdict(settings),
        "training": [pair.name for pair in training],
        "held_out": [pair.name for pair in held_out],
    }
    path = folder / "settings.json"
    if path.exists():
        if json.loads(path.read_text(encoding="utf-8")) != state:
            raise OptionError(
                f"{folder} holds a run with other settings or data: choose another output_dir or remove it"
            )
        return
    make_folder(folder)
    path.write_text(json.dumps(state, indent=1), encoding="utf-8")


Loaders = tuple["DataLoader[Any]", "DataLoader[Any]"]


def _loaders(settings: FinetuneSettings, training: Sequence[Pair], held_out: Sequence[Pair]) -> Loaders:
    preprocessing = settings.preprocessing()
    train_set, val_set = CachedPairs(training, preprocessing), CachedPairs(held_out, preprocessing)
    sampler = EpochSampler(len(train_set), seed=settings.seed)
    # Items are in memory already: worker processes would only copy them.
    train = DataLoader(train_set, batch_size=settings.batch_size, sampler=sampler, drop_last=True)
    return train, DataLoader(val_set, batch_size=settings.batch_size)


def _run_stage1(settings: FinetuneSettings, network: ConDSeg, loaders: Loaders, folder: Path) -> None:
    """Stage 1, then its encoder, BatchNorm statistics included, into `network`."""
    options = NETWORKS[settings.network]
    light = ConsistencyNetwork(encoder=options["encoder"], full_resolution=options.get("full_resolution", True))
    light.encoder.load_state_dict(network.encoder.state_dict())
    stage = ConsistencyStage(light, **_stage_options(settings))
    _fit(stage, loaders, folder, epochs=settings.stage1_epochs, settings=settings, keep_best=False)
    network.encoder.load_state_dict(light.encoder.state_dict())


def _run_stage2(settings: FinetuneSettings, network: ConDSeg, loaders: Loaders, folder: Path) -> None:
    """Stage 2; `network` ends with the averaged weights of the best epoch on the held-out part."""
    finish = None
    if settings.stage2_size != settings.image_size:
        finish = (settings.epochs - settings.finish_epochs, (settings.image_size, settings.image_size))
    stage = SegmentationStage(network, finish=finish, **_stage_options(settings))
    _fit(stage, loaders, folder, epochs=settings.epochs, settings=settings, keep_best=True)


def _stage_options(settings: FinetuneSettings) -> dict[str, Any]:
    return {
        "preprocessing": settings.preprocessing(),
        "optimisation": Optimisation(settings.learning_rate, settings.encoder_learning_rate, settings.weight_decay),
        "size": (settings.stage2_size, settings.stage2_size),
        "seed": settings.seed,
    }


def _fit(
    stage: Stage, loaders: Loaders, folder: Path, *, epochs: int, settings: FinetuneSettings, keep_best: bool
) -> None:
    """Run or resume one stage in its folder and leave the weights to keep in `stage.network`."""
    best = ModelCheckpoint(folder, filename="best", monitor="val_iou", mode="max", enable_version_counter=False)
    # Not `save_last`: that one is written only when the best improves, and a resumed run would train twice.
    newest = ModelCheckpoint(folder, filename="last", enable_version_counter=False)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        gradient_clip_val=1.0,
        callbacks=[
            best,
            newest,
            EMAWeightAveraging(decay=settings.ema_decay),
            LearningRateMonitor("epoch"),
            TQDMProgressBar(10),
        ],
        logger=CSVLogger(folder.parent, name=folder.name, version=""),
        num_sanity_val_steps=0,
        enable_model_summary=False,
        log_every_n_steps=10,
    )
    last = folder / "last.ckpt"
    trainer.fit(stage, *loaders, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    kept = folder / ("best.ckpt" if keep_best else "last.ckpt")
    stage.load_state_dict(torch.load(kept, map_location="cpu", weights_only=True)["state_dict"])


@torch.inference_mode()
def _choose_threshold(network: nn.Module, settings: FinetuneSettings, loader: DataLoader[Any]) -> dict[str, float]:
    """The threshold with the best mean IoU on the held-out part, and the figures there."""
    preprocessing = settings.preprocessing()
    network.eval().cpu()
    probabilities, masks = [], []
    for images, truth in loader:
        x = torch.from_numpy(preprocessing.normalize(images.permute(0, 2, 3, 1).numpy()))
        probabilities += list(network(x).mask[:, 0].sigmoid().numpy())
        masks += list(truth[:, 0].numpy() > 0)
    means: Callable[[float], dict[str, float]] = lambda t: mean_scores(  # noqa: E731
        score(p >= np.float32(t), m) for p, m in zip(probabilities, masks, strict=True)
    )
    best = max(THRESHOLDS, key=lambda t: (means(t)["mIoU"], -abs(t - 0.5)))
    return {**means(best), "threshold": best}
