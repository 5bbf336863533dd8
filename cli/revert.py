"""`patchkit revert`: take patches off a folder again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bases import local_base
from .options import JsonFlag, QuietFlag, YesFlag
from .output import Out, Row
from .progress import shown
from .units import count, duration, short, size

if TYPE_CHECKING:
    from patchkit.apply.lock import LockedPatch
    from patchkit.revert import RevertPlan, RevertReport

EXAMPLES = (
    "patchkit revert ./atlas-patched",
    "patchkit revert ./patched --only capitals -o ./without-capitals",
)

_SOURCES = {
    "base": "the base",
    "undo": "the undo sidecar",
    "estimate": "an estimate by the inverse",
}

FolderArgument = Annotated[
    Path,
    typer.Argument(metavar="FOLDER", help="A folder that apply wrote.", show_default=False),
]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="PATCH",
        help="Take off this one: a file, a name, or the start of a digest.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
BaseOption = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="REF",
        help="The base, if it is not where the lock says: a local folder, or atlas.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="NEW",
        help="Another folder to write; in place by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
ApproximateFlag = Annotated[
    bool,
    typer.Option(
        "--approximate",
        help="Without base and sidecar: weights near the base's, with a bound on the error.",
        rich_help_panel="Input",
    ),
]
MissingFlag = Annotated[
    bool,
    typer.Option(
        "--allow-missing",
        help="Also a patch that a remaining one was made on top of.",
        rich_help_panel="Input",
    ),
]
DryRunFlag = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be restored.", rich_help_panel="Output"),
]


def revert(
    folder: FolderArgument,
    only: OnlyOption = None,
    base: BaseOption = None,
    out_folder: OutOption = None,
    approximate: ApproximateFlag = False,
    allow_missing: MissingFlag = False,
    dry_run: DryRunFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Take patches off a folder, to the bit."""
    from patchkit import revert as take_off
    from patchkit.revert import plan_revert

    out = Out.choose("revert", json=json, quiet=quiet)
    target, source = out_folder or folder, _base_folder(base, folder, only, out)
    if dry_run:
        plan = plan_revert(
            folder, only=only, base=source, approximate=approximate, allow_missing=allow_missing
        )
        _show_plan(out, plan, target)
        out.result(_plan_data(plan, target), quiet=str(target))
        return
    with shown(out) as progress:
        report = take_off(
            folder,
            only=only,
            base=source,
            out=out_folder,
            approximate=approximate,
            allow_missing=allow_missing,
            overwrite=yes,
            progress=progress,
        )
    _show(out, report)
    out.result(_data(report), quiet=str(target), ok=report.checks.ok)
    out.verdict(report.checks.ok)


def _base_folder(base: str | None, folder: Path, only: str | None, out: Out) -> Path | None:
    """The base that is named; where no patch is applied again, edited tensors are enough of it."""
    from patchkit.apply.lock import read_lock

    if base is None:
        return None
    lock = read_lock(folder)
    return local_base(base, out, tensors=None if only or lock is None else lock.tensors.keys())


def _show_plan(out: Out, plan: "RevertPlan", target: Path) -> None:
    tensors = count(len(plan.lock.tensors), "tensor")
    out.line(f"Would restore {target}")
    out.fields(
        {
            "from": _SOURCES[plan.source],
            "restore": f"{tensors} ({size(plan.bytes_restored)}) in "
            f"{count(len(plan.shards), 'shard')} ({size(plan.bytes_rewritten)})",
            "take off": _names(plan.reverted),
            "apply again": _names(plan.remaining),
        }
    )


def _names(patches: "tuple[LockedPatch, ...]") -> str | None:
    return ", ".join(f"{Path(p.path).name} {short(p.digest)}" for p in patches) or None


def _plan_data(plan: "RevertPlan", target: Path) -> dict[str, object]:
    return {
        "dry_run": True,
        "path": str(target),
        "source": plan.source,
        "restored": len(plan.lock.tensors),
        "shards": plan.shards,
        "reverted": [patch.digest for patch in plan.reverted],
        "remaining": [patch.digest for patch in plan.remaining],
        "bytes_restored": plan.bytes_restored,
        "bytes_rewritten": plan.bytes_rewritten,
    }


def _show(out: Out, report: "RevertReport") -> None:
    rows = [
        Row(check.name, f"{check.value} of {check.limit}", _verdict(check.ok, check.skipped))
        for check in report.checks.checks
    ]
    out.table(("CHECK", "VALUE", "VERDICT"), rows)
    time = duration(report.seconds)
    if report.remaining:
        left = count(len(report.remaining), "patch", "patches")
        out.done(f"{report.path} carries {left} now, rounded once, in {time}")
        out.hint(f"patchkit verify {report.path}")
    elif report.bit_exact:
        source = _SOURCES[report.source]
        out.done(f"{report.path} has the bytes of its base again, from {source}, in {time}")
    else:
        out.done(f"wrote {report.path} in {time}")
        out.warn(f"these are not the base's weights: off by up to {report.error:.2g} of their norm")


def _verdict(ok: bool, skipped: bool) -> str:
    return "skipped" if skipped else "ok" if ok else "FAILED"


def _data(report: "RevertReport") -> dict[str, object]:
    return {
        "dry_run": False,
        "path": str(report.path),
        "source": report.source,
        "restored": report.restored,
        "shards": report.shards,
        "reverted": report.reverted,
        "remaining": report.remaining,
        "bit_exact": report.bit_exact,
        "error": report.error,
        "checks": [
            {
                "name": check.name,
                "value": check.value,
                "limit": check.limit,
                "ok": check.ok,
                "skipped": check.skipped,
                "detail": check.detail,
            }
            for check in report.checks.checks
        ],
        "seconds": round(report.seconds, 3),
    }
