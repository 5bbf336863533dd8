"""`sign`, and `verify --require-signer`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.helpers import Check, run

OPENSSL = shutil.which("openssl")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """A new pair of keys, made as the documentation says."""
    pytest.importorskip("model_signing")
    if OPENSSL is None:
        pytest.skip("openssl is not installed")
    for command in (
        "ecparam -name prime256v1 -genkey -noout -out key.pem",
        "ec -in key.pem -pubout -out key.pub",
        "ec -in key.pem -aes256 -passout pass:word -out locked.pem",
    ):
        subprocess.run([OPENSSL, *command.split()], cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_sign_says_what_it_wrote(check: Check, patch: Path, keys: Path) -> None:
    check(
        ["sign", patch, "--key", keys / "key.pem", "--yes"],
        human=f"""\
        ✓ signed my.patch.safetensors
          signature  my.patch.safetensors.sig
          digest     sha256:<64 hex>
          by         {keys / "key.pem"}
        """,
        stderr="""\
        hint: patchkit verify my.patch.safetensors --require-signer KEY.pub
        """,
        json={"schema": "patchkit.sign/1", "ok": True, "signature": "my.patch.safetensors.sig"},
        quiet="my.patch.safetensors.sig\n",
    )


def test_a_signature_is_replaced_only_when_told(patch: Path, keys: Path) -> None:
    assert run("sign", patch, "--key", keys / "key.pem").code == 0
    again = run("sign", patch, "--key", keys / "key.pem")
    assert (again.code, again.stdout) == (1, "")
    assert "my.patch.safetensors.sig exists" in again.stderr


def test_verify_demands_a_signer(patch: Path, keys: Path) -> None:
    missing = run("verify", patch, "--require-signer", keys / "key.pub")
    assert missing.code == 3
    assert "there is no my.patch.safetensors.sig" in missing.stdout
    run("sign", patch, "--key", keys / "key.pem")
    good = run("verify", patch, "--require-signer", keys / "key.pub", "--json")
    assert good.code == 0
    assert good.data["checks"][-1]["name"] == "signature"
    assert good.data["checks"][-1]["value"] == "key.pub"
    assert "signature" not in run("verify", patch).stdout


def test_wrong_use_is_said(patch: Path, keys: Path) -> None:
    assert run("verify", patch, "--issuer", "https://x.example").code == 2
    unknown = run("verify", patch, "--require-signer", "ada@example.org", "--json")
    assert (unknown.code, unknown.data["code"]) == (1, "signature_failed")
    locked = run("sign", patch, "--key", keys / "locked.pem")
    assert locked.code == 1
    assert "is encrypted, and there is no terminal" in locked.stderr
