"""`patchkit sign`: a signature beside a patch, of a key or of a login."""

from pathlib import Path
from typing import Annotated

import typer

from patchkit.errors import OutputError, SignatureError

from .options import JsonFlag, QuietFlag, YesFlag
from .output import Out

EXAMPLES = (
    "patchkit sign capitals.patch.safetensors --key ada.pem",
    "patchkit sign capitals.patch.safetensors --key ada.pem --yes -q",
)

FileArgument = Annotated[
    Path, typer.Argument(metavar="PATCH", help="The patch file.", show_default=False)
]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="PEM",
        help="Private key on an elliptic curve; without one, Sigstore signs for your login.",
        rich_help_panel="Input",
        show_default=False,
    ),
]


def sign(
    file: FileArgument,
    key: KeyOption = None,
    yes: YesFlag = False,
    json: JsonFlag = False,
    quiet: QuietFlag = False,
) -> None:
    """Sign a patch; the signature lies beside it."""
    from patchkit.patch.reader import read_info
    from patchkit.signing import sign as make
    from patchkit.signing import signature_path

    out = Out.choose("sign", json=json, quiet=quiet)
    target = signature_path(file)
    if target.exists() and not yes:
        raise OutputError(f"{target} exists", hint="pass --yes to replace it")
    path = make(file, key, password=_password(key))
    digest = read_info(file).digest
    out.done(f"signed {file}")
    out.fields({"signature": path, "digest": digest, "by": key or "your login, through Sigstore"})
    who = "KEY.pub" if key else "IDENTITY --issuer URL"
    out.hint(f"patchkit verify {file} --require-signer {who}")
    data = {"path": str(file), "signature": str(path), "digest": digest}
    out.result({**data, "key": None if key is None else str(key)}, quiet=str(path))


def _password(key: Path | None) -> bytes | None:
    """The password of an encrypted key, asked for where somebody can answer."""
    if key is None or not key.is_file() or b"ENCRYPTED" not in key.read_bytes()[:200]:
        return None
    if not typer.get_text_stream("stdin").isatty():
        raise SignatureError(
            f"{key} is encrypted, and there is no terminal to ask for its password",
            hint="sign on a terminal, or with a key that is not encrypted",
        )
    text: str = typer.prompt(f"Password of {key.name}", hide_input=True, err=True)
    return text.encode()
