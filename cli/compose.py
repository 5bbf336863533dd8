"""`patchkit compose`: several patches become one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchkit.patch.naming import ENDING

from .compose_rebuild import rebuild
from .compose_report import report
from .options import DeviceOption, DtypeOption, JsonFlag, QuietFlag, YesFlag
from .output import Out
from .patch_files import check_output, stem
from .progress import shown

if TYPE_CHECKING:
    from patchkit.compose import Part

EXAMPLES = (
    "patchkit compose a.patch.safetensors b.patch.safetensors --strength b=0.5",
    "patchkit compose --inverse a.patch.safetensors -o undo.patch.safetensors",
)

Method = Literal["product", "mean", "karcher"]
OnConflict = Literal["later", "error"]
PatchesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PATCH...", help="Patches, in order.", show_default=False),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATCH", help="Patch to write.", rich_help_panel="Output"),
]
StrengthOption = Annotated[
    list[str] | None,
    typer.Option(
        "--strength",
        metavar="NAME=X",
        help="Scale a patch, by its file's stem or its place; repeatable.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
InverseFlag = Annotated[
    bool,
    typer.Option("--inverse", help="Undo each patch, not do it.", rich_help_panel="Method"),
]
MethodOption = Annotated[
    Method,
    typer.Option("--method", help="One after another, or a mean.", rich_help_panel="Method"),
]
CompressFlag = Annotated[
    bool,
    typer.Option("--compress", help="Merge neighbouring rotations.", rich_help_panel="Method"),
]
ToleranceOption = Annotated[
    float | None,
    typer.Option(
        "--tolerance",
        metavar="RADIANS",
        min=0.0,
        help="Merge, and leave out planes below this angle; 1e-6 with --compress.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
ConflictOption = Annotated[
    OnConflict,
    typer.Option(
        "--on-conflict", help="When facts contradict each other.", rich_help_panel="Input"
    ),
]
OtherBaseFlag = Annotated[
    bool,
    typer.Option(
        "--allow-other-base",
        help="Also patches of other bases, or without those they were made on.",
        rich_help_panel="Input",
    ),
]
DropOption = Annotated[
    list[str] | None,
    typer.Option(
        "--drop",
        metavar="FACT_ID",
        help="Edit again without this fact; repeatable.",
        rich_help_panel="Facts",
        show_default=False,
    ),
]
ReplaceOption = Annotated[
    Path | None,
    typer.Option(
        "--replace",
        metavar="FILE",
        help="Edit again with these facts for those they correct.",
        rich_help_panel="Facts",
        show_default=False,
    ),
]
BaseToEdit = Annotated[
    str,
    typer.Option(
        "--base", metavar="REF", help="Base for --drop and --replace.", rich_help_panel="Facts"
    ),
]


def compose(
    patches: PatchesArgument,
    target: OutOption = Path(f"composed{ENDING}"),
    strength: StrengthOption = None,
    inverse: InverseFlag = False,
    method: MethodOption = "product",
    compress: CompressFlag = False,
    tolerance: ToleranceOption = None,
    on_conflict: ConflictOption = "later",
    allow_other_base: OtherBaseFlag = False,
    drop: DropOption = None,
    replace: ReplaceOption = None,
    base: BaseToEdit = "atlas",
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Combine patches into one.

    The product is exact and acts as the patches one after another.
    One rotation writes many facts, so --drop and --replace edit again.
    """
    from patchkit.compose import compose as combine
    from patchkit.factors.compression import TOLERANCE

    out = Out.choose("compose", json=json, quiet=quiet)
    names = _names(patches)
    parts = _parts(patches, names, _strengths(strength or [], names), inverse)
    check_output(target, yes)
    angle = TOLERANCE if compress and tolerance is None else tolerance
    with shown(out) as progress:
        made = combine(
            parts,
            method=method,
            compress=angle,
            on_conflict=on_conflict,
            allow_other_base=allow_other_base,
            progress=progress,
        )
    if drop or replace is not None:
        return rebuild(out, made, drop or [], replace, target, base, device, dtype)
    digest = made.patch.write(target)
    report(out, made, digest, target, compressed=angle is not None)


def _names(patches: list[Path]) -> list[str]:
    """The stem of each file, with its place where two are the same."""
    stems = [stem(path) for path in patches]
    return [
        name if stems.count(name) == 1 else f"{name} ({place})"
        for place, name in enumerate(stems, 1)
    ]


def _strengths(texts: list[str], names: list[str]) -> dict[int, float]:
    """`NAME=X` texts as numbers by place; a usage error for an unknown name or a bad number."""
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        places = {each: place for place, each in enumerate(names)}
        places |= {str(place): place - 1 for place in range(1, len(names) + 1) if name not in names}
        if name not in places:
            raise typer.BadParameter(f"--strength {text}: the patches are {', '.join(names)}")
        try:
            found[places[name]] = float(number)
        except ValueError:
            raise typer.BadParameter(f"--strength {text}: {number!r} is not a number") from None
    return found


def _parts(
    patches: list[Path], names: list[str], strengths: dict[int, float], inverse: bool
) -> list["Part"]:
    from patchkit.compose import Part
    from patchkit.patch.patch import Patch

    return [
        Part(Patch.read(path), name, strengths.get(place, 1.0), inverse)
        for place, (path, name) in enumerate(zip(patches, names, strict=True))
    ]
