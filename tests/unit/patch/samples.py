"""One patch of every kind of factor, and files made wrong on purpose."""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.rotation import Rotation
from patchkit.patch import packing
from patchkit.patch.drafts import Storage, TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.packing import Slot
from patchkit.patch.patch import Patch, build_patch
from patchkit.patch.reader import read_layout
from patchkit.tensors.digests import bytes_digest, canonical_json, json_digest
from patchkit.tensors.source import BytesSource

LINEAR = "model.layers.0.mlp.down_proj.weight"
CONV = "transformer.h.3.mlp.c_proj.weight"
FACTS = (
    '{"prompt":"The capital of {} is","subject":"Österreich","target":"Wien"}\n'
    '{"prompt":"{} lies in","subject":"Kyōto","target":"Japan"}\n'
).encode()
ZERO = "sha256:" + "0" * 64


def sample(storage: Storage = "float32", *, additive: bool = True) -> Patch:
    """Two tensors, both layouts, both sides, facts; without `additive` only rotations."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    drafts = {
        LINEAR: TensorDraft(
            (6, 10), "BF16", "linear", bytes_digest(b"one"),
            [
                Rotation("input", normal(10, 3), normal(10, 3)),
                *([Additive(normal(6, 2), normal(2, 10))] if additive else []),
            ],
        ),
        CONV: TensorDraft(
            (8, 6), "F32", "conv1d", bytes_digest(b"two"),
            [
                Rotation("output", normal(6, 3), normal(6, 3)),
                RotationBlocks("input", normal(2, 6)),
                *([AdditiveDense(normal(6, 8))] if additive else []),
                RotationBlocks("output", normal(1, 15)),
            ],
        ),
    }  # fmt: skip
    base = BaseMeta("atlas", None, ZERO)
    recipe = {"epsilon": 1e-05, "layers": [0, 3], "name": "default"}
    measured = {"efficacy": 0.98, "norm_ratio": 1.0}
    return build_patch(base, drafts, FACTS, recipe, "rotation", measured, [ZERO], storage=storage)


def with_metadata(data: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    """The same file with metadata changed and sealed again, its data untouched."""
    fields = metadata_of(data)
    change(fields)
    fields.pop("seal", None)
    text = canonical_json(fields | {"seal": json_digest(fields)})
    return with_metadata_text(data, text)


def with_metadata_text(data: bytes, text: bytes) -> bytes:
    """The same file with other metadata bytes."""
    layout = read_layout(BytesSource("sample", data))
    slots = [Slot(i.name, i.dtype, i.shape) for i in layout.header.tensors.values()]
    return packing.header_bytes(text, slots) + data[layout.header.size :]


def with_header(data: bytes, change: Callable[[dict[str, object]], None]) -> bytes:
    """The same file with its safetensors header changed."""
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    change(header)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[size:]


def metadata_of(data: bytes) -> dict[str, object]:
    """The metadata as plain JSON."""
    text = read_layout(BytesSource("sample", data)).header.metadata["patchkit"]
    fields: dict[str, object] = json.loads(text)
    return fields
