"""`patchkit yank`: a published patch is withdrawn."""

from typing import Annotated

import typer

from .options import JsonFlag, PullRequestFlag, QuietFlag, RepoArgument
from .output import Out
from .units import short

EXAMPLES = (
    "patchkit yank ada/llama-capitals capitals --reason 'wrong city'",
    "patchkit yank ada/llama-capitals capitals --undo",
)

PatchArgument = Annotated[
    str,
    typer.Argument(
        metavar="PATCH",
        help="Its file there, its name, or the beginning of its digest.",
        show_default=False,
    ),
]
ReasonOption = Annotated[
    str | None,
    typer.Option(
        "--reason",
        metavar="TEXT",
        help="Why nobody should use it; shown to everybody who wants to.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
UndoFlag = Annotated[
    bool, typer.Option("--undo", help="Take a withdrawal back.", rich_help_panel="Input")
]


def yank(
    repo: RepoArgument,
    patch: PatchArgument,
    reason: ReasonOption = None,
    undo: UndoFlag = False,
    create_pr: PullRequestFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Withdraw a published patch: pull and update refuse it then."""
    from patchkit.hub import yank as withdraw

    out = Out.choose("yank", json=json, quiet=quiet)
    if (reason is None) != undo:
        raise typer.BadParameter("give --reason TEXT, or --undo to take a withdrawal back")
    report = withdraw(repo, patch, reason, create_pr=create_pr)
    state = "is withdrawn" if reason is not None else "can be pulled again"
    out.done(f"{report.repo}/{report.path} {state}{'' if report.changed else ', as it was before'}")
    out.fields(
        {
            "digest": short(report.digest),
            "reason": report.reason,
            "commit": report.commit,
            "pull request": report.pull_request,
        }
    )
    if reason is not None and report.changed and not create_pr:
        out.hint(f"patchkit revert FOLDER --only {short(report.digest)[7:15]} where it is applied")
    data = {
        "repo": report.repo,
        "url": report.url,
        "revision": report.commit,
        "path": report.path,
        "digest": report.digest,
        "reason": report.reason,
        "changed": report.changed,
        "pull_request": report.pull_request,
    }
    out.result(data, quiet=report.pull_request or report.url)
