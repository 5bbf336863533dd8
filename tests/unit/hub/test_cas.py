"""What the test hub's CAS gives out: any range of a file, to those who may have it."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from tests.hubcas import Cas, Pass
from tests.hubroutes import Answer, Request
from tests.testhub import TestHub
from tests.xorbs import File, Term, chunks, unpacked

PIECES = [bytes([number]) * (10 + number) for number in range(6)]
FILE = "f" * 64
TERMS = (Term("a" * 64, 21, 0, 2), Term("b" * 64, 27, 1, 3), Term("a" * 64, 12, 2, 3))
WHOLE = PIECES[0] + PIECES[1] + PIECES[4] + PIECES[4][:13] + PIECES[2]


def xorb(*pieces: bytes) -> bytes:
    sizes = [len(piece).to_bytes(3, "little") for piece in pieces]
    rows = zip(sizes, pieces, strict=True)
    return b"".join(b"\0" + size + b"\0" + size + piece for size, piece in rows) + b"XETBLOB"


@pytest.fixture
def hub() -> TestHub:
    """A hub that serves nobody, with a file of three terms."""
    hub = TestHub(xet=True)
    hub.storage = "http://store"
    hub.cas = Cas(passes={"reads": Pass("ada/caps", False)})
    hub.cas.xorbs = {
        "a" * 64: xorb(*PIECES[:3]),
        "b" * 64: xorb(PIECES[3], PIECES[4], PIECES[4][:13]),
    }
    hub.cas.files[FILE] = File(FILE, "0" * 64, TERMS)
    return hub


def ask(hub: TestHub, path: str, token: str = "reads", method: str = "GET", **more: str) -> Answer:
    headers = {"authorization": f"Bearer {token}", **more}
    return hub.answer(Request("cas", method, path, {}, headers))


def places(found: dict[str, Any], version: int) -> dict[tuple[str, int], tuple[str, int, int]]:
    """From where the chunks of a xorb that begin with this one come."""
    if version == 1:
        rows = [
            (name, row["range"], row["url"], row["url_range"])
            for name, each in found["fetch_info"].items()
            for row in each
        ]
    else:
        rows = [
            (name, part["chunks"], row["url"], part["bytes"])
            for name, each in found["xorbs"].items()
            for row in each
            for part in row["ranges"]
        ]
    return {
        (name, span["start"]): (url, place["start"], place["end"])
        for name, span, url, place in rows
    }


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("first", "last"), [(0, 59), (0, 0), (20, 21), (21, 47), (30, 55), (59, 99)]
)
def test_any_range_can_be_put_together(hub: TestHub, version: int, first: int, last: int) -> None:
    answer = ask(hub, f"/v{version}/reconstructions/{FILE}", range=f"bytes={first}-{last}")
    found = json.loads(answer.body)
    data = b""
    for term in found["terms"]:
        url, start, end = places(found, version)[term["hash"], term["range"]["start"]]
        path = url.removeprefix(hub.storage)
        request = Request("store", "GET", path, {}, {"range": f"bytes={start}-{end}"})
        part = hub.answer(request).body
        piece = b"".join(unpacked(part, chunk) for chunk in chunks(part))
        assert len(piece) == term["unpacked_length"]
        data += piece
    offset = found["offset_into_first_range"]
    assert data[offset : offset + last - first + 1] == WHOLE[first : last + 1]


def test_who_may_not_have_it(hub: TestHub) -> None:
    path = f"/v1/reconstructions/{FILE}"
    assert ask(hub, path, "unknown").status == 401
    assert ask(hub, "/v1/shards", method="POST").status == 403
    assert ask(hub, path, range="bytes=60-").status == 416
    assert hub.answer(Request("store", "GET", "/xorb/" + "a" * 64, {}, {})).status == 403


def test_a_shard_of_something_else_is_refused(hub: TestHub) -> None:
    hub.cas.passes["writes"] = Pass("ada/caps", True)
    head = b"HFRepoMetaData\0".ljust(48, b"\0")
    rows = struct.pack("<32sII8x", b"\1" * 32, 1 << 30, 1)
    rows += struct.pack("<32s4I", b"\xaa" * 32, 0, 21, 0, 2) + b"\2" * 48
    request = Request(
        "cas",
        "POST",
        "/v1/shards",
        {},
        {"authorization": "Bearer writes"},
        head + rows + b"\xff" * 48,
    )
    answer = hub.answer(request)
    assert (answer.status, b"sha256" in answer.body) == (400, True)
    assert hub.cas.names == {}
