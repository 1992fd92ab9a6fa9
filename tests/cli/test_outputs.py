"""Where a command's files go: no two sources share one, and only files that we wrote are replaced."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from condseg_sdk.cli import outputs
from condseg_sdk.cli.outputs import check_output_folder, plan_outputs
from condseg_sdk.errors import OptionError, OutputError
from condseg_sdk.labels.write import LabelWriter
from condseg_sdk.provenance import add_checksums, check_replaced, is_ours, seal_json, seal_onnx, seal_png, seal_text
from condseg_sdk.segmentation import Segmentation

ENDINGS = ["_mask.png", "_overlay.png"]


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)


def segmentation() -> Segmentation:
    logits = np.array([[-3, 3], [-3, 3]], np.float32)
    return Segmentation(logits, (2, 2), threshold=0.5, source=np.zeros((2, 2), np.uint8), name="frame")


def plan(*sources: Path | str, out: Path, overwrite: bool = False) -> dict[str, str]:
    planned = plan_outputs([str(source) for source in sources], out, ENDINGS, overwrite=overwrite)
    bases = {**planned.images, **planned.videos}
    return {path.name: base.relative_to(out).as_posix() for path, base in bases.items()}


def test_a_videos_frames_never_share_a_name_with_an_image(tmp_path: Path) -> None:
    touch(tmp_path / "frames/clip_000000.png", tmp_path / "frames/other.png")
    found = plan(tmp_path / "frames", tmp_path / "clip.mp4", out=tmp_path / "out")
    assert found == {"clip_000000.png": "clip_000000", "other.png": "other", "clip.mp4": "clip.mp4"}
    touch(tmp_path / "frames/clip.mp4_000003.png")
    with pytest.raises(OutputError, match=r"would write the same files.*rename one"):
        plan(tmp_path / "frames", tmp_path / "clip.mp4", out=tmp_path / "out")


@pytest.mark.parametrize(("one", "other"), [("A.png", "a.jpg"), ("caf\u00e9.png", "cafe\u0301.jpg")])
def test_names_that_some_file_systems_treat_as_equal_keep_their_suffix(one: str, other: str, tmp_path: Path) -> None:
    touch(tmp_path / "in" / one, tmp_path / "in" / other)
    assert plan(tmp_path / "in", out=tmp_path / "out") == {one: one, other: other}


def test_where_the_file_system_ignores_case_two_sources_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "in/A.png", tmp_path / "in/a.png")
    if len(list((tmp_path / "in").iterdir())) == 2:
        assert len(plan(tmp_path / "in", out=tmp_path / "out")) == 2
    monkeypatch.setattr(outputs, "_distinguishes_names", lambda _: False)
    touch(tmp_path / "one/A.png", tmp_path / "two/a.png")
    with pytest.raises(OutputError, match="would write the same files"):
        plan(tmp_path / "one", tmp_path / "two", out=tmp_path / "out")


def test_one_source_under_two_names_is_one_source(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png")
    sources = (tmp_path / "in", tmp_path / "in/a.png", f"{tmp_path}/in/../in/a.png")
    assert plan(*sources, out=tmp_path / "out") == {"a.png": "a"}


def test_only_files_that_condseg_wrote_are_replaced(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png", tmp_path / "in/b.png")
    out = tmp_path / "out"
    out.mkdir()
    segmentation().save(out / "a_mask.png")
    assert plan(tmp_path / "in", out=out)
    touch(out / "b_mask.png")
    with pytest.raises(OutputError, match=r"b_mask\.png was not written by condseg.*--overwrite"):
        plan(tmp_path / "in", out=out)
    assert plan(tmp_path / "in", out=out, overwrite=True)
    (out / "b_mask.png").unlink()
    (out / "b_overlay.png").mkdir()
    with pytest.raises(OutputError, match="is a folder, but a file must be written there"):
        plan(tmp_path / "in", out=out, overwrite=True)


def test_the_frames_of_many_videos_are_found_in_one_listing_of_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []
    list_folder = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: listed.append(path) or list_folder(path))
    (tmp_path / "out").mkdir()
    plan(*(tmp_path / f"{number}.mp4" for number in range(5)), out=tmp_path / "out")
    assert listed.count(tmp_path / "out") <= 2  # one to find foreign files, one to find sources


def test_the_frames_of_an_earlier_call_are_checked_too(tmp_path: Path) -> None:
    touch(tmp_path / "out/clip_000007_mask.png")
    with pytest.raises(OutputError, match="clip_000007_mask"):
        plan(tmp_path / "clip.mp4", out=tmp_path / "out")
    assert plan(tmp_path / "clip.avi", tmp_path / "other.mp4", out=tmp_path / "new")


def test_a_source_is_not_replaced_even_with_overwrite(tmp_path: Path) -> None:
    touch(tmp_path / "in/a.png", tmp_path / "masks/drawn.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a_mask.png").hardlink_to(tmp_path / "masks/drawn.png")
    with pytest.raises(OutputError, match="is one of the images"):
        plan(tmp_path / "in", tmp_path / "masks", out=tmp_path / "out", overwrite=True)


def test_files_of_condseg_in_the_folder_of_the_images_are_not_segmented(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    segmentation().save(tmp_path / "a_mask.png")
    segmentation().save(tmp_path / "b_mask.png")  # of no image here: it may be segmented like any image
    assert plan(tmp_path, out=tmp_path) == {"a.png": "a", "b_mask.png": "b_mask"}


def test_an_output_folder_named_like_a_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (Path("condseg-lite-polyp"), tmp_path / "condseg-lite-polyp"):
        with pytest.raises(OptionError, match="would hide it"):
            check_output_folder(path)
    check_output_folder(tmp_path / "sub/condseg-lite-polyp")
    assert list(tmp_path.iterdir()) == []


WRITERS: dict[str, Callable[[Path], object]] = {
    "mask.png": lambda path: segmentation().save(path),
    "probability.png": lambda path: segmentation().save(path, kind="probability"),
    "a.json": lambda path: segmentation().save(path, kind="json"),
    "a.md": lambda path: path.write_bytes(seal_text("# Title\n\ncaf\udce9")),
    "a.html": lambda path: path.write_bytes(seal_text("<html></html>")),
    "a.onnx": lambda path: path.write_bytes(seal_onnx(onnx.ModelProto(producer_name="x" * 300).SerializeToString())),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_seal_survives_copies_and_breaks_with_any_change(name: str, tmp_path: Path) -> None:
    path = tmp_path / "one" / name
    path.parent.mkdir()
    WRITERS[name](path)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    moved = (tmp_path / "two" / name).rename(tmp_path / "two" / f"moved{path.suffix}")
    assert is_ours(path)
    assert is_ours(moved)
    data = path.read_bytes()
    for changed in (data[:-1], data + b" x", data.replace(data[len(data) // 3 : len(data) // 3 + 1], b"~"), b""):
        path.write_bytes(changed)
        assert not is_ours(path) or json.loads(changed) == json.loads(data)  # JSON may be formatted anew


def test_an_image_that_another_program_saved_again_has_no_valid_seal(tmp_path: Path) -> None:
    path = segmentation().save(tmp_path / "a.png")
    with Image.open(path) as image:
        pixels, text = image.copy(), image.text["Software"]
    assert text.startswith("condseg_sdk ")
    pixels.putpixel((0, 0), 255)  # corrected by hand, all metadata kept
    from PIL.PngImagePlugin import PngInfo

    kept = PngInfo()
    kept.add_text("Software", text)
    pixels.save(path, pnginfo=kept)
    assert not is_ours(path)


def test_a_table_is_recognized_by_a_sealed_file_beside_it(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    assert not is_ours(table)
    (tmp_path / "rows.md").write_bytes(seal_text("text", tables=[table]))
    assert is_ours(table)
    table.write_text("a,b\n1,3\n")
    assert not is_ours(table)


def test_seals_do_not_change_the_content_of_files() -> None:
    model = onnx.ModelProto(producer_name="test")
    assert onnx.load_from_string(seal_onnx(model.SerializeToString())).producer_name == "test"
    assert seal_json({"a": 1})["a"] == 1
    assert seal_png(segmentation().encode("mask")).startswith(b"\x89PNG")


def test_links_and_write_protected_files(tmp_path: Path) -> None:
    drawn, link = tmp_path / "drawn.png", tmp_path / "link.png"
    touch(drawn)
    link.symlink_to(drawn)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    for path in (link, tmp_path / "dangling.png"):
        with pytest.raises(OutputError, match="was not written by condseg"):
            check_replaced([path], overwrite=False)
    own = segmentation().save(tmp_path / "own.png")
    own.chmod(0o444)
    with pytest.raises(OutputError, match="is write-protected"):
        check_replaced([own], overwrite=False)
    check_replaced([own, tmp_path / "new.png"], overwrite=True)
    assert os.path.lexists(link)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_pipe_among_the_outputs_is_a_foreign_file_and_never_read(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    (tmp_path / "rows.md").write_bytes(seal_text("text", tables=[table]))
    for name in ("a_mask.png", "a.json", "a.txt", "a_seg.dcm", "model.onnx"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(OutputError, match="was not written by condseg"):
            check_replaced([tmp_path / name], overwrite=False)
    assert is_ours(table)


def test_sealed_json_of_another_kind_is_no_list_of_checksums(tmp_path: Path) -> None:
    other = tmp_path / "checksums.json"  # of an image named checksums.png
    other.write_text(json.dumps(seal_json({"area": 1})))
    (tmp_path / "labels.txt").write_text("0 0.1 0.1\n")
    assert is_ours(other)
    assert not is_ours(tmp_path / "labels.txt")
    add_checksums(tmp_path / "new.json", other, {"a.txt": "0" * 64})
    assert json.loads((tmp_path / "new.json").read_text())["files"] == {"a.txt": "0" * 64}


def test_links_in_a_circle_are_an_error_of_one_line(tmp_path: Path) -> None:
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with pytest.raises(OutputError, match=r"loop\.png cannot be created"):
        check_output_folder(tmp_path / "loop.png")
    assert plan(tmp_path / "loop.png", out=tmp_path / "out") == {"loop.png": "loop"}  # reading it fails, in its turn


@pytest.mark.parametrize("name", ["a_mask.png", "../out/a_mask.png", "coco.json", "clip_000123_overlay.png", "."])
def test_a_log_never_gets_a_name_of_the_results(name: str, tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    out = tmp_path / "out"
    sources = [str(tmp_path / "a.png"), str(tmp_path / "clip.mp4")]
    labels = LabelWriter(out, ["coco"], label="polyp")
    with pytest.raises(OptionError, match="is a name of the results"):
        plan_outputs(sources, out, ENDINGS, labels=labels, log=out / name, overwrite=True)
    plan_outputs(sources, out, ENDINGS, labels=labels, log=out / "run.jsonl", overwrite=True)
