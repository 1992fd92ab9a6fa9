"""The Gradio page: its components and the handlers of their events."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from condseg_sdk.app.models import Models
from condseg_sdk.app.prediction import Prediction, View, describe, measurements, segment, show
from condseg_sdk.app.result_files import KINDS, VIDEO, write_results
from condseg_sdk.app.settings import AppSettings
from condseg_sdk.app.uploads import check_upload
from condseg_sdk.errors import CondsegError

__all__ = ["NOT_MEDICAL", "STYLE", "example_path", "make_page"]

NOT_MEDICAL = "Not a medical device: for research and development only, not for diagnosis or treatment."
EXAMPLE = "example.jpg"
DEFAULT_KINDS = ["mask", "overlay", "json"]
HOUR = 3600  # uploads, predictions and files of a page that was closed are removed after it
STYLE = """
.condseg-status { padding: 8px 12px; border-radius: 8px; background: var(--background-fill-secondary); }
.condseg-error { border-left: 5px solid #c62828; font-weight: 600; }
footer { display: none !important; }
"""


def example_path() -> Path:
    """Return the path of the example image, a rendered scene: in the package of a wheel, in examples/ of a checkout."""
    inside = Path(__file__).with_name(EXAMPLE)
    checkout = Path(__file__).parents[2] / "examples" / "images" / "synthetic_0.jpg"
    return inside if inside.is_file() else checkout


def _status(text: str, *, is_error: bool = False) -> str:
    """Return a status line for the page; file names in it are escaped, so they are never read as HTML."""
    role, kind = ("alert", " condseg-error") if is_error else ("status", "")
    return f'<div role="{role}" class="condseg-status{kind}">{html.escape(text)}</div>'


WELCOME = _status("Choose an image, a video or a DICOM file, or take the example.")


def _message(error: CondsegError | MemoryError, path: str | None) -> str:
    """Return the message of an error, with the name of the uploaded file instead of its path on this machine."""
    if isinstance(error, MemoryError):
        return _status("The memory of this machine is full; choose a smaller file, or try again later.", is_error=True)
    text = str(error)
    return _status(text if path is None else text.replace(path, Path(path).name), is_error=True)


class _Handlers:
    """Handlers of the page's events. Every handler returns the new values of the components that it is registered for.

    Args:
        settings: Limits of the app.
        models: The models.
        folder: Folder for the files that are made.
        update: `gradio.update`.
    """

    def __init__(self, settings: AppSettings, models: Models, folder: Path, update: Callable[..., Any]) -> None:
        self.settings = settings
        self.models = models
        self.folder = folder
        self.update = update

    def segment(self, path: str | None, model: str, threshold: float, progress: Any) -> tuple[Any, ...]:
        """Segment an upload; return the state, status, view, frame slider, kinds of files, and files.

        `progress` is called as a `gradio.Progress` with the number of finished frames and the total number.
        """
        if path is None:
            return self._cleared(WELCOME)
        try:
            upload = check_upload(Path(path), self.settings)
            prediction = segment(
                upload,
                self.models.open(model),
                self.settings,
                model=model,
                threshold=threshold,
                advance=lambda done, total: progress((done, total), desc="Frames"),
            )
            view = show(prediction, 0, threshold)
        except (CondsegError, MemoryError) as error:
            return self._cleared(_message(error, path))  # never the last image's mask beside this file's error
        count = len(prediction.frames)
        slider = self.update(visible=count > 1, maximum=max(count - 1, 1), value=0)
        kinds = [kind for kind in KINDS if kind != VIDEO or upload.kind == "video"]
        files = self.update(choices=kinds, value=DEFAULT_KINDS)
        return prediction, _status(describe(prediction)), *_shown(view), slider, files, self._no_files()

    def choose_model(self, path: str | None, model: str, progress: Any) -> tuple[Any, ...]:
        """Open another model and segment the upload again; that model's own threshold is returned first."""
        try:
            threshold = self.models.open(model).threshold
        except (CondsegError, MemoryError) as error:
            return self.update(), *self._cleared(_message(error, path))
        return threshold, *self.segment(path, model, threshold, progress)

    def look(self, prediction: Prediction | None, number: float, threshold: float) -> tuple[Any, ...]:
        """Show another frame or threshold without running the network; return the view, and no files."""
        if prediction is None:
            return (*_NOTHING, self._no_files())
        number = min(int(number), len(prediction.frames) - 1)
        return *_shown(show(prediction, number, threshold)), self._no_files()

    def write(self, prediction: Prediction | None, threshold: float, kinds: list[str]) -> tuple[Any, ...]:
        """Write the chosen files; return their paths and the status."""
        if prediction is None:
            return self._no_files(), WELCOME
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            paths = write_results(prediction, threshold, kinds, folder)
        except (CondsegError, MemoryError) as error:
            return self._no_files(), _message(error, str(prediction.upload.path))
        return self.update(value=[str(path) for path in paths], visible=True), _status(describe(prediction))

    def _cleared(self, status: str) -> tuple[Any, ...]:
        return None, status, *_NOTHING, self.update(visible=False, value=0), self.update(), self._no_files()

    def _no_files(self) -> Any:
        """Remove files that were made for another image or threshold."""
        return self.update(value=None, visible=False)


_NOTHING = (None, None, None, None, "")


def _shown(view: View) -> tuple[Any, ...]:
    return view.overlay, view.mask, view.probability, view.uncertainty, measurements(view.values)


def make_page(settings: AppSettings, models: Models, folder: Path) -> Any:
    """Make the page.

    Args:
        settings: Options and limits of the app.
        models: The models that can be chosen.
        folder: Folder for the files that are made.

    Returns:
        The gradio.Blocks.
    """
    import gradio as gr

    handlers = _Handlers(settings, models, folder, gr.update)

    def segment_upload(path: str | None, model: str, threshold: float, progress: Any = gr.Progress()) -> Any:  # noqa: B008
        return handlers.segment(path, model, threshold, progress)

    def choose_model(path: str | None, model: str, progress: Any = gr.Progress()) -> Any:  # noqa: B008
        return handlers.choose_model(path, model, progress)

    with gr.Blocks(title="condseg", analytics_enabled=False, delete_cache=(HOUR, HOUR)) as page:
        gr.Markdown(f"# condseg\n**{NOT_MEDICAL}** Files stay on the machine that runs this page.")
        prediction = gr.State(time_to_live=HOUR)
        with gr.Row():
            with gr.Column(scale=1, min_width=320):
                upload = _only_uploads(gr.File(label="Image, video or DICOM file", elem_id="upload"))
                example = gr.Button("Take the example (a rendered scene)", size="sm", elem_id="example")
                model = gr.Dropdown(models.names, value=models.first, label="Model", elem_id="model")
                threshold = gr.Slider(
                    0.01,
                    0.99,
                    value=models.open(models.first).threshold,
                    step=0.01,
                    label="Threshold",
                    elem_id="threshold",
                )
                frame = gr.Slider(0, 1, step=1, value=0, label="Frame", visible=False, elem_id="frame")
                status = gr.HTML(WELCOME, elem_id="status")
                kinds = gr.CheckboxGroup([kind for kind in KINDS if kind != VIDEO], value=DEFAULT_KINDS, label="Files")
                write = gr.Button("Make files", size="sm", elem_id="write")
                files = gr.File(label="Files to download", interactive=False, visible=False, elem_id="files")
            with gr.Column(scale=2, min_width=320):
                overlay = _image("Overlay", "overlay")
                with gr.Row():
                    maps = [_image("Mask", "mask"), _image("Probability, 0 to 1", "probability")]
                    maps.append(_image("Uncertainty, 0 to 1", "uncertainty"))
                values = gr.Markdown(elem_id="values")
        view = [overlay, *maps, values]
        everything = [prediction, status, *view, frame, kinds, files]
        network: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "network", "api_visibility": "private"}
        look: dict[str, Any] = {
            "fn": handlers.look,
            "inputs": [prediction, frame, threshold],
            "outputs": [*view, files],
            "trigger_mode": "always_last",
            "show_progress": "hidden",
            "concurrency_limit": 4,
            "concurrency_id": "view",
            "api_visibility": "private",
        }
        upload.change(segment_upload, [upload, model, threshold], everything, show_progress_on=overlay, **network)
        model.input(choose_model, [upload, model], [threshold, *everything], show_progress_on=overlay, **network)
        example.click(lambda: str(example_path()), None, upload, api_visibility="private")
        threshold.input(**look)
        frame.input(**look)
        write.click(handlers.write, [prediction, threshold, kinds], [files, status], **network)
    page.queue(max_size=settings.queue, api_open=False)
    return page


def _image(label: str, name: str) -> Any:
    import gradio as gr

    return gr.Image(label=label, elem_id=name, interactive=False, format="png", buttons=["fullscreen"])


def _only_uploads(component: Any) -> Any:
    """Restrict a gradio.File to uploads; by default it would also download a URL that it is sent."""
    import gradio as gr

    move = component.async_move_resource_to_block_cache

    async def move_upload(path: str | Path | None) -> str | None:
        if path is not None and "://" in str(path):
            raise gr.Error("URLs are not downloaded; upload the file")
        moved: str | None = await move(path)
        return moved

    component.async_move_resource_to_block_cache = move_upload
    return component
