"""What goes to the Hub beside a patch: its signature and the picture of its angles."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from patchkit.errors import FormatError
from patchkit.hub import pull, push
from patchkit.hub.companions import companions
from patchkit.hub.plot import HEIGHT, LEFT, RIGHT, WIDTH, angle_plot
from patchkit.signing import MAX_BYTES, signature_path
from tests.cli.helpers import run
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login
from tests.unit.patch.samples import sample

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/caps"
NAME = "capitals.patch.safetensors"


def pixels(png: bytes) -> np.ndarray:
    """The palette indices of a picture, every checksum compared on the way."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    parts, position = {}, 8
    while position < len(png):
        (size,) = struct.unpack(">I", png[position : position + 4])
        name, data = png[position + 4 : position + 8], png[position + 8 : position + 8 + size]
        (check,) = struct.unpack(">I", png[position + 8 + size : position + 12 + size])
        assert check == zlib.crc32(name + data)
        parts[name], position = data, position + 12 + size
    assert list(parts) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">II", parts[b"IHDR"][:8]) == (WIDTH, HEIGHT)
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(HEIGHT, WIDTH + 1)
    assert not rows[:, 0].any()
    assert rows[:, 1:].max() < len(parts[b"PLTE"]) // 3
    return rows[:, 1:]


def heights(picture: np.ndarray) -> np.ndarray:
    """How many coloured pixels each column of the drawing has."""
    return (picture[:, LEFT:RIGHT] >= 3).sum(axis=0)


@pytest.mark.parametrize("count", [1, 2, 7, 145, 564, 5000])
def test_bars_fall_from_left_to_right_and_have_the_height_of_their_angle(count: int) -> None:
    angles = [100.0 * (i + 1) / count for i in range(count)]
    bars = heights(pixels(angle_plot([angles[::2], angles[1::2]])))
    drawn = bars[bars > 0]
    assert (np.diff(drawn) <= 0).all()
    assert drawn[0] == 176  # 100 is the upper end of its axis
    assert drawn[-1] <= 176 * max(1, 100 / count) / 100 + 2 or count == 1


def test_matrices_have_their_own_colours() -> None:
    picture = pixels(angle_plot([[3.0], [2.0], [1.0]]))
    assert set(np.unique(picture)) == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("angles", [[0.0], [1e-9], [180.0], [3600.0], [0.123, 0.0]])
def test_any_angle_can_be_drawn(angles: list[float]) -> None:
    assert pixels(angle_plot([angles])).shape == (HEIGHT, WIDTH)
    assert angle_plot([angles]) == angle_plot([angles])


def test_a_push_brings_the_picture_once_and_the_card_shows_it(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    report = push([patch], REPO, endpoint=hub.endpoint)
    head = hub.state.repos[REPO].head
    assert "capitals.angles.png" in [file.path for file in report.files]
    assert heights(pixels(head.files["capitals.angles.png"].data)).any()
    card = head.files["README.md"].data.decode()
    assert "](capitals.angles.png)" in card
    assert "It turns 2 planes of 1 matrices" in card
    for way in ("AutoModelForCausalLM.from_pretrained", "PeftModel", "vllm serve", "patchkit pull"):
        assert way in card
    other = head.files["capitals.angles.png"].data + b"packed otherwise"
    hub.state.put(REPO, {"capitals.angles.png": other})
    assert push([patch], REPO, endpoint=hub.endpoint).files == ()


def test_a_signature_goes_and_comes_with_its_patch(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path
) -> None:
    login()
    signature_path(patch).write_bytes(b'{"signed": true}')
    push([patch], REPO, endpoint=hub.endpoint)
    card = hub.state.repos[REPO].head.files["README.md"].data.decode()
    assert f"Signed: `{NAME}.sig`" in card
    first = pull(REPO, tmp_path / "store", endpoint=hub.endpoint)
    assert signature_path(first.path).read_bytes() == b'{"signed": true}'
    again = pull(REPO, tmp_path / "store", endpoint=hub.endpoint)
    assert (again.path, again.cached) == (first.path, True)
    signature_path(patch).write_bytes(b'{"signed": "again"}')
    assert [file.path for file in push([patch], REPO, endpoint=hub.endpoint).files] == [
        f"{NAME}.sig"
    ]


def test_a_patch_without_its_facts_is_not_the_one_that_was_signed(
    hub: TestHub, login: Login, patch: Path
) -> None:
    login()
    signature_path(patch).write_bytes(b"{}")
    report = push([patch], REPO, embed_facts=False, endpoint=hub.endpoint)
    assert f"{NAME}.sig" not in [file.path for file in report.files]


def test_what_is_too_large_for_a_signature_is_neither_sent_nor_fetched(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path
) -> None:
    login()
    push([patch], REPO, endpoint=hub.endpoint)
    hub.state.put(REPO, {f"{NAME}.sig": b" " * (MAX_BYTES + 1)})
    report = pull(REPO, tmp_path / "store", endpoint=hub.endpoint)
    assert not signature_path(report.path).exists()
    signature_path(patch).write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(FormatError, match="a signature has at most"):
        companions(NAME, patch)


def test_sums_have_no_angles() -> None:
    found = companions(NAME, sample().to_bytes())
    assert list(found.files) == ["capitals.angles.png"]
    assert "of 2 matrices" in found.lines[0]


def test_signed_on_the_hub_is_signed_here(
    hub: TestHub, login: Login, patch: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("model_signing")
    from huggingface_hub import constants

    from tests.unit.test_signing import write_keys

    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    login()
    write_keys(tmp_path)
    assert run("sign", patch, "--key", tmp_path / "ada.pem").code == 0
    assert run("push", patch, REPO).code == 0
    demand = ("--require-signer", tmp_path / "ada.pub")
    assert run("verify", f"hf://{REPO}", *demand).code == 0
    assert run("verify", f"hf://{REPO}", "--require-signer", tmp_path / "eve.pub").code == 3
    pulled = run("pull", REPO, "-o", "mine.safetensors", "--json")
    assert pulled.data["signature"] == "mine.safetensors.sig"
    assert run("verify", "mine.safetensors", *demand).code == 0
