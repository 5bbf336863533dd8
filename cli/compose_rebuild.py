"""`patchkit compose --drop` and `--replace`: the facts of patches, edited again."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from patchkit.errors import FactsError

from . import cache
from .bases import local_base
from .edit_report import report
from .loading import load
from .options import Device, Dtype
from .output import Out
from .patch_files import write_measured
from .progress import shown
from .units import count

if TYPE_CHECKING:
    from patchkit.compose import Composition


def rebuild(
    out: Out,
    made: "Composition",
    drop: list[str],
    replace: Path | None,
    target: Path,
    base: str,
    device: Device,
    dtype: Dtype,
) -> None:
    """Edit the base again with other facts, and report as `edit` does."""
    from patchkit.compose.revision import replaced, without
    from patchkit.editing.rebuild import facts_of
    from patchkit.editing.rebuild import rebuild as edit_again
    from patchkit.facts.collection import FactsFile
    from patchkit.facts.reading import read_facts

    _check_complete(made.report.silent)
    facts = without(facts_of(made.patch), drop)
    if replace is not None:
        facts = replaced(facts, read_facts(replace).facts)
    out.line(f"editing {count(len(facts), 'fact')} again: one rotation writes all of them at once")
    folder = local_base(base, out)
    with shown(out) as progress:
        loaded = load(folder, device, dtype)
        again = edit_again(
            made.patch,
            facts,
            loaded.model,
            loaded.tokenizer,
            checkpoint=loaded.checkpoint,
            cache_dir=cache.folder(),
            keep=lambda patch: patch.write(target),
            progress=progress,
        )
    write_measured(again.patch, target)
    places = tuple(range(1, len(facts) + 1))
    report(out, again, FactsFile(facts, "jsonl", places), target, {})


def _check_complete(silent: Sequence[str]) -> None:
    if silent:
        raise FactsError(
            f"{silent[0]} does not carry the text of its facts, so they would be lost",
            hint="give the facts files to patchkit edit instead",
        )
