"""Runs tests, benchmarks and a training on a machine with a GPU and without a network, from the parts of prepare.py.

    python3 run.py                       # lists the parts that have not arrived, or runs everything
    python3 run.py --resume --within 560 # what is not done yet, in this many seconds
    python3 run.py --only train --minutes 5 --train "--base condseg-lite-polyp --batch-size 32"

Each step has a time limit, and its result is written before the next one begins: a run that is killed keeps all results
before. It needs nothing but Python and pip.
"""

from __future__ import annotations

import argparse
import csv
import errno
import json
import os
import shlex
import shutil
import signal
import site
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parts import INDEX, join, missing, sha256, split

HERE = Path(__file__).resolve().parent
NOT_ARRIVED, FAILED = 3, 1  # exit codes
PATIENCE = 10  # seconds between SIGINT, after which a step can save its work, and SIGKILL
FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or a quota of it
REHEARSAL_FACTOR = 5  # of the time limits, on a busy machine with few cores
LEAST = 20  # seconds; with less time left no step is started
SHARE_FOR_THE_END = 0.15  # of a training's time, for the report and slow epochs
SHOWN = 15  # lines of a log in the summary
RESULTS = "results.jsonl"
ON_A_GPU = {
    "device": "cuda", "devices": "cuda", "batches": "1 32", "seconds": "10", "size": "256", "count": "200",
    "repetitions": "5", "r50": "condseg-r50", "pvt": "condseg-pvt", "both": "condseg-lite condseg-r50",
}  # fmt: skip
REHEARSED = {  # with the smallest network for all; "cuda", too: its rows then say that there is no such device
    "device": "cpu", "devices": "cpu cuda", "batches": "1", "seconds": "0", "size": "64", "count": "8",
    "repetitions": "1", "r50": "condseg-lite", "pvt": "condseg-lite", "both": "condseg-lite",
}  # fmt: skip


