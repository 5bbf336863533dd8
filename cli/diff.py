"""`patchkit diff`: what differs between patches and checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchkit.patch.naming import ENDING

from . import diff_report
from .bases import local_base
from .options import DeviceOption, DtypeOption, JsonFlag, QuietFlag
from .output import Out
from .progress import shown

if TYPE_CHECKING:
    from patchkit.diff.answers import Answer, Speaker

EXAMPLES = (
    "patchkit diff a.patch.safetensors b.patch.safetensors --exit-code",
    "patchkit diff atlas ./patched --patches ./patches",
)

FirstArgument = Annotated[
    Path,
    typer.Argument(
        metavar="A",
        help="A patch, or a checkpoint: a folder, org/name on the Hub, or atlas.",
        show_default=False,
    ),
]
SecondArgument = Annotated[
    Path, typer.Argument(metavar="B", help="What it is compared with.", show_default=False)
]
PatchesOption = Annotated[
    Path | None,
    typer.Option(
        "--patches",
        metavar="DIR",
        help="Patches that may explain changes: a folder, or one file.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="REF",
        help="The unpatched base, where a patch is compared with a folder or asked --prompts.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="Show what both answer to each line (loads models).",
        rich_help_panel="Compute",
        show_default=False,
    ),
]
TokensOption = Annotated[
    int,
    typer.Option("--tokens", "-n", min=1, help="Tokens of each answer.", rich_help_panel="Compute"),
]
ExitCodeFlag = Annotated[
    bool, typer.Option("--exit-code", help="Exit 3 if they differ.", rich_help_panel="Output")
]


def diff(
    a: FirstArgument,
    b: SecondArgument,
    patches: PatchesOption = None,
    base: BaseOption = None,
    prompts: PromptsOption = None,
    tokens: TokensOption = 12,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    exit_code: ExitCodeFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compare patches, checkpoints, or one with the other."""
    out = Out.choose("diff", json=json, quiet=quiet)
    lines = None if prompts is None else _lines(prompts)
    if a.is_file() and b.is_file():
        found = _patches(out, a, b)
    elif a.is_file() or b.is_file():
        patch, folder = (a, b) if a.is_file() else (b, a)
        found = _patch_in_folder(out, patch, folder, base)
    else:
        found = _folders(out, a, b, patches)
    answers = None
    if lines is not None:
        answers = _answers(out, (a, b), lines, base, tokens, device, dtype)
    diff_report.finish(out, (a, b), found, answers, strict=exit_code)
    out.verdict(found.same or not exit_code)


def _patches(out: Out, a: Path, b: Path) -> diff_report.Found:
    from patchkit.diff import diff_patches
    from patchkit.patch.patch import Patch

    with shown(out) as progress:
        found = diff_patches(Patch.read(a), Patch.read(b), progress=progress)
    return diff_report.show_patches(out, found)


def _patch_in_folder(out: Out, patch: Path, folder: Path, base: str | None) -> diff_report.Found:
    from patchkit.diff import diff_applied

    place = local_base(str(folder), out)
    root = None if base is None else local_base(base, out)
    with shown(out) as progress:
        found = diff_applied(patch, place, base=root, progress=progress)
    return diff_report.show_applied(out, found, patch, folder)


def _folders(out: Out, a: Path, b: Path, patches: Path | None) -> diff_report.Found:
    from patchkit.diff import diff_checkpoints

    one, two = (local_base(str(side), out) for side in (a, b))
    known = _known(out, patches)
    with shown(out) as progress:
        found = diff_checkpoints(one, two, patches=known, progress=progress)
    return diff_report.show_checkpoints(out, found)


def _known(out: Out, patches: Path | None) -> list[Path]:
    """The patch files of a folder, in the order of their names."""
    if patches is None or patches.is_file():
        return [] if patches is None else [patches]
    found = sorted(patches.rglob(f"*{ENDING}"))
    if not found:
        out.warn(f"{patches} holds no file that ends in {ENDING}")
    return found


def _lines(prompts: Path) -> tuple[str, ...]:
    from patchkit.diff.answers import read_prompts

    return read_prompts(prompts)


def _answers(
    out: Out,
    sides: tuple[Path, Path],
    prompts: tuple[str, ...],
    base: str | None,
    tokens: int,
    device: str,
    dtype: str,
) -> "tuple[Answer, ...]":
    from patchkit.diff.answers import diff_answers

    one, two = (_speaker(out, side, base) for side in sides)
    with shown(out) as progress:
        return diff_answers(
            prompts, one, two, max_tokens=tokens, device=device, dtype=dtype, progress=progress
        )


def _speaker(out: Out, side: Path, base: str | None) -> "Speaker":
    """A folder as it is, or a patch on the base."""
    from patchkit.diff.answers import Speaker
    from patchkit.patch.patch import Patch

    if not side.is_file():
        return Speaker(local_base(str(side), out))
    return Speaker(local_base(base or "atlas", out), (Patch.read(side),))
