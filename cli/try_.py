"""`patchkit try`: what the base and the patched model say, side by side."""

from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bases import local_base
from .loading import load
from .options import BaseOption, DeviceOption, DtypeOption, JsonFlag, QuietFlag
from .output import Out, Row

if TYPE_CHECKING:
    from patchkit.scoring.continuations import Candidate, Continuation

EXAMPLES = (
    'patchkit try "The capital of France is" --patch my.patch.safetensors',
    'patchkit try "The author of Hamlet is" --patch my.patch.safetensors -q',
)

PromptArgument = Annotated[
    str, typer.Argument(metavar="PROMPT", help="Text to continue.", show_default=False)
]
PatchesOption = Annotated[
    list[Path],
    typer.Option(
        "--patch",
        metavar="PATCH",
        help="Patch to try; repeat for several, in order.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
TokensOption = Annotated[
    int,
    typer.Option("--tokens", "-n", min=1, help="Tokens to write.", rich_help_panel="Output"),
]
TopOption = Annotated[
    int,
    typer.Option("--top", min=1, help="First tokens to compare.", rich_help_panel="Output"),
]


def try_prompt(
    prompt: PromptArgument,
    patches: PatchesOption,
    base: BaseOption = "atlas",
    tokens: TokensOption = 12,
    top: TopOption = 5,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Continue a prompt with the base and the patched model."""
    out = Out.choose("try", json=json, quiet=quiet)
    from patchkit.live import applied
    from patchkit.patch.patch import Patch
    from patchkit.scoring.continuations import continuation

    stack = [Patch.read(path) for path in patches]
    loaded = load(local_base(base, out), device, dtype)
    model, tokenizer = loaded.model, loaded.tokenizer
    before = continuation(model, tokenizer, prompt, top=top, max_tokens=tokens)
    with applied(model, stack, checkpoint=loaded.checkpoint):
        after = continuation(model, tokenizer, prompt, top=top, max_tokens=tokens)
    _show(out, before, after)
    sides = {"base": _data(before), "patched": _data(after)}
    out.result({"prompt": prompt, **sides}, quiet=after.text)


def _show(out: Out, before: "Continuation", after: "Continuation") -> None:
    rows = [
        Row(*_cells(old), *_cells(new))
        for old, new in zip_longest(before.candidates, after.candidates)
    ]
    out.table(("BASE", "P", "PATCHED", "P"), rows, right=" R R")
    out.line()
    out.fields({"base": before.text, "patched": after.text}, indent=0)


def _cells(candidate: "Candidate | None") -> tuple[str, str]:
    return ("", "") if candidate is None else (candidate.text, f"{candidate.probability:.3f}")


def _data(side: "Continuation") -> dict[str, object]:
    return {"text": side.text, "top": [asdict(candidate) for candidate in side.candidates]}
