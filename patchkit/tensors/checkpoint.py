"""A checkpoint folder as it lies on disk, read-only: its configuration, shards and tensors.

Only headers are read on opening, so this takes milliseconds whatever the size of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TypeGuard

from patchkit.errors import CheckpointError, FormatError
from patchkit.models import atlas_path
from patchkit.tensors.digests import json_digest, sha256_of_range
from patchkit.tensors.header import Header, TensorInfo, read_header
from patchkit.tensors.origin import read_origin
from patchkit.tensors.source import FileSource

ATLAS = "atlas"
CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

MAX_NAME = 255
"""Bytes that the name of a file may have, as file systems have it."""

_MAX_JSON = 100_000_000
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_QUANTISED_KEYS = ("quantization_config", "compression_config")
_QUANTISED_ENDINGS = (".SCB", ".qweight", ".qzeros", ".absmax", ".quant_map", ".weight_scale")


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one tensor is stored: the file name of its shard, and its place there."""

    shard: str
    info: TensorInfo


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The files of one model: `tensors` by checkpoint name, `shards` by file name.

    `repo` is "atlas" for the embedded model; `repo` and `revision` are None for a local folder,
    unless it was fetched from the Hub and says so.
    """

    path: Path
    config: Mapping[str, object]
    shards: Mapping[str, Header]
    tensors: Mapping[str, Entry]
    repo: str | None = None
    revision: str | None = None

    @classmethod
    def open(
        cls, folder: str | Path, *, repo: str | None = None, revision: str | None = None
    ) -> Checkpoint:
        """Read the headers of a folder and check that they agree with its index.

        Raises CheckpointError for a folder that is missing, incomplete, pickled or quantised, and
        FormatError for a damaged file.
        """
        path = Path(folder)
        if not path.is_dir():
            raise CheckpointError(
                f"{path} is not a folder", hint="pass the folder that holds config.json"
            )
        config = _read_config(path)
        shards, places = _read_shards(path)
        tensors = {name: _entry(path, shards, name, shard) for name, shard in places.items()}
        _refuse_quantised(path, config, tensors)
        if repo is None and path.resolve() == atlas_path().resolve():
            repo = ATLAS
        if repo is None and (origin := read_origin(path)):
            repo, revision = origin.repo, origin.revision
        return cls(path, config, shards, tensors, repo, revision)

    @property
    def config_digest(self) -> str:
        """Digest of the configuration's content, whatever its spacing and key order."""
        return json_digest(dict(self.config))

    def tensor(self, name: str) -> Entry:
        """Find one tensor; CheckpointError names the nearest ones if there is none."""
        if name in self.tensors:
            return self.tensors[name]
        near = get_close_matches(name, self.tensors, n=3, cutoff=0.5)
        hint = f"the nearest names there are {', '.join(near)}" if near else None
        raise CheckpointError(
            f"{self.path} has no tensor {name!r}", hint=hint, details={"name": name, "near": near}
        )

    def source(self, name: str) -> FileSource:
        """Open the file that holds a tensor."""
        return FileSource(self.path / self.tensor(name).shard)

    def digest(self, name: str) -> str:
        """Digest of a tensor's bytes as stored."""
        info = self.tensor(name).info
        return sha256_of_range(self.source(name), info.start, info.end)

    def blocks(self, name: str, max_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Read a tensor as runs of whole rows of its first axis, in order.

        Yields the index of the first row and the bytes; a block has at most `max_bytes` bytes, or
        one row where a row is longer than that.
        """
        info, source = self.tensor(name).info, self.source(name)
        row = row_bytes(info)
        step = max(1, max_bytes // max(1, row)) * max(1, row)
        for start in range(info.start, info.end, step):
            yield (start - info.start) // row, source.read(start, min(start + step, info.end))


def is_file_name(name: object) -> TypeGuard[str]:
    """Whether a value is the plain name of a file in a folder: no way elsewhere, no odd letter."""
    return (
        isinstance(name, str)
        and name.isprintable()
        and Path(name).name == name
        and name not in ("", "..")
        and len(name.encode()) <= MAX_NAME
    )


def row_bytes(info: TensorInfo) -> int:
    """Bytes of one row of the first axis; a scalar is one row."""
    return info.nbytes // info.shape[0] if info.shape and info.shape[0] else info.nbytes


def _read_config(folder: Path) -> Mapping[str, object]:
    if not (folder / CONFIG).is_file():
        raise CheckpointError(
            f"{folder} has no {CONFIG}",
            hint="a base is a folder in the layout that transformers' save_pretrained writes",
        )
    return _read_json(folder / CONFIG)


def _read_json(path: Path) -> dict[str, object]:
    source = FileSource(path)
    if source.size > _MAX_JSON:
        raise FormatError(f"{path.name} has {source.size} bytes; {_MAX_JSON} are allowed")
    try:
        # Some published configurations hold Infinity, which canonical JSON cannot.
        value = json.loads(source.read(0, source.size).decode(), parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path.name} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path.name} is not a JSON object")
    return value


def _read_shards(folder: Path) -> tuple[dict[str, Header], dict[str, str]]:
    """Headers by file name, and the shard of each tensor; a single file wins over an index."""
    if (folder / SINGLE).is_file():
        header = read_header(FileSource(folder / SINGLE))
        return {SINGLE: header}, dict.fromkeys(header.tensors, SINGLE)
    if not (folder / INDEX).is_file():
        raise _no_weights(folder)
    places = _weight_map(folder)
    missing = sorted({name for name in places.values() if not (folder / name).is_file()})
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(set(places.values()))} shards: "
            + ", ".join(missing),
            hint="fetch the missing files again",
            details={"missing": missing},
        )
    names = sorted(set(places.values()))
    return {name: read_header(FileSource(folder / name)) for name in names}, places


def _weight_map(folder: Path) -> dict[str, str]:
    places = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FormatError(f"{INDEX} has no weight_map")
    for name, shard in places.items():
        if not is_file_name(shard) or not shard.endswith(".safetensors"):
            raise FormatError(
                f"{INDEX} places {name!r:.200} in {shard!r:.200}, not in a safetensors file"
            )
    return places


def _entry(folder: Path, shards: Mapping[str, Header], name: str, shard: str) -> Entry:
    info = shards[shard].tensors.get(name)
    if info is None:
        raise CheckpointError(
            f"{folder}: {INDEX} places tensor {name!r} in {shard}, which does not have it",
            hint="fetch the index and the shards again from one revision",
            details={"name": name, "shard": shard},
        )
    return Entry(shard, info)


def _no_weights(folder: Path) -> CheckpointError:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if not pickles:
        return CheckpointError(
            f"{folder} has neither {SINGLE} nor {INDEX}",
            hint="a base is a folder in the layout that transformers' save_pretrained writes",
        )
    load = f"AutoModelForCausalLM.from_pretrained({folder.name!r}, dtype='auto')"
    save = f"save_pretrained({folder.name + '-safetensors'!r})"
    return CheckpointError(
        f"{folder} holds its weights as pickle ({pickles[0]}), which can run code when loaded",
        hint="if you trust it, convert it first: "
        f'python -c "from transformers import AutoModelForCausalLM; {load}.{save}"',
        details={"files": pickles},
    )


def _refuse_quantised(
    folder: Path, config: Mapping[str, object], tensors: Mapping[str, Entry]
) -> None:
    found = _quantisation(config) or next(
        (name for name in tensors if name.endswith(_QUANTISED_ENDINGS)), None
    )
    if found:
        raise CheckpointError(
            f"{folder} is quantised ({found}); editing it would lose precision",
            hint="use the full-precision checkpoint that it was made from",
            details={"quantisation": found},
        )


def _quantisation(config: Mapping[str, object]) -> str | None:
    for part in (config, config.get("text_config")):
        if not isinstance(part, Mapping):
            continue
        for settings in filter(None, map(part.get, _QUANTISED_KEYS)):
            method = settings.get("quant_method") if isinstance(settings, Mapping) else None
            return str(method or "quantization_config")
    return None
