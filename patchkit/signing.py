"""Signatures of patches: a bundle beside the file, made and checked by the package model-signing.

A valid signature says that whoever held a private key, or could log in as an identity, signed
these very bytes. It says nothing about what they do. The bundle is that of OpenSSF Model Signing:
any other tool that reads those can check it.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from patchkit.apply.lock import patch_paths, read_lock
from patchkit.errors import ExtraMissing, FormatError, PatchkitError, SignatureError
from patchkit.patch.reader import read_info
from patchkit.patch.writing import write_atomically
from patchkit.report import Check

SUFFIX = ".sig"
MAX_BYTES = 1_000_000
"""Most bytes of a signature file."""

_GITHUB = "https://github.com/"
_GITHUB_ISSUER = "https://token.actions.githubusercontent.com"
_MAKE_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"
_MAKE_PUBLIC = "openssl ec -in key.pem -pubout -out key.pub"


def signature_path(patch: str | Path) -> Path:
    """Where the signature of a patch lies: beside it, `NAME.patch.safetensors.sig`."""
    path = Path(patch)
    return path.with_name(path.name + SUFFIX)


def sign(
    patch: str | Path, key: str | Path | None = None, *, password: bytes | None = None
) -> Path:
    """Sign a patch and return the path of its signature, which is written beside it.

    `key` is a private key on an elliptic curve (P-256, P-384, P-521) in a PEM file, encrypted with
    `password` or not. Without one, Sigstore signs for the identity of a login, and needs a network.
    Raises FormatError for what is not a patch, SignatureError where it cannot be signed, and
    ExtraMissing without the package model-signing.
    """
    signing = _package().signing
    path = Path(patch)
    read_info(path)
    if key is not None and not Path(key).is_file():
        raise SignatureError(f"there is no key {key}", hint=_MAKE_KEY)
    bundle = signature_path(path)
    fresh = bundle.with_name(f".{bundle.name}.fresh")
    try:
        config = signing.Config()
        if key is None:
            config.use_sigstore_signer(use_ambient_credentials=True)
        else:
            config.use_elliptic_key_signer(private_key=Path(key), password=password)
        config.sign(path.resolve(), fresh)
        write_atomically(bundle, fresh.read_bytes())
    except PatchkitError:
        raise
    except Exception as error:  # of any of the packages that read keys or speak to Sigstore
        raise _cannot_sign(key, error) from error
    finally:
        fresh.unlink(missing_ok=True)
    return bundle


def check_signature(target: str | Path, signer: str | Path, *, issuer: str | None = None) -> Check:
    """Check that a patch, or every patch that a patched folder carries, was signed by `signer`.

    `signer` is the file of a public key, or an identity of Sigstore such as `ada@example.org`,
    with the `issuer` that vouches for it; workflows of GitHub have a known one. A signature that
    is missing or not valid is a negative verdict. Raises SignatureError for a key that is none and
    where Sigstore cannot be asked, FormatError for a folder without a lock, and ExtraMissing
    without the package model-signing.
    """
    verifying = _package().verifying
    patches = _patches(Path(target))
    name = Path(signer).name if Path(signer).is_file() else str(signer)
    for patch in patches:
        fault = _fault(patch, _verifier(verifying, signer, issuer))
        if fault is not None:
            return Check("signature", None, name, False, f"{patch.name}: {fault}")
    return Check("signature", name, name, True, f"{len(patches)} of {len(patches)} signed")


def _package() -> Any:
    try:
        import model_signing
    except ImportError as error:
        raise ExtraMissing(
            f"signatures need the package model-signing ({error.name or 'it'} is not installed)",
            hint="pip install 'patchkit-lm[sign]'",
        ) from error
    return model_signing


def _patches(target: Path) -> tuple[Path, ...]:
    if not target.is_dir():
        return (target,)
    lock = read_lock(target)
    if lock is None:
        raise FormatError(f"{target} has no lock, so nothing says which patches it carries")
    return patch_paths(target, lock)


def _verifier(verifying: Any, signer: str | Path, issuer: str | None) -> Any:
    """A configuration that accepts this signer only; it keeps state, so each patch gets its own."""
    config = verifying.Config()
    if Path(signer).is_file():
        try:
            return config.use_elliptic_key_verifier(public_key=Path(signer))
        except Exception as error:  # whatever a parser of keys makes of any file
            raise SignatureError(
                f"{Path(signer).name} is no public key on an elliptic curve", hint=_MAKE_PUBLIC
            ) from error
    known = issuer or (_GITHUB_ISSUER if str(signer).startswith(_GITHUB) else None)
    if known is None:
        raise SignatureError(
            f"{signer} is neither a file nor an identity whose issuer is known",
            hint="name the file of a public key, or add --issuer, such as "
            "https://accounts.google.com",
        )
    try:
        return config.use_sigstore_verifier(identity=str(signer), oidc_issuer=known)
    except Exception as error:  # of any of the packages that speak to Sigstore
        raise SignatureError(
            f"Sigstore cannot be asked about {signer}: {_brief(error)}",
            hint="with a network, try again; without one, use signatures made with a key",
        ) from error


def _fault(patch: Path, verifier: Any) -> str | None:
    """What is wrong with the signature of a patch, None if it is valid."""
    bundle = signature_path(patch)
    if not patch.is_file() or not bundle.is_file():
        return f"there is no {(bundle if patch.is_file() else patch).name}"
    if (size := bundle.stat().st_size) > MAX_BYTES:
        return f"its signature has {size} bytes; {MAX_BYTES} are allowed"
    try:
        with redirect_stdout(StringIO()):  # the package prints warnings there
            verifier.verify(patch.resolve(), bundle)
    except Exception as error:  # whatever parsers make of a stranger's text
        text = str(error)
        if text.startswith("Signature mismatch"):
            return "the signature is of other bytes than these"
        if text.startswith("Key mismatch"):
            return "it was signed with another key"
        return f"the signature is not valid: {_brief(error)}"
    return None


def _cannot_sign(key: str | Path | None, error: Exception) -> SignatureError:
    if key is None:
        return SignatureError(
            f"Sigstore did not sign: {_brief(error)}",
            hint="with a network, try again; without one, sign with --key",
        )
    return SignatureError(
        f"{Path(key).name} cannot sign: {_brief(error)}",
        hint=f"a key is made with: {_MAKE_KEY}",
    )


def _brief(error: Exception) -> str:
    """The first sentence of an error, or its type."""
    text = " ".join(str(error).split()).split(". ")[0].rstrip(".")
    return f"{text:.200}" if text else type(error).__name__
