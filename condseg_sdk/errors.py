"""The errors of condseg_sdk. Each says in one line what was wrong, with what, and what to do about it.

No other exception is meant to reach a user: what Pillow, OpenCV, ONNX Runtime or safetensors raise is caught where it
happens and kept as the `__cause__` of one of these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "CheckpointError",
    "CondsegError",
    "DatasetError",
    "DeviceError",
    "ExportError",
    "HubError",
    "ImageError",
    "InstallationError",
    "ModelNotFoundError",
    "OptionError",
    "OutputError",
    "TrainingError",
]

MAX_LENGTH = 2000
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would interpret them


class CondsegError(Exception):
    """The base class of all errors that condseg_sdk raises on purpose.

    Args:
        message: What was wrong, and the remedy. `str(error)` is always a single line, without control characters and at
            most about 2,000 characters long.
        path: File or folder that the error is about.
        repo_id: Repository on the Hugging Face Hub that the error is about, "org/name".
        option: Name of the argument that the error is about.

    Attributes:
        path: File or folder that the error is about; None where it is about something else.
        repo_id: Repository that the error is about, or None.
        option: Name of the argument that the error is about, or None.

    Example:
        >>> from condseg_sdk import CondsegError, Preprocessing
        >>> try:
        ...     Preprocessing(size=(256, 256), interpolation="cubic")
        ... except CondsegError as error:
        ...     print(type(error).__name__, error.option)
        OptionError interpolation
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        repo_id: str | None = None,
        option: str | None = None,
    ) -> None:
        line = CONTROL_CHARACTERS.sub(" ", " ".join(message.splitlines()))
        if len(line) > MAX_LENGTH:  # it quotes the content of a damaged file; the remedy is at the end
            line = f"{line[: MAX_LENGTH // 2]} ... {line[-MAX_LENGTH // 2 :]}"
        super().__init__(line)
        self.path = None if path is None else Path(path)
        self.repo_id = repo_id
        self.option = option


@contextmanager
def errors_about(path: object) -> Iterator[None]:
    """Set the path of errors from the block that do not name what they are about.

    Args:
        path: The file or folder; anything but a path, such as an array, changes nothing.
    """
    try:
        yield
    except CondsegError as error:
        is_about_nothing = error.path is None and error.repo_id is None and error.option is None
        if is_about_nothing and isinstance(path, (str, os.PathLike)) and not isinstance(error, OptionError):
            error.path = Path(path)
        raise


class ImageError(CondsegError):
    """A source cannot be read as one image: it is missing, damaged, too large, or of an unsupported format.

    Example:
        >>> from condseg_sdk.images.load import load_image
        >>> try:
        ...     load_image("missing.png")
        ... except ImageError as error:
        ...     print(error.path)
        missing.png
    """


class ModelNotFoundError(CondsegError):
    """No model, folder, file or repository has this name; the message lists similar names.

    Example:
        >>> from condseg_sdk import Predictor
        >>> try:
        ...     Predictor.from_pretrained("condseg-light-polyp")
        ... except ModelNotFoundError as error:
        ...     print(str(error).partition(", ")[0])
        no checkpoint is called 'condseg-light-polyp': similar names are condseg-lite-polyp
    """


class HubError(CondsegError):
    """The Hugging Face Hub refuses a request, or cannot be reached.

    Example:
        >>> from condseg_sdk import Predictor
        >>> try:
        ...     Predictor.from_pretrained("org/polyps", local_files_only=True)
        ... except HubError as error:
        ...     print(error.repo_id)
        org/polyps
    """


class CheckpointError(CondsegError):
    """A checkpoint exists, but is incomplete, damaged, or does not fit the network that it is meant for.

    Example:
        >>> from condseg_sdk import Predictor
        >>> try:
        ...     Predictor.from_pretrained("my_dataset")
        ... except CheckpointError as error:
        ...     print(error.path.name)
        my_dataset
    """


class DeviceError(CondsegError):
    """The requested device or execution provider cannot be used on this machine.

    Example:
        >>> from condseg_sdk import Predictor
        >>> try:
        ...     Predictor.from_pretrained("condseg-lite-polyp", device="cuda:99")
        ... except DeviceError as error:
        ...     print(error.option)
        device
    """


class OptionError(CondsegError, ValueError):
    """The value of an argument is not allowed. Also a `ValueError`.

    Example:
        >>> from condseg_sdk import FinetuneConfig
        >>> try:
        ...     FinetuneConfig(epochs=0)
        ... except OptionError as error:
        ...     print(error)
        epochs=0 must be a whole number in [1, inf)
    """


class OutputError(CondsegError):
    """A file or folder cannot be written: the disk is full or read-only, or something else is in the way.

    Example:
        >>> try:
        ...     predictor("frame.jpg").save("missing/mask.png")
        ... except OutputError as error:
        ...     print(error.path)
        missing/mask.png
    """


class DatasetError(CondsegError):
    """A dataset cannot be used: unpaired files, empty masks, sizes that differ.

    Example:
        >>> from condseg_sdk import open_dataset
        >>> try:
        ...     open_dataset("missing_dataset")
        ... except DatasetError as error:
        ...     print(error.path)
        missing_dataset
    """


class TrainingError(CondsegError):
    """Training cannot continue: the loss is NaN, the memory is full, or the files of the run are damaged.

    Example:
        >>> from condseg_sdk import finetune
        >>> try:
        ...     finetune("my_dataset", output_dir="runs/damaged", resume=True)  # doctest: +SKIP
        ... except TrainingError as error:
        ...     print(error.path)
    """


class ExportError(CondsegError):
    """An export failed, or the exported graph does not reproduce the network's predictions.

    Example:
        >>> try:
        ...     predictor.export_onnx("model.onnx", precision="float16")  # doctest: +SKIP
        ... except ExportError as error:
        ...     print(error)
    """


class InstallationError(CondsegError, ImportError):  # type: ignore[misc]  # ImportError.path is a str
    """A required library is missing, damaged, or lacks system libraries. Also an `ImportError`.

    Example:
        >>> try:
        ...     from condseg_sdk import finetune
        ... except InstallationError as error:  # without the extra [train]
        ...     print(error)
    """
