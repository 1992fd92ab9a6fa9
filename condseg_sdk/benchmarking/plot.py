"""Draws rows as bars: images per second, one panel for each network, batch and size."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from condseg_sdk.benchmarking.measure import Row
from condseg_sdk.errors import InstallationError, OptionError
from condseg_sdk.files import write_bytes
from condseg_sdk.provenance import seal_png

COLORS = {"PyTorch": "#c8553d", "ONNX Runtime": "#2a6f97", "OpenVINO": "#6a4c93"}


def require_matplotlib() -> None:
    """Check before a long measurement that its plot can be drawn.

    Raises:
        InstallationError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InstallationError("the plot needs matplotlib: pip install 'condseg_sdk[train]'") from error


def plot(rows: Sequence[Row], path: Path, *, title: str) -> Path:
    """Draw the rows that were measured.

    Args:
        rows: Rows of one or more settings; at least one must have been measured.
        path: Path of the PNG file.
        title: One line, such as the processor.

    Raises:
        InstallationError: matplotlib is not installed.
        OptionError: Nothing was measured.
        OutputError: The file cannot be written.
    """
    require_matplotlib()
    from matplotlib.figure import Figure

    measured = [row for row in rows if row.images_per_second is not None]
    if not measured:
        raise OptionError(f"{path}: nothing was measured, so there is nothing to draw")
    groups = [(key, list(g)) for key, g in groupby(measured, lambda row: (row.network, row.batch, row.size))]
    columns = min(2, len(groups))
    lines = -(-len(groups) // columns)
    tallest = max(len(group) for _, group in groups)
    figure = Figure(figsize=(8 * columns, lines * (1.0 + 0.36 * tallest) + 0.6), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, ((network, batch, size), group) in zip(panels, groups, strict=False):
        names = [
            f"{row.runtime}, {row.form}, {row.precision}" + f", {row.device}" * (row.device != "cpu") for row in group
        ]
        bars = panel.barh(
            range(len(group)), [row.images_per_second for row in group], color=[COLORS[row.runtime] for row in group]
        )
        panel.bar_label(bars, [f"{row.images_per_second:.3g}" for row in group], padding=3, fontsize=8)
        panel.set_yticks(range(len(group)), names, fontsize=8)
        panel.invert_yaxis()
        panel.margins(x=0.12)
        panel.set_title(f"{network}, batch {batch}, {size}x{size}", fontsize=10)
        panel.set_xlabel("images per second, at the median", fontsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(groups) :]:
        panel.remove()
    figure.suptitle(title, fontsize=9)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return write_bytes(path, seal_png(file.getvalue()))
