"""A sequence of edits on disk, so that it can go on after an interruption as if there was none.

One safetensors file holds every matrix's factors, history and solver, exactly as they are in
memory; the header says how they hang together. Only classes named here are ever built from it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from patchkit.editing.additive import Ridge
from patchkit.editing.metric import Metric
from patchkit.editing.stage import Written
from patchkit.editing.state import SiteState
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.rotation import Rotation
from patchkit.facts.fact import Fact

_KINDS: Mapping[str, Callable[..., object]] = {
    kind.__name__: kind
    for kind in (Additive, AdditiveDense, Rotation, RotationBlocks, Metric, Ridge)
}
_PARTS = ("factors", "keys", "values", "solver")


def keep(path: Path, written: Written, facts: Sequence[Fact]) -> None:
    """Write `written`, whose history is of `facts`, completely or not at all."""
    place = {fact: index for index, fact in enumerate(facts)}
    tensors: dict[str, Tensor] = {}
    tree = {
        "count": written.count,
        "seconds": written.seconds,
        "history": [place[fact] for fact in written.history],
        "layers": {
            str(layer): [_packed(getattr(state, part), tensors) for part in _PARTS]
            for layer, state in written.states.items()
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata={"written": json.dumps(tree)})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def find(path: Path, facts: Sequence[Fact]) -> Kept | None:
    """Return what was kept at `path`; None where nothing is, or nothing that can be read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tree = json.loads(file.metadata()["written"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        parts = {
            int(layer): [_unpacked(part, tensors) for part in packed]
            for layer, packed in tree["layers"].items()
        }
        history = tuple(facts[index] for index in tree["history"])
        return Kept(parts, history, int(tree["count"]), float(tree["seconds"]))
    except Exception:  # a damaged file is worth starting again, whatever the reader calls it
        return None


class Kept:
    """A sequence read from disk, to be put on the states that an edit begins with."""

    def __init__(
        self,
        parts: Mapping[int, list[Any]],
        history: tuple[Fact, ...],
        count: int,
        seconds: float,
    ) -> None:
        """Take what each layer's state had."""
        self.count = count
        self._parts = parts
        self._history = history
        self._seconds = seconds

    def restore(self, states: Mapping[int, SiteState]) -> Written:
        """Return `states` as they were; the beginning where they are those of other layers."""
        if set(states) != set(self._parts):
            return Written(states)
        made = {}
        for layer, state in states.items():
            device = state.base.device
            factors, keys, values, solver = (_moved(part, device) for part in self._parts[layer])
            made[layer] = replace(
                state.with_factors(factors), keys=keys, values=values, solver=solver
            )
        return Written(made, self._history, self.count, self._seconds)


def _packed(value: Any, tensors: dict[str, Tensor]) -> object:
    """Return `value` as JSON with numbers of tensors, which are added to `tensors`."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, tuple):
        return {"items": [_packed(item, tensors) for item in value]}
    if is_dataclass(value):
        parts = {f.name: _packed(getattr(value, f.name), tensors) for f in fields(value)}
        return {"kind": type(value).__name__, "fields": parts}
    return {"value": value}


def _unpacked(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    if "tensor" in packed:
        return tensors[packed["tensor"]]
    if "items" in packed:
        return tuple(_unpacked(item, tensors) for item in packed["items"])
    if "kind" in packed:
        parts = {name: _unpacked(part, tensors) for name, part in packed["fields"].items()}
        return _KINDS[packed["kind"]](**parts)
    return packed["value"]


def _moved(value: Any, device: torch.device) -> Any:
    """Return `value` with all tensors in it on `device`."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple):
        return tuple(_moved(item, device) for item in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value, **{f.name: _moved(getattr(value, f.name), device) for f in fields(value)}
        )
    return value
