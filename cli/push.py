"""`patchkit push`: patches published on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import JsonFlag, PullRequestFlag, QuietFlag, RepoArgument, YesFlag
from .output import Out
from .progress import shown
from .units import count, size

if TYPE_CHECKING:
    from patchkit.hub import PushReport

EXAMPLES = (
    "patchkit push capitals.patch.safetensors ada/llama-capitals --dry-run",
    "patchkit push capitals.patch.safetensors ada/llama-capitals --private",
)

PatchesArgument = Annotated[
    list[Path], typer.Argument(metavar="PATCH...", help="Patches, in order.", show_default=False)
]
PrivateFlag = Annotated[
    bool,
    typer.Option("--private", help="A new repository is private.", rich_help_panel="Output"),
]
RevisionOption = Annotated[
    str | None,
    typer.Option(
        metavar="BRANCH",
        help="Branch to commit to; the main one by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
MessageOption = Annotated[
    str | None,
    typer.Option(
        "--message",
        "-m",
        metavar="TEXT",
        help="Title of the commit.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
TagOption = Annotated[
    str | None,
    typer.Option(
        metavar="TAG", help="Tag the commit.", rich_help_panel="Output", show_default=False
    ),
]
LicenseOption = Annotated[
    str | None,
    typer.Option(
        metavar="ID",
        help="License in the card, such as apache-2.0; a new card takes the base's.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
DryRunFlag = Annotated[
    bool,
    typer.Option("--dry-run", help="Only say what would be pushed.", rich_help_panel="Output"),
]
BareFlag = Annotated[
    bool,
    typer.Option(
        "--no-embed-facts", help="Publish only the facts' digest.", rich_help_panel="Output"
    ),
]


def push(
    patches: PatchesArgument,
    repo: RepoArgument,
    private: PrivateFlag = False,
    revision: RevisionOption = None,
    create_pr: PullRequestFlag = False,
    message: MessageOption = None,
    tag: TagOption = None,
    license: LicenseOption = None,
    no_embed_facts: BareFlag = False,
    dry_run: DryRunFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Publish patches on the Hub, verified, in one commit."""
    from patchkit.hub import push as publish

    out = Out.choose("push", json=json, quiet=quiet)
    with shown(out) as progress:
        report = publish(
            patches,
            repo,
            private=private,
            revision=revision,
            create_pr=create_pr,
            message=message,
            tag=tag,
            embed_facts=not no_embed_facts,
            license=license,
            overwrite=yes,
            dry_run=dry_run,
            progress=progress,
        )
    _show(out, report, tag)
    out.result(_data(report), quiet=report.pull_request or report.url)


def _show(out: Out, report: "PushReport", tag: str | None) -> None:
    where = f"{report.url} ({'private' if report.private else 'public'}"
    where += ", new)" if report.new else ")"
    if report.dry_run and report.files:
        out.line(f"Would push to {where} in one commit")
    elif report.files:
        out.done(f"pushed to {where}")
    else:
        out.done(f"{where} has all of it already")
    out.fields({file.path: size(file.bytes) for file in report.files})
    checks = sum(len(each.checks) - len(each.skipped) for each in report.checks.values())
    failed = sum(len(each.failed) for each in report.checks.values())
    verdict = f"{count(failed, 'check')} of {checks} failed" if failed else f"{checks} passed"
    out.fields(
        {
            "checks": verdict,
            "commit": report.commit if not report.dry_run else None,
            "pull request": report.pull_request,
            "tag": None if report.dry_run else tag,
        }
    )
    if report.public_facts and not report.private:
        become = "would become" if report.dry_run else "are"
        facts = count(report.public_facts, "fact")
        out.warn(f"{facts} {become} public with this; --no-embed-facts keeps them out")
    if not report.licensed:
        out.warn("the card names no license; --license ID adds one")
    if report.files and not report.dry_run and not report.pull_request:
        out.hint(f"patchkit pull {report.repo}")


def _data(report: "PushReport") -> dict[str, object]:
    return {
        "dry_run": report.dry_run,
        "repo": report.repo,
        "revision": report.commit,
        "url": report.url,
        "pull_request": report.pull_request,
        "new": report.new,
        "private": report.private,
        "files": [
            {"path": file.path, "bytes": file.bytes, "digest": report.digests.get(file.path)}
            for file in report.files
        ],
        "digests": report.digests,
        "public_facts": 0 if report.private else report.public_facts,
    }
