"""`condseg predict --ray`: the same files, written by the workers of a Ray cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from condseg_sdk.cli import interrupts
from condseg_sdk.cli.outputs import plan_outputs
from condseg_sdk.errors import OptionError

if TYPE_CHECKING:
    from condseg_sdk.segmentation import SaveKind

__all__ = ["run_on_cluster"]


def run_on_cluster(options: argparse.Namespace, endings: Mapping[SaveKind, str], formats: Sequence[str]) -> int:
    """Segment all images on a cluster and return the exit code.

    Args:
        options: Options of `condseg predict`.
        endings: Ending of each kind of file to write for an image.
        formats: Formats of labels that were requested.
    """
    from tqdm import tqdm

    # Ray's own processes print every lost worker, which is started again, to the terminal.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    from condseg_sdk.distributed import ClusterOptions, OutputFiles, segment_files

    _check(options, endings, formats)
    cluster = ClusterOptions(options.ray, options.ray_cpus)
    # Whether a file may be replaced is checked by the workers, since all earlier files are read for it.
    planned = plan_outputs(options.source, options.out, [*endings.values()], overwrite=True)
    if planned.videos:
        first = next(iter(planned.videos))
        raise OptionError(f"{first} is a video or has several frames; run condseg predict without --ray for it")
    images = [
        OutputFiles(source, {kind: base.with_name(base.name + ending) for kind, ending in endings.items()})
        for source, base in planned.images.items()
    ]
    results = segment_files(
        images,
        options.model,
        cluster=cluster,
        device=options.device,
        runtime=options.runtime,
        threshold=options.threshold,
        min_score=options.min_score,
        batch_size=options.batch_size,
        tta=options.tta,
        tile=options.tile,
        bits=options.bits,
        overwrite=options.overwrite,
    )
    count: Counter[str] = Counter()
    errors = []
    with interrupts.raising("complete files stay; the same command segments the other images"):
        for result in tqdm(results, total=len(images), unit="image"):
            count[result.status] += 1
            count["region"] += result.has_region
            if result.error is not None:
                errors.append(result.error)
    print(
        f"{count['done']} segmented on the cluster {options.ray}, {count['region']} with a region, "
        f"{count['unchanged']} were done before; files in {options.out}"
    )
    for error in sorted(errors):
        print(f"skipped: {error}", file=sys.stderr)
    return 1 if errors else 0


def _check(options: argparse.Namespace, endings: Mapping[SaveKind, str], formats: Sequence[str]) -> None:
    """Refuse what only a run in one process writes."""
    refused = [*formats, *(kind for kind in endings if kind == "dicom-seg")]
    if refused:
        allowed = "mask, overlay, probability, uncertainty and json"
        raise OptionError(f"--save {refused[0]}: --ray writes {allowed}; run it without --ray", option="save")
    if options.log is not None:
        raise OptionError("--log: with --ray, the json files state the same; add --save json instead", option="log")
