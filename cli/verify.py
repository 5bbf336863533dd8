"""`patchkit verify`: named checks of a patch or a patched folder."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .bases import edited_tensors, local_base
from .options import JsonFlag, QuietFlag
from .output import Out, Row
from .progress import shown
from .units import count, duration, short

if TYPE_CHECKING:
    from patchkit.report import Check, Report

EXAMPLES = (
    "patchkit verify capitals.patch.safetensors --base atlas",
    "patchkit verify ./atlas-patched --json",
    "patchkit verify capitals.patch.safetensors --require-signer ada.pub",
)

_STYLES = {"ok": "", "skipped": "dim", "FAILED": "red"}

TargetArgument = Annotated[
    Path,
    typer.Argument(
        metavar="PATCH|FOLDER", help="A patch, or a folder that apply wrote.", show_default=False
    ),
]
BaseToCheck = Annotated[
    str | None,
    typer.Option(
        "--base",
        metavar="REF",
        help="Also check against this base: a folder, org/name on the Hub, or atlas.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
DeepFlag = Annotated[
    bool,
    typer.Option(
        "--deep", help="Singular values of large matrices too.", rich_help_panel="Compute"
    ),
]
BehaviourFlag = Annotated[
    bool,
    typer.Option(
        "--behaviour",
        help="Run the model: are the facts answered, is other knowledge left alone?",
        rich_help_panel="Compute",
    ),
]
SignerOption = Annotated[
    str | None,
    typer.Option(
        "--require-signer",
        metavar="KEY|IDENTITY",
        help="The file of a public key, or an identity of Sigstore, that must have signed it.",
        rich_help_panel="Input",
        show_default=False,
    ),
]
IssuerOption = Annotated[
    str | None,
    typer.Option(
        "--issuer",
        metavar="URL",
        help="Who vouches for the identity; known for workflows of GitHub.",
        rich_help_panel="Input",
        show_default=False,
    ),
]


def verify(
    target: TargetArgument,
    base: BaseToCheck = None,
    deep: DeepFlag = False,
    behaviour: BehaviourFlag = False,
    require_signer: SignerOption = None,
    issuer: IssuerOption = None,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Check digests, orthogonality and norms."""
    out = Out.choose("verify", json=json, quiet=quiet)
    if issuer is not None and require_signer is None:
        raise typer.BadParameter("--issuer goes with --require-signer IDENTITY")
    signed = _signed(target, require_signer, issuer)
    report = _report(target, base, deep, behaviour, out)
    report = replace(report, checks=(*report.checks, *signed))
    _show(out, report)
    passed = str(target) if report.ok else None
    out.result(_data(target, report, out.seconds), quiet=passed, ok=report.ok)
    out.verdict(report.ok)


def _signed(target: Path, signer: str | None, issuer: str | None) -> tuple["Check", ...]:
    if signer is None:
        return ()
    from patchkit.signing import check_signature

    return (check_signature(target, signer, issuer=issuer),)


def _report(target: Path, base: str | None, deep: bool, behaviour: bool, out: Out) -> "Report":
    from patchkit.verify import verify_folder, verify_patch

    if target.is_dir() and base is not None:
        raise typer.BadParameter("--base goes with a patch; a folder's lock names its base")
    if behaviour and base is None and not target.is_dir():
        raise typer.BadParameter("--behaviour needs the model: name it with --base")
    folder = None if base is None else _folder(target, base, behaviour, out)
    with shown(out) as progress:
        if target.is_dir():
            return verify_folder(target, behaviour=behaviour, progress=progress)
        return verify_patch(target, base=folder, deep=deep, behaviour=behaviour, progress=progress)


def _folder(target: Path, base: str, behaviour: bool, out: Out) -> Path:
    return local_base(base, out, tensors=None if behaviour else edited_tensors([target]))


def _show(out: Out, report: "Report") -> None:
    out.table(("CHECK", "VALUE", "LIMIT", "VERDICT"), [_row(check) for check in report.checks])
    failed, skipped = len(report.failed), len(report.skipped)
    made = len(report.checks) - skipped
    if failed:
        out.failed(f"{failed} of {count(made, 'check')} failed")
    else:
        more = f", {skipped} skipped" if skipped else ""
        out.done(f"{count(made, 'check')} passed{more} in {duration(out.seconds)}")


def _row(check: "Check") -> Row:
    verdict = "skipped" if check.skipped else "ok" if check.ok else "FAILED"
    tensor = check.tensor if check.tensor and check.tensor not in check.detail else ""
    note = "  ".join(text for text in (tensor, check.detail) if text)
    return Row(
        check.name,
        _value(check.value),
        _value(check.limit),
        verdict,
        note="" if verdict == "ok" else note,
        style=_STYLES[verdict],
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = "—" if value is None else str(value)
    return short(text) if text.startswith("sha256:") else text


def _data(target: Path, report: "Report", seconds: float) -> dict[str, object]:
    checks = [
        {
            "name": check.name,
            "value": check.value,
            "limit": check.limit,
            "ok": check.ok,
            "skipped": check.skipped,
            "tensor": check.tensor,
            "detail": check.detail,
        }
        for check in report.checks
    ]
    failed, skipped = len(report.failed), len(report.skipped)
    return {
        "target": str(target),
        "checks": checks,
        "passed": len(checks) - failed - skipped,
        "failed": failed,
        "skipped": skipped,
        "seconds": seconds,
    }
