"""What the name of a base stands for: `atlas`, or a folder."""

from __future__ import annotations

import re
from pathlib import Path

from patchkit.errors import CheckpointError
from patchkit.models import atlas_path
from patchkit.tensors.checkpoint import ATLAS
from patchkit.tensors.origin import SCHEME

_HUB_NAME = re.compile(rf"(?:{SCHEME})?([\w-][\w.-]*/[\w-][\w.-]*)(?:@[\w./-]+)?")


def resolve_base(ref: str | Path) -> Path:
    """Give the folder that a reference names: `atlas`, the embedded model, or a local folder.

    Raises CheckpointError when there is no such folder, with the way to get one.
    """
    if ref == ATLAS:
        return _atlas()
    folder = Path(ref)
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise CheckpointError(
            f"{ref} is a file, and a base is a folder", hint="pass the folder that holds it"
        )
    name = _HUB_NAME.fullmatch(str(ref))
    raise CheckpointError(
        f"no folder {ref}",
        hint=f"to get it from the Hub: hf download {name[1]} --local-dir {Path(name[1]).name}"
        if name
        else f"pass a folder that holds config.json, or {ATLAS} for the embedded model",
        details={"ref": str(ref)},
    )


def on_hub(ref: str | Path) -> bool:
    """Whether a reference names a repository on the Hub: nothing here has that name, or hf://."""
    text = str(ref)
    if text.startswith(SCHEME):
        return True
    return _HUB_NAME.fullmatch(text) is not None and not Path(ref).exists()


def _atlas() -> Path:
    folder = atlas_path()
    if not (folder / "config.json").is_file():
        raise CheckpointError(
            "the embedded model atlas is missing from this installation",
            hint="pip install --force-reinstall patchkit-lm",
        )
    return folder
