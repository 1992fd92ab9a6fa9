"""Shares the work on many images among the workers of a Ray cluster, and does lost shares again."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from condseg_sdk.distributed.segment import open_predictor
from condseg_sdk.distributed.write import ImageResult, OutputFiles, Status, WriteFiles, row_of
from condseg_sdk.errors import CondsegError, InstallationError, OptionError
from condseg_sdk.images.load import find_bits
from condseg_sdk.options import check_integer
from condseg_sdk.runtimes.options import RuntimeName
from condseg_sdk.weights.hub import local_path

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["ClusterOptions", "segment_files"]

BATCHES_PER_TASK = 4  # the share that is lost with a worker; a smaller one costs the cluster more bookkeeping
TASK_RETRIES = 3  # an image that kills its worker would otherwise kill it forever
MIN_OBJECT_STORE = 100 << 20  # bytes; only paths and results pass through the object store


@dataclass(frozen=True)
class ClusterOptions:
    """How the work is shared among the workers.

    Attributes:
        address: "local" starts a cluster on this machine; "auto" and "host:port" connect to one. A cluster that the
            program is connected to already is used in any case.
        cpus: Number of CPUs, and of threads, of each worker. Workers with a GPU have one GPU each.
        workers: Number of workers. Default: as many as fit into the cluster.
    """

    address: str = "local"
    cpus: int = 1
    workers: int | None = None

    def __post_init__(self) -> None:
        check_integer("cpus", self.cpus, least=1)
        if self.workers is not None:
            check_integer("workers", self.workers, least=1)
        if self.address.startswith("ray://"):
            raise OptionError(
                f"{self.address}: the command must run on a machine of the cluster, which sees the files: "
                "`ray job submit --address http://HOST:8265 -- condseg predict ... --ray auto`",
                option="address",
            )


def segment_files(
    images: Sequence[OutputFiles],
    model: str | os.PathLike[str],
    *,
    cluster: ClusterOptions | None = None,
    device: str = "auto",
    runtime: RuntimeName | None = None,
    threshold: float | None = None,
    min_score: float | None = None,
    batch_size: int = 8,
    tta: bool = False,
    tile: int | None = None,
    bits: int | None = None,
    overwrite: bool = False,
) -> Iterator[ImageResult]:
    """Segment images on a cluster and write their files there, one result for each image, in any order.

    All machines must see images and output folders under the same paths, and find the model.

    Args:
        images: Images and their files.
        model: Model, as `Predictor.from_pretrained` takes it.
        cluster: How the work is shared. Default: all of this machine.
        device: "auto" uses the GPUs of the cluster if there are any, otherwise CPUs; others as in
            `Predictor.from_pretrained`.
        runtime: "torch" or "onnx". Default: as in `Predictor.from_pretrained`.
        threshold: Probability in (0, 1) from which a pixel belongs to the mask. Default: the checkpoint's own.
        min_score: Lowest score of an image, in (0, 1), below which its mask is empty. Default: no limit.
        batch_size: Number of images that the network processes at once.
        tta: Whether to average over four flips of each image.
        tile: Side in pixels of the tiles that each image is cut into. Default: no tiles.
        bits: Number of bits in use of images with 16-bit values. Default: the checkpoint's, otherwise found from the
            headers of all images.
        overwrite: Whether to replace files that condseg did not write, or that were changed since.

    Yields:
        The result of each image, as soon as its share is done.

    Raises:
        InstallationError: Ray is not installed.
        OptionError: The value of an argument is not allowed.
        CondsegError: The model cannot be opened, the cluster cannot be reached, or its workers cannot start.

    Example:
        >>> images = [OutputFiles(path, {"mask": Path(f"{path.stem}_mask.png")}) for path in Path("frames").iterdir()]
        >>> for result in segment_files(images, "condseg-lite-polyp"):  # doctest: +SKIP
        ...     print(result.source, result.status)
    """
    cluster = cluster or ClusterOptions()
    _import_ray()
    # Errors of the model and the arguments come before the cluster starts.
    checked = open_predictor(model, "cpu" if device in ("auto", "cuda") else device, runtime, None)
    checked.stream([], threshold=threshold, min_score=min_score, batch_size=batch_size, tta=tta, tile=tile, bits=bits)
    if bits is None and checked.preprocessing.bits is None:
        depth = find_bits([item.source for item in images])
        bits = None if depth is None else depth.bits
    del checked
    path = local_path(model)
    work: _WorkerOptions = {
        "model": model if path is None else path.absolute(),
        "runtime": runtime,
        "threshold": threshold,
        "min_score": min_score,
        "batch_size": batch_size,
        "tta": tta,
        "tile": tile,
        "bits": bits,
        "overwrite": overwrite,
    }
    with _connected(cluster), _data_settings():
        resources = _Resources.of(cluster, device)
        left = dict(enumerate(images))
        # What has no result killed its worker again and again, or had such an image beside it: it is tried alone.
        for share in (batch_size * BATCHES_PER_TASK, 1):
            if left:
                for number, result in _run(dict(left), share, work, resources):
                    del left[number]
                    yield result
    for item in left.values():
        error = f"{item.source}: the worker ended each time; try it without --ray, on a machine with more memory"
        yield ImageResult(item.source, "failed", False, error)


class _WorkerOptions(TypedDict):
    model: str | os.PathLike[str]
    runtime: RuntimeName | None
    threshold: float | None
    min_score: float | None
    batch_size: int
    tta: bool
    tile: int | None
    bits: int | None
    overwrite: bool


@dataclass(frozen=True)
class _Resources:
    """What each worker gets, and the number of workers."""

    device: str
    cpus: int
    gpus: int
    workers: int

    @classmethod
    def of(cls, cluster: ClusterOptions, device: str) -> _Resources:
        import ray

        total = ray.cluster_resources()
        if device == "auto":
            device = "cuda" if total.get("GPU", 0) >= 1 else "cpu"
        if device.startswith("cuda:"):
            raise OptionError(f"device={device!r}: Ray gives each worker its GPU; use 'cuda'", option="device")
        gpus = 0 if device.startswith(("cpu", "openvino", "webgpu", "mps")) else 1
        fitting = int(total.get("GPU", 0)) if gpus else int(total.get("CPU", 0)) // cluster.cpus
        if not fitting:
            needed = "a GPU" if gpus else f"{cluster.cpus} CPUs"
            raise OptionError(f"the cluster does not have {needed} for a worker; choose another device or fewer CPUs")
        return cls(device, cluster.cpus, gpus, cluster.workers or fitting)


def _run(
    images: Mapping[int, OutputFiles], share: int, options: _WorkerOptions, resources: _Resources
) -> Iterator[tuple[int, ImageResult]]:
    """Yield the results of one pass over images by their numbers; those whose share failed have none."""
    import ray
    from ray.data import ActorPoolStrategy
    from ray.exceptions import RayError

    rows = [row_of(number, item) for number, item in images.items()]
    blocks = -(-len(rows) // share)
    workers = min(resources.workers, blocks)
    with warnings.catch_warnings():
        # The only way to limit the retries, until Ray 2.64; pyproject.toml excludes that version.
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        dataset: Dataset = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            WriteFiles,
            fn_constructor_kwargs={**options, "device": resources.device, "threads": resources.cpus},
            batch_size=min(options["batch_size"], share),
            batch_format="numpy",
            compute=ActorPoolStrategy(min_size=1, initial_size=workers, max_size=workers),
            num_gpus=resources.gpus or None,
            num_cpus=None if resources.gpus else resources.cpus,
            max_task_retries=TASK_RETRIES,
        )
    try:
        for row in dataset.iter_rows():
            error = row["error"] or None
            result = ImageResult(Path(row["path"]), cast("Status", row["status"]), bool(row["has_region"]), error)
            yield int(row["number"]), result
    except RayError as error:
        raise CondsegError(f"the workers of the cluster cannot work: {_last_line(error)}") from error


def _import_ray() -> None:
    try:
        import ray.data  # noqa: F401 - whether it is there
    except ImportError as error:
        raise InstallationError(f"many machines need Ray ({error}): pip install 'condseg_sdk[ray]'") from error


@contextmanager
def _connected(cluster: ClusterOptions) -> Iterator[None]:
    """Connect to the cluster, unless the program is connected already."""
    import ray

    if ray.is_initialized():
        yield
        return
    is_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if is_main else None
    local: dict[str, Any] = {}
    if cluster.address == "local":
        local = {"include_dashboard": False, "object_store_memory": MIN_OBJECT_STORE}
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        remedy = "check the address, that the cluster runs, and that it has this version of Ray and Python"
        raise OptionError(
            f"the cluster {cluster.address} cannot be used ({_last_line(error)}); {remedy}", option="address"
        ) from error
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced that of the command
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _data_settings() -> Iterator[None]:
    """Let Ray Data go on after a share that failed, without bars and without logs on the terminal."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.enable_progress_bars, context.max_errored_blocks
    context.enable_progress_bars, context.max_errored_blocks = False, -1
    log = logging.getLogger("ray.data")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        context.enable_progress_bars, context.max_errored_blocks = before
        log.setLevel(level)


def _last_line(error: BaseException) -> str:
    """Return the last line of an error: that of the worker, after its trace."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
