"""Chooses which classes of a dataset count as foreground, where annotations, masks or folders name classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from condseg_sdk.data.names import normalize_name
from condseg_sdk.data.pairs import (
    DiscoveredPairs,
    IndexedMask,
    MaskSource,
    MergedMask,
    Problem,
    RegionMask,
    one_line,
)
from condseg_sdk.errors import DatasetError, OptionError

__all__ = ["check_classes", "select_classes"]

SHOWN = 20  # names of classes in an error


def check_classes(classes: Sequence[str] | str | None) -> tuple[str, ...] | None:
    """Refuse anything but names of classes; one name may be given as a string.

    Raises:
        OptionError: The value is something else, or there is no name.
    """
    if classes is None:
        return None
    names = (classes,) if isinstance(classes, str) else tuple(classes) if isinstance(classes, (list, tuple)) else ()
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        shown = one_line(repr(classes), 80)
        raise OptionError(f"classes={shown} must be a list of names, such as ['polyp']", option="classes")
    return names


def select_classes(found: DiscoveredPairs, classes: tuple[str, ...] | None) -> DiscoveredPairs:
    """Keep the regions, values and files of the chosen classes; everything else becomes background.

    Args:
        found: Pairs in which every class counts as foreground.
        classes: Names of the classes, in any case; None for all of them, with a warning if there are several.

    Returns:
        The pairs. A mask without a region of these classes is empty.

    Raises:
        DatasetError: No region has one of the names, or the data names no classes. The message lists the names that
            were found.
    """
    counts = Counter(name for pairs in found.pairs.values() for pair in pairs for name in _names(pair.mask))
    if classes is None:
        return replace(found, problems=(*found.problems, *_warning(counts)))
    known = {normalize_name(name.strip()) for name in counts}
    missing = [name for name in classes if normalize_name(name.strip()) not in known]
    if missing and not counts:
        raise DatasetError(
            f"classes={list(classes)}: the data names no classes; leave classes= (--classes) out, or pass annotation "
            "files, an nnU-Net dataset or a folder of masks for each class"
        )
    if missing:
        names = ", ".join(one_line(name, 60) for name, _ in counts.most_common(SHOWN))
        more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
        raise DatasetError(f"no region is of the class {one_line(repr(missing[0]), 60)}; the classes are {names}{more}")
    chosen = frozenset(normalize_name(name.strip()) for name in classes)
    pairs = {
        split: [replace(pair, mask=_of_classes(pair.mask, chosen)) for pair in items]
        for split, items in found.pairs.items()
    }
    return replace(found, pairs=pairs, layout=f"{found.layout}, only the class {' and '.join(classes)}")


def _names(mask: MaskSource) -> list[str]:
    """Names of the classes of a mask, one for each region, value or file."""
    if isinstance(mask, IndexedMask):
        return [name for name, _ in mask.values]
    return [label for label in mask.labels if label] if isinstance(mask, (RegionMask, MergedMask)) else []


def _warning(counts: Counter[str]) -> list[Problem]:
    if len(counts) < 2:
        return []
    message = f"{len(counts)} classes, all of which are foreground; choose with classes= (--classes) if some are not"
    names = sorted(one_line(name, 60) for name in counts)
    return [Problem("warning", message, tuple(names))]


def _of_classes(mask: MaskSource, chosen: frozenset[str]) -> MaskSource:
    def is_chosen(label: str) -> bool:
        return normalize_name(label.strip()) in chosen

    if isinstance(mask, IndexedMask):
        return replace(mask, values=tuple((name, values) for name, values in mask.values if is_chosen(name)))
    if isinstance(mask, RegionMask):
        kept = [n for n, label in enumerate(mask.labels) if is_chosen(label)]
        return replace(mask, regions=tuple(mask.regions[n] for n in kept), labels=tuple(mask.labels[n] for n in kept))
    if isinstance(mask, MergedMask) and mask.labels:
        kept = [n for n, label in enumerate(mask.labels) if is_chosen(label)]
        others = tuple(file for n, file in enumerate(mask.files) if n not in kept)
        return replace(
            mask,
            files=tuple(mask.files[n] for n in kept),
            labels=tuple(mask.labels[n] for n in kept),
            others=others,
        )
    return mask
