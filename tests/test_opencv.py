"""If OpenCV cannot be loaded, one line lists the commands that repair it, and everything else still works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from condseg_sdk.opencv import PACKAGES, _warn_of_two_packages

NO_LIBRARY = "libGL.so.1: cannot open shared object file: No such file or directory"
SWAP = "pip uninstall -y opencv-python && pip install opencv-python-headless==5.0.0.93"
DAMAGED = "pip install --force-reinstall --no-deps {}==5.0.0.93"


def describe_package(folder: Path, name: str) -> None:
    """What pip leaves of an installed package for `importlib.metadata`."""
    described = folder / f"{name.replace('-', '_')}-5.0.0.93.dist-info"
    described.mkdir(parents=True)
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 5.0.0.93\n")


def run_python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own with `cwd` first on its path."""
    preface = f"import sys; sys.path.insert(0, {str(cwd)!r}); "
    return subprocess.run([sys.executable, "-c", preface + code], text=True, capture_output=True, check=False)


def pretend(folder: Path, package: str | None, module: str | None) -> str:
    """Code under which `package` is the only OpenCV installed and `import cv2` runs `module` (None: an empty folder)."""
    if package:
        describe_package(folder, package)
    code = (
        "import importlib.metadata as m, types; all = m.distributions; "
        f"m.distributions = lambda **named: all(**named, path=[{str(folder)!r}]); "
    )
    if module is None:
        return code + "sys.modules['cv2'] = types.ModuleType('cv2'); sys.modules['cv2'].__file__ = None; "
    (folder / "cv2.py").write_text(module)
    return code


CASES = [
    (
        "opencv-python",
        f"raise ImportError({NO_LIBRARY!r})",
        ["libGL.so.1", "apt-get install libgl1 libglib2.0-0", SWAP],
    ),
    ("opencv-contrib-python", f"raise ImportError({NO_LIBRARY!r})", ["pip install opencv-contrib-python-headless=="]),
    ("opencv-python-headless", "raise ImportError('undefined symbol')", [DAMAGED.format("opencv-python-headless")]),
    ("opencv-python", None, ["damaged", DAMAGED.format("opencv-python")]),
    (None, None, ["pip install opencv-python"]),
]


@pytest.mark.parametrize(("package", "module", "said"), CASES)
def test_a_broken_opencv_is_one_error_with_a_remedy(
    tmp_path: Path, package: str | None, module: str | None, said: list[str]
) -> None:
    catch = """
try:
    from condseg_sdk import Predictor
except condseg_sdk.CondsegError as error:
    print(type(error).__name__, isinstance(error, ImportError), error)
"""
    done = run_python(pretend(tmp_path, package, module) + "import condseg_sdk" + catch, tmp_path)
    assert done.stderr == ""
    assert done.stdout.startswith("InstallationError True OpenCV ")
    assert done.stdout.count("\n") == 1
    for part in said:
        assert part in done.stdout


def test_the_command_prints_one_line_and_exits_with_2(tmp_path: Path) -> None:
    code = pretend(tmp_path, "opencv-python", f"raise ImportError({NO_LIBRARY!r})")
    code += "from condseg_sdk.cli import main; sys.exit(main(['predict', 'a.png', '--out', 'out']))"
    done = run_python(code, tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("condseg: error: OpenCV cannot be loaded")
    assert done.stderr.rstrip().endswith(SWAP)


def test_a_missing_dependency_is_named(tmp_path: Path) -> None:
    code = "sys.modules['huggingface_hub'] = None\nimport condseg_sdk\ntry: condseg_sdk.Predictor\n"
    code += "except condseg_sdk.InstallationError as error: print(error)"
    assert "needs huggingface_hub" in run_python(code, tmp_path).stdout


def test_two_packages_of_opencv_give_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _warn_of_two_packages()  # an environment with one of them is fine
    for name in PACKAGES[:2]:
        describe_package(tmp_path, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning, match="opencv-python and opencv-python-headless write into the same folder"):
        _warn_of_two_packages()


def test_opencv_is_imported_in_one_place() -> None:
    """Any other `import cv2` would raise a bare ImportError where its libraries are missing."""
    package = Path(__file__).parents[1] / "condseg_sdk"
    importing = [
        path.name
        for path in package.rglob("*.py")
        if re.search(r"^ *(import|from) cv2\b", path.read_text(), re.MULTILINE)
    ]
    assert importing == ["opencv.py"]
