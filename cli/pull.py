"""`patchkit pull`: a patch from the Hub, verified before it is kept."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchkit.events import Progress

from . import cache
from .bases import base_folder
from .options import JsonFlag, QuietFlag, YesFlag
from .output import Out
from .patch_files import check_output
from .progress import shown
from .units import count, size

if TYPE_CHECKING:
    from patchkit.hub import PullReport
    from patchkit.hub.sound import FindBase

EXAMPLES = (
    "patchkit pull ada/llama-capitals",
    "patchkit pull ada/llama-capitals@v1 -o capitals.patch.safetensors",
)

RepoArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPO",
        help="org/name, org/name@revision or hf://org/name@revision/file.",
        show_default=False,
    ),
]
FileOption = Annotated[
    str | None,
    typer.Option(
        "--file",
        metavar="PATH",
        help="The patch to pull, where a repository holds several.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
BaseToCheck = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="REF",
        help="Keep it only if it was made for this base: a folder, org/name on the Hub, or atlas.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Also copy it here; it stays in the cache otherwise.",
        rich_help_panel="Output",
        show_default=False,
    ),
]


def pull(
    repo: RepoArgument,
    file: FileOption = None,
    base: BaseToCheck = None,
    out_path: OutOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Fetch a patch from the Hub and verify it."""
    from patchkit.hub import parse_ref
    from patchkit.hub import pull as fetch
    from patchkit.hub.refs import check_path
    from patchkit.hub.store import copy_out
    from patchkit.signing import signature_path

    out = Out.choose("pull", json=json, quiet=quiet)
    ref = parse_ref(repo)
    if file is not None and ref.path is not None:
        raise typer.BadParameter(f"both REPO and --file name a file: {ref.path} and {file}")
    ref = ref if file is None else replace(ref, path=check_path(file))
    if out_path is not None:
        check_output(out_path, yes)
    with shown(out) as progress:
        check = None if base is None else _finder(base, progress)
        report = fetch(ref, cache.folder() / "hub", base=check, progress=progress)
    path = out_path or report.path
    signature = signature_path(report.path)
    if out_path is not None:
        copy_out(report.path, out_path)
        signature_path(out_path).unlink(missing_ok=True)  # of what was there before
        if signature.is_file():
            copy_out(signature, signature_path(out_path))
    _show(out, report, path)
    signed = {"signature": str(signature_path(path)) if signature.is_file() else None}
    out.result({**_data(report, path), **signed}, quiet=str(path))


def _finder(base: str, progress: Progress) -> "FindBase":
    """What finds as much of a base as a patch has to be compared with."""
    return lambda metadata: base_folder(base, progress, tensors=metadata.tensors).path


def _show(out: Out, report: "PullReport", path: Path) -> None:
    base, facts = report.metadata.base.repo, report.metadata.facts
    made = len(report.checks.checks) - len(report.checks.skipped)
    out.done(str(path))
    out.fields(
        {
            "commit": report.revision,
            "digest": report.digest,
            "size": f"{size(report.bytes)}{', was here already' if report.cached else ''}",
            "base": base or "a local checkpoint",
            "facts": count(facts.count, "fact") if facts else None,
            "checks": f"{made - len(report.checks.failed)} of {made} passed",
        }
    )
    if report.offline:
        out.warn(f"the Hub cannot be reached: this is commit {report.revision[:8]}, pulled before")
    if report.listed is False:
        out.warn("the repository has no index: its digest was compared with the Hub's only")
    out.hint(f"patchkit verify {path} --base {base if base == 'atlas' else 'BASE'}")


def _data(report: "PullReport", path: Path) -> dict[str, object]:
    return {
        "path": str(path),
        "repo": report.repo,
        "revision": report.revision,
        "file": report.file,
        "digest": report.digest,
        "bytes": report.bytes,
        "listed": report.listed,
        "cached": report.cached,
        "offline": report.offline,
    }
