"""Write docs/cli.md from the application itself: `python docs/make_cli_reference.py`."""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path

from typer.models import ArgumentInfo

from patchkit_cli import cache
from patchkit_cli.errors import EXIT_MEANINGS
from patchkit_cli.main import GROUPS, SESSION

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# Command line reference

Made by `docs/make_cli_reference.py` from the application; `patchkit COMMAND --help` shows the same.

Results go to stdout, everything else to stderr. Every command takes either `--json` (one object
on stdout with `"schema": "patchkit.<command>/1"`, errors as one line on stderr) or `--quiet` (the
value that matters and nothing else).
[Exit codes, streams and errors](exit-codes.md) has the details.
"""


def reference() -> str:
    """The whole page."""
    exits = "\n".join(f"| {code.value} | {text} |" for code, text in EXIT_MEANINGS.items())
    parts = [HEAD, shell(SESSION), f"| exit code | meaning |\n|---|---|\n{exits}\n"]
    for panel, commands in GROUPS.items():
        parts.append(f"## {panel}\n")
        parts += [section(*command) for command in commands]
    parts.append("## Cache\n")
    parts += [section(f"cache {name}", *rest) for name, *rest in cache.COMMANDS]
    return "\n".join(parts)


def section(name: str, command: Callable[..., None], examples: tuple[str, ...]) -> str:
    """One command: what it does, its usage, its parameters, its examples."""
    parameters = list(described(command))
    arguments = [shown for shown, *_ in parameters if not shown.startswith("-")]
    usage = " ".join(["patchkit", name, *arguments, "[OPTIONS]"])
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in map(table_cells, parameters))
    return "\n".join(
        [
            f"### {name}\n",
            f"{doc(command)}\n",
            f"```text\n{usage}\n```\n",
            f"| parameter | values | default | meaning |\n|---|---|---|---|\n{rows}\n",
            shell(examples),
        ]
    )


def doc(command: Callable[..., None]) -> str:
    """A command's description, with lines of JSON as code."""
    lines = (inspect.getdoc(command) or "").splitlines()
    return "\n".join(f"`{line}`" if line.startswith("{") else line for line in lines)


def described(command: Callable[..., None]) -> Iterator[tuple[str, str, str, str]]:
    """Name, values, default and help of each parameter, in the order of the signature."""
    for parameter in inspect.signature(command).parameters.values():
        kind, info = typing.get_args(parameter.annotation)
        default = parameter.default
        told = "required" if default is inspect.Parameter.empty else default_text(default)
        if isinstance(info, ArgumentInfo):
            yield info.metavar or parameter.name.upper(), values(kind, None), told, info.help or ""
            continue
        # In an Annotated option the first declaration stands where a default would.
        declared = [info.default, *(info.param_decls or ())]
        names = [name for name in declared if isinstance(name, str) and name.startswith("-")]
        shown = ", ".join(names) or f"--{parameter.name.replace('_', '-')}"
        yield shown, values(kind, info.metavar), told, info.help or ""


def default_text(default: object) -> str:
    """A default as it would be typed; nothing for what is off or absent."""
    return "" if default is None or default is False else str(default)


def values(kind: object, metavar: str | None) -> str:
    """What a parameter takes, in a word."""
    if metavar:
        return metavar
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return values(typing.get_args(kind)[0], None)
    if typing.get_origin(kind) is list:
        return f"{values(typing.get_args(kind)[0], None)}, repeatable"
    return {bool: "flag", Path: "path", int: "number", str: "text"}.get(kind, "")  # type: ignore[call-overload]


def table_cells(parameter: tuple[str, str, str, str]) -> list[str]:
    """Cells of a Markdown table: code where something is typed, and no bare bars."""
    name, taken, default, meaning = (
        text.replace("|", "\\|").replace("<", "&lt;") for text in parameter
    )
    return [
        f"`{name}`",
        taken,
        f"`{default}`" if default not in ("", "required") else default,
        meaning,
    ]


def shell(commands: tuple[str, ...]) -> str:
    """A fenced block of commands."""
    return "\n".join(["```sh", *commands, "```\n"])


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
