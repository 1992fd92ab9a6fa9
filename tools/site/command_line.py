"""The reference of the command line, from its parsers."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from condseg_sdk.cli.command import COMMANDS, make_parser

HEAD = """# Command line

`condseg COMMAND --help` prints the same. Exit codes: 0 if everything was done, 1 if something is missing (skipped
images), 2 after an error, which is one line on stderr, 130 or 143 if Ctrl-C or SIGTERM ended the command.
"""


def page() -> str:
    """Return the page as Markdown: a section for each command, with a table of its arguments."""
    return "\n".join([HEAD, *(line for name in COMMANDS for line in _section(name))])


def _section(name: str) -> Iterator[str]:
    main = make_parser([name])
    commands = next(action for action in main._actions if isinstance(action, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = commands.choices[name]
    yield f"\n## condseg {name}\n"
    yield f"{(parser.description or COMMANDS[name]).strip().rstrip('.').capitalize()}.\n"
    yield f"```text\n{_usage(parser)}\n```\n"
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if not isinstance(action, argparse._HelpAction)]
        if actions:
            yield f"**{(group.title or 'arguments').capitalize()}**\n"
            yield "| argument | description |\n|---|---|"
            for action in actions:
                yield f"| {_name(action)} | {_text(parser, action)} |"
            yield ""
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```\n"


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=88)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip()


def _name(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {_metavar(action)}"
    flags = action.option_strings or [_metavar(action)]
    return "<br>".join(f"`{flag}{value if action.option_strings else ''}`" for flag in flags)


def _metavar(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "{" + ",".join(str(choice) for choice in action.choices) + "}"
    return action.dest.upper()


def _text(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    formatter = argparse.HelpFormatter(parser.prog)
    text = formatter._expand_help(action) if action.help else ""
    text = text[:1].upper() + text[1:]
    for plain, escaped in (("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("[", "\\[")):
        text = text.replace(plain, escaped)
    return text
