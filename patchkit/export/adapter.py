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
from patchkit.errors import UnsupportedModel
from patchkit.events import Progress, phase
from patchkit.factors.lowrank import Change, LowRank, look
from patchkit.factors.streaming import stored_rows
from patchkit.patch.metadata import BaseMeta
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
    """All layers in the order of the model, with the rank that they share.

    `repo` and `revision` say where on the Hub the base comes from, None where that is not known.
    """

    checkpoint: Checkpoint
    layers: tuple[Layer, ...]
    repo: str | None
    revision: str | None

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
    origin: BaseMeta,
    *,
    allow_other_base: bool,
    progress: Progress,
) -> Adapter:
    """Compute the adapter; of the base only headers and the edited tensors are read.

    `origin` is what the patches say of their base. Lists of one factor keep their form: A = Bᵀ for
    the input side, A = BᵀW for the output side; longer ones are shortened by a factorised SVD.
    Raises CheckpointError for a name that the base does not have, BaseMismatch for other weights,
    UnsupportedModel for another architecture, and InvariantError for a factor that is not of low
    rank.
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
    layers.sort(key=lambda layer: layer.site.layer)
    return Adapter(checkpoint, tuple(layers), *_place(checkpoint, origin))


def _place(checkpoint: Checkpoint, origin: BaseMeta) -> tuple[str | None, str | None]:
    """Repository and revision of the base; the embedded model has a name but no repository."""
    known = checkpoint if checkpoint.repo else origin
    return (known.repo, known.revision) if "/" in (known.repo or "") else (None, None)


def _sites(checkpoint: Checkpoint, joined: Mapping[str, Stacked]) -> dict[str, Site]:
    for name in joined:
        checkpoint.tensor(name)
    found = {site.tensor: site for site in sites(outline(checkpoint), checkpoint)}
    if other := [name for name in joined if name not in found]:
        raise UnsupportedModel(
            f"{other[0]} is not the output projection of an MLP, which is what can be exported",
            hint="patchkit apply BASE PATCH… -o OUT",
            details={"tensors": other},
        )
    return found


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
