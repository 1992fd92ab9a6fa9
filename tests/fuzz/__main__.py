"""`python -m tests.fuzz`: run a campaign, continue one, or replay a case."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Before NumPy and PyTorch start their threads: a worker is one thread's work.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ["HF_HUB_OFFLINE"] = "1"

from .campaign import Limits, Log, make_corpora, plan, run_cases, summary
from .targets import TARGETS


def main() -> int:
    options = _options()
    targets = {name: TARGETS[name] for name in options.target or TARGETS}
    options.out.mkdir(parents=True, exist_ok=True)
    # Images and masks are predicted with the checkpoint's network, and training sets borrow images.
    make_corpora({**targets, **{name: TARGETS[name] for name in ("checkpoint", "images")}}, options.out / "corpus")
    limits = Limits(options.seconds, options.megabytes)
    if options.case is not None:
        return _replay([(name, number) for name in targets for number in options.case], options.out.resolve(), limits)
    log = Log(options.out / "log.jsonl")
    if options.failed:
        cases = [case for case, verdict in log.verdicts.items() if verdict.verdict == "fail" and case[0] in targets]
    else:
        planned = plan(targets, options.cases, first=options.first)
        cases = [case for case in planned if case not in log.verdicts]
        print(f"{len(planned)} cases, {len(planned) - len(cases)} of them done before (in {log.path})")
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    start, shown = time.monotonic(), 0.0
    done = []
    for verdict in run_cases(
        cases, TARGETS, options.out.resolve(), jobs=options.jobs, limits=limits, deadline=deadline
    ):
        log.add(verdict)
        done.append(verdict)
        if time.monotonic() - shown > 10:
            shown = time.monotonic()
            failures = sum(verdict.verdict == "fail" for verdict in done)
            print(
                f"{len(done)} of {len(cases)}, {len(done) / (shown - start):.0f} a second, {failures} failures",
                flush=True,
            )
    verdicts = (
        [log.verdicts[case] for case in cases if case in log.verdicts] if options.failed else log.verdicts.values()
    )
    print("\n".join(summary(verdict for verdict in verdicts if verdict.target in targets)))
    return int(any(verdict.verdict == "fail" for verdict in verdicts))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one; may be given several times")
    parser.add_argument("--cases", type=int, default=50_000, help="over all targets, by weight (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of each target's first case, for other cases")
    parser.add_argument("--case", type=int, nargs="+", help="replay these cases and show what happened")
    parser.add_argument("--failed", action="store_true", help="run the failed cases of the log again")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"), help="log and files (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="number of worker processes (default: %(default)s)")
    parser.add_argument("--minutes", type=float, help="begin no case after this time")
    parser.add_argument("--seconds", type=float, default=20, help="limit of a case (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=2000, help="limit of a case's memory (default: %(default)s)")
    return parser.parse_args()


def _replay(cases: list[tuple[str, int]], folder: Path, limits: Limits) -> int:
    """Run each case in its own worker and keep its files."""
    failed = False
    for name, number in cases:
        place = folder / "replay" / f"{name}-{number}"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "corpus").exists():
            (place / "corpus").symlink_to(folder / "corpus", target_is_directory=True)
        for verdict in run_cases([(name, number)], TARGETS, place, limits=limits):
            failed |= verdict.verdict == "fail"
            print(f"{name} {number}: {verdict.verdict} {verdict.kind}, {verdict.seconds} s, {verdict.megabytes} MB")
            print(f"files: {place / 'worker-0' / 'case'}")
            print(verdict.details or verdict.message)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
