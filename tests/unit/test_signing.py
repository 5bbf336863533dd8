"""A signature holds for these bytes and this key, and for nothing else."""

from __future__ import annotations

import builtins
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.errors import ExtraMissing, FormatError, SignatureError
from patchkit.signing import MAX_BYTES, check_signature, sign, signature_path
from tests.unit.patch.samples import sample
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch

WORD = b"correct horse"


def write_keys(folder: Path) -> None:
    """Keys of ada and eve, of ada encrypted, and one that is of no elliptic curve."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    pem, pkcs8, open_ = Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    made = {"ada": ec.generate_private_key(ec.SECP256R1())}
    made["eve"] = ec.generate_private_key(ec.SECP384R1())
    for name, key in {**made, "odd": ed25519.Ed25519PrivateKey.generate()}.items():
        public = key.public_key().public_bytes(pem, PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(public)
        (folder / f"{name}.pem").write_bytes(key.private_bytes(pem, pkcs8, open_))
    locked = made["ada"].private_bytes(pem, pkcs8, BestAvailableEncryption(WORD))
    (folder / "locked.pem").write_bytes(locked)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of keys."""
    pytest.importorskip("model_signing")
    folder = tmp_path_factory.mktemp("keys")
    write_keys(folder)
    return folder


@pytest.fixture
def patch(tmp_path: Path) -> Path:
    path = tmp_path / "a.patch.safetensors"
    sample().write(path)
    return path


@pytest.fixture
def signed(patch: Path, keys: Path) -> Path:
    sign(patch, keys / "ada.pem")
    return patch


def test_what_was_signed_is_accepted_and_only_from_its_signer(signed: Path, keys: Path) -> None:
    good = check_signature(signed, keys / "ada.pub")
    assert (good.ok, good.value, good.limit) == (True, "ada.pub", "ada.pub")
    other = check_signature(signed, keys / "eve.pub")
    assert (other.ok, other.value) == (False, None)
    assert other.detail == "a.patch.safetensors: it was signed with another key"


@pytest.mark.parametrize("place", [0, 100, -1])
def test_any_other_byte_is_refused(signed: Path, keys: Path, place: int) -> None:
    data = bytearray(signed.read_bytes())
    data[place] ^= 1
    signed.write_bytes(data)
    check = check_signature(signed, keys / "ada.pub")
    assert "the signature is of other bytes than these" in check.detail
    assert not check.ok


def test_the_signature_goes_with_the_bytes_and_not_with_the_name(
    signed: Path, keys: Path, tmp_path: Path
) -> None:
    moved = signed.rename(tmp_path / "b.patch.safetensors")
    assert not check_signature(moved, keys / "ada.pub").ok
    signature_path(signed).rename(signature_path(moved))
    assert check_signature(moved, keys / "ada.pub").ok
    link = tmp_path / "c.patch.safetensors"
    link.symlink_to(moved)
    signature_path(link).symlink_to(signature_path(moved))
    assert check_signature(link, keys / "ada.pub").ok


def test_the_same_key_signs_again_and_replaces(signed: Path, keys: Path) -> None:
    sign(signed, keys / "eve.pem")
    assert check_signature(signed, keys / "eve.pub").ok
    assert [path.name for path in signed.parent.iterdir() if path.name.startswith(".")] == []


def replaced(text: str) -> Callable[[bytes], bytes]:
    return lambda data: text.encode()


