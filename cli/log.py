"""`patchkit log`: the history of a repository of patches."""

from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonFlag, QuietFlag
from .output import Out
from .units import short

if TYPE_CHECKING:
    from patchkit.hub import Change, Logged

EXAMPLES = (
    "patchkit log ada/llama-capitals",
    "patchkit log ada/llama-capitals@v1 --limit 5 --json",
)

RepoArgument = Annotated[
    str,
    typer.Argument(
        metavar="REPO", help="org/name or org/name@revision on the Hub.", show_default=False
    ),
]
LimitOption = Annotated[
    int,
    typer.Option("--limit", min=1, max=1000, help="Most commits.", rich_help_panel="Output"),
]


def log(
    repo: RepoArgument, limit: LimitOption = 20, json: JsonFlag = False, quiet: QuietFlag = False
) -> None:
    """Show what each commit did to the patches, with digests."""
    from patchkit.hub import log as history

    out = Out.choose("log", json=json, quiet=quiet)
    logged = history(repo, limit=limit)
    for each in logged:
        out.line(f"{each.when.date().isoformat()}  {each.commit[:8]}  {each.title}")
        for change in each.changes:
            out.line(f"  {_told(change)}")
    out.values(each.commit for each in logged)
    out.result({"repo": repo, "commits": [_data(each) for each in logged]}, quiet=None)


def _told(change: "Change") -> str:
    digest = f" {short(change.digest)}" if change.digest else ""
    reason = f": {change.reason}" if change.reason else ""
    return f"{change.kind:10} {change.path}{digest}{reason}"


def _data(logged: "Logged") -> dict[str, object]:
    return {
        "commit": logged.commit,
        "when": logged.when.isoformat(),
        "authors": logged.authors,
        "title": logged.title,
        "changes": [
            {
                "kind": change.kind,
                "path": change.path,
                "digest": change.digest,
                "reason": change.reason,
            }
            for change in logged.changes
        ],
    }
