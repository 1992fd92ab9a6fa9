"""`condseg push`: publishes a checkpoint on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys

from condseg_sdk.cli import interrupts


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `condseg push`."""
    parser.description = (
        "Publish a checkpoint with its model card in one commit. The URL of the commit is printed to stderr, the entry "
        "for a weights manifest, with commit and SHA-256, to stdout."
    )
    add = parser.add_argument
    add("model", metavar="OUT", help="checkpoint folder, such as finetune's OUT/checkpoint, or a name")
    add("repo_id", metavar="ORG/NAME", help="repository, created if it does not exist")
    add("--onnx", action="store_true", help="also export, verify and publish model.onnx")
    add("--private", action="store_true", default=None, help="create a new repository as private")
    add("--token", help="access token with write access (default: the one stored by `hf auth login`)")
    add("--branch", help="branch to commit to, created if it does not exist (default: main)")
    add("--create-pr", action="store_true", help="open a pull request instead of committing")
    add("--message", default="Upload checkpoint with condseg_sdk", help="commit message (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run `condseg push` and return its exit code."""
    from condseg_sdk.publish import push_checkpoint
    from condseg_sdk.weights.checkpoint import load_checkpoint
    from condseg_sdk.weights.hub import resolve

    folder = resolve(options.model)
    network, config = load_checkpoint(folder)
    with interrupts.raising("check the repository on the Hub: the commit may have been made"):
        result = push_checkpoint(
            network,
            config,
            options.repo_id,
            folder=folder,
            onnx=options.onnx,
            private=options.private,
            token=options.token,
            branch=options.branch,
            create_pr=options.create_pr,
            commit_message=options.message,
        )
    print(f"published: {result}", file=sys.stderr)
    print(json.dumps(result.entry.to_dict(), indent=2))
    return 0
