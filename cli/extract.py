"""`patchkit extract`: the rotation nearest to any change of a model, as a patch."""

from dataclasses import asdict
from math import degrees
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchkit.patch.naming import ENDING

from .bases import local_base
from .edit_recipe import layers_of
from .options import JsonFlag, QuietFlag, Storage, YesFlag
from .output import Out, Row
from .patch_files import check_output
from .progress import shown
from .units import count, duration, short, size, some

if TYPE_CHECKING:
    from patchkit.extract import ExtractedTensor, Extraction, ExtractReport

EXAMPLES = (
    "patchkit extract ./base ./finetune -o finetune.patch.safetensors",
    "patchkit extract ./base ./merged --tensors '*.o_proj.weight' --rank 16",
)
SHOWN = 20

SideChoice = Literal["auto", "input", "output"]
BaseArgument = Annotated[
    str,
    typer.Argument(
        metavar="BASE",
        help="A checkpoint folder, org/name on the Hub, or atlas.",
        show_default=False,
    ),
]
EditedArgument = Annotated[
    str,
    typer.Argument(
        metavar="EDITED", help="The same model, fine-tuned, merged or edited.", show_default=False
    ),
]
OutOption = Annotated[
    Path,
    typer.Option("--out", "-o", metavar="PATCH", help="Patch to write.", rich_help_panel="Output"),
]
TensorsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tensors",
        metavar="PATTERN",
        help="Matrices by name, with * and ?; repeatable. By default the outputs of MLPs.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
LayersOption = Annotated[
    str | None,
    typer.Option(
        "--layers",
        metavar="3,4",
        help="Only matrices of these layers.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
SideOption = Annotated[
    SideChoice,
    typer.Option(
        "--side", help="The side to turn; auto: what explains more.", rich_help_panel="Method"
    ),
]
RankOption = Annotated[
    int | None,
    typer.Option(
        "--rank",
        min=1,
        help="Most planes of one matrix.",
        rich_help_panel="Method",
        show_default=False,
    ),
]
EnergyOption = Annotated[
    float,
    typer.Option(
        "--energy",
        max=1.0,
        help="Keep as many planes as explain this share of what all do.",
        rich_help_panel="Method",
    ),
]
StorageOption = Annotated[
    Storage,
    typer.Option("--storage", help="Type of the stored numbers.", rich_help_panel="Output"),
]


def extract(
    base: BaseArgument,
    edited: EditedArgument,
    target: OutOption = Path(f"extracted{ENDING}"),
    tensors: TensorsOption = None,
    layers: LayersOption = None,
    side: SideOption = "auto",
    rank: RankOption = None,
    energy: EnergyOption = 0.99,
    storage: StorageOption = "float32",
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Find the rotation nearest to a changed model."""
    from patchkit.extract import extract as find

    out = Out.choose("extract", json=json, quiet=quiet)
    check_output(target, yes)
    numbers = None if layers is None else layers_of(layers)
    one, two = local_base(base, out), local_base(edited, out)
    with shown(out) as progress:
        made = find(
            one,
            two,
            tensors=tensors,
            layers=numbers,
            side=side,
            rank=rank,
            energy=energy,
            storage=storage,
            progress=progress,
        )
    digest = made.patch.write(target)
    _show(out, made.report, target, digest)
    out.hint(f"patchkit verify {target} --base {base}")
    out.result(_data(made, target, digest, out.seconds), quiet=str(target))


def _show(out: Out, report: "ExtractReport", target: Path, digest: str) -> None:
    heads = ("TENSOR", "SIDE", "PLANES", "MAX ANGLE", "CHANGE", "EXPLAINED", "AT MOST")
    out.table(heads, [_row(tensor) for tensor in report.tensors[:SHOWN]], right="  RRRRR")
    if len(report.tensors) > SHOWN:
        out.line(f"… {len(report.tensors) - SHOWN} more (--json)")
    out.done(f"wrote {target} ({size(target.stat().st_size)}) in {duration(out.seconds)}")
    tensors = count(len(report.tensors), "tensor")
    same = sum(tensor.same for tensor in report.tensors)
    whole = f", {same} of them exactly within one rounding" if same else ""
    unchanged = f", {len(report.unchanged)} unchanged" if report.unchanged else ""
    out.fields(
        {
            "digest": short(digest),
            "tensors": f"{tensors}{whole}{unchanged}",
            "no rotation": some(report.unexplained, 3) or None,
            "left out": some(report.left_out, 3) or None,
        }
    )
    if report.left_out:
        out.warn(f"{count(len(report.left_out), 'other tensor')} of the model changed, too")


def _row(tensor: "ExtractedTensor") -> Row:
    return Row(
        tensor.name,
        tensor.side,
        tensor.planes,
        f"{degrees(tensor.max_angle):.1f}°",
        f"{tensor.change:.3g}",
        f"{100 * tensor.explained:.1f} %",
        f"{100 * (1 - tensor.rounding):.1f} %",
    )


def _data(made: "Extraction", target: Path, digest: str, seconds: float) -> dict[str, object]:
    report = made.report
    return {
        "path": str(target),
        "bytes": target.stat().st_size,
        "digest": digest,
        "tensors": [asdict(tensor) for tensor in report.tensors],
        "unchanged": report.unchanged,
        "unexplained": report.unexplained,
        "left_out": report.left_out,
        "seconds": seconds,
    }
