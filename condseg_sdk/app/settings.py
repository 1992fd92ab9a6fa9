"""Options and limits of the app."""

from __future__ import annotations

from dataclasses import dataclass, field

from condseg_sdk.errors import OptionError
from condseg_sdk.options import check_integer, check_text
from condseg_sdk.runtimes.options import RuntimeName

__all__ = ["AppSettings"]

MAX_PORT = 65535
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class AppSettings:
    """Options and limits of the app.

    Args:
        model: Name or path of the model that is selected at the start, as in `Predictor.from_pretrained`.
        device: Device of all models, as in `Predictor.from_pretrained`.
        runtime: Runtime of all models, as in `Predictor.from_pretrained`.
        host: Address to listen on. Only loopback addresses such as 127.0.0.1 keep the page on this machine.
        port: Port to listen on; 0 takes any free one.
        user: User name for the login, together with the password; None for no login.
        password: Password of `user`.
        max_upload: Largest file that can be uploaded, in megabytes.
        max_pixels: Largest number of pixels of an image or frame.
        max_frames: Largest number of frames of a video or DICOM file.
        queue: Number of requests that may wait; further ones are refused.

    Raises:
        OptionError: A value is out of range, or only one of `user` and `password` is given.

    Example:
        >>> AppSettings(port=0, max_frames=100).host
        '127.0.0.1'
    """

    model: str = "condseg-lite-polyp"
    device: str = "auto"
    runtime: RuntimeName | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    max_upload: int = 200
    max_pixels: int = 50_000_000
    max_frames: int = 500
    queue: int = 20

    def __post_init__(self) -> None:
        for name in ("model", "device", "host"):
            check_text(name, getattr(self, name))
        check_integer("port", self.port, least=0, most=MAX_PORT)
        for name in ("max_upload", "max_pixels", "max_frames", "queue"):
            check_integer(name, getattr(self, name), least=1)
        if (self.user is None) != (self.password is None):
            raise OptionError("a login needs both a user and a password: give both or neither", option="user")
        if self.user is not None:
            check_text("user", self.user)
            check_text("password", self.password)

    @property
    def max_upload_bytes(self) -> int:
        """Largest file that can be uploaded, in bytes."""
        return self.max_upload * MEGABYTE
