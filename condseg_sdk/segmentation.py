"""Segmentation: the prediction for one image, with masks, outlines, overlays and files.

It keeps the network's small map of logits and computes masks, outlines and overlays on request.
"""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from condseg_sdk.dicom_seg import SegmentKind, default_segment, make_dicom_seg
from condseg_sdk.dicom_seg import encode_dicom_seg as _encode_dicom_seg
from condseg_sdk.errors import ImageError, OptionError
from condseg_sdk.field_of_view import FloatBox, scale_box
from condseg_sdk.files import write_bytes
from condseg_sdk.images.dicom import DicomFile, DicomFrame, is_dicom_source
from condseg_sdk.images.limits import require_file
from condseg_sdk.images.load import ColorOrder, ImageLike, load_image
from condseg_sdk.images.spacing import PixelSpacing, SpacingKind, resize_spacing, spacing_in
from condseg_sdk.opencv import cv2
from condseg_sdk.options import check_choice, check_number, check_path, check_spacing, check_threshold
from condseg_sdk.origin import Origin, OriginDict
from condseg_sdk.preprocessing import resize_logits, sigmoid
from condseg_sdk.provenance import seal_json, seal_png
from condseg_sdk.region_score import UNCALIBRATED, ScoreCalibration, peak_logit

__all__ = [
    "Region",
    "RegionDict",
    "SaveKind",
    "Segmentation",
    "SegmentationDict",
    "encode_dicom_seg",
    "find_regions",
]

if TYPE_CHECKING:
    from pydicom import Dataset as PydicomDataset

SaveKind = Literal["mask", "overlay", "json", "probability", "uncertainty", "dicom-seg"]

_SUFFIXES = {
    "mask": (".png",),  # JPEG would blur a mask's edges into gray
    "overlay": (".png", ".jpg", ".jpeg"),
    "json": (".json",),
    "probability": (".png",),
    "uncertainty": (".png",),
    "dicom-seg": (".dcm",),
}
_TURQUOISE = (64, 224, 208)  # contrasts with red tissue and purple stains


@dataclass(frozen=True, eq=False)
class Region:
    """One connected region of a mask; pixels that touch at a corner are connected.

    The outline runs along the pixels' edges, so it encloses exactly the region's pixels: the pixel in
    column x and row y is the square from (x, y) to (x + 1, y + 1).

    Args:
        outline: Corners of the outline as x, y in pixels, int32 (N, 2), N >= 4; the last one is joined to the first.
        holes: Outlines of the holes, int32 (N, 2) each.
        area: Number of pixels, without the holes.
        box: Bounding box x0, y0, x1, y1 in pixels, x1 and y1 exclusive.
        spacing: Distance between the image's pixels around the region; None where the file does not contain it, or not
            for the whole region.

    Example:
        >>> import numpy as np
        >>> seg = Segmentation(np.float32([[-4, 4, 4]]), (1, 3), threshold=0.5, source=b"", name="a")
        >>> [(region.area, region.box) for region in seg.regions()]
        [(2, (1, 0, 3, 1))]
    """

    outline: NDArray[np.int32]
    holes: tuple[NDArray[np.int32], ...]
    area: int
    box: tuple[int, int, int, int]
    spacing: PixelSpacing | None = None

    @property
    def area_mm2(self) -> float | None:
        """Area in square millimeters, without the holes; None where the spacing is unknown."""
        return None if self.spacing is None else self.area * self.spacing.area

    @property
    def diameter_mm(self) -> float | None:
        """Greatest distance between two points of the outline in millimeters; None where the spacing is unknown."""
        if self.spacing is None:
            return None
        corners = cv2.convexHull(self.outline)[:, 0] * (self.spacing.column, self.spacing.row)
        return float(max(np.hypot(*(corners - corner).T).max() for corner in corners))


class RegionDict(TypedDict):
    """A region as plain JSON types; polygons are lists of [x, y]."""

    area: int
    area_mm2: float | None
    diameter_mm: float | None
    box: list[int]
    polygon: list[list[int]]
    holes: list[list[list[int]]]


class SpacingDict(TypedDict):
    """A spacing as plain JSON types: millimeters, and the part of the image that it is valid for (None for all)."""

    row: float
    column: float
    kind: SpacingKind
    box: list[float] | None


