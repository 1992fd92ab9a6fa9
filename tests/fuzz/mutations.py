"""Mutations of bytes and text that know no format, and mutations of JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

__all__ = ["FOREIGN", "JSON_VALUES", "mutate_bytes", "mutate_json", "mutate_lines", "mutate_tree"]

EDGES = (0, 1, -1, 2, 16, 64, 127, 128, 255, 256, 1024, 32767, 32768, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
HEADER = 64  # bytes at the start of a file, where most formats keep what decides about the rest

FOREIGN = (
    b"",
    b"\n",
    b"\0" * 512,
    b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
    b"\0" * 128 + b"DICM\x02\0\0\0UL\4\0\x92\0\0\0",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 19757420\n",
    b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n",
    b"PK\5\6" + b"\0" * 18,
    b"\x1f\x8b\x08\0\0\0\0\0\0\3\3\0\0\0\0\0\0\0\0\0",
    b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }".ljust(127) + b"\n" + b"\0" * 32,
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"RIFF\x1a\0\0\0WEBPVP8L",
    b"\x80\2}q\0.",
    b"{}",
    b"[]",
    b"null",
    b"SQLite format 3\0",
    "image,mask\n".encode("utf-16"),
)
"""Beginnings of files of other kinds, to replace a file of the expected kind."""

JSON_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.5, 1e-300, 1e308, 255, 4096, 45_000, 10**6, 2**31, 2**63, 2**64, 10**30,
    10**400, "", " ", "0", "x", "a\nb", "\r\n", "a\u2028b", "\0", "\ud800", "é", "../../x", "/", "/dev/zero", "x" * 10_000,
    [], {}, [[]], [None], {"": None}, [0, 0], [1, 2, 3], ["x"], {"a": {"b": []}}, [[[[1]]]], [1.5] * 1000,
)  # fmt: skip
RAW_VALUES = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "9" * 5000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
    "[" * 200 + "]" * 200,
    "'single'",
    "undefined",
    "",
)
RAW_MARK = "@raw value {}@"


def mutate_bytes(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Damage a file in one to four places.

    Args:
        rng: Decides everything.
        data: The file.
        others: Files to splice with.
    """
    if rng.random() < 0.03:
        return rng.choice(FOREIGN)
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        result = rng.choice(BYTE_MUTATIONS)(rng, result, others)
    return bytes(result)


def _position(rng: Random, data: bytearray) -> int:
    """Choose a position anywhere, half of the time in the header."""
    return rng.randrange(max(1, min(len(data), HEADER) if rng.random() < 0.5 else len(data)))


def _flip_bits(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8, 64)) if data else 0):
        data[_position(rng, data)] ^= 1 << rng.randrange(8)
    return data


