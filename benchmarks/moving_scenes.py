"""Made sequences: a still image with its mask, seen by a camera that moves, zooms and turns under changing light."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MovingFrame:
    """One frame of a made sequence.

    Attributes:
        image: RGB uint8 (H, W, 3).
        mask: Ground truth, bool (H, W).
        motion: Affine map (2, 3) from the pixels x, y of the still image to those of the frame.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    motion: NDArray[np.float64]


def moving_scene(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], *, frames: int, seed: int = 0, noise: float = 6.0
) -> list[MovingFrame]:
    """Make a sequence from an image, RGB uint8 (H, W, 3), and its mask, bool (H, W).

    The camera follows sines: up to about 1 % of the width from frame to frame, a zoom of 1.2 to 1.4, a turn of up to 8
    degrees and a tremor of half a pixel. The light varies by up to 20 % with a flicker of 3 %, the noise has the given
    standard deviation, and each frame is compressed as JPEG of quality 70, as recorders do.
    """
    rng = np.random.default_rng(seed)
    height, width = mask.shape
    phase = rng.uniform(0, 2 * np.pi, 6)
    sequence = []
    for number in range(frames):
        x, y, zoom, turn, light, slow = np.sin(phase + np.array([0.13, 0.17, 0.09, 0.07, 0.21, 0.05]) * number)
        motion = np.asarray(cv2.getRotationMatrix2D((width / 2, height / 2), 8 * turn, 1.3 + 0.1 * zoom), np.float64)
        motion[:, 2] += np.array([0.05 * width * x, 0.025 * height * (y + slow)]) + rng.normal(0, 0.5, 2)
        moved = cv2.warpAffine(image, motion, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        truth = cv2.warpAffine(
            mask.astype(np.uint8), motion, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT
        )
        gain = 1 + 0.2 * light + rng.normal(0, 0.03)
        noisy = np.clip(moved * gain + rng.normal(0, noise, moved.shape), 0, 255).astype(np.uint8)
        code = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 70])[1]
        shown = np.asarray(cv2.cvtColor(np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB), np.uint8)
        sequence.append(MovingFrame(shown, truth.astype(bool), motion))
    return sequence


def between(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine map (2, 3) from the pixels of one frame to those of another, from their motions."""
    square = [np.vstack([motion, [0, 0, 1]]) for motion in (before, after)]
    return (square[1] @ np.linalg.inv(square[0]))[:2]
