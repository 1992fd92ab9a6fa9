"""What a user installs: sdist and wheel are complete, and the wheel works without a network.

The clean environment borrows the dependencies of the one that runs the tests (installing torch anew takes
minutes and a network); condseg_sdk itself can only come from the wheel.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.browser import open_page, running

ROOT = Path(__file__).parents[1]
MODEL = "condseg-lite-polyp"
PHOTOGRAPH = ROOT / "examples" / "images" / "unrelated_retina.jpg"

NO_NETWORK = """
import sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"the test allows no network: {event} {arguments}")

sys.addaudithook(refuse)
"""

SEGMENT = f"""
import importlib.metadata, json, socket, sys
import condseg_sdk
try:
    socket.create_connection(("127.0.0.1", 9))
except RuntimeError:
    pass
else:
    raise SystemExit("the network is not blocked")
segmentation = condseg_sdk.Predictor.from_pretrained({MODEL!r})(sys.argv[1])
print(json.dumps({{
    "package": condseg_sdk.__file__,
    "versions": [condseg_sdk.__version__, importlib.metadata.version("condseg_sdk")],
    "shape": segmentation.mask.shape,
    "probability": [float(segmentation.probability.min()), float(segmentation.probability.max())],
}}))
"""

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """What the command prints; its standard error belongs to the failure's message."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    return next(distributions.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has condseg_sdk from the wheel and borrows all else."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site_packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    # Paths of a .pth file come after the environment's own, and the .pth files over there (that of an
    # editable condseg_sdk among them) are not followed.
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (Path(site_packages.strip()) / "borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return python


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables under which every connection fails and nothing is cached from before."""
    folder = tmp_path_factory.mktemp("offline")
    (folder / "sitecustomize.py").write_text(NO_NETWORK)
    return {"PYTHONPATH": str(folder), "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")}


def test_the_wheel_contains_package_manifest_and_bundled_weights_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        manifest = archive.read("condseg_sdk/weights_manifest.json")
    assert manifest == (ROOT / "weights_manifest.json").read_bytes()
    for model in (MODEL, "condseg-lite-skin", "condseg-lite-breast"):
        bundled = f"condseg_sdk/weights/bundled/{model}"
        assert {f"{bundled}/{name}" for name in ("config.json", "model.safetensors", "README.md")} <= names
    assert wheel.stat().st_size <= 85e6
    assert {"condseg_sdk/py.typed", "condseg_sdk/app/example.jpg"} <= names
    information = f"{wheel.name.removesuffix('-py3-none-any.whl')}.dist-info"
    assert {name.split("/")[0] for name in names} == {"condseg_sdk", information}
    licences = {name.split("/licenses/")[1] for name in names if "/licenses/" in name}
    assert licences == {"LICENSE", "NOTICE", "LICENSES/Apache-2.0.txt"}


def test_the_wheel_holds_every_module_of_the_checkout(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.endswith(".py")}
    assert packed == {path.relative_to(ROOT).as_posix() for path in (ROOT / "condseg_sdk").rglob("*.py")}


def test_the_sdist_holds_what_building_and_testing_need(distributions: Path) -> None:
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {
        "pyproject.toml",
        "conftest.py",
        "README.md",
        "weights_manifest.json",
        "constraints.txt",
        "Makefile",
        "NOTICE",
    }
    assert needed <= names
    assert f"condseg_sdk/weights/bundled/{MODEL}/model.safetensors" in names
    assert "tests/test_packaging.py" in names


def test_the_installed_wheel_segments_an_image_without_a_network(
    clean_python: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    answer = json.loads(run(clean_python, "-c", SEGMENT, PHOTOGRAPH, cwd=tmp_path, **offline))
    assert Path(answer["package"]).is_relative_to(clean_python.parents[1])
    assert answer["versions"][0] == answer["versions"][1]
    assert answer["shape"] == [1411, 1411]
    assert 0 <= answer["probability"][0] <= answer["probability"][1] <= 1


def test_the_installed_command_writes_a_mask_without_a_network(
    clean_python: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    condseg = clean_python.with_name("condseg")
    assert MODEL in run(condseg, "models", cwd=tmp_path, **offline)
    run(condseg, "predict", PHOTOGRAPH, "--out", tmp_path / "out", "--save", "mask", cwd=tmp_path, **offline)
    masks = list((tmp_path / "out").glob("*.png"))
    assert len(masks) == 1
    with Image.open(masks[0]) as mask:
        assert mask.size == (1411, 1411)
        assert {value for _, value in mask.getcolors()} <= {0, 255}


@pytest.mark.browser
def test_the_example_of_the_installed_app_is_segmented_in_a_browser(
    clean_python: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    pytest.importorskip("gradio", reason="needs the extra [app]")
    where = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": offline["HF_HOME"]}
    command = [str(clean_python.with_name("condseg")), "app", "--port", "0", "--device", "cpu"]
    with running(command, tmp_path / "log.txt", python=clean_python, **where) as address, open_page() as page:
        page.goto(address)
        page.click("#example")
        page.wait_for_function("document.querySelector('#status').innerText.includes('segmented in')")
        assert "example.jpg: 600 x 480 pixels" in page.inner_text("#status")
        page.wait_for_selector("#mask img")
    assert "Traceback" not in (tmp_path / "log.txt").read_text()
