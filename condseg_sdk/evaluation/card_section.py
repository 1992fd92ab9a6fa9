"""The section of a model card about an evaluation: data, metrics with intervals, command and limits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from condseg_sdk.checkpoints.card import with_evaluation
from condseg_sdk.evaluation.result import Evaluation
from condseg_sdk.files import write_text
from condseg_sdk.words import pluralize

__all__ = ["evaluation_card", "extend_card"]


def evaluation_card(evaluation: Evaluation, *, note: str | None = None) -> str:
    """Write the section "Evaluation" of a checkpoint's README.md.

    Args:
        evaluation: Evaluation of the checkpoint.
        note: What readers must know about the images, in full sentences.

    Returns:
        The section as Markdown.

    Example:
        >>> from condseg_sdk import evaluate
        >>> evaluation_card(evaluate(predictor, "my_test_set")).splitlines()[0]
        '## Evaluation'
    """
    parts = [
        "## Evaluation",
        f"Measured on {pluralize(len(evaluation.images), 'image')} of {evaluation.data} ({evaluation.date}), with a "
        f"threshold of {evaluation.threshold:g}{_options(evaluation)}. Means over images with 95 % confidence "
        "intervals (percentile bootstrap over images)." + (f" {note}" if note else ""),
        _table([("", "at 256x256", "at the image's own size"), *evaluation.table()]),
        "By subgroup, mIoU and mDSC over the images with a region. A region is missed if the mask touches none of its "
        "pixels; a false alarm is an image without a region in which something is marked.",
        *(_table(rows) for rows in evaluation.subgroup_tables()),
        _limits(evaluation),
    ]
    if evaluation.command:
        parts.insert(3, f"```bash\n{evaluation.command}\n```")
    return "\n\n".join(parts) + "\n"


def extend_card(path: Path, evaluation: Evaluation, *, note: str | None = None) -> None:
    """Add the section to a model card, before "Citation" if there is one; an older section is replaced.

    Raises:
        OutputError: The file cannot be written.
    """
    text = with_evaluation(path.read_text(encoding="utf-8"), evaluation_card(evaluation, note=note))
    write_text(path, text)


def _options(evaluation: Evaluation) -> str:
    said = []
    if evaluation.options.tta:
        said.append("averaged over four flips")
    if evaluation.options.tile:
        said.append(f"in tiles of {evaluation.options.tile} pixels")
    if evaluation.options.min_score is not None:
        said.append(f"masks of images with a score below {evaluation.options.min_score:g} empty")
    return "".join(f", {words}" for words in said)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body))


def _trained_on(evaluation: Evaluation) -> str:
    if evaluation.trained_on is None:
        return "Whether these images were trained on was not compared: the checkpoint has no digests of its images."
    return f"{evaluation.trained_on} of these images were trained on, by their content (training_images.json)."


def _limits(evaluation: Evaluation) -> str:
    sizes = sorted(image.size for image in evaluation.images)
    shares = [image.foreground for image in evaluation.images]
    (h0, w0), (h1, w1) = sizes[0], sizes[-1]
    lines = [
        "Limits:",
        "",
        f"- The metrics hold for images like these: {w0}x{h0} to {w1}x{h1} pixels, the region between "
        f"{min(shares):.1%} and {max(shares):.1%} of the image. Other devices, centers and patients were not tested.",
        "- Intervals show how much the metrics depend on the choice of images of this kind, not how they change on "
        "images of another kind. The interval of ECE is biased upward, more so for few images: the value may be at "
        "its lower end, or below.",
        f"- {_trained_on(evaluation)}",
        "- Distances are in pixels; where only one of prediction and ground truth is empty, they count as the image's "
        f"diagonal ({evaluation.half_empty} of {pluralize(len(evaluation.images), 'image')}).",
        "- Not a medical device: for research and development only, not for diagnosis or treatment.",
    ]
    return "\n".join(lines)
