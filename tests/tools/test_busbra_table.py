import csv
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = 40


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "busbra_table.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)


def dataset(folder: Path, images: str, masks: str) -> Path:
    """Empty files in a layout of the dataset: both views of `CASES` cases, every fifth case in fold 1."""
    names = [f"{case:04}-{side}" for case in range(1, CASES + 1) for side in "lr"]
    for pattern in (images, masks):
        for name in names:
            path = folder / pattern.format(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    with (folder / "bus_data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "Case", "Pathology", "Device"])
        writer.writerows([f"bus_{name}", int(name[:4]), "benign", "GE Logiq 7 @10-14MHz"] for name in names)
    with (folder / "5-fold-cv.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["ID", "kFold"])
        writer.writerows([f"bus_{name}", int(name[:4]) % 5 + 1] for name in names)
    return folder


@pytest.mark.parametrize(
    ("images", "masks"),
    [("Images/bus_{}.png", "Masks/mask_{}.png"), ("images/bus_{}.jpg", "masks/bus_{}.png")],
)
def test_views_of_a_case_share_a_split_and_fold_1_is_the_test_split(tmp_path: Path, images: str, masks: str) -> None:
    busbra = dataset(tmp_path / "busbra", images, masks)
    assert run(busbra, "--out", tmp_path / "pairs.csv").returncode == 0
    with (tmp_path / "pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * CASES
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(row["group"], set()).add(row["split"])
        assert (tmp_path / row["image"]).is_file()
        assert (tmp_path / row["mask"]).is_file()
        assert (row["split"] == "test") == (int(row["group"]) % 5 == 0)
        assert row["device"] == "GE Logiq 7"
    assert all(len(own) == 1 for own in splits.values())
    assert {"train", "validation", "test"} == set.union(*splits.values())


def test_a_missing_mask_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    busbra = dataset(tmp_path / "busbra", "Images/bus_{}.png", "Masks/mask_{}.png")
    (busbra / "Masks" / "mask_0003-r.png").unlink()
    done = run(busbra, "--out", tmp_path / "pairs.csv")
    assert done.returncode == 1
    assert done.stderr.strip() == f"error: {busbra} has no masks/mask_0003-r.*: pass the unpacked folder of BUS-BRA"
    assert not (tmp_path / "pairs.csv").exists()


@pytest.mark.parametrize(
    ("busbra", "out", "message"),
    [
        ("nowhere", "pairs.csv", "has no bus_data.csv: pass the unpacked folder of BUS-BRA"),
        ("busbra", "nowhere/pairs.csv", "does not exist: make it, or choose another --out"),
    ],
)
def test_a_folder_that_is_missing_is_named(tmp_path: Path, busbra: str, out: str, message: str) -> None:
    dataset(tmp_path / "busbra", "Images/bus_{}.png", "Masks/mask_{}.png")
    done = run(tmp_path / busbra, "--out", tmp_path / out)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.strip().endswith(message)
