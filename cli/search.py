"""`patchkit search`: patches on the Hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from patchkit.errors import HubError

from .options import JsonFlag, QuietFlag
from .output import Out, Row
from .units import some

if TYPE_CHECKING:
    from patchkit.hub import Found

EXAMPLES = (
    "patchkit search --base meta-llama/Llama-3.1-8B",
    "patchkit search capitals --author ada --json",
)

QueryArgument = Annotated[
    str | None,
    typer.Argument(metavar="[QUERY]", help="Part of the repository's name.", show_default=False),
]
BaseFilter = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="REF",
        help="Only patches for this base: org/name, atlas, or a folder that came from the Hub.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
AuthorOption = Annotated[
    str | None,
    typer.Option(
        "--author",
        metavar="NAME",
        help="Only those of a user or an organisation.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
LimitOption = Annotated[
    int,
    typer.Option("--limit", min=1, max=1000, help="Most results.", rich_help_panel="Output"),
]


def search(
    query: QueryArgument = None,
    base: BaseFilter = None,
    author: AuthorOption = None,
    limit: LimitOption = 20,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Find patches on the Hub, newest first."""
    from patchkit.hub import search as find

    out = Out.choose("search", json=json, quiet=quiet)
    named = None if base is None else _base_name(base)
    found = find(query, base=named, author=author, limit=limit)
    out.table(
        ("REPOSITORY", "UPDATED", "BASE", "RELATION", "PATCHES", "FACTS"),
        [_row(each) for each in found],
        right="    RR",
    )
    if found:
        out.hint(f"patchkit pull {found[0].repo}")
    else:
        out.line("no patches found")
    out.values(each.repo for each in found)
    out.result({"results": [_data(each) for each in found]}, quiet=None)


def _base_name(ref: str) -> str:
    """What a base is called on the Hub."""
    from patchkit.hub import parse_ref
    from patchkit.tensors.checkpoint import ATLAS
    from patchkit.tensors.origin import read_origin

    if ref == ATLAS:
        return ref
    if not Path(ref).is_dir():
        return parse_ref(ref).repo
    origin = read_origin(Path(ref))
    if origin is None:
        raise HubError(
            f"nothing says where {ref} is from on the Hub", hint="name it: --base org/name"
        )
    return origin.repo


def _row(found: "Found") -> Row:
    marks = [name for name in ("private", "gated") if getattr(found, name)]
    return Row(
        found.repo + (f" ({', '.join(marks)})" if marks else ""),
        found.updated.date().isoformat() if found.updated else "—",
        some(found.bases, 2) or "—",
        found.relation or "—",
        "—" if found.patches is None else found.patches,
        "—" if found.facts is None else found.facts,
    )


def _data(found: "Found") -> dict[str, object]:
    return {
        "repo": found.repo,
        "revision": found.revision,
        "updated": found.updated.isoformat() if found.updated else None,
        "bases": found.bases,
        "relation": found.relation,
        "patches": found.patches,
        "facts": found.facts,
        "license": found.license,
        "private": found.private,
        "gated": found.gated,
    }
