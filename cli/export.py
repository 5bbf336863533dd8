"""`patchkit export`: a patch as a LoRA adapter."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from patchkit.patch.naming import stem

from .bases import edited_tensors, local_base
from .options import BaseOption, JsonFlag, QuietFlag, Storage, YesFlag
from .output import Out
from .progress import shown
from .units import count, duration, size

if TYPE_CHECKING:
    from patchkit.export import ExportReport

EXAMPLES = (
    "patchkit export capitals.patch.safetensors --to peft --self-test",
    "patchkit export my.patch.safetensors --to gguf --base ./Llama-3.1-8B",
)

Target = Literal["peft", "gguf"]

PatchesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="PATCH...", help="Patches, first to last.", show_default=False),
]
ToOption = Annotated[
    Target,
    typer.Option("--to", help="A PEFT folder, or a file for llama.cpp.", rich_help_panel="Output"),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="PATH",
        help="What to write; ./<patch>-lora or ./<patch>.gguf by default.",
        rich_help_panel="Output",
        show_default=False,
    ),
]
StorageOption = Annotated[
    Storage,
    typer.Option("--storage", help="Type of the stored matrices.", rich_help_panel="Output"),
]
OtherBaseFlag = Annotated[
    bool,
    typer.Option(
        "--allow-other-base",
        help="Also for weights the patch was not made for.",
        rich_help_panel="Input",
    ),
]
SelfTestFlag = Annotated[
    bool,
    typer.Option(
        "--self-test",
        help="Load the base and compare logits; exit 3 if they differ.",
        rich_help_panel="Compute",
    ),
]


def export(
    patches: PatchesArgument,
    to: ToOption = "peft",
    base: BaseOption = "atlas",
    out_path: OutOption = None,
    storage: StorageOption = "float32",
    allow_other_base: OtherBaseFlag = False,
    self_test: SelfTestFlag = False,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Write a patch as an exact LoRA adapter."""
    from patchkit.export import export as export_patches

    out = Out.choose("export", json=json, quiet=quiet)
    target = out_path or _default(patches[-1], to)
    folder = local_base(base, out, tensors=None if self_test else edited_tensors(patches))
    with shown(out) as progress:
        report = export_patches(
            folder,
            patches,
            target,
            to=to,
            storage=storage,
            allow_other_base=allow_other_base,
            overwrite=yes,
            self_test=self_test,
            progress=progress,
        )
    _show(out, report, base)
    out.result(_data(report), quiet=str(target) if report.ok else None, ok=report.ok)
    out.verdict(report.ok)


def _default(patch: Path, to: Target) -> Path:
    name = stem(patch.name)
    return Path(f"{name}.gguf" if to == "gguf" else f"{name}-lora")


def _show(out: Out, report: "ExportReport", base: str) -> None:
    test = report.self_test
    out.done(f"wrote {report.path} ({size(report.bytes_written)}) in {duration(report.seconds)}")
    out.fields(
        {
            "modules": count(len(report.tensors), "module"),
            "rank": f"{report.rank} for every module, alpha {report.rank} (scale 1 everywhere)",
            "error": f"‖ΔW − BA‖ / ‖ΔW‖ = {report.relative_error:.1g}",
            "logits": None if test is None else test.detail,
        }
    )
    if test is not None and not test.ok:
        out.failed(f"self-test: {test.value:.3g} of the change, {test.limit} is allowed")
    if report.to == "gguf":
        out.hint(f"llama-cli -m BASE.gguf --lora {report.path}")
    elif report.vllm_rank is None:
        out.warn(f"vLLM takes adapters up to rank 512, and this one has {report.rank}")
    else:
        out.hint(
            f"vllm serve {base} --enable-lora --max-lora-rank {report.vllm_rank} "
            f"--lora-modules patch={report.path}"
        )


def _data(report: "ExportReport") -> dict[str, object]:
    test = report.self_test
    return {
        "to": report.to,
        "path": str(report.path),
        "tensors": report.tensors,
        "rank": report.rank,
        "alpha": report.rank,
        "relative_error": report.relative_error,
        "bytes": report.bytes_written,
        "vllm_rank": report.vllm_rank,
        "self_test": None
        if test is None
        else {"value": test.value, "limit": test.limit, "ok": test.ok, "detail": test.detail},
        "seconds": round(report.seconds, 3),
    }