def with_envelope(data: bytes, **changes: object) -> bytes:
    bundle = json.loads(data)
    bundle["dsseEnvelope"] |= changes
    return json.dumps(bundle).encode()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": replaced(""),
    "no bundle": replaced("{}"),
    "deep": replaced("[" * 100_000),
    "another text": replaced('{"mediaType": "\\u001b[31m"}'),
    "cut": lambda data: data[:-200],
    "changed payload": lambda data: with_envelope(data, payload="e30="),
    "no signature": lambda data: with_envelope(data, signatures=[]),
    "signature of nothing": lambda data: with_envelope(data, signatures=[{"sig": "", "keyid": ""}]),
    "too large": lambda data: data + b" " * MAX_BYTES,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_signature_is_a_verdict_in_one_sentence(
    signed: Path, keys: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = signature_path(signed)
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    check = check_signature(signed, keys / "ada.pub")
    assert not check.ok
    assert "\n" not in check.detail
    assert len(check.detail) < 300
    assert capsys.readouterr() == ("", "")


def test_a_missing_signature_is_a_verdict(patch: Path, keys: Path) -> None:
    check = check_signature(patch, keys / "ada.pub")
    assert "there is no a.patch.safetensors.sig" in check.detail
    assert not check.ok
    assert not check_signature(patch.with_name("gone"), keys / "ada.pub").ok


def test_only_patches_are_signed(tmp_path: Path, keys: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(FormatError):
        sign(tmp_path / "note.txt", keys / "ada.pem")


@pytest.mark.parametrize("key", ["gone.pem", "ada.pub", "odd.pem", "locked.pem"])
def test_a_key_that_cannot_sign_is_said_and_nothing_is_left(
    patch: Path, keys: Path, key: str
) -> None:
    with pytest.raises(SignatureError, match=key) as caught:
        sign(patch, keys / key)
    assert "openssl ecparam" in (caught.value.hint or "")
    assert list(patch.parent.iterdir()) == [patch]


def test_an_encrypted_key_signs_with_its_password(patch: Path, keys: Path) -> None:
    sign(patch, keys / "locked.pem", password=WORD)
    assert check_signature(patch, keys / "ada.pub").ok
    with pytest.raises(SignatureError, match=r"locked\.pem cannot sign"):
        sign(patch, keys / "locked.pem", password=b"wrong")


@pytest.mark.parametrize("key", ["odd.pub", "ada.pem"])
def test_a_key_that_cannot_check_is_an_error(signed: Path, keys: Path, key: str) -> None:
    with pytest.raises(SignatureError, match="is no public key"):
        check_signature(signed, keys / key)


def test_every_patch_of_a_folder_is_asked_for(tmp_path: Path, keys: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    patches = [tmp_path / f"{name}.patch.safetensors" for name in "ab"]
    for seed, path in enumerate(patches):
        write_patch(path, base, {LINEAR[seed]: [rotation("input", D_IN, seed)]})
    apply_patches(base, patches, tmp_path / "out")
    sign(patches[0], keys / "ada.pem")
    check = check_signature(tmp_path / "out", keys / "ada.pub")
    assert "there is no b.patch.safetensors.sig" in check.detail
    sign(patches[1], keys / "ada.pem")
    assert check_signature(tmp_path / "out", keys / "ada.pub").detail == "2 of 2 signed"
    with pytest.raises(FormatError, match="has no lock"):
        check_signature(base, keys / "ada.pub")


def test_an_identity_needs_an_issuer(signed: Path, keys: Path) -> None:
    with pytest.raises(SignatureError, match="neither a file nor an identity") as caught:
        check_signature(signed, "ada@example.org")
    assert "--issuer" in (caught.value.hint or "")


def test_sigstore_without_a_network_is_one_sentence(
    patch: Path,
    keys: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp("sigstore")))
    with pytest.raises(SignatureError, match="Sigstore did not sign") as caught:
        sign(patch)
    assert "--key" in (caught.value.hint or "")
    assert list(patch.parent.iterdir()) == [patch]
    workflow = "https://github.com/ada/caps/.github/workflows/sign.yml@refs/heads/main"
    with pytest.raises(SignatureError, match="Sigstore cannot be asked"):
        check_signature(patch, workflow)


def test_without_the_package_it_says_how_to_install_it(
    patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def missing(name: str, *given: Any, **more: Any) -> Any:
        if name == "model_signing":
            raise ModuleNotFoundError("no", name=name)
        return found(name, *given, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    for call in (lambda: sign(patch, "k"), lambda: check_signature(patch, "k")):
        with pytest.raises(ExtraMissing, match="need the package model-signing") as caught:
            call()
        assert caught.value.hint == "pip install 'patchkit-lm[sign]'"


def test_a_key_of_openssl_signs(patch: Path, keys: Path, tmp_path: Path) -> None:
    """The commands of the page on signing, where openssl is at hand."""
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    make = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(private)]
    show = ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)]
    try:
        subprocess.run(make, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    subprocess.run(show, check=True, capture_output=True)
    sign(patch, private)
    assert check_signature(patch, public).ok
