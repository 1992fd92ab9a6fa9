"""Checks an uploaded file before it is decoded: its numbers of bytes, pixels and frames."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from condseg_sdk.app.settings import MEGABYTE, AppSettings
from condseg_sdk.errors import ImageError
from condseg_sdk.images.dicom import DicomFile, is_dicom
from condseg_sdk.images.files import open_image
from condseg_sdk.images.formats import VIDEO_SUFFIXES, identify_video
from condseg_sdk.images.limits import require_file
from condseg_sdk.images.video import Video

__all__ = ["Upload", "check_upload"]

HEAD = 132  # the first bytes, by which DICOM files and videos are known


@dataclass(frozen=True)
class Upload:
    """A file within the limits.

    Attributes:
        path: Path of the file.
        kind: Kind of the file; "frames" is a DICOM file with several frames.
        num_frames: Number of frames, 1 for an image; None for a video whose header does not contain it.
        rate: Frames per second of a video; None for everything else.
    """

    path: Path
    kind: Literal["image", "frames", "video"]
    num_frames: int | None
    rate: float | None = None


def check_upload(path: Path, settings: AppSettings) -> Upload:
    """Check a file from its header.

    Args:
        path: Path of the uploaded file.
        settings: The limits.

    Returns:
        The file and what it is.

    Raises:
        ImageError: The file exceeds a limit, or is neither an image nor a video that can be read.
    """
    require_file(path)
    size = path.stat().st_size
    if size > settings.max_upload_bytes:
        needed = -(-size // MEGABYTE)
        raise ImageError(
            f"{path} has {size / MEGABYTE:.1f} MB, more than {settings.max_upload} MB; make it smaller, or start the "
            f"app with --max-upload {needed}"
        )
    with path.open("rb") as file:
        head = file.read(HEAD)
    upload, pixels = _inspect(path, head)
    if pixels > settings.max_pixels:
        raise ImageError(
            f"{path} has {pixels:,} pixels, more than {settings.max_pixels:,}; make it smaller, or start the app with "
            f"--max-pixels {pixels}"
        )
    if upload.num_frames is not None:
        check_frames(path, upload.num_frames, settings)
    return upload


def check_frames(path: Path, count: int, settings: AppSettings) -> None:
    """Refuse a video or DICOM file with too many frames.

    Raises:
        ImageError: It has more than `max_frames`.
    """
    if count > settings.max_frames:
        raise ImageError(
            f"{path} has {count:,} frames, more than {settings.max_frames:,}; cut it, or start the app with "
            f"--max-frames {count}; condseg predict has no such limit"
        )


def _inspect(path: Path, head: bytes) -> tuple[Upload, int]:
    """Return what a file is, and the number of pixels of a frame."""
    if is_dicom(head):
        file = DicomFile(path)
        count = file.num_frames
        return Upload(path, "frames" if count > 1 else "image", count), file.size[0] * file.size[1]
    if identify_video(head) is not None or path.suffix.lower() in VIDEO_SUFFIXES:
        info = Video(path).info
        return Upload(path, "video", info.num_frames, info.rate), info.size[0] * info.size[1]
    with open_image(path) as image:
        return Upload(path, "image", 1), image.width * image.height
