"""Patches on top of each other, as files: what all of them together do to each tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchkit.errors import BaseMismatch
from patchkit.factors import Layout
from patchkit.factors.kinds import Factor
from patchkit.patch.parts import read_factors
from patchkit.patch.reader import PatchInfo, read_info
from patchkit.tensors.source import FileSource


@dataclass(frozen=True, slots=True)
class FileStack:
    """Patches in the order applied; factors are read from their files when asked for."""

    paths: tuple[Path, ...]
    infos: tuple[PatchInfo, ...]

    @classmethod
    def open(cls, paths: Sequence[Path]) -> FileStack:
        """Read the headers; FormatError for a damaged patch, BaseMismatch if layouts differ."""
        stack = cls(tuple(paths), tuple(read_info(path) for path in paths))
        for name in stack.names:
            stack.layout(name)
        return stack

    @property
    def digests(self) -> tuple[str, ...]:
        """Digest of each patch."""
        return tuple(info.digest for info in self.infos)

    @property
    def names(self) -> tuple[str, ...]:
        """Edited tensors, in the order in which they first occur."""
        return tuple(dict.fromkeys(name for info in self.infos for name in info.metadata.tensors))

    def layout(self, name: str) -> Layout:
        """How a tensor is stored; BaseMismatch if two patches disagree."""
        tables = [info.metadata.tensors for info in self.infos]
        layouts = [tensors[name].layout for tensors in tables if name in tensors]
        if len(set(layouts)) > 1:
            raise BaseMismatch(
                f"the patches disagree on how {name} is stored: {' and '.join(sorted(layouts))}",
                details={"tensor": name},
            )
        return layouts[0]

    def factors(self, name: str) -> tuple[Factor, ...]:
        """All factors of a tensor, first patch first."""
        return tuple(
            factor
            for path, info in zip(self.paths, self.infos, strict=True)
            if name in info.metadata.tensors
            for factor in read_factors(FileSource(path), info.metadata, info.header, name)
        )

    def inverse(self, name: str) -> tuple[Factor, ...]:
        """The factors that take those of a tensor back, last patch first."""
        return tuple(factor.inverse() for factor in reversed(self.factors(name)))
