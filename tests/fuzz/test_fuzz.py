"""A small sample of the fuzzer's cases, and the fuzzer itself. `make fuzz` runs many more (docs/contributing.md)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import campaign, targets
from tests.fuzz.campaign import Limits, Log, make_corpora, plan, run_cases, summary
from tests.fuzz.misbehaving import MISBEHAVING, TARGET
from tests.fuzz.mutations import mutate_bytes, mutate_json
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Verdict, judge, our_frame

SAMPLE = {
    "images": 120,
    "dicom": 60,
    "masks": 120,
    "tables": 150,
    "manifest": 200,
    "onnx": 100,
    "checkpoint": 20,
    "convert": 30,
    "video": 40,
}
WHOLE_NETWORKS = ("checkpoint", "convert")  # read in each case
SLOW = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the intact files of every target that can be made without training."""
    folder = tmp_path_factory.mktemp("corpus")
    for name in SAMPLE:
        (folder / name).mkdir()
        TARGETS[name].make_corpus(folder / name)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in WHOLE_NETWORKS else ()) for name in SAMPLE])
def test_damaged_files_end_in_a_prediction_or_in_one_line_that_names_them(
    name: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    verdicts = [judge(TARGETS[name], number, corpus, tmp_path / "case") for number in range(SAMPLE[name])]
    failures = [verdict for verdict in verdicts if verdict.verdict == "fail"]
    assert not failures, "\n".join(summary(failures))
    assert {verdict.verdict for verdict in verdicts} >= {"error"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name", ["masks", "tables", "manifest", "onnx", "video", pytest.param("checkpoint", marks=SLOW)]
)
def test_every_file_is_readable_before_it_is_damaged(
    name: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every case would end at the first fault of the corpus."""
    for mutation in ("image", "numpy", "onnx", "safetensors", "torch", "bytes", "lines", "json"):
        monkeypatch.setattr(targets, f"mutate_{mutation}", lambda _rng, data, *_: data)
    monkeypatch.setattr(targets, "mutate_json", lambda _, value: json.dumps(value).encode())
    monkeypatch.setattr(targets, "mutate_lines", lambda _, text: text.encode())
    verdicts = [judge(TARGETS[name], number, corpus, tmp_path / "case") for number in range(10)]
    # A few of the masks' images have several pages, and some checkpoints' files are of another kind.
    wrong = [verdict.message for verdict in verdicts if verdict.verdict != "ok"]
    assert len(wrong) <= 2 * (name in ("masks", "checkpoint")), wrong


@pytest.mark.slow
def test_a_sample_of_cases_stays_within_time_and_memory(tmp_path: Path) -> None:
    """This includes the files of a run to resume, which are made by training."""
    command = [sys.executable, "-m", "tests.fuzz", "--cases", "1000", "--first", "1000", "--out", str(tmp_path)]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_a_crash_a_hang_and_too_much_memory_fail_one_case_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "PRELOADED", ["torch", "condseg_sdk.errors"])
    (tmp_path / "worker-0").mkdir()
    (tmp_path / "worker-0" / "number.txt").write_text("0")
    make_corpora({"misbehaving": TARGET}, tmp_path / "corpus")
    cases = [("misbehaving", number) for number in MISBEHAVING]
    limits = Limits(seconds=2, megabytes=1200)
    verdicts = list(run_cases(cases, {"misbehaving": TARGET}, tmp_path, limits=limits))
    assert [verdict.number for verdict in verdicts] == list(MISBEHAVING)
    assert [verdict.verdict for verdict in verdicts] == ["ok", "error", *["fail"] * 7]
    for verdict in verdicts[2:]:
        assert verdict.kind.startswith(MISBEHAVING[verdict.number]), verdict
    assert "SIGABRT" in verdicts[6].kind


def test_a_case_is_determined_by_its_number(corpus: Path, tmp_path: Path) -> None:
    for name in SAMPLE:
        contents = []
        for folder in (tmp_path / "a", tmp_path / "b"):
            (folder / name).mkdir(parents=True)
            TARGETS[name].mutate(random.Random(f"{name} 7"), corpus, folder / name)
            contents.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
        assert contents[0] == contents[1]


def test_a_campaign_continues_after_the_last_written_line(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    log.add(Verdict("images", 0, "ok"))
    log.add(Verdict("images", 1, "fail", "KeyError at a.py:1 f", "\ud800 text"))
    with log.path.open("a") as file:
        file.write('{"target": "images", "num')  # killed as it wrote
    again = Log(log.path)
    assert list(again.verdicts) == [("images", 0), ("images", 1)]
    again.add(Verdict("images", 1, "ok"))
    assert Log(log.path).verdicts["images", 1].verdict == "ok"


def test_a_plan_gives_each_target_its_share_and_takes_turns() -> None:
    cases = plan(TARGETS, 5000, first=10)
    assert len(set(cases)) == len(cases)
    names = [name for name, _ in cases]
    assert names.count("images") == pytest.approx(2 * names.count("manifest"), abs=1)
    assert names.count("resume") >= 1
    assert set(names[:100]) >= {"images", "masks", "tables", "manifest", "onnx", "convert"}
    assert min(number for _, number in cases) == 10


def test_a_summary_lists_each_kind_of_failure_once() -> None:
    verdicts = [Verdict("onnx", number, "fail", "Fail at a.py:3 run", "text") for number in range(7)]
    lines = summary([*verdicts, Verdict("onnx", 9, "ok")])
    assert lines[1].split() == ["onnx", "8", "1", "0", "7"]
    assert lines[2:] == ["onnx: Fail at a.py:3 run, 7 x (--target onnx --case 0, 1, 2, 3, 4): 'text'"]


def test_the_position_of_a_hang_is_the_innermost_frame_of_the_package() -> None:
    stack = (
        "Current thread 0x1 (most recent call first):\n"
        f'  File "{os.sep}lib/json/decoder.py", line 1 in decode\n'
        '  File "/x/condseg_sdk/images/load.py", line 12 in load_image\n'
        '  File "/x/condseg_sdk/predictor.py", line 7 in __call__\n'
    )
    assert our_frame(stack) == "load.py:12 load_image"
    assert our_frame("") == "an unknown place"


def test_mutations_change_their_input() -> None:
    data = bytes(range(256)) * 4
    changed = sum(mutate_bytes(random.Random(seed), data) != data for seed in range(200))
    assert changed > 190
    value = {"format_version": 1, "entries": [{"name": "a", "size": [256, 256], "threshold": 0.5}]}
    texts = {mutate_json(random.Random(seed), value) for seed in range(200)}
    assert len(texts) > 150
    assert any(b"NaN" in text for text in texts)
