"""`patchkit apply`: a patched copy of a checkpoint folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bases import local_base
from .options import JsonFlag, QuietFlag, YesFlag
from .output import Out
from .progress import shown
from .units import count, duration, short, size, some

if TYPE_CHECKING:
    from patchkit.apply import ApplyPlan, ApplyReport

EXAMPLES = (
    "patchkit apply atlas capitals.patch.safetensors -o ./patched --dry-run",
    "patchkit apply ./Llama-3.1-8B capitals.patch.safetensors -o ./patched",
)

BaseArgument = Annotated[
    str,
    typer.Argument(
        metavar="BASE",
        help="A checkpoint folder, org/name on the Hub, or atlas.",
        show_default=False,
    ),
]
PatchesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PATCH...", help="Patches, applied in order.", show_default=False),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder to write; ./<base>-patched by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
DryRunFlag = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be written.", rich_help_panel="Output"),
]
OtherBaseFlag = Annotated[
    bool,
    typer.Option(
        "--allow-other-base",
        help="Also on weights the patch was not made for.",
        rich_help_panel="Input",
    ),
]
ResumeFlag = Annotated[
    bool,
    typer.Option("--resume", help="Go on with what a killed run left.", rich_help_panel="Output"),
]
LinkFlag = Annotated[
    bool,
    typer.Option(
        "--link",
        help="Untouched shards become hard links to the base's where the disk cannot share blocks.",
        rich_help_panel="Output",
    ),
]
DigestsFlag = Annotated[
    bool,
    typer.Option(
        "--file-digests",
        help="Lock the sha256 of rewritten shards, before and after.",
        rich_help_panel="Output",
    ),
]
UndoFlag = Annotated[
    bool,
    typer.Option(
        "--undo",
        help="Keep what brings the base's bytes back where the base is gone.",
        rich_help_panel="Output",
    ),
]


def apply(
    base: BaseArgument,
    patches: PatchesArgument,
    out_folder: OutOption = None,
    dry_run: DryRunFlag = False,
    allow_other_base: OtherBaseFlag = False,
    resume: ResumeFlag = False,
    link: LinkFlag = False,
    file_digests: DigestsFlag = False,
    undo: UndoFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write a patched copy of a checkpoint."""
    from patchkit.apply import apply_patches, plan_apply

    out = Out.choose("apply", json=json, quiet=quiet)
    source = local_base(base, out, tensors=() if dry_run else None)
    target = out_folder or Path(f"{_name(source)}-patched")
    if dry_run:
        plan = plan_apply(source, patches, allow_other_base=allow_other_base)
        _show_plan(out, plan, target, link=link, undo=undo)
        out.result(_plan_data(plan, target, undo), quiet=str(target))
        return
    with shown(out) as progress:
        report = apply_patches(
            source,
            patches,
            target,
            allow_other_base=allow_other_base,
            overwrite=yes,
            resume=resume,
            link=link,
            file_digests=file_digests,
            undo=undo,
            # Copying takes the other half.
            threads=max(1, (os.cpu_count() or 1) // 2),
            progress=progress,
        )
    _show(out, report, target)
    out.result(_data(report, target), quiet=str(target))


def _name(base: Path) -> str:
    """What a base is called: its repository's name, or its folder's."""
    from patchkit.tensors.origin import read_origin

    origin = read_origin(base)
    return base.resolve().name if origin is None else origin.repo.split("/")[1]


def _show_plan(out: Out, plan: "ApplyPlan", target: Path, *, link: bool, undo: bool) -> None:
    total_shards = len(plan.rewritten) + len(plan.cloned)
    shards, others = count(len(plan.cloned), "shard"), count(len(plan.others), "other file")
    tensors = count(len(plan.tensors), "tensor")
    changed, total = size(plan.bytes_changed), size(plan.bytes_total)
    out.line(f"Would write {target}")
    out.fields(
        {
            "rewrite": f"{len(plan.rewritten)} of {count(total_shards, 'shard')}"
            f" ({tensors}, {changed} of {total} changed)",
            "link": shards if link else None,
            "copy": others if link else f"{shards}, {others}",
            "leave out": some(plan.left_out) or None,
            "disk": f"{total} new ({changed} where the disk shares blocks)",
            "undo": f"at most {size(plan.undo_bytes)} more" if undo else None,
            "memory": f"at most {size(plan.memory_bytes)} above torch",
        }
    )
    _warn_repeated(out, [patch.info.digest for patch in plan.patches])


def _plan_data(plan: "ApplyPlan", target: Path, undo: bool) -> dict[str, object]:
    return {
        "dry_run": True,
        "out": str(target),
        "patches": [patch.info.digest for patch in plan.patches],
        "tensors_changed": len(plan.tensors),
        "tensors_total": len(plan.checkpoint.tensors),
        "shards": {"rewritten": len(plan.rewritten), "unchanged": len(plan.cloned)},
        "left_out": plan.left_out,
        "bytes_changed": plan.bytes_changed,
        "bytes_total": plan.bytes_total,
        "undo_bytes": plan.undo_bytes if undo else None,
        "memory_bytes": plan.memory_bytes,
    }


def _show(out: Out, report: "ApplyReport", target: Path) -> None:
    same = report.tensors_total - report.tensors_changed
    out.done(f"wrote {target} in {duration(report.seconds)}")
    out.fields(
        {
            "changed": f"{count(report.tensors_changed, 'tensor')} in"
            f" {count(report.shards['rewritten'], 'shard')}; {same} byte-identical",
            "resumed": f"{count(len(report.resumed), 'shard')} were there already"
            if report.resumed
            else None,
            "left out": some(report.left_out) or None,
            "lock": report.lock.name,
            "undo": None if report.undo_bytes is None else size(report.undo_bytes),
        }
    )
    if report.other_base:
        names = some(report.other_base, 3)
        out.warn(f"the base is not the one the patch was made for ({names}): check its answers")
    _warn_repeated(out, report.patches)
    out.hint(f"patchkit verify {target}")


def _warn_repeated(out: Out, digests: Sequence[str]) -> None:
    """Say which patches are there more than once: legal, and seldom meant."""
    for digest in dict.fromkeys(digests):
        if (times := digests.count(digest)) > 1:
            out.warn(
                f"the patch {short(digest)} is applied {times} times, and acts as often: "
                "if once was meant, start from the base"
            )


def _data(report: "ApplyReport", target: Path) -> dict[str, object]:
    return {
        "dry_run": False,
        "out": str(target),
        "patches": report.patches,
        "tensors_changed": report.tensors_changed,
        "tensors_total": report.tensors_total,
        "shards": dict(report.shards),
        "resumed": report.resumed,
        "left_out": report.left_out,
        "other_base": report.other_base,
        "bytes_changed": report.bytes_changed,
        "bytes_written": report.bytes_written,
        "undo_bytes": report.undo_bytes,
        "peak_memory_bytes": report.peak_memory_bytes,
        "lock": str(report.lock),
        "seconds": round(report.seconds, 3),
    }
