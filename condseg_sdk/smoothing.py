"""Smooths the predictions of a video over time, so that masks flicker less.

The average follows the tissue: before the logits of the frames before are averaged with those of the new frame, they
are moved by the optical flow between the frames. docs/video.md measures what it gains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from condseg_sdk.errors import OptionError
from condseg_sdk.field_of_view import crop
from condseg_sdk.images.load import load_image
from condseg_sdk.opencv import cv2
from condseg_sdk.segmentation import Segmentation

__all__ = ["NEW_FRAME_WEIGHT", "LogitSmoother", "smooth_predictions"]

NEW_FRAME_WEIGHT = 0.3
"""Weight of the new frame in the average, chosen by `benchmarks/flicker.py`."""

SAME_SCENE = 0.5
"""Correlation of two neighboring frames below which a new scene begins."""

THUMBNAIL = 16
"""Side of the copies by which scenes are compared; on so small a copy, camera motion changes little."""


class LogitSmoother:
    """Exponential average of the logits of consecutive frames, moved along with the image.

    The state is w * logits + (1 - w) * (the state before, moved by the optical flow). It starts anew where the size
    changes or a new scene begins: where the two frames, shrunk to 16 x 16 gray values, correlate by less than 0.5.

    Args:
        weight: Weight w of the new frame, above 0 and at most 1; 1 changes nothing.

    Raises:
        OptionError: The weight is out of range.

    Example:
        >>> smoother = LogitSmoother(weight=0.25)
        >>> frame = np.zeros((16, 16, 3), np.uint8)
        >>> [float(smoother(np.full((16, 16), value, np.float32), frame)[0, 0]) for value in (4, 8, 4)]
        [4.0, 5.0, 4.75]
    """

    def __init__(self, weight: float = NEW_FRAME_WEIGHT) -> None:
        if not 0 < weight <= 1:
            raise OptionError(f"weight={weight!r} must be above 0 and at most 1", option="weight")
        self.weight = np.float32(weight)
        self._average: NDArray[np.float32] | None = None
        self._gray: NDArray[np.uint8] | None = None
        # It keeps buffers between calls, so each smoother has its own.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def reset(self) -> None:
        """Forget all frames, before those of another video."""
        self._average = self._gray = None

    def __call__(self, logits: NDArray[np.float32], image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the average for the next frame.

        Args:
            logits: Logits of the frame, float32 (h, w).
            image: The part of the frame that they cover, uint8 RGB (H, W, 3) of any size.

        Returns:
            Averaged logits, float32 (h, w).
        """
        height, width = logits.shape
        gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        gray = np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        before, average = self._gray, self._average
        if before is None or average is None or before.shape != gray.shape or not _is_same_scene(before, gray):
            self._average = logits
        else:
            moved = self._moved(average, before, gray)
            self._average = self.weight * logits + (1 - self.weight) * moved
        self._gray = gray
        return self._average

    def _moved(
        self, logits: NDArray[np.float32], before: NDArray[np.uint8], gray: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Move logits of the frame before to where the same tissue is in the new frame."""
        height, width = gray.shape
        if min(height, width) < THUMBNAIL:  # too small for the flow's patches
            return logits
        # From the new frame back to the one before.
        flow = np.asarray(self._flow.calc(gray, before, np.zeros((height, width, 2), np.float32)), np.float32)
        columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        return np.asarray(
            cv2.remap(
                logits, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            ),
            np.float32,
        )


def _is_same_scene(before: NDArray[np.uint8], gray: NDArray[np.uint8]) -> bool:
    """Compare two frames by their correlation, which brightness does not change."""
    size = (THUMBNAIL, THUMBNAIL)
    one, other = (cv2.resize(x, size, interpolation=cv2.INTER_AREA).astype(np.float64).ravel() for x in (before, gray))
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt((one @ one) * (other @ other)))
    if scale < 1:  # without any structure, such as a black frame
        return bool((one @ one < 1) == (other @ other < 1))
    return float(one @ other) / scale >= SAME_SCENE


def smooth_predictions(predictions: Iterable[Segmentation], smoother: LogitSmoother) -> Iterator[Segmentation]:
    """Yield predictions for consecutive frames with averaged logits.

    The average starts anew with each video, recognized by its frame numbers, and where the field of view changes.
    """
    before: Segmentation | None = None
    for seg in predictions:
        is_next = before is not None and (before.frame is None or seg.frame is None or seg.frame > before.frame)
        if not is_next or before is None or before.field_of_view != seg.field_of_view:
            smoother.reset()
        image = load_image(seg.source, color_order=seg.color_order, bits=seg.bits)
        box = seg.field_of_view
        inside = crop(image, None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3])))
        yield replace(seg, logits=smoother(seg.logits, inside))
        before = replace(seg, source=b"")  # the frame itself is not kept