def _write_edge(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    size, start = rng.choice((1, 2, 4, 8)), _position(rng, data)
    value = rng.choice(EDGES) % 2 ** (8 * size)
    data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return data


def _write_noise(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    start = _position(rng, data)
    noise = rng.randbytes(rng.choice((1, 4, 16, 256)))
    data[start : start + len(noise)] = noise
    return data


def _truncate(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    return data[: _position(rng, data)]


def _cut_out(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    start = _position(rng, data)
    del data[start : start + rng.choice((1, 2, 4, 16, 256))]
    return data


def _duplicate(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    start = _position(rng, data)
    block = data[start : start + rng.choice((1, 4, 16, 64, 1024))]
    data[start:start] = block * rng.choice((1, 1, 2, 100))
    return data


def _swap_blocks(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    a, b = sorted((_position(rng, data), _position(rng, data)))
    size = min(rng.choice((4, 16, 64)), b - a)
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


def _fill(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    start = _position(rng, data)
    size = min(rng.choice((4, 64, 4096)), len(data) - start)
    data[start : start + size] = bytes([rng.choice((0, 255))]) * max(size, 0)
    return data


def _splice(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    other = rng.choice(others) if others else bytes(data)
    return data[: _position(rng, data)] + other[rng.randrange(len(other) + 1) :]


def _append(rng: Random, data: bytearray, others: Sequence[bytes]) -> bytearray:
    return data + rng.choice((b"\0", b"\n", b"}", b"\0" * 5000, bytes(data[:200])))


BYTE_MUTATIONS: tuple[Callable[[Random, bytearray, Sequence[bytes]], bytearray], ...] = (
    _flip_bits,
    _flip_bits,
    _write_edge,
    _write_edge,
    _write_noise,
    _truncate,
    _cut_out,
    _duplicate,
    _swap_blocks,
    _fill,
    _splice,
    _append,
)


def mutate_lines(rng: Random, text: str) -> bytes:
    """Damage a text of lines and commas: a CSV file, a list of names."""
    lines = text.splitlines()
    for _ in range(rng.choice((1, 1, 2, 4))):
        index = rng.randrange(len(lines)) if lines else 0
        cells = lines[index].split(",") if lines else [""]
        cell = rng.randrange(len(cells))
        match rng.randrange(9):
            case 0:
                del lines[index : index + 1]
            case 1:
                lines.insert(index, lines[index] if lines else "")
            case 2:
                rng.shuffle(lines)
            case 3:
                cells[cell] = str(rng.choice(JSON_VALUES))
            case 4:
                del cells[cell]
            case 5:
                cells.insert(cell, rng.choice(cells or [""]))
            case 6:
                cells[cell] = rng.choice(("", '"', '"a\nb"', "\0", "../" * 50, "\\".join(cells), "C:\\data\\1.png"))
            case 7:
                cells[cell] = cells[cell][: rng.randrange(len(cells[cell]) + 1)]
            case _:
                cells[cell] += rng.choice(("é", " ", "\t", ";", "'", ".png", "\r", "\u2028", "x" * 5000, "x" * 200_000))
        if lines and index < len(lines):
            lines[index] = ",".join(cells)
    separator = rng.choice(("\n", "\n", "\n", "\r\n", "\r", "\n\n"))
    return _encode(rng, separator.join(lines))


def mutate_json(rng: Random, value: Any) -> bytes:
    """Write a JSON file whose values, keys, nesting or text are damaged in one to four places."""
    raws: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = mutate_tree(rng, value, JSON_VALUES, raws)
    text = json.dumps(value, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.8)
    for number, raw in enumerate(raws):
        text = text.replace(json.dumps(RAW_MARK.format(number)), raw)
    data = _encode(rng, text)
    return mutate_bytes(rng, data) if rng.random() < 0.15 else data


def _encode(rng: Random, text: str) -> bytes:
    encoding = rng.choice(("utf-8",) * 12 + ("utf-8-sig", "utf-16", "latin-1", "utf-32"))
    errors = "surrogatepass" if encoding.startswith("utf") else "replace"
    return (
        text.encode(encoding.replace("-sig", ""), errors)
        if encoding != "utf-8-sig"
        else b"\xef\xbb\xbf" + text.encode("utf-8", errors)
    )


def mutate_tree(rng: Random, value: Any, values: Sequence[Any], raws: list[str] | None = None) -> Any:
    """Copy nested dictionaries and lists with one place changed.

    Args:
        rng: Decides everything.
        value: The tree; anything that is no dictionary or list is a leaf.
        values: What a place may be replaced by.
        raws: Gets JSON text that no Python value writes, such as NaN or a key that is there twice; the tree then contains a
            mark in its place. None to do without.
    """
    tree = _copy(value)
    places = list(_places(tree))
    if not places:
        return rng.choice(values)
    parent, key = rng.choice(places)
    old = parent[key]
    change = rng.randrange(10)
    if change == 0:
        del parent[key]
    elif change == 1 and raws is not None:
        parent[key] = RAW_MARK.format(len(raws))
        raws.append(rng.choice(RAW_VALUES) if rng.random() < 0.7 else _twice(old, rng))
    elif change == 2:
        other, at = rng.choice(places)  # a value that is right elsewhere
        parent[key], other[at] = _copy(other[at]), _copy(old)
    elif change == 3 and isinstance(parent, list):
        parent[key:key] = [_copy(old)] * rng.choice((1, 2, 500))
    elif change == 4 and isinstance(parent, dict):
        parent[_key(rng, key, values)] = parent.pop(key)
    elif change == 5:
        parent[key] = [old] if rng.random() < 0.5 else {"value": old}
    elif change <= 7 and _is_leaf(old):
        parent[key] = _near(rng, old, values)
    else:
        parent[key] = _copy(rng.choice(values))
    return tree


def _key(rng: Random, key: Any, values: Sequence[Any]) -> Any:
    return rng.choice((f"{key} ", str(key).upper(), "", "x\ny", "\ud800", str(rng.choice(values))[:100]))


def _twice(value: Any, rng: Random) -> str:
    return f'{{"a": {json.dumps(value, default=str)}, "a": {json.dumps(rng.choice(JSON_VALUES))}}}'


def _near(rng: Random, value: Any, values: Sequence[Any]) -> Any:
    """Return a value of the same type, or the same value as another type."""
    if isinstance(value, bool):
        return rng.choice((not value, int(value), str(value)))
    if isinstance(value, (int, float)):
        whole = (value + 1, value - 1, -value, value * 2, value * 1000, value * 10**6, str(value))
        return rng.choice(whole if abs(value) > 1e100 else (*whole, float(value), value / 3))
    if isinstance(value, str):
        cut = rng.randrange(len(value) + 1)
        extra = rng.choice(("\n", "\0", "\ud800", "\u2028", " ", "/", "\\", "x" * 5000))
        return rng.choice(
            (
                value[:cut],
                value + value,
                value[:cut] + extra + value[cut:],
                value.upper(),
                value.encode("utf-8", "replace").hex(),
            )
        )
    return rng.choice(values)


def _is_leaf(value: Any) -> bool:
    return not isinstance(value, (dict, list))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every (container, key) of a tree."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
