"""`patchkit inspect`: what a patch says about itself, without a model and without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonFlag, PatchArgument, QuietFlag
from .output import Out, Row
from .units import shape, short, size

if TYPE_CHECKING:
    from patchkit.patch.metadata import BaseMeta, FactorMeta, FactsMeta, TensorMeta
    from patchkit.patch.reader import PatchInfo

EXAMPLES = (
    "patchkit inspect capitals.patch.safetensors --all",
    "patchkit inspect capitals.patch.safetensors --json",
)
SHOWN_TENSORS = 8
SHOWN_ANGLES = 3

Angles = Mapping[str, Sequence[float]]
AllFlag = Annotated[
    bool, typer.Option("--all", help="Every tensor, not the first few.", rich_help_panel="Output")
]
AnglesFlag = Annotated[
    bool,
    typer.Option("--angles", help="Rotation angles too (loads torch).", rich_help_panel="Output"),
]


def inspect(
    patch: PatchArgument,
    every: AllFlag = False,
    angles: AnglesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Show what a patch holds."""
    from patchkit.patch.reader import read_info

    out = Out.choose("inspect", json=json, quiet=quiet)
    info = read_info(patch)
    degrees = _angles(patch) if angles else {}
    _show(out, patch, info)
    _show_tensors(out, info, every, degrees)
    out.result(_data(patch, info, degrees), quiet=info.digest)


def origin(base: "BaseMeta") -> str:
    """The base a patch was made for, in words."""
    if base.repo is None:
        return f"a local folder, config {short(base.config_digest or 'unknown')}"
    return f"{base.repo} @ {base.revision}" if base.revision else base.repo


def _show(out: Out, patch: Path, info: "PatchInfo") -> None:
    meta = info.metadata
    out.line(f"{patch.name}   {size(info.bytes)}   format {meta.format}   {short(info.digest)}")
    pairs = {
        "base": origin(meta.base),
        "after": ", ".join(map(short, meta.after)) or None,
        "facts": _facts(meta.facts, info.facts_jsonl is not None),
        "leaves": ", ".join(short(leaf.digest) for leaf in meta.leaves) or None,
        "made by": f"{meta.created_by}, method {meta.method}",
    }
    out.fields(pairs, indent=0)


def _facts(facts: "FactsMeta | None", embedded: bool) -> str:
    if facts is None:
        return "none"
    return f"{facts.count} ({short(facts.digest)}{'' if embedded else ', text not embedded'})"


def _show_tensors(out: Out, info: "PatchInfo", every: bool, degrees: Angles) -> None:
    tensors = info.metadata.tensors
    names = list(tensors)[: len(tensors) if every else SHOWN_TENSORS]
    heads = ("TENSOR", "SHAPE", "FACTORS", "BASE SHA256", *(("ANGLES",) if degrees else ()))
    out.table(heads, [_row(name, tensors[name], degrees) for name in names])
    if len(names) < len(tensors):
        out.line(f"… {len(tensors) - len(names)} more (--all)")


def _row(name: str, tensor: "TensorMeta", degrees: Angles) -> Row:
    factors = ", ".join(_factor(factor, tensor) for factor in tensor.factors)
    cells = [name, shape(tensor.shape), factors, short(tensor.base_sha256)]
    if degrees:
        largest = [f"{angle:.1f}°" for angle in degrees[name][:SHOWN_ANGLES]]
        cells.append(" ".join(largest) + (" …" if len(degrees[name]) > SHOWN_ANGLES else ""))
    return Row(*cells)


def _factor(factor: "FactorMeta", tensor: "TensorMeta") -> str:
    words = (factor.side, factor.kind, _extent(factor, tensor))
    return " ".join(word for word in words if word)


def _extent(factor: "FactorMeta", tensor: "TensorMeta") -> str | None:
    """How large a factor is, where its tensor does not say so."""
    if factor.kind == "additive-dense":
        return None
    if factor.blocks is None:
        return f"rank {factor.rank}"
    n = (tensor.d_in if factor.side == "input" else tensor.d_out) // factor.blocks
    return f"{factor.blocks} of {n}×{n}"


def _data(patch: Path, info: "PatchInfo", degrees: Angles) -> dict[str, object]:
    meta = info.metadata
    tensors = []
    for name, tensor in meta.tensors.items():
        angles = {"angles_deg": list(degrees[name])} if degrees else {}
        tensors.append({"name": name, **asdict(tensor), **angles})
    facts = None if meta.facts is None else asdict(meta.facts)
    return {
        "path": str(patch),
        "bytes": info.bytes,
        "digest": info.digest,
        "format": meta.format,
        "base": asdict(meta.base),
        "after": meta.after,
        "leaves": [asdict(leaf) for leaf in meta.leaves],
        "facts": facts and {**facts, "embedded": info.facts_jsonl is not None},
        "created_by": meta.created_by,
        "method": meta.method,
        "recipe": meta.recipe,
        "measured": meta.measured,
        "tensors": tensors,
    }


def _angles(patch: Path) -> Angles:
    """Rotation angles of each tensor in degrees, largest first."""
    from math import degrees

    from patchkit.factors.blocks import RotationBlocks
    from patchkit.factors.rotation import Rotation
    from patchkit.patch.patch import Patch

    found = {}
    for name, factors in Patch.read(patch).factors.items():
        rotations = [factor for factor in factors if isinstance(factor, Rotation | RotationBlocks)]
        angles = [degrees(float(angle)) for each in rotations for angle in each.angles()]
        found[name] = sorted(angles, reverse=True)
    return found
