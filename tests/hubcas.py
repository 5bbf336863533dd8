"""The Xet side of the test hub: tokens, what its CAS answers, what its storage hands out.

Hashes of xorbs and files are taken as the client states them; the sha256 of every file is computed
from its chunks. Xorbs are kept and given back as they came.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate

from tests import xorbs
from tests.hubroutes import REPO, Answer, Hub, Request, json_answer, ranged
from tests.hubstate import Refused, User

LIFE = 3600  # seconds that a token is good for
_HASH = "([0-9a-f]{64})"


@dataclass(frozen=True)
class Pass:
    """What a token of the CAS allows."""

    repo: str
    write: bool


@dataclass
class Cas:
    """Everything in the CAS; with `old` it knows neither grants nor version 2 of anything."""

    old: bool = False
    passes: dict[str, Pass] = field(default_factory=dict)
    xorbs: dict[str, bytes] = field(default_factory=dict)
    grants: dict[str, bytes | None] = field(default_factory=dict)
    files: dict[str, xorbs.File] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def content(self, file: xorbs.File) -> bytes:
        """The bytes of a file."""
        return b"".join(
            xorbs.unpacked(self.xorbs[term.xorb], chunk)
            for term in file.terms
            for chunk in xorbs.chunks(self.xorbs[term.xorb])[term.first : term.last]
        )


def _read_token(hub: Hub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    hub.state.open(name, user).commit(rev)
    return _token(hub, Pass(name, False))


def _write_token(hub: Hub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    hub.state.writable(name, user, create_pr=request.query.get("create_pr") == "1")
    return _token(hub, Pass(name, True))


def _token(hub: Hub, allowed: Pass) -> Answer:
    token, end = f"xet_{len(hub.cas.passes)}_secret", int(time.time()) + LIFE
    hub.cas.passes[token] = allowed
    body = {"accessToken": token, "exp": end, "casUrl": hub.cas_url}
    names = {"Cas-Url": hub.cas_url, "Access-Token": token, "Token-Expiration": str(end)}
    return json_answer(body, **{f"X-Xet-{name}": value for name, value in names.items()})


def admitted(hub: Hub, request: Request) -> Pass:
    """What the token of a request to the CAS allows."""
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token not in hub.cas.passes:
        raise Refused(401, "this token is not known")
    if request.method == "POST" and not hub.cas.passes[token].write:
        raise Refused(403, "this token may not write")
    return hub.cas.passes[token]


def _new(hub: Hub) -> None:
    if hub.cas.old:
        raise Refused(404, "Not Found")


def _known_chunk(hub: Hub, request: Request, allowed: Pass, chunk: str) -> Answer:
    raise Refused(404, "nothing is deduplicated across repositories")


def _xorb(hub: Hub, request: Request, allowed: Pass, name: str) -> Answer:
    new = name not in hub.cas.xorbs
    hub.cas.xorbs[name] = request.body
    return json_answer({"was_inserted": new})


def _grant(hub: Hub, request: Request, allowed: Pass, name: str) -> Answer:
    _new(hub)
    if name in hub.cas.xorbs:
        return json_answer({})
    grant = f"g{len(hub.cas.grants)}"
    hub.cas.grants[grant] = None
    url = f"{hub.storage}/grant/{grant}"
    return json_answer({"id": grant, "method": "PUT", "url": url, "headers": {}}, 201)


def _use_grant(hub: Hub, request: Request, allowed: Pass, name: str, grant: str) -> Answer:
    data = hub.cas.grants.get(grant)
    if data is None:
        raise Refused(404, "nothing was uploaded for this grant")
    hub.cas.xorbs[name] = data
    return json_answer({"was_inserted": True})


def _shard(hub: Hub, request: Request, allowed: Pass) -> Answer:
    for file in xorbs.files(request.body):
        if missing := {term.xorb for term in file.terms} - hub.cas.xorbs.keys():
            raise Refused(400, f"xorb {missing.pop()} was not uploaded")
        data = hub.cas.content(file)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise Refused(400, "the content does not have this sha256")
        hub.cas.files[file.name], hub.cas.names[file.sha256] = file, file.name
        hub.state.repos[allowed.repo].objects[file.sha256] = data
    return json_answer({"result": 1})


def _reconstruction(hub: Hub, request: Request, allowed: Pass, version: str, name: str) -> Answer:
    if version == "2":
        _new(hub)
    if name not in hub.cas.files:
        raise Refused(404, f"no file {name}")
    terms, offset = _between(hub.cas.files[name].terms, request.headers.get("range"))
    rows = [
        {"hash": term.xorb, "unpacked_length": term.size, "range": _span(term.first, term.last)}
        for term in terms
    ]
    places: dict[str, list[dict[str, object]]] = {term.xorb: [] for term in terms}
    for term in dict.fromkeys(terms):
        places[term.xorb].append(_place(hub, term, version))
    return json_answer(
        {
            "offset_into_first_range": offset,
            "terms": rows,
            "fetch_info" if version == "1" else "xorbs": places,
        }
    )


def _between(terms: tuple[xorbs.Term, ...], wanted: str | None) -> tuple[list[xorbs.Term], int]:
    """The terms that hold the bytes that are asked for, and how many come before these."""
    first, _, last = (wanted or "bytes=0-").removeprefix("bytes=").partition("-")
    start, end = int(first), int(last or 2**63)
    ends = list(accumulate(term.size for term in terms))
    if start >= ends[-1]:
        raise Refused(416, f"the file has {ends[-1]} bytes")
    inside = [
        (term, stop - term.size)
        for term, stop in zip(terms, ends, strict=True)
        if start < stop and stop - term.size <= end
    ]
    return [term for term, _ in inside], start - inside[0][1]


def _place(hub: Hub, term: xorbs.Term, version: str) -> dict[str, object]:
    """From where the chunks of a term come."""
    chunks = xorbs.chunks(hub.cas.xorbs[term.xorb])
    span = _span(term.first, term.last)
    place = _span(chunks[term.first].start, chunks[term.last - 1].end - 1)
    url = f"{hub.storage}/xorb/{term.xorb}"
    if version == "1":
        return {"range": span, "url": url, "url_range": place}
    return {"url": url, "ranges": [{"chunks": span, "bytes": place}]}


def _span(start: int, end: int) -> dict[str, int]:
    return {"start": start, "end": end}


def _stored(hub: Hub, request: Request, name: str) -> Answer:
    """What the storage host gives: the range of a xorb that is asked for, never all of it."""
    if "range" not in request.headers:
        return Answer(status=403)
    return ranged(hub.cas.xorbs[name], request.headers["range"])


def _take(hub: Hub, request: Request, grant: str) -> Answer:
    """What the storage host takes for a grant."""
    hub.cas.grants[grant] = request.body
    return Answer()


HUB_ROUTES: tuple[tuple[str, Callable[..., Answer]], ...] = (
    (f"/api/models/{REPO}/xet-read-token/([^/]+)", _read_token),
    (f"/api/models/{REPO}/xet-write-token/([^/]+)", _write_token),
)
CAS_ROUTES: tuple[tuple[str, Callable[..., Answer]], ...] = (
    (f"/v1/chunks/[^/]+/{_HASH}", _known_chunk),
    (f"/v1/xorbs/default/{_HASH}", _xorb),
    (f"/v1/xorb-grants/default/{_HASH}", _grant),
    (f"/v1/xorb-commits/default/{_HASH}/grant/([^/]+)", _use_grant),
    ("/v1/shards", _shard),
    (f"/v([12])/reconstructions/{_HASH}", _reconstruction),
)
STORE_ROUTES: dict[str, Callable[..., Answer]] = {"xorb": _stored, "grant": _take}
