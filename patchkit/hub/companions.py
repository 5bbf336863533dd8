"""Small files that go with a patch to the Hub: its signature, and a picture of its angles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import degrees
from pathlib import Path

from patchkit.errors import FormatError, InvariantError
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.kinds import Factor
from patchkit.factors.rotation import Rotation
from patchkit.hub.plot import angle_plot
from patchkit.hub.wire import RemoteFile
from patchkit.patch.naming import stem
from patchkit.patch.parts import read_factors
from patchkit.patch.reader import as_source, read_layout
from patchkit.signing import MAX_BYTES, SUFFIX, signature_path

PICTURE = ".angles.png"
_MOST = 2048
"""Planes of one core whose angles are computed for a picture: the effort grows with the cube."""


@dataclass(frozen=True, slots=True)
class Companions:
    """Files by path, and what the card says of them."""

    files: Mapping[str, bytes] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def changed(self, here: Mapping[str, RemoteFile]) -> dict[str, bytes]:
        """The files that are not there as they are here.

        A picture that is there stays: other builds of zlib pack the same one in other bytes.
        """
        return {
            path: data
            for path, data in self.files.items()
            if path not in here or not (path.endswith(PICTURE) or here[path].holds(data))
        }


def companions(path: str, content: Path | bytes) -> Companions:
    """What goes with a verified patch that gets `path`.

    A signature is that of the file it lies beside: a patch without its facts is another file.
    Raises FormatError for a signature that is too large to be one.
    """
    files, lines = {}, []
    if isinstance(content, Path) and signature_path(content).is_file():
        data = _signature(signature_path(content))
        files[path + SUFFIX] = data
        lines.append(
            f"Signed: `{path}{SUFFIX}`; `patchkit verify … --require-signer KEY` says by whom.\n"
        )
    if any(angles := _angles(content)):
        name = stem(path) + PICTURE
        files[name] = angle_plot(angles)
        count, largest = sum(map(len, angles)), max(map(max, filter(None, angles)))
        lines.append(
            f"![angles of rotation in degrees, largest first]({name})\n\nIt turns {count} planes "
            f"of {len(angles)} matrices, by {largest:.3g} degrees at most; a colour is a matrix.\n"
        )
    return Companions(files, tuple(lines))


def _signature(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_BYTES:
        raise FormatError(f"{path.name} has {size} bytes; a signature has at most {MAX_BYTES}")
    return path.read_bytes()


def _angles(content: Path | bytes) -> list[list[float]]:
    """Angles of each matrix in degrees; one matrix's factors are in memory at a time."""
    source = as_source(content)
    layout = read_layout(source)
    found = []
    for name in layout.metadata.tensors:
        factors = read_factors(source, layout.metadata, layout.header, name)
        try:
            turns = [turn for factor in factors for turn in _turns(factor)]
            found.append([degrees(turn) for turn in turns])
        except InvariantError:  # an angle beyond the limit, which a check has said already
            found.append([])
    return found


def _turns(factor: Factor) -> list[float]:
    """Angles of a rotation in radians; none of a sum, or of a core that is too large."""
    if isinstance(factor, Rotation) and factor.rank <= _MOST:
        return [float(angle) for angle in factor.angles()]
    if isinstance(factor, RotationBlocks) and factor.block_size <= 2 * _MOST:
        return [float(angle) for angle in factor.angles()]
    return []