class _SegOptions(TypedDict):
    origin: Origin
    threshold: float
    min_score: float | None
    segment: SegmentKind


class SegmentationDict(TypedDict):
    """A prediction as plain JSON types; see `Segmentation.to_dict`."""

    name: str
    frame: int | None
    time: float | None
    size: list[int]
    field_of_view: list[float] | None
    threshold: float
    score: float
    min_score: float | None
    area: int
    area_mm2: float | None
    mean_probability: float | None
    spacing: list[SpacingDict]
    origin: OriginDict | None
    regions: list[RegionDict]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The prediction for one image.

    It keeps only the logits, so a list of thousands stays small. Every access computes its result again: keep what
    you use twice in a variable. It can be pickled.

    Args:
        logits: Logits, float32 (h, w), finite, of the network's size or the image's.
        size: The image's (height, width) in pixels, as displayed.
        threshold: Lowest probability at which a pixel belongs to the mask, between 0 and 1.
        source: The image as the user gave it; `overlay` reads it again.
        name: Name of the image, such as its path.
        color_order: Channel order of `source` where that is a NumPy array.
        branch_logits: Logits of the uncertainty branch, like `logits`, where `branch_uncertainty` was requested.
        field_of_view: Rectangle x0, y0, x1, y1 of the image that the network saw and the logits cover, in pixels, x1
            and y1 exclusive; None for the whole image. Outside of it every probability is 0.
        bits: Number of bits with which the source was read, where it has 16-bit values.
        frame: Number of the frame, from 0, where the source is a frame of a video or of a DICOM file with several;
            missing frames of a video keep their numbers.
        time: Time of the frame in its video, in seconds from the first frame; None for any other image.
        spacing: Distance between the image's pixels, if its file contains it: one for the whole image, or one for each
            calibrated region of an ultrasound image.
        origin: The model, its SHA-256, the version of this package, runtime, device and time, which all outputs
            contain; None for a prediction that no `Predictor` made.
        seconds: Time from the beginning of reading the image to its prediction, including the wait for the rest of its
            batch; None for a prediction that no `Predictor` made.
        score_calibration: Calibration of `score`; None for a checkpoint without one.
        min_score: Score below which the mask is empty, between 0 and 1; None for no such limit.

    Raises:
        OptionError: The threshold or the lowest score is not between 0 and 1, logits are not finite float32 numbers
            (h, w), or the field of view is not inside the image.

    Example:
        >>> import numpy as np
        >>> logits = np.float32([[-4, -4], [-4, 4]])
        >>> seg = Segmentation(logits, (2, 2), threshold=0.5, source=np.zeros((2, 2), np.uint8), name="frame")
        >>> seg.area, seg.boxes().tolist(), seg.polygons()[0].tolist()
        (1, [[1, 1, 2, 2]], [[1, 1], [1, 2], [2, 2], [2, 1]])
    """

    logits: NDArray[np.float32] = field(repr=False)
    size: tuple[int, int]
    _: KW_ONLY
    threshold: float
    source: ImageLike = field(repr=False)
    name: str
    color_order: ColorOrder = field(default="rgb", repr=False)
    branch_logits: NDArray[np.float32] | None = field(default=None, repr=False)
    field_of_view: FloatBox | None = field(default=None, repr=False)
    bits: int | None = field(default=None, repr=False)
    frame: int | None = field(default=None, repr=False)
    time: float | None = field(default=None, repr=False)
    spacing: tuple[PixelSpacing, ...] = field(default=(), repr=False)
    origin: Origin | None = field(default=None, repr=False)
    seconds: float | None = field(default=None, repr=False)
    score_calibration: ScoreCalibration | None = field(default=None, repr=False)
    min_score: float | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_threshold(self.threshold))
        if self.min_score is not None:
            object.__setattr__(self, "min_score", check_number("min_score", self.min_score, above=0, below=1))
        if self.field_of_view is not None:
            (x0, y0, x1, y1), (height, width) = self.field_of_view, self.size
            if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
                raise OptionError(
                    f"{self.name}: field_of_view={self.field_of_view} must lie in {width}x{height} pixels"
                )
        for logits in (self.logits, self.branch_logits):
            if logits is None:
                continue
            if logits.ndim != 2 or logits.dtype != np.float32:
                kind = f"{logits.dtype} {logits.shape}"
                raise OptionError(f"{self.name}: logits must be float32 (h, w), not {kind}")
            if not np.isfinite(logits).all():
                remedy = "use precision='float32'"
                raise OptionError(f"{self.name}: the network predicted NaN or infinity; {remedy}")
        if isinstance(self.source, memoryview):  # cannot be pickled
            object.__setattr__(self, "source", bytes(self.source))

    @property
    def probability(self) -> NDArray[np.float32]:
        """Probability that each pixel belongs to the mask: float32 (H, W) in [0, 1], at the image's size.

        Example:
            >>> seg = Segmentation(np.zeros((4, 6), np.float32), (8, 12), threshold=0.5, source=b"", name="a")
            >>> seg.probability.shape, float(seg.probability.max())
            ((8, 12), 0.5)
        """
        return sigmoid(self._restore(self.logits))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Pixels whose probability reaches the threshold: bool (H, W), at the image's size.

        Logits are compared, which is the same as `probability >= threshold` up to the rounding of float32. Where
        `score` is below `min_score`, the mask is empty.

        Example:
            >>> seg = Segmentation(np.float32([[-4, 4, 4]]), (1, 3), threshold=0.5, source=b"", name="a")
            >>> seg.mask.tolist()
            [[False, True, True]]
        """
        if self.min_score is not None and self.score < self.min_score:
            return np.zeros(self.size, np.bool_)
        return self._restore(self.logits) >= math.log(self.threshold / (1 - self.threshold))

    @property
    def score(self) -> float:
        """How likely it is that the image has a region at all: a probability in [0, 1].

        It follows from the highest 0.5 % of the network's logits by a logistic curve that the checkpoint contains
        (`score_calibration`). A checkpoint without the curve gives the sigmoid of their mean instead, which orders
        images in the same way but is no calibrated probability: it is near 1 for most images with any mask. The curve
        holds for whole images, not for predictions from tiles. docs/evaluation.md describes how it is fitted.

        Example:
            >>> import numpy as np
            >>> seg = Segmentation(np.zeros((4, 6), np.float32), (8, 12), threshold=0.5, source=b"", name="a")
            >>> seg.score
            0.5
        """
        return (self.score_calibration or UNCALIBRATED)(peak_logit(self.logits))

    def _restore(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return resize_logits(logits, self.size, self.field_of_view)

    def resized(self, size: tuple[int, int]) -> Segmentation:
        """Return the same prediction for the image at another (height, width), from the network's logits.

        Args:
            size: (height, width) of the new prediction in pixels.

        Returns:
            The prediction at that size, with its field of view and its spacing scaled accordingly.

        Example:
            >>> seg = Segmentation(np.zeros((4, 6), np.float32), (8, 6), threshold=0.5, source=b"", name="a")
            >>> seg.resized((256, 256)).mask.shape
            (256, 256)
        """
        return replace(
            self,
            size=size,
            field_of_view=scale_box(self.field_of_view, self.size, size),
            spacing=tuple(resize_spacing(spacing, self.size, size) for spacing in self.spacing),
        )

    @property
    def uncertainty(self) -> NDArray[np.float32]:
        """Uncertainty of the prediction: float32 (H, W) in [0, 1], at the image's size.

        It is 1 - |2p - 1| of the probability p: 0 where the network is sure, 1 where p is 0.5. In the bundled models'
        predictions the most uncertain 5 % of an image's pixels contain about three quarters of its wrong pixels
        (docs/evaluation.md).

        Example:
            >>> import numpy as np
            >>> seg = Segmentation(np.zeros((4, 6), np.float32), (4, 6), threshold=0.5, source=b"", name="a")
            >>> float(seg.uncertainty.min())
            1.0
        """
        return 1 - np.abs(2 * self.probability - 1)

    @property
    def uncertainty_score(self) -> float:
        """How uncertain the prediction is as a whole: a number in [0, 1], by which images can be ordered.

        It is 1 minus the IoU expected from the probabilities: the sum of the probabilities in the mask, divided
        by the mask's area plus the sum of those outside. For an empty mask it is the greatest probability, the
        strongest evidence for a missed region. docs/labeling.md measures how well it finds wrong masks.

        Example:
            >>> import numpy as np
            >>> sure, unsure = np.float32([[-9, 9]]), np.float32([[-0.1, 0.2]])
            >>> [
            ...     round(Segmentation(logits, (1, 2), threshold=0.5, source=b"", name="a").uncertainty_score, 2)
            ...     for logits in (sure, unsure)
            ... ]
            [0.0, 0.63]
        """
        probability, mask = self.probability, self.mask
        area = np.count_nonzero(mask)
        if area == 0:
            return float(probability.max())
        inside = float(probability[mask].sum(dtype=np.float64))
        return float(1 - inside / (area + probability.sum(dtype=np.float64) - inside))

    @property
    def branch_uncertainty(self) -> NDArray[np.float32]:
        """Map of the network's uncertainty branch: float32 (H, W) in [0, 1], at the image's size.

        The paper (section "Semantic Information Decoupling") trains the branch on the pixels that neither the
        foreground branch nor the background branch claims. To find pixels that may be wrong, use `uncertainty`:
        docs/evaluation.md compares the two.

        Raises:
            OptionError: It was not requested.

        Example:
            >>> predictor("frame.jpg", branch_uncertainty=True).branch_uncertainty.shape
            (90, 120)
        """
        if self.branch_logits is None:
            raise OptionError(
                f"{self.name}: the uncertainty branch was not computed; call predictor(..., branch_uncertainty=True)",
                option="branch_uncertainty",
            )
        return sigmoid(self._restore(self.branch_logits))

    @property
    def area(self) -> int:
        """Number of pixels in the mask.

        Example:
            >>> Segmentation(np.float32([[-4, 4, 4]]), (1, 3), threshold=0.5, source=b"", name="a").area
            2
        """
        return int(np.count_nonzero(self.mask))

    @property
    def is_empty(self) -> bool:
        """Whether the mask has no pixel.

        Example:
            >>> Segmentation(np.float32([[-4, -4, 4]]), (1, 3), threshold=0.99, source=b"", name="a").is_empty
            True
        """
        return not self.mask.any()

    @overload
    def area_mm2(self, spacing: float | Sequence[float]) -> float: ...
    @overload
    def area_mm2(self, spacing: None = None) -> float | None: ...
    def area_mm2(self, spacing: float | Sequence[float] | None = None) -> float | None:
        """Compute the area of the mask in square millimeters.

        Args:
            spacing: Distance between pixels in millimeters: one number, or the distances between rows and between
                columns, as in DICOM. Default: the one in the image's file, `Segmentation.spacing`.

        Returns:
            Area in square millimeters. Without the argument it is None where the spacing is unknown for a region.

        Raises:
            OptionError: `spacing` is not one or two numbers above 0.

        Example:
            >>> import numpy as np
            >>> frame = np.zeros((4, 6), np.uint8)
            >>> seg = Segmentation(np.ones((4, 6), np.float32), (4, 6), threshold=0.5, source=frame, name="a")
            >>> seg.area, seg.area_mm2((0.5, 0.25)), seg.area_mm2()
            (24, 3.0, None)
        """
        if spacing is None:
            return _total_mm2(self.regions()) if self.spacing else None
        row, column = check_spacing(spacing)
        return self.area * row * column

    def regions(self, *, min_area: int = 1) -> list[Region]:
        """Find the connected regions of the mask, largest first.

        Args:
            min_area: Number of pixels below which a region is left out.

        Returns:
            The regions with their outlines, holes, areas and boxes; an empty list where the mask is empty.

        Example:
            >>> logits = np.float32([[-4, 4, 4], [-4, -4, -4]])
            >>> seg = Segmentation(logits, (2, 3), threshold=0.5, source=b"", name="a")
            >>> [(region.area, region.box) for region in seg.regions()]
            [(2, (1, 0, 3, 1))]
        """
        return [region for region in find_regions(self.mask, self.spacing) if region.area >= min_area]

    def boxes(self, *, min_area: int = 1) -> NDArray[np.int32]:
        """Compute the bounding boxes of the regions, largest region first.

        Args:
            min_area: Number of pixels below which a region is left out.

        Returns:
            Boxes x0, y0, x1, y1 in pixels, x1 and y1 exclusive: int32 (N, 4), (0, 4) where the mask is empty.

        Example:
            >>> logits = np.float32([[-4, 4, 4], [-4, -4, -4]])
            >>> seg = Segmentation(logits, (2, 3), threshold=0.5, source=b"", name="a")
            >>> seg.boxes().tolist()
            [[1, 0, 3, 1]]
        """
        return np.array([region.box for region in self.regions(min_area=min_area)], np.int32).reshape(-1, 4)

    def polygons(self, *, min_area: int = 1) -> list[NDArray[np.int32]]:
        """Compute the outer outlines of the regions, largest region first, for `cv2.polylines` or COCO.

        Args:
            min_area: Number of pixels below which a region is left out.

        Returns:
            Corners x, y along the pixels' edges, int32 (N, 2) for each region; `Region` also has the holes.

        Example:
            >>> logits = np.float32([[-4, 4, 4], [-4, -4, -4]])
            >>> seg = Segmentation(logits, (2, 3), threshold=0.5, source=b"", name="a")
            >>> seg.polygons()[0].tolist()
            [[1, 0], [1, 1], [3, 1], [3, 0]]
        """
        return [region.outline for region in self.regions(min_area=min_area)]

    def overlay(
        self, image: ImageLike | None = None, *, color: tuple[int, int, int] = _TURQUOISE, alpha: float = 0.15
    ) -> Image.Image:
        """Draw the mask over the image, as a thin contour and a light tint.

        Args:
            image: Image of the same size to draw on; an array is RGB. Default: the source, which is read again.
            color: Color of contour and tint: red, green, blue in [0, 255].
            alpha: Strength of the tint, from 0 (contour only) to 1 (opaque).

        Returns:
            PIL image, RGB, of the image's size. If the mask is empty, the image is unchanged.

        Raises:
            ImageError: The image can no longer be read, or has another size.
            OptionError: `color` or `alpha` is out of range.

        Example:
            >>> import numpy as np
            >>> frame = np.zeros((4, 6), np.uint8)
            >>> seg = Segmentation(np.ones((4, 6), np.float32), (4, 6), threshold=0.5, source=frame, name="a")
            >>> seg.overlay(color=(255, 210, 0)).size
            (6, 4)
        """
        if len(color) != 3 or not all(0 <= channel <= 255 for channel in color):
            raise OptionError(f"color={color!r} must be three numbers in [0, 255]: red, green, blue", option="color")
        if not 0 <= alpha <= 1:
            raise OptionError(f"alpha={alpha!r} must lie in [0, 1]", option="alpha")
        source, order, bits = (self.source, self.color_order, self.bits) if image is None else (image, "rgb", None)
        pixels = load_image(source, color_order=order, bits=bits)
        if pixels.shape[:2] != self.size:
            sizes = f"{pixels.shape[:2]} (height, width) and the mask {self.size}"
            raise ImageError(f"{self.name}: the image is {sizes}; pass the image that was segmented")
        return Image.fromarray(_draw(pixels, self.mask, color, alpha))

    def to_pil(self) -> Image.Image:
        """Convert the mask to a PIL image.

        Returns:
            PIL image of mode "L" at the image's size: 255 in the mask, 0 elsewhere.

        Example:
            >>> logits = np.float32([[-4, 4, 4], [-4, -4, -4]])
            >>> seg = Segmentation(logits, (2, 3), threshold=0.5, source=b"", name="a")
            >>> np.asarray(seg.to_pil()).tolist()
            [[0, 255, 255], [0, 0, 0]]
        """
        return Image.fromarray(self.mask.astype(np.uint8) * 255)

    def to_dict(self) -> SegmentationDict:
        """Convert the prediction to plain JSON types.

        Returns:
            name, frame and time (None for an image that is no frame), size [height, width], field_of_view
            [x0, y0, x1, y1] (None for all of the image), threshold, score, min_score (None for no limit), area in
            pixels, area_mm2 (None where the spacing is unknown), mean_probability over the mask (None where that is
            empty), spacing, origin (see `Origin`), and
            regions: each with area, area_mm2, diameter_mm, box [x0, y0, x1, y1], polygon [[x, y], ...], holes.
        """
        mask = self.mask
        regions = find_regions(mask, self.spacing)
        return {
            "name": self.name,
            "frame": self.frame,
            "time": self.time,
            "size": list(self.size),
            "field_of_view": None if self.field_of_view is None else list(self.field_of_view),
            "threshold": self.threshold,
            "score": self.score,
            "min_score": self.min_score,
            "area": int(np.count_nonzero(mask)),
            "area_mm2": _total_mm2(regions) if self.spacing else None,
            "mean_probability": float(self.probability[mask].mean()) if mask.any() else None,
            "spacing": [_spacing_dict(spacing) for spacing in self.spacing],
            "origin": None if self.origin is None else self.origin.to_dict(),
            "regions": [
                {
                    "area": region.area,
                    "area_mm2": region.area_mm2,
                    "diameter_mm": region.diameter_mm,
                    "box": list(region.box),
                    "polygon": region.outline.tolist(),
                    "holes": [hole.tolist() for hole in region.holes],
                }
                for region in regions
            ],
        }

    def to_dicom_seg(self, segment: SegmentKind | None = None) -> PydicomDataset:
        """Make a DICOM segmentation (SEG) that refers to the DICOM file, and the frame, that was segmented.

        It is part of the patient's study: it repeats the attributes of patient and study of that file. docs/dicom.md
        describes its content; `encode_dicom_seg` makes one file of all frames of a recording.

        Args:
            segment: What the segment shows. Default: for the bundled models a polyp of the colon, a skin or a breast
                lesion, otherwise a lesion.

        Returns:
            The segmentation, a pydicom data set; `save` with kind="dicom-seg" writes it.

        Raises:
            ImageError: The source is not a DICOM file, can no longer be read, or lacks what a segmentation refers to.
            OptionError: No `Predictor` made the prediction, so that no model can be named.
            OutputError: highdicom is not installed.

        Example:
            >>> seg = predictor("scan.dcm")
            >>> seg.to_dicom_seg().SegmentSequence[0].SegmentLabel  # 'Polyp' for the bundled model by its name
            'Lesion'
        """
        frame = _dicom_frame(self)
        masks = {frame.number: self.mask}
        return make_dicom_seg(frame.file, masks, **_seg_options(self, segment))

    def statement(self) -> dict[str, object]:
        """Return the values for files without fields of their own: threshold, lowest score and origin if there are any.

        Example:
            >>> Segmentation(np.float32([[-4, 4, 4]]), (1, 3), threshold=0.5, source=b"", name="a").statement()
            {'threshold': 0.5}
        """
        limit = {} if self.min_score is None else {"min_score": self.min_score}
        return {"threshold": self.threshold, **limit, **(self.origin.to_dict() if self.origin is not None else {})}

    def save(self, path: str | os.PathLike[str], *, kind: SaveKind = "mask") -> Path:
        """Write the prediction to a file, which is complete or not there at all.

        Args:
            path: File to write; its folder must exist.
            kind: What to write: "mask", a PNG of 0 and 255; "overlay", a PNG or JPEG; "json", the content of `to_dict`;
                "probability" or "uncertainty", a 16-bit PNG, 0 to 65535 for 0 to 1; "dicom-seg", the DICOM file of
                `to_dicom_seg`.

        Returns:
            The path.

        Raises:
            OptionError: The kind is unknown, or the suffix does not match it.
            OutputError: The file cannot be written.
            ImageError: The image of an overlay can no longer be read.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> frame = np.zeros((4, 6), np.uint8)
            >>> seg = Segmentation(np.ones((4, 6), np.float32), (4, 6), threshold=0.5, source=frame, name="a")
            >>> seg.save(f"{tempfile.mkdtemp()}/overlay.jpg", kind="overlay").name
            'overlay.jpg'
        """
        check_choice("kind", kind, SaveKind)
        suffix = check_path("path", path).suffix.lower()
        if suffix not in _SUFFIXES[kind]:
            raise OptionError(
                f"{path}: a file of kind={kind!r} must end in {' or '.join(_SUFFIXES[kind])}", option="path"
            )
        return write_bytes(path, self.encode(kind, suffix=suffix))

    def encode(self, kind: SaveKind = "mask", *, suffix: str | None = None) -> bytes:
        """Return the content of the file that `save` would write, for a response or an archive.

        Args:
            kind: As in `save`.
            suffix: Format of the file, such as ".jpg" for an overlay. Default: ".json" for "json", ".dcm" for
                "dicom-seg", otherwise ".png".

        Returns:
            The bytes of the file. It contains `origin` and the threshold: in a field of JSON, a text chunk
            "condseg_sdk" of PNG or a comment of JPEG. PNG and JSON files contain a seal (`provenance.py`), from which
            `condseg predict` knows that it may replace them.

        Raises:
            OptionError: The kind is unknown, or the suffix does not match it.
            ImageError: The image of an overlay can no longer be read.

        Example:
            >>> import numpy as np
            >>> frame = np.zeros((4, 6), np.uint8)
            >>> seg = Segmentation(np.ones((4, 6), np.float32), (4, 6), threshold=0.5, source=frame, name="a")
            >>> seg.encode("mask")[1:4]
            b'PNG'
        """
        check_choice("kind", kind, SaveKind)
        suffix = suffix or _SUFFIXES[kind][0]
        if suffix not in _SUFFIXES[kind]:
            raise OptionError(
                f"suffix={suffix!r}: kind={kind!r} is written as {' or '.join(_SUFFIXES[kind])}", option="suffix"
            )
        if kind == "dicom-seg":
            return encode_dicom_seg([self])
        if kind == "json":
            return (json.dumps(seal_json(self.to_dict())) + "\n").encode()
        if kind == "overlay":
            image = self.overlay()
        elif kind == "mask":
            image = self.to_pil()
        else:
            values = self.probability if kind == "probability" else self.uncertainty
            image = Image.fromarray(np.rint(values * 65535).astype(np.uint16))
        file = io.BytesIO()
        stated = json.dumps(self.statement())
        if suffix != ".png":
            image.save(file, format="JPEG", quality=95, comment=stated)
            return file.getvalue()
        text = PngInfo()
        text.add_text("condseg_sdk", stated)
        image.save(file, format="PNG", pnginfo=text)
        return seal_png(file.getvalue())


def encode_dicom_seg(predictions: Sequence[Segmentation], segment: SegmentKind | None = None) -> bytes:
    """Encode the predictions for the frames of a DICOM file as one DICOM segmentation (SEG) file.

    Args:
        predictions: Predictions for frames of one DICOM file, by one model with one threshold.
        segment: As in `Segmentation.to_dicom_seg`.

    Returns:
        The bytes of the file. They contain a seal, from which `condseg predict` knows that it may replace the file.

    Raises:
        ImageError: As in `Segmentation.to_dicom_seg`.
        OptionError: As in `Segmentation.to_dicom_seg`, or the predictions are not of one file.
        OutputError: As in `Segmentation.to_dicom_seg`, or the masks need too much memory.

    Example:
        >>> data = encode_dicom_seg(predictor.predict("cine.dcm"))
        >>> data[128:132]
        b'DICM'
    """
    if not predictions:
        raise OptionError("a DICOM segmentation needs at least one prediction", option="predictions")
    frames = [_dicom_frame(seg) for seg in predictions]
    if len({frame.file.name for frame in frames}) > 1:
        names = f"{frames[0].file.name} and others"
        raise OptionError(
            f"the predictions are for several files, {names}; pass those for one file", option="predictions"
        )
    masks = {frame.number: seg.mask for frame, seg in zip(frames, predictions, strict=True)}
    file = frames[0].file
    return _encode_dicom_seg(make_dicom_seg(file, masks, **_seg_options(predictions[0], segment)), file.name)


def _dicom_frame(seg: Segmentation) -> DicomFrame:
    """Return the frame of a DICOM file that was segmented."""
    if isinstance(seg.source, DicomFrame):
        return seg.source
    source = seg.source
    if isinstance(source, (str, os.PathLike)):
        require_file(Path(source))
    if not isinstance(source, (str, os.PathLike, bytes)) or not is_dicom_source(source):
        raise ImageError(f"{seg.name} is not a DICOM file, which a DICOM segmentation refers to; save 'mask' instead")
    return DicomFile(source).only_frame()


def _seg_options(seg: Segmentation, segment: SegmentKind | None) -> _SegOptions:
    if seg.origin is None:
        remedy = "use a prediction of a Predictor"
        raise OptionError(f"{seg.name}: its origin is unknown, but a DICOM segmentation names the model; {remedy}")
    segment = default_segment(seg.origin.model) if segment is None else segment
    return {"origin": seg.origin, "threshold": seg.threshold, "min_score": seg.min_score, "segment": segment}


def _spacing_dict(spacing: PixelSpacing) -> SpacingDict:
    box = None if spacing.box is None else list(spacing.box)
    return {"row": spacing.row, "column": spacing.column, "kind": spacing.kind, "box": box}


def _total_mm2(regions: list[Region]) -> float | None:
    """Add up the areas of all regions; None if the spacing of one is unknown."""
    areas = [region.area_mm2 for region in regions]
    known = [area for area in areas if area is not None]
    return math.fsum(known) if len(known) == len(areas) else None


def find_regions(mask: NDArray[np.bool_], spacings: tuple[PixelSpacing, ...] = ()) -> list[Region]:
    """Find the connected regions of a mask, by descending area, then from top to bottom.

    Args:
        mask: Mask, bool (H, W).
        spacings: Spacings of the image, of which each region gets the one that is valid for it.

    Returns:
        The regions; an empty list where the mask is empty.

    Example:
        >>> [(region.area, region.box) for region in find_regions(np.eye(2, dtype=bool))]
        [(2, (0, 0, 2, 2))]
    """
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if width == 0:
        return []
    # OpenCV traces the centers of the border pixels. On the mask doubled in size those of pixel k are 2k and 2k + 1;
    # half of them, rounded up, is k and k + 1, the two edges of the pixel.
    doubled = mask[top : top + height, left : left + width].astype(np.uint8).repeat(2, 0).repeat(2, 1)
    traces, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outlines = [_without_repeats((trace[:, 0] + 1) // 2) + np.array([left, top], np.int32) for trace in traces]
    holes: list[list[NDArray[np.int32]]] = [[] for _ in outlines]
    parents = hierarchy[0, :, 3].tolist()
    for outline, parent in zip(outlines, parents, strict=True):
        if parent >= 0:
            holes[parent].append(outline)
    regions = [_region(outlines[i], holes[i], spacings) for i, parent in enumerate(parents) if parent < 0]
    return sorted(regions, key=lambda region: (-region.area, region.box[1], region.box[0]))


def _region(outline: NDArray[np.int32], holes: list[NDArray[np.int32]], spacings: tuple[PixelSpacing, ...]) -> Region:
    area = round(cv2.contourArea(outline) - sum(map(cv2.contourArea, holes)))
    (x0, y0), (x1, y1) = outline.min(0).tolist(), outline.max(0).tolist()
    box = (x0, y0, x1, y1)
    return Region(outline, tuple(holes), area, box, spacing_in(spacings, box))


def _without_repeats(points: NDArray[Any]) -> NDArray[np.int32]:
    return points[np.any(points != np.roll(points, 1, 0), 1)].astype(np.int32)


def _draw(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple[int, int, int], alpha: float
) -> NDArray[np.uint8]:
    """Blend tint, shadow and contour into a copy; they follow the distance from the edge, which makes them smooth."""
    drawn = image.copy()
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if width == 0:
        return drawn
    line = max(1.5, min(mask.shape) / 300)  # width of the contour in pixels
    margin = math.ceil(4 * line)  # nothing is drawn beyond it
    window = np.s_[max(top - margin, 0) : top + height + margin, max(left - margin, 0) : left + width + margin]
    distance = _distance_to_edge(mask[window], smooth=max(1.0, line / 2))[..., None]

    def band(width: float) -> NDArray[np.float32]:
        return np.clip((width + 1) / 2 - np.abs(distance), 0, 1)

    paint = np.array(color, np.float32)
    tint, contour = alpha * np.clip(0.5 - distance, 0, 1), band(line)
    pixels = image[window] * (1 - tint) + paint * tint
    pixels *= 1 - 0.45 * band(2 * line)  # a shadow that separates the contour from a bright image
    drawn[window] = np.rint(pixels * (1 - contour) + paint * contour)
    return drawn


def _distance_to_edge(mask: NDArray[np.bool_], *, smooth: float) -> NDArray[np.float32]:
    """Compute the distance of each pixel's center from the mask's edge, which is between pixels: negative inside."""
    inside = mask.astype(np.uint8)
    to_region = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_5)
    distance = np.where(mask, 0.5 - to_outside, to_region - 0.5)
    return cv2.GaussianBlur(distance, (0, 0), smooth).astype(np.float32, copy=False)
