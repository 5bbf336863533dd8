"""`patchkit cache`: what patchkit keeps between runs."""

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from .options import JsonFlag, QuietFlag
from .output import Out, Row
from .units import count, size

LS_EXAMPLES = ("patchkit cache ls", "patchkit cache ls --json")
CLEAR_EXAMPLES = ("patchkit cache clear --dry-run", "patchkit cache clear")

app = typer.Typer(help="See and empty the cache.", no_args_is_help=True)

DryRunFlag = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would go.", rich_help_panel="Output")
]


def folder() -> Path:
    """The user's cache folder for patchkit; it need not exist."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "patchkit"


def ls(json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """List what the cache holds."""
    out = Out.choose("cache-ls", json=json, quiet=quiet)
    place = folder()
    entries = _entries(place)
    total = sum(entries.values())
    out.table(("FILE", "SIZE"), [Row(name, size(entries[name])) for name in entries], right=" R")
    out.line(f"{count(len(entries), 'file')}, {size(total)} in {place}")
    files = [{"path": name, "bytes": entries[name]} for name in entries]
    out.result({"path": str(place), "bytes": total, "files": files}, quiet=str(place))


def clear(dry_run: DryRunFlag = False, json: JsonFlag = False, quiet: QuietFlag = False) -> None:
    """Delete everything in the cache."""
    out = Out.choose("cache-clear", json=json, quiet=quiet)
    place = folder()
    entries = _entries(place)
    total = sum(entries.values())
    amount = f"{count(len(entries), 'file')}, {size(total)} in {place}"
    if dry_run:
        out.line(f"Would delete {amount}")
    else:
        _empty(place)
        out.done(f"deleted {amount}")
    data = {"dry_run": dry_run, "path": str(place), "files": len(entries), "bytes": total}
    out.result(data, quiet=str(place))


COMMANDS = (("ls", ls, LS_EXAMPLES), ("clear", clear, CLEAR_EXAMPLES))


def _entries(place: Path) -> dict[str, int]:
    """Size of every file under `place`, by relative name."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found[path.relative_to(place).as_posix()] = path.stat().st_size
    return found


def _empty(place: Path) -> None:
    for child in place.iterdir() if place.is_dir() else ():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
