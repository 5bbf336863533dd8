"""The folder of a base, wherever it is named: on this machine, or on the Hub."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from patchkit.events import Progress

from . import cache
from .output import Out
from .progress import shown

if TYPE_CHECKING:
    from patchkit.hub import FoundBase


def base_folder(
    ref: str | Path, progress: Progress, *, tensors: Collection[str] | None = None
) -> "FoundBase":
    """A base in the user's cache, as `patchkit.hub.find_base`."""
    from patchkit.hub import find_base

    return find_base(ref, cache.folder() / "bases", tensors=tensors, progress=progress)


def local_base(ref: str | Path, out: Out, *, tensors: Collection[str] | None = None) -> Path:
    """The folder of a base; of one on the Hub only what `tensors` need."""
    from patchkit.tensors.refs import on_hub, resolve_base

    if not on_hub(ref):  # the Hub's client takes its time to import
        return resolve_base(ref)
    with shown(out) as progress:
        found = base_folder(ref, progress, tensors=tensors)
    if found.offline:
        out.warn(f"the Hub cannot be reached: {ref} is commit {found.revision}, seen before")
    return found.path


def edited_tensors(patches: Iterable[Path]) -> set[str]:
    """The tensors that patches edit; a file that is no patch edits none."""
    from patchkit.errors import FormatError
    from patchkit.patch.reader import as_source, read_layout

    names: set[str] = set()
    for patch in patches:
        try:
            names.update(read_layout(as_source(patch)).metadata.tensors)
        except FormatError:
            continue
    return names
