"""A patch in memory: what it says about itself, and its factors as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from patchkit import __version__
from patchkit.errors import FormatError, InvariantError
from patchkit.factors.action import Factor
from patchkit.patch import packing
from patchkit.patch.drafts import Storage, TensorDraft
from patchkit.patch.metadata import BaseMeta, FactsMeta, Leaf, PatchMetadata
from patchkit.patch.packing import FACTS, Slot, part_name
from patchkit.patch.parts import (
    factor_meta,
    factor_parts,
    read_factors,
    tensor_bytes,
    values_not_finite,
)
from patchkit.patch.reader import as_source, count_facts, read_info
from patchkit.patch.writing import write_atomically
from patchkit.tensors.digests import bytes_digest
from patchkit.tensors.source import ByteSource
from patchkit.tensors.torch_dtypes import dtype_name

__all__ = ["Patch", "Storage", "TensorDraft", "build_patch"]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Ordered factors for each edited tensor, with the metadata that describes them.

    Factors are held in the type they are stored in, so that what is in memory is what is in the
    file. `factors` has the same names as `metadata.tensors`.
    """

    metadata: PatchMetadata
    factors: Mapping[str, tuple[Factor, ...]]
    facts_jsonl: bytes | None = None

    @classmethod
    def read(cls, source: str | Path | bytes | ByteSource) -> Patch:
        """Read a file, bytes or any other source; FormatError unless all of it is in order."""
        source = as_source(source)
        info = read_info(source)
        factors = {}
        for name in info.metadata.tensors:
            factors[name] = read_factors(source, info.metadata, info.header, name)
            if count := values_not_finite(factors[name]):
                raise FormatError(
                    f"{source.name} cannot be used: the factors of {name} hold values that are "
                    f"not finite ({count})"
                )
        return cls(info.metadata, factors, info.facts_jsonl)

    @property
    def digest(self) -> str:
        """The patch's identity, the digest of its file; serialises the patch each time."""
        return bytes_digest(self.to_bytes())

    def to_bytes(self) -> bytes:
        """Return the file; the same patch always gives the same bytes.

        InvariantError if factors or facts are not the ones that the metadata describes.
        """
        _check_described(self)
        data = {
            part_name(name, index, part): tensor
            for name, ordered in self.factors.items()
            for index, factor in enumerate(ordered)
            for part, tensor in factor_parts(factor).items()
        }
        slots = [Slot(name, dtype_name(t.dtype), tuple(t.shape)) for name, t in data.items()]
        blobs = {name: tensor_bytes(tensor) for name, tensor in data.items()}
        if self.facts_jsonl is not None:
            slots.append(Slot(FACTS, "U8", (len(self.facts_jsonl),)))
            blobs[FACTS] = self.facts_jsonl
        header = packing.header_bytes(self.metadata.to_json(), slots)
        return b"".join([header, *(blobs[slot.name] for slot in packing.in_order(slots))])

    def write(self, path: str | Path) -> str:
        """Write the file at once or not at all and return its digest; OutputError if it cannot."""
        data = self.to_bytes()
        write_atomically(Path(path), data)
        return bytes_digest(data)


def build_patch(
    base: BaseMeta,
    tensors: Mapping[str, TensorDraft],
    facts_jsonl: bytes | None,
    recipe: Mapping[str, object],
    method: str,
    measured: Mapping[str, object],
    after: Sequence[str] = (),
    *,
    leaves: Sequence[Leaf] = (),
    embed_facts: bool = True,
    storage: Storage = "float32",
) -> Patch:
    """Return a patch whose factors are rounded once to `storage`.

    Factors of rank 0, and tensors that have no other, are left out. Without `embed_facts` only the
    number and the digest of the facts are kept. Raises InvariantError for factors that are not
    finite, too large or of the wrong shape, FormatError for anything else a reader would refuse.
    """
    drafts = {name: draft.stored(storage) for name, draft in tensors.items()}
    drafts = {name: draft for name, draft in drafts.items() if draft.factors}
    metadata = PatchMetadata(
        base=base,
        tensors={name: draft.describe() for name, draft in drafts.items()},
        method=method,
        created_by=f"patchkit {__version__}",
        facts=None if not facts_jsonl else _describe_facts(facts_jsonl),
        recipe=recipe,
        measured=measured,
        after=tuple(after),
        leaves=tuple(leaves),
    )
    return Patch(
        # What was written is read again: a reader's limits hold for what is built here, too.
        metadata=PatchMetadata.from_json(metadata.to_json()),
        factors={name: tuple(draft.factors) for name, draft in drafts.items()},
        facts_jsonl=facts_jsonl if facts_jsonl and embed_facts else None,
    )


def _describe_facts(facts_jsonl: bytes) -> FactsMeta:
    return FactsMeta(count_facts(facts_jsonl), bytes_digest(facts_jsonl))


def _check_described(patch: Patch) -> None:
    metadata = patch.metadata
    found = {name: tuple(map(factor_meta, ordered)) for name, ordered in patch.factors.items()}
    recorded = {name: tensor.factors for name, tensor in metadata.tensors.items()}
    for name in sorted(found.keys() | recorded.keys()):
        if found.get(name) != recorded.get(name):
            raise InvariantError(f"the factors of {name} are not those its metadata describes")
    if patch.facts_jsonl is not None and metadata.facts != _describe_facts(patch.facts_jsonl):
        raise InvariantError("the facts of the patch are not those its metadata describes")
