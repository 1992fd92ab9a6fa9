"""The one walk over folders: each real folder once, junk of systems left out, what is left out counted."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from condseg_sdk.images.load import find_images
from condseg_sdk.walk import walk_folder, walk_folders


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(folder: Path, files: list[Path]) -> list[str]:
    return [file.relative_to(folder).as_posix() for file in files]


def link(folder: Path, target: str | Path) -> None:
    try:
        folder.symlink_to(target, target_is_directory=True)
    except OSError:
        pytest.skip("this system makes no links")


def test_files_at_any_depth_are_sorted_by_path(tmp_path: Path) -> None:
    deep = "/".join("abcdefghijklmnop")
    make(tmp_path, "b.png", "a/z.png", f"{deep}/c.png", "B.PNG")
    assert names(tmp_path, walk_folder(tmp_path, suffixes={".png"}).files) == [
        "B.PNG",
        "a/" + deep[2:] + "/c.png",
        "a/z.png",
        "b.png",
    ]


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    make(
        tmp_path,
        "a.png",
        "1.dcm",
        "2.DCM",
        "sub/3.dcm",
        "film.mp4",
        "README",
        "odd.\udcff\udcfe",
        ".hidden.png",
        "._a.png",
    )
    make(
        tmp_path,
        ".cache/b.png",
        "@eaDir/a.png/SYNOPHOTO_THUMB_XL.png",
        "sub/$RECYCLE.BIN/c.png",
        "Thumbs.db",
        ".DS_Store",
    )
    (tmp_path / "broken.png").symlink_to("nowhere.png")
    walk = walk_folder(tmp_path, suffixes={".png"})
    assert names(tmp_path, walk.files) == ["a.png"]
    assert walk.left_out == {
        ".dcm file": 3,
        ".mp4 file": 1,
        "file without a suffix": 1,
        "file of an unknown kind": 1,
        "hidden file": 2,
        "hidden folder": 1,
        "folder named @eaDir": 1,
        "folder named $RECYCLE.BIN": 1,
        "broken link": 1,
    }
    assert walk.summary() == (
        "3 .dcm files, 2 hidden files, 1 .mp4 file, 1 broken link, 1 file of an unknown kind, 1 file without a suffix, 3 others"
    )


def test_a_link_to_a_folder_above_repeats_no_file(tmp_path: Path) -> None:
    make(tmp_path, "set/a.png", "set/sub/b.png", "set/sub/deep/c.png")
    link(tmp_path / "set/loop", "..")
    link(tmp_path / "set/sub/loop", tmp_path)
    link(tmp_path / "set/sub/deep/loop", ".")
    found = walk_folder(tmp_path / "set", suffixes={".png"})
    assert names(tmp_path, found.files) == ["set/a.png", "set/sub/b.png", "set/sub/deep/c.png"]
    assert names(tmp_path, find_images(f"{tmp_path}/**/*.png")) == names(tmp_path, found.files)


def test_links_to_files_and_to_folders_elsewhere_are_followed(tmp_path: Path) -> None:
    make(tmp_path, "store/x/1.png", "other/2.png", "set/z.png")
    link(tmp_path / "set/a", tmp_path / "store")
    link(tmp_path / "set/b", tmp_path / "store" / "x")  # seen under a/x already
    (tmp_path / "set/linked.png").symlink_to(tmp_path / "other/2.png")
    walk = walk_folder(tmp_path / "set")
    assert names(tmp_path, walk.files) in (
        ["set/a/x/1.png", "set/linked.png", "set/z.png"],
        ["set/b/1.png", "set/linked.png", "set/z.png"],
    )
    assert sum(walk.left_out.values()) == 1


def test_a_folder_is_listed_under_its_own_path_and_not_under_that_of_a_link(tmp_path: Path) -> None:
    make(tmp_path, "z/real/1.png")
    link(tmp_path / "a", tmp_path / "z" / "real")
    assert names(tmp_path, walk_folder(tmp_path).files) == ["z/real/1.png"]


def test_a_folder_below_several_others_is_visited_once(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png")
    link(tmp_path / "b", "a")
    assert names(tmp_path, walk_folders([tmp_path / "b", tmp_path / "a"]).files) == ["a/1.png"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_permission_is_counted(tmp_path: Path) -> None:
    make(tmp_path, "locked/a.png")
    (tmp_path / "locked").chmod(0)
    assert walk_folder(tmp_path).summary() == "1 unreadable folder"
    (tmp_path / "locked").chmod(0o700)


@pytest.mark.parametrize("hidden_root", [".data", "@eaDir"])
def test_a_given_folder_is_searched_whatever_its_name(tmp_path: Path, hidden_root: str) -> None:
    make(tmp_path, f"{hidden_root}/a.png")
    assert names(tmp_path, find_images(tmp_path / hidden_root)) == [f"{hidden_root}/a.png"]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("**/*.png", ["a.png", "s/b.png", "s/t/c.png"]),
        ("**", ["a.png", "s/b.png", "s/t/c.png"]),
        ("s/**/*.png", ["s/b.png", "s/t/c.png"]),
        ("s/**/t/*.png", ["s/t/c.png"]),
        ("*/**/**/?.png", ["s/b.png", "s/t/c.png"]),
        ("*/*.png", ["s/b.png"]),
        (".h/*.png", [".h/d.png"]),
        ("**/.h/*.png", [".h/d.png"]),
        ("@eaDir/*.png", ["@eaDir/e.png"]),
    ],
)
def test_patterns_match_at_any_depth(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    make(tmp_path, "a.png", "s/b.png", "s/t/c.png", ".h/d.png", "@eaDir/e.png", "s/.hidden.png")
    assert names(tmp_path, find_images(f"{tmp_path}/{pattern}")) == wanted


def test_finding_images_logs_what_it_leaves_out_in_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a.png", "b.mp4", "c.mp4", "@eaDir/a.png")
    for source in (tmp_path, f"{tmp_path}/**"):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "condseg_sdk"):
            find_images(source)
        assert [record.message for record in caplog.records] == [
            f"{source}: left out 2 .mp4 files, 1 folder named @eaDir; "
            f"pass videos by name or pattern, such as {str(tmp_path / '*.mp4')!r}"
        ]
