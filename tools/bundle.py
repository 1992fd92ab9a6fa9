r"""For maintainers: adds a trained checkpoint to the package, in float16, and its entry to the manifest.

    python tools/bundle.py runs/polyp/checkpoint condseg-lite-polyp --network condseg-lite --facts facts.json \
        --evaluations metrics/kvasir metrics/polypgen

`facts.json` holds license, attribution, data, date, command, datasets and metrics, and the texts of the model card:
intended_use, out_of_scope, sites, known_failures, subgroups, calibration. They are written to config.json, the model
card and the manifest. The folders are those of `condseg evaluate --out`; their tables become the card's section
"Evaluation". Run it again on the bundled folder after an evaluation: the weights stay the same.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from condseg_sdk.checkpoints.card import evaluation_in, model_card, with_evaluation
from condseg_sdk.checkpoints.manifest_entry import ManifestEntry
from condseg_sdk.checksums import sha256_of
from condseg_sdk.json_files import write_json
from condseg_sdk.weights.checkpoint import load_checkpoint, load_digests, save_checkpoint
from condseg_sdk.weights.manifest import BUNDLED, manifest_path


def evaluations(folders: list[Path]) -> str:
    """Join the sections of several evaluations into one."""
    parts = ["## Evaluation"]
    seen = set()
    for folder in folders:
        data = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["data"]
        section = evaluation_in((folder / "model_card.md").read_text(encoding="utf-8"))
        section = section.removeprefix("## Evaluation").partition("<!--")[0].strip()
        if data in seen:  # evaluated again by other groups: the rest is the same
            blocks = section.split("\n\n")
            section = "\n\n".join(block for block in blocks if block.startswith(("| group |", "```bash")))
        parts.append(section if data in seen else f"### {data}\n\n{section}")
        seen.add(data)
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("name")
    parser.add_argument("--network", required=True)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--evaluations", type=Path, nargs="*", default=[], help="folders of condseg evaluate")
    options = parser.parse_args()
    facts = json.loads(options.facts.read_text(encoding="utf-8"))
    network, config = load_checkpoint(options.checkpoint)
    config = replace(config, provenance={**config.provenance, **facts})
    card = model_card(config, name=options.name)
    if options.evaluations:
        card = with_evaluation(card, evaluations(options.evaluations))
    digests = load_digests(options.checkpoint)
    folder = save_checkpoint(BUNDLED / options.name, network, config, card=card, digests=digests, dtype="float16")
    weights = folder / "model.safetensors"
    entry = ManifestEntry(
        name=options.name,
        kind="checkpoint",
        network=options.network,
        sha256=sha256_of(weights),
        bytes=weights.stat().st_size,
        license=facts["license"],
        attribution=facts["attribution"],
        data=facts["data"],
        date=facts["date"],
        preprocessing=config.preprocessing,
        file=options.name,
        threshold=config.threshold,
        metrics=facts.get("metrics", {}),
    )
    manifest = json.loads(manifest_path().read_text(encoding="utf-8"))
    others = [other for other in manifest["entries"] if other["name"] != options.name]
    manifest["entries"] = [entry.to_dict(), *others]
    write_json(manifest_path(), manifest, indent=2)
    print(json.dumps(entry.to_dict(), indent=2))


if __name__ == "__main__":
    main()
