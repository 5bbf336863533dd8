"""Which matrices of a checkpoint a rotation is looked for in, and how they are stored."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase

from transformers.pytorch_utils import Conv1D

from patchkit.base import outline
from patchkit.errors import CheckpointError
from patchkit.factors import Layout
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.dtypes import EDITABLE
from patchkit.tensors.layout import sites

_NUMBER = re.compile(r"\.(\d+)\.")


def chosen(
    base: Checkpoint, patterns: Sequence[str] | None, layers: Collection[int] | None
) -> Mapping[str, Layout]:
    """Return the layouts of the chosen matrices by tensor name, in the order of their layers.

    Without `patterns` these are the matrices that edits may change, the outputs of MLPs; otherwise
    all matrices of numbers whose names match one of them (`*`, `?`, `[…]`). `layers` keeps those
    of some layers, by the first number in the name. CheckpointError where none is left,
    UnsupportedModel for an architecture that transformers does not have.
    """
    model = outline(base)
    if patterns is None:
        layouts = {site.tensor: site.layout for site in sites(model, base)}
    else:
        turned = [path for path, module in model.named_modules() if isinstance(module, Conv1D)]
        layouts = {
            name: _layout(name, turned)
            for name, entry in base.tensors.items()
            if len(entry.info.shape) == 2 and entry.info.dtype in EDITABLE
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }
    kept = {n: kind for n, kind in layouts.items() if layers is None or _layer(n) in layers}
    if not kept:
        asked = ", ".join(patterns or ["the outputs of MLPs"])
        where = f" of layers {', '.join(map(str, sorted(layers)))}" if layers is not None else ""
        raise CheckpointError(
            f"{base.path} has no matrix that matches {asked}{where}",
            hint="patterns are of tensor names, such as '*.mlp.down_proj.weight'",
        )
    return dict(sorted(kept.items(), key=lambda item: (_layer(item[0]) or 0, item[0])))


def _layer(name: str) -> int | None:
    found = _NUMBER.search(name)
    return None if found is None else int(found[1])


def _layout(name: str, turned: Sequence[str]) -> Layout:
    """`conv1d` for the weight of a Conv1D module, whose path may have a prefix more or less."""
    own = name.removesuffix(".weight")
    same = any(f".{path}".endswith(f".{own}") or f".{own}".endswith(f".{path}") for path in turned)
    return "conv1d" if same else "linear"