@dataclass(frozen=True)
class Kit:
    """Where everything is on this machine.

    Attributes:
        parts: Folder of the parts.
        work: Folder for everything that is made here.
        out: Folder for what goes back.
        options: Options of the command line.
    """

    parts: Path
    work: Path
    out: Path
    options: argparse.Namespace

    @property
    def python(self) -> Path:
        """Python of the environment with all packages."""
        return self.work / "venv" / "bin" / "python"

    @property
    def repository(self) -> Path:
        """Folder of the repository."""
        return self.work / "repository"

    def results(self, step: str) -> Path:
        """Return the folder of a step for its log and its files, which exists."""
        folder = self.work / "results" / step
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def dataset(self, kind: str) -> Path:
        """Return the chosen dataset, the first one by default: its pairs ("data") or unchanged images ("frames")."""
        names = sorted(path.name for path in (self.work / kind).iterdir())
        return self.work / kind / (self.options.data or names[0])

    def environment(self) -> dict[str, str]:
        """Return the environment of a step: its packages first, no network, caches in the work folder."""
        cache = self.work / "cache"
        return {
            **{name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")},
            "PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "PYTHONUNBUFFERED": "1",
            "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin would take the cores of other processes
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(cache / "huggingface"),
            "XDG_CACHE_HOME": str(cache),
        }


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        status: "ok", "failed" or "timed out".
        exit_code: Exit code of the process; negative for a signal.
        seconds: Seconds that it took.
    """

    status: str
    exit_code: int
    seconds: float


def execute(command: Sequence[str | Path], *, log: Path, limit: float, env: Mapping[str, str], cwd: Path) -> Outcome:
    """Run a command in a process group of its own, which is interrupted at its time limit and killed soon after.

    Args:
        command: Command and arguments.
        log: File to which its output is appended.
        limit: Time limit in seconds.
        env: Environment variables.
        cwd: Current folder.
    """
    start = time.monotonic()
    with log.open("ab") as file:
        file.write(f"$ {shlex.join(map(str, command))}\n".encode())
        file.flush()
        process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=dict(env), cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
        guard = _guard(process)
        status = "timed out"
        try:
            status = "ok" if process.wait(limit) == 0 else "failed"
        except subprocess.TimeoutExpired:
            _signal_group(process, signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
        finally:
            _signal_group(process, signal.SIGKILL)  # also what it has started and left
            process.wait()
            guard.kill()
            guard.communicate()
    return Outcome(status, process.returncode, round(time.monotonic() - start, 1))


def _guard(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Start a process that ends the step with all that it has started when this process is killed.

    It reads a pipe that ends with this process. The step of a resumed run needs the GPU for itself.
    """
    code = "import os, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), 9)"
    command = [sys.executable, "-c", code, str(process.pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@dataclass(frozen=True)
class Step:
    """A step of the run.

    Attributes:
        limit: Time limit in seconds.
        work: Does the step within so many seconds and writes to its log.
    """

    limit: float
    work: Callable[[Kit, Path, float], Outcome]


def unpack(kit: Kit, log: Path, limit: float) -> Outcome:  # noqa: ARG001 - reading and writing half a gigabyte
    """Join the parts and unpack the archives."""
    start = time.monotonic()
    for name in ("venv", "repository", "wheels", "data", "frames"):
        shutil.rmtree(kit.work / name, ignore_errors=True)
    for file in join(kit.parts, kit.work):
        target = kit.repository if file.name.startswith("repository") else kit.work
        with tarfile.open(file) as tar:
            # Python before 3.11.4 has no filters; the parts have just been compared with their SHA-256.
            tar.extractall(target, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
        file.unlink()
    log.write_text("".join(f"{path.relative_to(kit.work)}\n" for path in sorted(kit.work.glob("*/*"))))
    return Outcome("ok", 0, round(time.monotonic() - start, 1))


def install(kit: Kit, log: Path, limit: float) -> Outcome:
    """Make an environment that sees this Python's packages, and install the wheels into it without a network."""
    venv = kit.work / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    # Without pip, which Debian has in a package of its own; this Python's pip installs into it.
    made = execute(
        [sys.executable, "-m", "venv", "--without-pip", venv], log=log, limit=limit, env=os.environ, cwd=kit.work
    )
    if made.status != "ok":
        return made
    packages = next((venv / "lib").glob("python3*/site-packages"))
    # --system-site-packages would show those of the interpreter below, if this Python is in an environment itself.
    folders = [folder for folder in sys.path if Path(folder).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({folder!r})" for folder in folders if Path(folder) != Path(site.USER_SITE)]
    (packages / "machine.pth").write_text("\n".join([str(kit.repository), *lines]) + "\n")
    wheels = sorted((kit.work / "wheels").glob("*.whl"))
    pip = [sys.executable, "-m", "pip", "--python", kit.python, "install", "--no-index", "--no-deps", "--no-compile"]
    command = [*pip, "--no-cache-dir", "--quiet", *wheels]
    done = execute(command, log=log, limit=limit - made.seconds, env=os.environ, cwd=kit.work)
    return Outcome(done.status, done.exit_code, round(made.seconds + done.seconds, 1))


def called(*command: str) -> Callable[[Kit, Path, float], Outcome]:
    """Return the work of a step that is one command of the environment's Python.

    {tests}, {frames}, {results} and the names in ON_A_GPU are filled in.
    """

    def work(kit: Kit, log: Path, limit: float) -> Outcome:
        values = {
            **(REHEARSED if kit.options.rehearse else ON_A_GPU),
            "tests": shlex.join(gpu_tests(kit.repository)),
            "frames": shlex.quote(str(kit.dataset("frames"))),
            "results": shlex.quote(str(log.parent)),
        }
        words = [word for text in command for word in shlex.split(text.format_map(values))]
        return execute([kit.python, *words], log=log, limit=limit, env=kit.environment(), cwd=kit.repository)

    return work


def gpu_tests(repository: Path) -> list[str]:
    """Return the modules that have tests for a GPU; collecting all others would take most of the time."""
    modules = sorted(repository.glob("tests/**/test_*.py"))
    return [str(path.relative_to(repository)) for path in modules if "@pytest.mark.gpu" in path.read_text()]


def train(kit: Kit, log: Path, limit: float) -> Outcome:
    """Train for so many minutes: a run of two epochs measures the time of one, which gives the number of epochs."""
    begin = time.monotonic()
    runs = kit.work / "train"

    def finetune(folder: Path, epochs: int, *options: str) -> Outcome:
        command = [kit.python, "-m", "condseg_sdk.cli", "finetune", kit.dataset("data"), "--out", folder]
        given = [*shlex.split(kit.options.train), "--epochs", str(epochs), "--no-progress", *options]
        left = limit - (time.monotonic() - begin)
        return execute([*command, *given], log=log, limit=left, env=kit.environment(), cwd=kit.repository)

    run = runs / "run"
    if not (run / "settings.json").exists():
        shutil.rmtree(runs / "trial", ignore_errors=True)
        trial = finetune(runs / "trial", 2, "--no-report")
        if trial.status != "ok":
            return trial
        with (runs / "trial" / "stage2" / "metrics.csv").open(newline="") as file:
            epochs = [max(float(row["seconds"]), 0.01) for row in csv.DictReader(file)]
        left = (1 - SHARE_FOR_THE_END) * (limit - (time.monotonic() - begin)) - (trial.seconds - sum(epochs))
        (runs / "epochs").write_text(str(max(1, int(left / epochs[-1]))))
    done = finetune(run, int((runs / "epochs").read_text()), "--resume")
    for name in ("settings.json", "result.json", "report.html", "stage2/metrics.csv"):
        if (run / name).exists():
            shutil.copyfile(run / name, log.parent / Path(name).name)
    _pack_checkpoint(kit, run)
    return Outcome(done.status, done.exit_code, round(time.monotonic() - begin, 1))


def _pack_checkpoint(kit: Kit, run: Path) -> None:
    """Cut the checkpoint into parts; that of an unfinished run is the state to resume from."""
    kept = run / "checkpoint" if (run / "checkpoint").exists() else run / "stage2" / "last.ckpt"
    if not kept.exists():
        return
    file = kit.work / "checkpoint.tar"
    with tarfile.open(file, "w") as tar:
        tar.add(kept, kept.relative_to(run))
        tar.add(run / "settings.json", "settings.json")
    back = kit.work / "back"
    back.mkdir(exist_ok=True)
    split([file], back, most=kit.options.return_mb * 1_000_000)
    file.unlink()


def latency(network: str, *options: str) -> Callable[[Kit, Path, float], Outcome]:
    """Return the work of a step that measures networks; later options replace earlier ones."""
    what = "--batch {batches} --device {devices} --seconds {seconds} --images {frames} --size {size}"
    target = f"--network {network} --out {{results}}/table --overwrite --compile none"
    return called("benchmarks/latency.py", what, target, *options)


THROUGHPUT = (
    "benchmarks/throughput.py condseg-lite-polyp {frames} --device {device} --count {count} --repetitions {repetitions}"
)
STEPS = {
    "unpack": Step(60, unpack),
    "install": Step(90, install),
    "environment": Step(60, called("tools/gpu/environment.py")),
    "tests": Step(120, called("-m pytest -m gpu -v --durations=0 -p no:cacheprovider {tests}")),
    "latency-lite": Step(150, latency("condseg-lite")),
    "latency-r50": Step(180, latency("{r50}")),
    "throughput": Step(60, called(THROUGHPUT)),
    "train": Step(60, train),  # --minutes
    "compiled-lite": Step(150, latency("condseg-lite", "--compile all --batch 1")),
    "tensorrt": Step(150, latency("{both}", "--device tensorrt --batch 1")),
    "latency-pvt": Step(150, latency("{pvt}")),
}
FIRST = ("unpack", "install")  # without them nothing else can run


def read_results(kit: Kit) -> list[dict[str, Any]]:
    """Return the lines that all calls with these parts have written, in order."""
    file = kit.work / RESULTS
    lines = file.read_text().splitlines() if file.exists() else []
    index = sha256(kit.parts / INDEX)
    return [result for result in map(json.loads, lines) if result["parts"] == index]


def write_result(kit: Kit, result: dict[str, Any]) -> None:
    """Add a line to those of all calls. The file is replaced as a whole, so that no line can be half written."""
    file, partial = kit.work / RESULTS, kit.work / f"{RESULTS}.partial"
    partial.write_text((file.read_text() if file.exists() else "") + json.dumps(result) + "\n")
    partial.replace(file)


def run_step(kit: Kit, name: str, limit: float) -> dict[str, Any]:
    """Run a step and write its result, whatever happens."""
    folder = kit.results(name)
    log = folder / "log.txt"
    log.unlink(missing_ok=True)
    print(f"{name} (at most {limit:.0f} s) ...", flush=True)
    begin = time.monotonic()
    try:
        outcome = STEPS[name].work(kit, log, limit)
    except Exception as error:  # it must not stop the other steps
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        with log.open("a") as file:
            file.write(f"{type(error).__name__}: {error}\n")
        outcome = Outcome("failed", -1, round(time.monotonic() - begin, 1))
    result = {
        "step": name, "status": outcome.status, "exit_code": outcome.exit_code, "seconds": outcome.seconds,
        "parts": sha256(kit.parts / INDEX),
    }  # fmt: skip
    write_result(kit, result)
    print(f"{name}: {outcome.status} after {outcome.seconds:.1f} s", flush=True)
    give_back(kit)
    return result


def summary(kit: Kit) -> str:
    """Return a Markdown page: how each step ended, its tables and the end of its log."""
    last = {result["step"]: result for result in read_results(kit)}
    lines = ["| step | status | seconds |", "|---|---|---|"]
    lines += [f"| {name} | {last[name]['status']} | {last[name]['seconds']} |" for name in STEPS if name in last]
    for name in STEPS:
        if name not in last or (name in FIRST and last[name]["status"] == "ok"):
            continue
        folder = kit.results(name)
        tables = [path.read_text() for path in sorted(folder.rglob("*.md"))]
        log = (folder / "log.txt").read_text(errors="replace").splitlines() if (folder / "log.txt").exists() else []
        lines += ["", f"## {name}", "", *(tables or ["```", *(line[:300] for line in log[-SHOWN:]), "```"])]
    return "\n".join(lines) + "\n"


def give_back(kit: Kit) -> None:
    """Write to the output folder what goes back: summary, results and the chosen parts of a checkpoint."""
    kit.out.mkdir(parents=True, exist_ok=True)
    (kit.out / "summary.md").write_text(summary(kit))
    partial = kit.out / "results.partial"
    with tarfile.open(partial, "w:gz") as tar:
        tar.add(kit.work / "results", "results")
        tar.add(kit.work / RESULTS, RESULTS)
    partial.replace(kit.out / "results.tar.gz")
    back = kit.work / "back"
    first, _, last = kit.options.send.partition("-")
    for number in range(int(first), int(last or first) + 1):
        for name in (f"part-{number:03d}", INDEX):
            if (back / name).exists():
                shutil.copyfile(back / name, kit.out / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, default=HERE, help="folder of the parts (default: that of this file)")
    parser.add_argument("--work", type=Path, default=HERE.parent / "work", help="folder for all that is made here")
    parser.add_argument("--out", type=Path, default=HERE.parent / "out", help="folder for what goes back")
    parser.add_argument("--only", nargs="+", choices=STEPS, metavar="STEP", help=f"some of: {', '.join(STEPS)}")
    parser.add_argument("--resume", action="store_true", help="skip the steps that have succeeded")
    parser.add_argument("--within", type=float, default=float("inf"), help="seconds for this call (default: no limit)")
    parser.add_argument("--data", help="name of the dataset (default: the first one)")
    parser.add_argument("--minutes", type=float, default=4.0, help="minutes of the training (default: %(default)s)")
    parser.add_argument(
        "--train", default="--base condseg-lite-polyp", help="options of `condseg finetune` (default: %(default)s)"
    )
    parser.add_argument("--return-mb", type=int, default=12, help="size of a part of the checkpoint in MB")
    parser.add_argument("--send", default="1-5", help="parts of the checkpoint that go back (default: %(default)s)")
    parser.add_argument("--rehearse", action="store_true", help="do all steps in miniature, without a GPU")
    options = parser.parse_args()
    try:
        return run(options)
    except KeyboardInterrupt:
        print("interrupted: call again with --resume")
    except OSError as error:
        remedy = "name other folders with --work and --out, then call again with --resume"
        if error.errno in FULL:
            name = error.filename or options.work.absolute()
            place = Path(name).absolute()
            free = shutil.disk_usage(next(folder for folder in (place, *place.parents) if folder.exists())).free
            print(f"error: {error.strerror} ({name}), {free / 1e6:.0f} MB are free there: make room or {remedy}")
        else:
            print(f"error: {error}; {remedy}")
    return FAILED


def run(options: argparse.Namespace) -> int:
    """Run the steps that are asked for and return the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it, and so would the steps
    deadline = time.monotonic() + options.within
    kit = Kit(options.parts.absolute(), options.work.absolute(), options.out.absolute(), options)
    if problems := missing(kit.parts):
        print("\n".join(["not yet complete:", *problems]))
        return NOT_ARRIVED
    kit.work.mkdir(parents=True, exist_ok=True)
    done = {result["step"] for result in read_results(kit) if result["status"] == "ok"}
    failed = 0
    for name, step in STEPS.items():
        wanted = name in FIRST or not options.only or name in options.only
        if not wanted or (name in done and (options.resume or name in FIRST)):
            continue
        left = deadline - time.monotonic()
        if left < LEAST + PATIENCE:
            print(f"{name}: no time left; call again with --resume", flush=True)
            continue
        limit = 60 * options.minutes if name == "train" else step.limit
        limit *= REHEARSAL_FACTOR if options.rehearse else 1
        result = run_step(kit, name, min(limit, left - PATIENCE))
        if result["status"] != "ok":
            failed = FAILED
            if name in FIRST:
                break
    if read_results(kit):
        give_back(kit)
        print(summary(kit))
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
