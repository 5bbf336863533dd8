"""Names of patch files, and whether one can be written."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from patchkit.errors import OutputError
from patchkit.patch import naming

if TYPE_CHECKING:
    from patchkit.patch.patch import Patch


def stem(path: Path) -> str:
    """The name of a patch as people say it, and any other file's without its last ending."""
    said = naming.stem(path.name)
    return path.stem if said in ("", path.name) else said


def check_output(target: Path, yes: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if target.is_dir():
        raise OutputError(f"{target} is a folder", hint="name a file with -o")
    if target.exists() and not yes:
        raise OutputError(
            f"{target} exists", hint="pass --yes to replace it, or name another file with -o"
        )
    if not target.parent.is_dir():
        raise OutputError(f"no folder {target.parent} to write {target.name} in")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target.parent} is not writable", hint="name another place with -o")


def write_measured(patch: "Patch", kept: Path) -> None:
    """Put a patch with its figures in the place of the one kept before anything was measured."""
    try:
        patch.write(kept)
    except OutputError as error:
        raise OutputError(
            f"{error.message}; the patch that stands there is whole, without its figures"
        ) from error.__cause__
