"""The two training stages as Lightning modules: what a step computes. The training loop is Lightning's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import lightning as L
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from condseg_sdk.metrics.overlap import batch_iou
from condseg_sdk.models import ConDSeg, ConsistencyNetwork
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.augmentation import StrongPhotometric, TrainingAugmentation
from condseg_sdk.training.config import Augmentation
from condseg_sdk.training.loaders import Batch
from condseg_sdk.training.losses import bce_dice, consistency_loss, segmentation_loss
from condseg_sdk.training.optimizer import Optimization
from condseg_sdk.training.randomness import epoch_seed, uniforms

__all__ = ["ConsistencyStage", "Recipe", "SegmentationStage", "Stage"]


@dataclass(frozen=True)
class Recipe:
    """Parameters of both stages.

    Attributes:
        preprocessing: Preprocessing whose color order, scale, mean and std are applied after augmentation.
        optimization: Optimizer and schedule.
        size: (height, width) of the training images.
        seed: Seed of all random numbers.
        augmentation: Kind of augmentation.
        freeze_encoder: Whether the encoder keeps its weights.
        freeze_batchnorm: Whether BatchNorm layers keep their weights and statistics.
        foreground_weight: Weight of foreground pixels in the cross-entropy.
    """

    preprocessing: Preprocessing
    optimization: Optimization
    size: tuple[int, int]
    seed: int = 0
    augmentation: Augmentation = "full"
    freeze_encoder: bool = False
    freeze_batchnorm: bool = False
    foreground_weight: float = 1.0


class Stage(L.LightningModule):
    """Base class of both stages: input normalization, augmentation, optimizer, and validation by IoU.

    Args:
        network: Network with an `encoder`, which has its own learning rate.
        recipe: Parameters of the training.
    """

    number: int
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        # Takes a fifth less time per step on CPUs, and tensor cores need it.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.recipe = recipe
        preprocessing = recipe.preprocessing
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)
        self.augmentation = TrainingAugmentation(recipe.size, recipe.augmentation)
        self.val_loss, self.val_iou = MeanMetric(), MeanMetric()
        if recipe.freeze_encoder:
            network.encoder.requires_grad_(False)
        if recipe.freeze_batchnorm:
            for module in _batchnorms(network):
                module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode as for any module, but keep what is frozen in eval mode."""
        super().train(mode)
        if mode and self.recipe.freeze_encoder:
            self.network.encoder.eval()
        if mode and self.recipe.freeze_batchnorm:
            for module in _batchnorms(self.network):
                module.eval()
        return self

    def on_train_epoch_start(self) -> None:
        """Set the mode and seed the random numbers of the epoch."""
        self.train()
        torch.manual_seed(epoch_seed(self._key()))

    def _key(self) -> tuple[int, int, int]:
        return self.recipe.seed, self.number, self.current_epoch

    def normalize(self, images: Tensor) -> Tensor:
        """Return the network's input for RGB images (B, 3, H, W) in [0, 1], as `Preprocessing.normalize` does."""
        preprocessing = self.recipe.preprocessing
        if preprocessing.color_order == "bgr":
            images = images.flip(1)
        values = (images * (preprocessing.scale * 255) - self.mean) / self.std
        return values.contiguous(memory_format=torch.channels_last)

    def numbers(self, samples: Tensor, count: int) -> Tensor:
        """Return random numbers (B, count) of these samples in this epoch."""
        return uniforms(self._key(), samples, count)

    def mask_logits(self, images: Tensor) -> Tensor:
        """Return mask logits (B, 1, H, W) for normalized images."""
        raise NotImplementedError

    def step_loss(self, images: Tensor, masks: Tensor, numbers: Tensor) -> Tensor:
        """Return the loss for augmented images in [0, 1], masks and further random numbers (B, `own_numbers`)."""
        raise NotImplementedError

    own_numbers = 0

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Augment a batch and return its loss."""
        images, masks, samples = batch
        u = self.numbers(samples, TrainingAugmentation.numbers + self.own_numbers)
        with torch.autocast(images.device.type, enabled=False):
            images, masks = self.augmentation(images / 255, masks.float(), u[:, : TrainingAugmentation.numbers])
        loss = self.step_loss(images, masks, u[:, TrainingAugmentation.numbers :])
        name = f"stage{self.number}/loss"
        self.log(name, loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Add a batch to validation loss and IoU."""
        images, masks, samples = batch
        logits = self.mask_logits(self.normalize(images / 255)).float()
        real = (samples >= 0).float()  # padding does not count
        self.val_loss.update(bce_dice(logits, masks), real)
        self.val_iou.update(batch_iou(logits > 0, masks > 0), real)
        for name, metric in (("val_loss", self.val_loss), ("val_iou", self.val_iou)):
            self.log(f"stage{self.number}/{name}", metric, on_step=False, on_epoch=True, prog_bar=name == "val_iou")

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule for Lightning."""
        return self.recipe.optimization.configured(self.network, int(self.trainer.estimated_stepping_batches))


def _batchnorms(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


class ConsistencyStage(Stage):
    """Stage 1, Consistency Reinforcement: the encoder with a light head sees mild and strong augmentations.

    Args:
        network: Encoder with a light head.
        recipe: Parameters of the training.
    """

    number = 1
    network: ConsistencyNetwork
    own_numbers = StrongPhotometric.numbers

    def __init__(self, network: ConsistencyNetwork, recipe: Recipe) -> None:
        super().__init__(network, recipe)
        self.strong_augmentation = StrongPhotometric()

    def mask_logits(self, images: Tensor) -> Tensor:
        """Return mask logits (B, 1, H, W) for normalized images."""
        logits: Tensor = self.network(images)
        return logits

    def step_loss(self, images: Tensor, masks: Tensor, numbers: Tensor) -> Tensor:
        """Return the consistency loss for augmented images, masks and random numbers of the strong augmentation."""
        with torch.autocast(images.device.type, enabled=False):
            both = self.normalize(torch.cat((images, self.strong_augmentation(images, numbers))))
        plain, augmented = self.mask_logits(both).chunk(2)
        return consistency_loss(plain, augmented, masks, foreground_weight=self.recipe.foreground_weight)


class SegmentationStage(Stage):
    """Stage 2: the whole network with its auxiliary maps.

    Args:
        network: Network to train.
        recipe: Parameters of the training.
        finish: (epoch, (height, width)) to train at another size from this epoch on; None for one size.
    """

    number = 2
    network: ConDSeg

    def __init__(self, network: ConDSeg, recipe: Recipe, *, finish: tuple[int, tuple[int, int]] | None = None) -> None:
        super().__init__(network, recipe)
        self.finish = finish

    def on_train_epoch_start(self) -> None:
        """Change the size of the training images at the chosen epoch."""
        super().on_train_epoch_start()
        if self.finish is not None and self.current_epoch >= self.finish[0]:
            self.augmentation.size = self.finish[1]

    def mask_logits(self, images: Tensor) -> Tensor:
        """Return mask logits (B, 1, H, W) for normalized images."""
        logits: Tensor = self.network(images).mask
        return logits

    def step_loss(self, images: Tensor, masks: Tensor, numbers: Tensor) -> Tensor:  # noqa: ARG002
        """Return the segmentation loss for augmented images and masks."""
        output = self.network(self.normalize(images), aux=True)
        return segmentation_loss(output, masks, foreground_weight=self.recipe.foreground_weight)
