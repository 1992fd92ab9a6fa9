"""The page of error messages, from the places in the package that raise them."""

from __future__ import annotations

import ast
import inspect
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from condseg_sdk import errors
from condseg_sdk.words import pluralize

PACKAGE = Path(errors.__file__).parent
BEGIN, END = "\x02", "\x03"  # around a placeholder

HEAD = """# Troubleshooting

Every error of condseg_sdk is one line that says what is wrong, with what, and what to do about it. Search this page for
words of your message: it lists all messages of the package by the class of the error. Words in angle brackets stand for
your files and values.

Common problems:

- **`opencv-python needs system libraries`**: see [Install](install.md#opencv-on-linux).
- **A GPU is not used**: `predictor.device` and `predictor.providers` say where the network runs. `device="cuda"` is
  strict: it names what is missing instead of falling back to the CPU.
- **Predictions are slow beside another busy process**: set `OMP_WAIT_POLICY=PASSIVE` before PyTorch is loaded; see
  [Serving](serving.md).
- **No download is possible**: the bundled models need none. For others see [Weights](weights.md).
- **The masks look shifted or empty**: open `predictor.preprocessing`, and compare the color order of your arrays:
  OpenCV's are `color_order="bgr"`.
"""


def page() -> str:
    """Return the page as Markdown: a section for each class of error."""
    found: dict[str, set[str]] = defaultdict(set)
    modules = [ast.parse(file.read_text(encoding="utf-8")) for file in sorted(PACKAGE.rglob("*.py"))]
    shared = {name: value for module in modules for name, value in _constants(module).items()}
    for module in modules:
        known = {**shared, **_constants(module)}
        for node in ast.walk(module):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in errors.__all__:
                message = _text(node.args[0], known) if node.args else ""
                if len(message.replace(BEGIN, "").split()) > 3:  # not one that only passes on another's text
                    found[node.func.id].add(message)
    lines = [HEAD]
    for name in sorted(found):
        summary = (inspect.getdoc(getattr(errors, name)) or "").partition("\n")[0]
        messages = sorted(found[name], key=str.lower)
        lines += [f"## {name}", "", summary, "", *(f"- {_escape(message)}" for message in messages), ""]
    return "\n".join(lines)


def _constants(module: ast.Module) -> dict[str, str]:
    """Return the texts that a module gives a name in capitals, such as REMEDY."""
    named: list[tuple[ast.expr, ast.expr]] = []
    for node in module.body:
        if isinstance(node, ast.Assign):
            target, value = node.targets[0], node.value
            several = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
            named += zip(target.elts, value.elts, strict=True) if several else [(target, value)]
    return {
        target.id: value.value
        for target, value in named
        if isinstance(target, ast.Name) and target.id.isupper()
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def _text(node: ast.expr, known: Mapping[str, str]) -> str:
    """Return the text of a string expression, with placeholders for what is known only at run time."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(value, known) for value in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left, known) + _text(node.right, known)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value, known)
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.Call) and _name(node.func) == "pluralize" and isinstance(node.args[1], ast.Constant):
        return f"{BEGIN}number{END}{pluralize(2, str(node.args[1].value)).removeprefix('2')}"
    return f"{BEGIN}{_name(node)}{END}"


def _name(node: ast.expr) -> str:
    """Name a placeholder: the last word of `source.path.name`, the function of a call, or "..."."""
    if isinstance(node, ast.Name):
        return node.id.strip("_")
    if isinstance(node, ast.Attribute):
        return node.attr.strip("_")
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Name | ast.Attribute):
        return _name(node.args[0])
    return "..."


def _escape(message: str) -> str:
    for plain, escaped in (("&", "&amp;"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("[", "\\["), ("`", "\\`")):
        message = message.replace(plain, escaped)
    return message.replace(BEGIN, "<em>&lt;").replace(END, "&gt;</em>")
