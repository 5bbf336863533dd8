"""`patchkit bench`: methods, testbeds and numbers of sequential edits in one table."""

import json as json_module
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import cache
from .options import Device, DeviceOption, DtypeOption, JsonFlag, QuietFlag
from .output import Out, Row
from .progress import shown
from .units import count

if TYPE_CHECKING:
    from patchkit.bench import Row as Cell
    from patchkit.bench.table import Entry
    from patchkit.parallel import Workers

EXAMPLES = (
    "patchkit bench atlas.toml -o ./atlas-bench --data ./records",
    "patchkit bench atlas.toml --only memit --only rotation --json",
    "patchkit bench atlas.toml -o ./atlas-bench --data ./records --finished",
)

RecipeArgument = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="A benchmark in TOML.", show_default=False)
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder for cells, table and plots; continued if it exists. ./<recipe> by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="Where the records are; beside the recipe by default.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="LABEL",
        help="Run this method only; repeatable.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
FinishedFlag = Annotated[
    bool,
    typer.Option(
        "--finished",
        help="Measure nothing: table and figures of the cells that are there.",
        rich_help_panel="Input",
    ),
]
CommitOption = Annotated[
    str | None,
    typer.Option(
        help="What the rows say of the code that made them.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
PlotsFlag = Annotated[
    bool, typer.Option("--plots/--no-plots", help="Draw figures.", rich_help_panel="Output")
]


def bench(
    recipe: RecipeArgument,
    out_path: OutOption = None,
    data: DataOption = None,
    only: OnlyOption = None,
    finished: FinishedFlag = False,
    commit: CommitOption = None,
    plots: PlotsFlag = True,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Compare methods over numbers of sequential edits.

    Every finished cell is kept in the folder; a second run measures only what is missing.
    Under torchrun, the processes share the work.
    """
    from patchkit.bench import Setting, read_plan, run_plan

    plan = read_plan(recipe)
    plan = plan.only(tuple(only)) if only else plan
    folder = out_path or Path(recipe.stem)
    with _workers(device) as (workers, place):
        out = Out.choose("bench", json=json and workers.first, quiet=quiet or not workers.first)
        with shown(out) as progress:
            setting = Setting(
                data=data or recipe.parent,
                folder=folder,
                device=place,
                dtype=dtype,
                commit=commit,
                measure=not finished,
                cache_dir=cache.folder(),
                workers=workers,
                progress=progress,
            )
            rows = run_plan(plan, setting)
    if workers.first:
        _report(out, rows, folder, plots)


@contextmanager
def _workers(device: Device) -> Iterator[tuple["Workers", str]]:
    """This process among those that torchrun started, and the device it computes on."""
    import torch
    from torch import distributed

    from patchkit.parallel import ALONE, Workers

    place: str = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield ALONE, place
        return
    if place == "cuda":
        place = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(place)
    distributed.init_process_group("nccl" if place != "cpu" else "gloo")
    try:
        yield Workers.of_group(), place
    finally:
        distributed.destroy_process_group()


def _report(out: Out, rows: tuple["Cell", ...], folder: Path, draw: bool) -> None:
    """Write table and figures, and show the scores."""
    from patchkit.bench import entries, markdown, overview
    from patchkit.bench import plots as figures
    from patchkit.patch.writing import write_atomically

    table = folder / "results.json"
    data = [row.as_dict() for row in rows]
    text = json_module.dumps(data, indent=1, ensure_ascii=False)
    tables = "\n".join(filter(None, (overview(rows), markdown(rows))))
    files = {table: (text + "\n").encode(), folder / "table.md": tables.encode()}
    if draw:
        files |= {folder / name: content for name, content in figures(rows).items()}
    for path, content in files.items():
        write_atomically(path, content)
    shown = [_shown(entry) for entry in entries(rows)]
    heads = ("TESTBED", "EDITS", "BATCH", "METHOD", "EFFICACY", "RETENTION", "SCORE", "NORM")
    out.table(heads, shown, right=" RR RRRR")
    for row in rows:
        if row.failed is not None:
            out.warn(f"{row.label}, {count(row.edits, 'edit')}, seed {row.seed}: {row.failed}")
    out.line()
    out.done(f"{count(len(rows), 'cell')} in {folder}")
    out.result({"path": str(folder), "rows": data}, quiet=str(table))


def _shown(entry: "Entry") -> Row:
    names = ("efficacy", "retention", "score", "norm_ratio")
    means = [entry.means.get(name) for name in names]
    figures = ["–" if mean is None else f"{mean.value:.3f}" for mean in means]
    return Row(entry.testbed, entry.edits, entry.batch, entry.label, *figures)
