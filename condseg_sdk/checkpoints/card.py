"""The model card: README.md of a checkpoint, with metadata for the Hugging Face Hub at its top.

Its sections follow the model card in the FDA's draft guidance on AI-enabled device software (January 2025). What nobody
has recorded or measured is said to be so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from condseg_sdk.checkpoints.config import CheckpointConfig

__all__ = ["evaluation_in", "model_card", "with_evaluation"]

EVALUATION = re.compile(r"^## Evaluation\n.*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)

DISCLAIMER = (
    "**Not a medical device**: for research and development only, not for diagnosis or treatment; "
    "the weights know nothing beyond the data named below."
)
INTENDED_USE = (
    "Not described by its author. Research and development on images like those of its training data, in which it "
    "marks regions like those that were marked there."
)
OUT_OF_SCOPE = (
    "Diagnosis, treatment and any decision about a patient. Images of another kind, device, hospital or group of "
    "patients than the data below, until somebody has measured it on them."
)
KNOWN_FAILURES = (
    "Not measured. It makes a prediction for every image, even of something else entirely. `condseg evaluate --report` "
    "shows the worst images of a test set, missed regions, and false alarms on images without a region."
)
SUBGROUPS = (
    "By hospital, device, age, sex or skin tone: not measured. By size of the region: see Evaluation, if there is one."
)
CITATION = """\
@inproceedings{lei2025condseg,
  title     = {ConDSeg: A General Medical Image Segmentation Framework via Contrast-Driven Feature Enhancement},
  author    = {Lei, Mengqi and Wu, Haochen and Lv, Xinhua and Wang, Xin},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2025}
}"""


def model_card(config: CheckpointConfig | None, *, name: str = "ConDSeg", onnx: bool = False) -> str:
    """Write the model card of a checkpoint from its config.

    Args:
        config: Config of the checkpoint; None for a network that has only its arguments.
        name: Title of the card and argument of `from_pretrained` in its example.
        onnx: Whether the repository `name` on the Hub also contains model.onnx.

    Returns:
        Markdown with the Hub's metadata as YAML at the top.

    Example:
        >>> "Not a medical device" in model_card(None)
        True
    """
    sections = [f"---\n{_metadata(config, name)}\n---", f"# {name}", DISCLAIMER]
    if config is None:
        sections += [
            "A network without preprocessing or threshold; load it with `condseg_sdk.ConDSeg.from_pretrained`."
        ]
    else:
        provenance = config.provenance
        sections += [
            _facts(config),
            _text("Intended use", provenance, INTENDED_USE),
            _text("Out of scope", provenance, OUT_OF_SCOPE),
            _data(provenance),
            _performance(provenance),
            _text("Known failures", provenance, KNOWN_FAILURES),
            _calibration(config),
            _training(provenance),
            _usage(name, onnx),
        ]
    sections += [f"## Citation\n\n```bibtex\n{CITATION}\n```"]
    return "\n\n".join(filter(None, sections)) + "\n"


def evaluation_in(card: str) -> str:
    """Return the section "Evaluation" of a card, or "" without one."""
    found = EVALUATION.search(card)
    return found[0] if found else ""


def with_evaluation(card: str, section: str) -> str:
    """Return the card with this section "Evaluation" in place of an older one, before the section "Citation"."""
    before, heading, after = EVALUATION.sub("", card).partition("## Citation")
    parts = [before.rstrip(), section.rstrip(), (heading + after).rstrip()]
    return "\n\n".join(filter(None, parts)) + "\n"


def _metadata(config: CheckpointConfig | None, name: str) -> str:
    provenance = config.provenance if config else {}
    results = _results(provenance)
    data = ModelCardData(
        license=provenance.get("license", "unknown"),
        library_name="condseg_sdk",
        pipeline_tag="image-segmentation",
        tags=["medical", "image-segmentation", "condseg"],
        datasets=provenance.get("datasets"),
        model_name=name.rpartition("/")[2] if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _results(provenance: Mapping[str, Any]) -> list[EvalResult]:
    """List the measured metrics; without any, those of the validation split, used to choose epoch and threshold."""
    metrics: Mapping[str, Any] = provenance.get("metrics") or {}
    if not _numbers(metrics):
        held_out = provenance.get("validation")
        scores = {key: value for key, value in _numbers(held_out).items() if key != "threshold"}
        known = provenance.get("data", "unknown")
        dataset = held_out.get("dataset", known) if isinstance(held_out, Mapping) else known
        metrics = {"dataset": dataset, "split": "validation", **scores}
    name = str(metrics.get("dataset", "unknown"))
    return [
        EvalResult(
            task_type="image-segmentation",
            dataset_name=name,
            dataset_type="-".join(name.lower().split()),
            dataset_split=metrics.get("split"),
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in _numbers(metrics).items()
    ]


def _facts(config: CheckpointConfig) -> str:
    provenance, preprocessing = config.provenance, config.preprocessing
    height, width = preprocessing.size
    facts = {
        "Network": f"ConDSeg, encoder {config.network.get('encoder', 'resnet50')}; one kind of region, binary",
        "Input": f"{width}x{height} pixels, {preprocessing.color_order.upper()}; images of any shape are resized to it",
        "Field of view": "the endoscope's image: margins, text and small images beside it are cropped first"
        if preprocessing.field_of_view == "endoscopy"
        else None,
        "Output": "for each pixel the probability that it belongs to a region, at the image's own size; a mask",
        "Threshold": f"{config.threshold:g}",
        "License": provenance.get("license", "not recorded"),
        "Attribution": provenance.get("attribution"),
        "Date": provenance.get("date"),
    }
    return _list("Facts", facts)


def _list(title: str, facts: Mapping[str, object]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {key}: {value}" for key, value in facts.items() if value)


def _text(title: str, provenance: Mapping[str, Any], default: str) -> str:
    """Write a section whose text the provenance may contain."""
    return f"## {title}\n\n{provenance.get(title.lower().replace(' ', '_'), default)}"


def _data(provenance: Mapping[str, Any]) -> str:
    facts = {
        "Data seen in training": provenance.get("data", "not recorded"),
        "Sites": provenance.get("sites", "not recorded"),
        "Groups, such as patients": provenance.get("groups", "not recorded"),
        "Digests": "training_images.json, where it is part of the checkpoint, has digests by which an image is "
        "recognized that was trained on, and no images",
    }
    return _list("Data and sites", facts)


def _performance(provenance: Mapping[str, Any]) -> str:
    titles = {"metrics": "Measured", "validation": "On the validation split of the training data"}
    tables = [_table(title, provenance[key]) for key, title in titles.items() if _numbers(provenance.get(key))]
    subgroups = provenance.get("subgroups", SUBGROUPS)
    return "## Performance\n\n" + "\n\n".join([*(tables or ["Not measured."]), subgroups])


def _calibration(config: CheckpointConfig) -> str:
    if config.score is None:
        score = "`Segmentation.score`, whether an image has a region at all, is not calibrated."
    else:
        curve = f"slope {config.score.slope:.4g}, intercept {config.score.intercept:.4g}"
        score = f"`Segmentation.score`, whether an image has a region at all, is calibrated ({curve})."
    measured = config.provenance.get("calibration", "Of single pixels: see Evaluation, if there is one.")
    return f"## Calibration\n\n{score} {measured}"


def _training(provenance: Mapping[str, Any]) -> str:
    """Write how the checkpoint was made, one command a line."""
    commands = str(provenance.get("command", "")).split("; ")
    return "## How it was made\n\n```bash\n" + "\n".join(commands) + "\n```" if commands[0] else ""


def _table(title: str, metrics: Mapping[str, Any]) -> str:
    place = ", ".join(str(metrics[key]) for key in ("dataset", "split") if key in metrics)
    numbers = _numbers(metrics)
    rows = [
        " | ".join(numbers),
        " | ".join("---" for _ in numbers),
        " | ".join(f"{value:.4g}" for value in numbers.values()),
    ]
    text = f"{title}{f' ({place})' if place else ''}:\n\n" + "\n".join(f"| {row} |" for row in rows)
    return text + (f"\n\nReproduce with `{metrics['command']}`." if "command" in metrics else "")


def _numbers(metrics: Any) -> dict[str, float]:
    """Return the numbers among the entries of `metrics`."""
    if not isinstance(metrics, Mapping):
        return {}
    return {key: value for key, value in metrics.items() if type(value) in (int, float)}


def _usage(name: str, onnx: bool) -> str:
    fast = f'fast = Predictor.from_pretrained("hf://{name}/model.onnx")  # ONNX Runtime\n' if onnx else ""
    return (
        "## Use\n\n```python\nfrom condseg_sdk import Predictor  # pip install condseg_sdk\n\n"
        f'seg = Predictor.from_pretrained("{name}")("frame.jpg")\n'
        f'seg.mask, seg.area\nseg.overlay().save("overlay.png")\n{fast}```'
    )
