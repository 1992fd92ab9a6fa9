"""The two training stages as Lightning modules: what a step computes and how it is optimised. Loops are Lightning's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from condseg_sdk.models import ConDSeg, ConsistencyNetwork
from condseg_sdk.preprocessing import Preprocessing
from condseg_sdk.training.augmentation import StrongPhotometric, TrainingAugmentation, seed_batch
from condseg_sdk.training.losses import bce_dice, consistency_loss, segmentation_loss

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Optimisation:
    """AdamW on a one-cycle schedule. Learning rates are peaks."""

    learning_rate: float = 1e-3
    encoder_learning_rate: float = 2e-4
    weight_decay: float = 1e-2
    warmup: float = 0.1  # share of all steps


class Stage(L.LightningModule):
    """What both stages share: input on the network's scale, seeded augmentation, optimiser, validation by IoU.

    Args:
        network: has an `encoder`, which gets its own learning rate.
        preprocessing: its colour order, scale, mean and std are applied after augmentation.
        optimisation: learning rates and schedule.
        size: (H, W) to train at.
        seed: of the augmentation.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocessing: Preprocessing,
        optimisation: Optimisation,
        size: tuple[int, int],
        seed: int,
    ) -> None:
        super().__init__()
        # A fifth less time a step on CPUs, and what tensor cores want.
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimisation = optimisation
        self.seed = seed
        self.color_order = preprocessing.color_order
        self.pixel_scale = preprocessing.scale * 255
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(preprocessing.std).view(3, 1, 1), persistent=False)
        self.augmentation = TrainingAugmentation(size)

    def normalize(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB in [0, 1] -> the network's input; same arithmetic as `Preprocessing.normalize`."""
        if self.color_order == "bgr":
            images = images.flip(1)
        return (images * self.pixel_scale - self.mean) / self.std

    def augmented(self, batch: Batch, index: int) -> tuple[Tensor, Tensor]:
        """The batch as float images in [0, 1] and masks in {0, 1}, augmented."""
        seed_batch(self.seed, self.current_epoch, index)
        images, masks = batch
        result: tuple[Tensor, Tensor] = self.augmentation(images / 255, masks.float())
        return result

    def mask_logits(self, images: Tensor) -> Tensor:
        """Logits (B, 1, H, W) for normalised images."""
        raise NotImplementedError

    def validation_step(self, batch: Batch, _index: int) -> None:
        images, masks = batch
        logits = self.mask_logits(self.normalize(images / 255))
        truth, answer = masks > 0, logits > 0
        overlap, union = (truth & answer).sum((1, 2, 3)), (truth | answer).sum((1, 2, 3))
        iou = torch.where(union > 0, overlap / union.clamp(min=1), 1.0)
        self.log("val_loss", bce_dice(logits, masks).mean(), batch_size=len(images), sync_dist=True)
        self.log("val_iou", iou.mean(), batch_size=len(images), prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        encoder = set(self.network.encoder.parameters())  # type: ignore[union-attr]
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for parameter in self.network.parameters():
            groups.setdefault((parameter in encoder, parameter.ndim > 1), []).append(parameter)
        rates = {True: self.optimisation.encoder_learning_rate, False: self.optimisation.learning_rate}
        optimizer = torch.optim.AdamW(
            [
                {
                    "params": parameters,
                    "lr": rates[is_encoder],
                    # Norms and biases are not decayed.
                    "weight_decay": self.optimisation.weight_decay if decays else 0.0,
                }
                for (is_encoder, decays), parameters in groups.items()
            ]
        )
        steps = max(int(self.trainer.estimated_stepping_batches), 3)  # shorter cycles divide by zero
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in optimizer.param_groups],
            total_steps=steps,
            pct_start=max(self.optimisation.warmup, 2 / steps),
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ConsistencyStage(Stage):
    """Stage 1, Consistency Reinforcement: the encoder with a light head sees each image plain and disturbed."""

    network: ConsistencyNetwork

    def __init__(self, network: ConsistencyNetwork, **options: Any) -> None:
        super().__init__(network, **options)
        self.disturb = StrongPhotometric()

    def mask_logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, index: int) -> Tensor:
        images, masks = self.augmented(batch, index)
        both = self.normalize(torch.cat((images, self.disturb(images))))
        plain, disturbed = self.mask_logits(both).chunk(2)
        loss = consistency_loss(plain, disturbed, masks)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(images))
        return loss


class SegmentationStage(Stage):
    """Stage 2: the whole network with its auxiliary maps.

    Args:
        finish: (epoch, (H, W)): from this epoch on train at this size instead, None for never.
    """

    network: ConDSeg

    def __init__(self, network: ConDSeg, *, finish: tuple[int, tuple[int, int]] | None, **options: Any) -> None:
        super().__init__(network, **options)
        self.finish = finish

    def on_train_epoch_start(self) -> None:
        if self.finish is not None and self.current_epoch >= self.finish[0]:
            self.augmentation.size = self.finish[1]

    def mask_logits(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images).mask
        return logits

    def training_step(self, batch: Batch, index: int) -> Tensor:
        images, masks = self.augmented(batch, index)
        loss = segmentation_loss(self.network(self.normalize(images), aux=True), masks)
        self.log("loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(images))
        return loss
