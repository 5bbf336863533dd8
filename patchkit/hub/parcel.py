"""What one commit should bring: verified patches, and what the index and the card then say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from patchkit.errors import OutputError
from patchkit.events import SILENT, Progress
from patchkit.hub.card import Subject, changed_card
from patchkit.hub.companions import Companions, companions
from patchkit.hub.index import INDEX, Listed, merged, read_index, write_index
from patchkit.hub.refs import HubRef, check_path
from patchkit.hub.sound import Sound, sound
from patchkit.hub.wire import Remote
from patchkit.patch.metadata import Leaf
from patchkit.patch.naming import ENDING, stem
from patchkit.patch.patch import Patch
from patchkit.patch.reader import count_facts


@dataclass(frozen=True, slots=True)
class Item:
    """A verified patch and the path it gets."""

    path: str
    content: Path | bytes
    checked: Sound
    companions: Companions


@dataclass(frozen=True, slots=True)
class Parcel:
    """The patches of one push, all of one repository."""

    ref: HubRef
    items: tuple[Item, ...]
    license: str | None = None
    inherited: str | None = None
    overwrite: bool = False

    @property
    def digests(self) -> Mapping[str, str]:
        """What was verified, by path."""
        return {item.path: item.checked.info.digest for item in self.items}

    @property
    def public_facts(self) -> int:
        """How many facts anyone could read in these files."""
        return sum(count_facts(item.checked.info.facts_jsonl or b"") for item in self.items)

    @property
    def bases(self) -> frozenset[str]:
        """The bases' names on the Hub."""
        names = (item.checked.info.metadata.base.repo for item in self.items)
        return frozenset(name for name in names if name and "/" in name)

    def files(self, remote: Remote | None, known: Mapping[str, bytes]) -> dict[str, Path | bytes]:
        """What has to change on the Hub; nothing where all of it is there already.

        OutputError where another patch would be replaced, unless `overwrite`.
        """
        old = read_index(known[INDEX]) if INDEX in known else ()
        listed = merged(old, [Listed.of(item.path, item.checked.info) for item in self.items])
        here = {} if remote is None else remote.files
        files: dict[str, Path | bytes] = {
            item.path: item.content
            for item in self.items
            if item.path not in here or not here[item.path].holds(item.content)
        }
        taken = [path for path in files if path in here]
        if taken and not self.overwrite:
            raise OutputError(
                f"{self.ref.repo} holds another patch named {taken[0]}",
                hint="pass --yes to replace it, or rename the file",
            )
        if listed != old:
            files[INDEX] = write_index(listed)
        beside = {item.path: item.companions.changed(here) for item in self.items}
        new = {i.path: i.checked for i in self.items if i.path in files or beside[i.path]}
        lines = {item.path: item.companions.lines for item in self.items}
        for changed in beside.values():
            files |= changed
        subject = Subject(self.ref.repo, listed, new, self.license, self.inherited, lines)
        return {**files, **changed_card(known, subject)}


def pack(
    ref: HubRef,
    patches: Sequence[str | Path],
    *,
    embed_facts: bool = True,
    license: str | None = None,
    progress: Progress = SILENT,
) -> Parcel:
    """Read and verify patches, without their facts if so wanted.

    Raises FormatError, InvariantError as `sound`, and OutputError for two files of one name.
    """
    items = tuple(_item(Path(patch), embed_facts, progress) for patch in patches)
    paths = [item.path for item in items]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise OutputError(
            f"two of the patches would both be {twice[0]}", hint="rename one of the files"
        )
    return Parcel(ref, items, license)


def _item(path: Path, embed_facts: bool, progress: Progress) -> Item:
    name = stem(path.name) + ENDING
    checked = sound(path, name=path.name, progress=progress)
    check_path(name)
    if embed_facts or checked.info.facts_jsonl is None:
        return Item(name, path, checked, companions(name, path))
    patch = Patch.read(path)
    # Patches made on top of it name the digest that it had with its facts.
    leaves = patch.metadata.leaves or (Leaf(checked.info.digest),)
    metadata = replace(patch.metadata, leaves=leaves)
    bare = replace(patch, facts_jsonl=None, metadata=metadata).to_bytes()
    checked = sound(bare, name=path.name, progress=progress)
    return Item(name, bare, checked, companions(name, bare))
