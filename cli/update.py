"""`patchkit update`: a patched folder is brought up to date with its series."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import cache
from .options import JsonFlag, QuietFlag
from .output import Out
from .progress import shown
from .units import count, duration, short, size

if TYPE_CHECKING:
    from patchkit.hub import UpdatePlan, UpdateReport

EXAMPLES = (
    "patchkit update ./Llama-3.1-8B-patched --dry-run",
    "patchkit update ./Llama-3.1-8B-patched --from ada/weekly --to week-15",
)

FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="A folder that apply wrote.", show_default=False),
]
SeriesOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="REPO",
        help="The series: org/name[@rev]; by default where its patches are from.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
ToOption = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="PATCH",
        help="The last patch to apply; the newest by default.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
DryRunFlag = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be applied.", rich_help_panel="Output"),
]


def update(
    folder: FolderArgument,
    series: SeriesOption = None,
    to: ToOption = None,
    dry_run: DryRunFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Apply the new patches of the series a folder follows."""
    from patchkit.hub import plan_update
    from patchkit.hub import update as bring

    out = Out.choose("update", json=json, quiet=quiet)
    plan = plan_update(folder, series=series, to=to)
    report = None
    if not dry_run:
        with shown(out) as progress:
            kept = cache.folder()
            report = bring(plan, kept / "hub", kept / "bases", progress=progress)
    _show(out, plan, report)
    out.result(_data(plan, report), quiet=str(folder))


def _show(out: Out, plan: "UpdatePlan", report: "UpdateReport | None") -> None:
    steps = count(len(plan.steps), "patch", "patches")
    applied = None if report is None else report.applied
    if not plan.steps:
        out.done(f"{plan.path} is up to date with {plan.repo}")
    elif applied is None:
        out.line(f"Would apply {steps} of {plan.repo} to {plan.path}")
    else:
        out.done(f"applied {steps} of {plan.repo} to {plan.path} in {duration(applied.seconds)}")
    out.fields({step.path: f"{short(step.digest)} {size(step.bytes)}" for step in plan.steps})
    out.fields({"series at": plan.revision})
    for each in plan.left_out:
        out.warn(f"{each.path} is left out, it was withdrawn: {each.withdrawn}")
    for each in plan.carried:
        if each.withdrawn is not None:
            out.warn(
                f"{plan.path} carries {each.path}, which was withdrawn: {each.withdrawn}; "
                f"patchkit revert {plan.path} --only {short(each.digest)[7:15]} takes it off"
            )
    if applied is not None:
        out.hint(f"patchkit verify {plan.path}")


def _data(plan: "UpdatePlan", report: "UpdateReport | None") -> dict[str, object]:
    applied = None if report is None else report.applied
    return {
        "dry_run": report is None,
        "path": str(plan.path),
        "repo": plan.repo,
        "revision": plan.revision,
        "applied": [
            {"path": step.path, "digest": step.digest, "bytes": step.bytes} for step in plan.steps
        ],
        "left_out": [
            {"path": each.path, "digest": each.digest, "reason": each.withdrawn}
            for each in plan.left_out
        ],
        "withdrawn": [
            {"path": each.path, "digest": each.digest, "reason": each.withdrawn}
            for each in plan.carried
            if each.withdrawn is not None
        ],
        "patches": [patch.digest for patch in plan.lock.patches]
        if applied is None
        else applied.patches,
    }
