"""A patch as a LoRA: two thin matrices for each edited module, of one rank for all of them.

The product B A is W′ − W exactly (`factors.lowrank`), so nothing is approximated but the last
digits of the type that a file stores. One rank for every module and alpha equal to it make the
scale 1 in PEFT, vLLM and llama.cpp alike, which read alpha and rank differently where they vary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from patchkit.base import outline
from patchkit.events import Progress, phase
from patchkit.factors.lowrank import Change, LowRank, look
from patchkit.factors.streaming import stored_rows
from patchkit.patch.stack import Stacked, check_digest, check_site
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import Site, sites

Storage = Literal["float32", "bfloat16"]
"""Type in which an adapter's matrices are stored."""

DTYPES: Mapping[Storage, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One edited module and its change in fp64: B is `change.up`, A is `change.down`."""

    site: Site
    change: LowRank


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """All layers in the order of the model, with the rank that they share."""

    checkpoint: Checkpoint
    layers: tuple[Layer, ...]

    @property
    def rank(self) -> int:
        """Rank and alpha of every layer."""
        return self.layers[0].change.rank

    @property
    def architecture(self) -> str:
        """The base's model_type."""
        return str(self.checkpoint.config.get("model_type"))


def build(
    checkpoint: Checkpoint,
    joined: Mapping[str, Stacked],
    *,
    allow_other_base: bool,
    progress: Progress,
) -> Adapter:
    """Compute the adapter; of the base only headers and the edited tensors are read.

    Lists of one factor keep their form: A = Bᵀ for the input side, A = BᵀW for the output side.
    Longer ones are shortened by a factorised SVD. Raises CheckpointError for a name that the base
    does not have, BaseMismatch for other weights, UnsupportedModel for another architecture, and
    InvariantError for a factor that is not of low rank.
    """
    found = _sites(checkpoint, joined)
    for name, stack in joined.items():
        check_site(found[name], stack.meta)
    total = sum(checkpoint.tensor(name).info.nbytes for name in joined)
    changes = {}
    with phase(progress, "reading base", total, "B") as advance:
        for name, stack in joined.items():
            if not allow_other_base:
                check_digest(name, stack.meta, checkpoint.digest(name))
            changes[name] = _change(checkpoint, name, stack)
            advance(checkpoint.tensor(name).info.nbytes)
    rank = max(1, *(change.rank for change in changes.values()))
    layers = [Layer(found[name], change.padded(rank)) for name, change in changes.items()]
    return Adapter(checkpoint, tuple(sorted(layers, key=lambda layer: layer.site.layer)))


def _sites(checkpoint: Checkpoint, joined: Mapping[str, Stacked]) -> dict[str, Site]:
    for name in joined:
        checkpoint.tensor(name)
    return {site.tensor: site for site in sites(outline(checkpoint), checkpoint)}


def _change(checkpoint: Checkpoint, name: str, stack: Stacked) -> LowRank:
    change = Change(stack.factors, (stack.meta.d_out, stack.meta.d_in))
    low = change.at(look(change, stored_rows(checkpoint, name), stack.meta.layout))
    return low if len(stack.factors) == 1 else low.shortest()


def matrices(layer: Layer, storage: Storage) -> tuple[Tensor, Tensor]:
    """Return A (r, d_in) and B (d_out, r) as they are stored."""
    dtype = DTYPES[storage]
    return layer.change.down.to(dtype).contiguous(), layer.change.up.to(dtype).contiguous()


def errors(adapter: Adapter, stored: Mapping[str, LowRank]) -> Iterator[float]:
    """Yield ‖B A − (W′ − W)‖_F / ‖W′ − W‖_F for each layer, as read back from a file."""
    for layer in adapter.layers:
        size = layer.change.norm()
        off = layer.change.distance(stored[layer.site.module])
        yield off / size if size else off
