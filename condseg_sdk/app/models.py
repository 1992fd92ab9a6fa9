"""The models that can be chosen on the page; each is opened once."""

from __future__ import annotations

import threading
from pathlib import Path

from condseg_sdk.app.settings import AppSettings
from condseg_sdk.origin import model_label
from condseg_sdk.predictor import Predictor
from condseg_sdk.weights.hub import local_path
from condseg_sdk.weights.manifest import list_models

__all__ = ["Models"]


class Models:
    """Models by the names that the page shows.

    Args:
        settings: The model that is selected at the start, and the device and runtime of all models.
    """

    def __init__(self, settings: AppSettings) -> None:
        path = local_path(settings.model)
        self.first = settings.model if path is None else model_label(Path(path).absolute())
        self._settings = settings
        self._sources = {self.first: settings.model, **{entry.name: entry.name for entry in list_models()}}
        self._opened: dict[str, Predictor] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Names in the order of the page; the first one is selected at the start."""
        return list(self._sources)

    def open(self, name: str) -> Predictor:
        """Return a model, opening it on first use.

        Args:
            name: One of `names`.

        Raises:
            CondsegError: As in `Predictor.from_pretrained`.
        """
        with self._lock:
            if name not in self._opened:
                self._opened[name] = Predictor.from_pretrained(
                    self._sources[name], device=self._settings.device, runtime=self._settings.runtime
                )
            return self._opened[name]
