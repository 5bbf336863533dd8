"""A small, faithful hub over real HTTP, for the real client; its storage has another host name.

    with TestHub() as hub:
        token = hub.state.user("ada")
        hub.fail(r"/commit/", status=503, times=2)

It speaks what huggingface_hub 1.33 and 2.4 ask for when HF_HUB_DISABLE_XET is set. `hub.requests`
is the log, `hub.errors` the exceptions of the hub itself, `hub.leaks` the tokens that reached the
storage host.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hubstate import LFS_ENDINGS, Refused, Repo, State, User, changed

Plane = Literal["hub", "store"]


@dataclass
class Fault:
    """What goes wrong, where, and how often."""

    pattern: str
    method: str | None = None
    plane: Plane = "hub"
    times: int = 1
    skip: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop_request_after: int | None = None
    drop_response_after: int | None = None
    corrupt: bool = False
    before: Callable[[], object] | None = None


@dataclass
class Request:
    """One request as it came in."""

    plane: Plane
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass
class Answer:
    """What goes back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Cut(BaseException):
    """The connection ends here."""


class TestHub:
    """The running hub; `endpoint` is what HF_ENDPOINT should be."""

    __test__ = False

    def __init__(self) -> None:
        self.state = State()
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.leaks: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()

    def __enter__(self) -> TestHub:
        self._servers = [_serve(self, plane) for plane in ("hub", "store")]
        self.endpoint = f"http://127.0.0.1:{self._servers[0].server_port}"
        self.storage = f"http://localhost:{self._servers[1].server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def fail(self, pattern: str, **how: Any) -> Fault:
        """Let matching requests fail; see Fault."""
        fault = Fault(pattern, **how)
        self.faults.append(fault)
        return fault

    def calls(self, pattern: str, method: str | None = None) -> list[Request]:
        """The requests so far whose path matches."""
        return [
            request
            for request in self.requests
            if re.search(pattern, request.path) and method in (None, request.method)
        ]

    def fault(self, request: Request) -> Fault | None:
        """The fault that this request meets, counted."""
        with self.lock:
            for fault in self.faults:
                fits = fault.plane == request.plane and re.search(fault.pattern, request.path)
                if not fits or fault.method not in (None, request.method) or fault.times < 1:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def answer(self, request: Request) -> Answer:
        """Route a request."""
        try:
            with self.lock:
                if request.plane == "store":
                    return self._store(request)
                user = self.state.who(request.headers.get("authorization"))
                for pattern, handle in _ROUTES:
                    if match := re.fullmatch(pattern, request.path):
                        parts = [unquote(part) for part in match.groups()]
                        return handle(self, request, user, *parts)
            raise Refused(404, "Not Found")
        except Refused as refused:
            return _refusal(refused)

    def _store(self, request: Request) -> Answer:
        if token := request.headers.get("authorization"):
            self.leaks.append(token)
        _, kind, oid, *name = request.path.split("/", 3)
        repo = self.state.repos["/".join(name)]
        if kind == "upload":
            repo.objects[oid] = request.body
            return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})
        return _ranged(repo.objects[oid], request.headers.get("range"))


def _json(value: object, status: int = 200, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json"}
    return Answer(json.dumps(value).encode(), status, {**kind, **headers})


def _refusal(refused: Refused) -> Answer:
    headers = {"X-Error-Message": refused.message}
    if refused.code:
        headers["X-Error-Code"] = refused.code
    return _json({"error": refused.message}, refused.status, **headers)


def _ranged(data: bytes, wanted: str | None) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if not match:
        return Answer(data, headers={"Accept-Ranges": "bytes"})
    start, end = int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data))
    place = f"bytes {start}-{end - 1}/{len(data)}"
    return Answer(data[start:end], 206, {"Content-Range": place})


def _whoami(hub: TestHub, request: Request, user: User | None) -> Answer:
    if user is None:
        raise Refused(401, "Invalid username or password.")
    token = {"displayName": "test", "role": user.role}
    auth = {"type": "access_token", "accessToken": token}
    return _json({"type": "user", "name": user.name, "orgs": [], "auth": auth})


def _create(hub: TestHub, request: Request, user: User | None) -> Answer:
    body = json.loads(request.body)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    namespace = body.get("organization") or user.name
    name = f"{namespace}/{body['name']}"
    if user.role != "write" or namespace != user.name:
        raise Refused(403, "You don't have the rights to create a model under this namespace")
    answer = {"url": f"{hub.endpoint}/{name}", "name": name}
    if name in hub.state.repos:
        return _json({"error": "You already created this model repo", **answer}, 409)
    private = body.get("visibility") == "private" or bool(body.get("private"))
    hub.state.repo(name, private=private)
    return _json(answer)


def _info(hub: TestHub, request: Request, user: User | None, name: str, *revision: str) -> Answer:
    repo = hub.state.readable(name, user)
    commit = repo.commit(*revision or ("main",))
    siblings = [
        {"rfilename": path, "size": len(blob.data), "blobId": blob.blob_id, "lfs": blob.lfs_info}
        for path, blob in commit.files.items()
    ]
    about = {"id": name, "sha": commit.oid, "private": repo.private, "gated": repo.gated}
    return _json({**about, "tags": [], "siblings": siblings, "cardData": _card_data(repo)})


def _card_data(repo: Repo) -> dict[str, Any]:
    import yaml

    card = repo.head.files.get("README.md")
    match = re.match(rb"---\n(.*?)\n---", card.data if card else b"", re.S)
    try:
        data = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        data = {}
    return data if isinstance(data, dict) else {}


def _refs(hub: TestHub, request: Request, user: User | None, name: str) -> Answer:
    rows: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
    for ref, oid in hub.state.readable(name, user).refs.items():
        for kind, prefix in (("branches", "refs/heads/"), ("tags", "refs/tags/")):
            if ref.startswith(prefix):
                row = {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                rows[kind].append(row)
    return _json(rows)


def _preupload(hub: TestHub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    create_pr = request.query.get("create_pr") == "1"
    repo = hub.state.writable(name, user, create_pr=create_pr)
    files, known = [], repo.commit(rev).files
    for file in json.loads(request.body)["files"]:
        path = file["path"]
        mode = "lfs" if path.endswith(LFS_ENDINGS) else "regular"
        row = {"path": path, "uploadMode": mode, "shouldIgnore": False}
        if path in known:
            row["oid"] = known[path].sha256 if known[path].lfs else known[path].blob_id
        files.append(row)
    return _json({"files": files})


def _batch(hub: TestHub, request: Request, user: User | None, name: str) -> Answer:
    repo = hub.state.writable(name, user, create_pr=True)
    rows: list[dict[str, Any]] = []
    for item in json.loads(request.body)["objects"]:
        row: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in repo.objects:
            upload = {"href": f"{hub.storage}/upload/{item['oid']}/{name}"}
            verify = {"href": f"{hub.endpoint}/verify/{name}"}
            row["actions"] = {"upload": upload, "verify": verify}
        rows.append(row)
    return _json({"transfer": "basic", "objects": rows})


def _verify(hub: TestHub, request: Request, user: User | None, name: str) -> Answer:
    body = json.loads(request.body)
    data = hub.state.writable(name, user, create_pr=True).objects.get(body["oid"], b"")
    if hashlib.sha256(data).hexdigest() != body["oid"]:
        hub.state.repos[name].objects.pop(body["oid"], None)
        raise Refused(422, "the content does not have this sha256")
    return _json({})


def _commit(hub: TestHub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    create_pr = request.query.get("create_pr") == "1"
    repo = hub.state.writable(name, user, create_pr=create_pr)
    lines = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    header, branch = lines[0]["value"], repo.commit(rev)
    if header.get("parentCommit") not in (None, branch.oid):
        raise Refused(412, "The branch was updated since you opened this page.")
    if f"refs/heads/{rev}" not in repo.refs and not rev.startswith("refs/pr/"):
        raise Refused(400, f"{rev} is not a branch")
    commit = repo.add(changed(repo, branch, lines[1:]), header["summary"], branch)
    answer = {"success": True, "commitOid": commit.oid}
    answer["commitUrl"] = f"{hub.endpoint}/{name}/commit/{commit.oid}"
    ref = f"refs/heads/{rev}" if f"refs/heads/{rev}" in repo.refs else rev
    if create_pr:
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
        ref = f"refs/pr/{number}"
        answer["pullRequestUrl"] = f"{hub.endpoint}/{name}/discussions/{number}"
    repo.refs[ref] = commit.oid
    return _json(answer)


def _branch(hub: TestHub, request: Request, user: User | None, name: str, branch: str) -> Answer:
    repo = hub.state.writable(name, user)
    if f"refs/heads/{branch}" in repo.refs:
        raise Refused(409, "Reference already exists")
    start = json.loads(request.body or b"{}").get("startingPoint") or "main"
    repo.refs[f"refs/heads/{branch}"] = repo.commit(start).oid
    return _json({}, 201)


def _tag(hub: TestHub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    repo, tag = hub.state.writable(name, user), json.loads(request.body)["tag"]
    if f"refs/tags/{tag}" in repo.refs:
        raise Refused(409, "Tag already exists")
    repo.refs[f"refs/tags/{tag}"] = repo.commit(rev).oid
    return _json({}, 201)


def _resolve(
    hub: TestHub, request: Request, user: User | None, name: str, rev: str, path: str
) -> Answer:
    repo = hub.state.open(name, user)
    commit = repo.commit(rev)
    blob = commit.files.get(path)
    if blob is None:
        refusal = _refusal(Refused(404, "Entry not found", "EntryNotFound"))
        refusal.headers["X-Repo-Commit"] = commit.oid
        return refusal
    headers = {"X-Repo-Commit": commit.oid}
    if not blob.lfs:
        return Answer(blob.data, headers={**headers, "ETag": f'"{blob.blob_id}"'})
    repo.objects.setdefault(blob.sha256, blob.data)
    linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
    place = f"{hub.storage}/object/{blob.sha256}/{name}"
    return Answer(status=302, headers={**headers, **linked, "Location": place})


def _fine(hub: TestHub, request: Request, user: User | None) -> Answer:
    return _json({"errors": [], "warnings": []})


_REPO = r"([\w.-]+/[\w.-]+)"
_ROUTES: tuple[tuple[str, Callable[..., Answer]], ...] = (
    ("/api/whoami-v2", _whoami),
    ("/api/validate-yaml", _fine),
    ("/api/repos/create", _create),
    (f"/api/models/{_REPO}", _info),
    (f"/api/models/{_REPO}/revision/([^/]+)", _info),
    (f"/api/models/{_REPO}/refs", _refs),
    (f"/api/models/{_REPO}/preupload/([^/]+)", _preupload),
    (f"/api/models/{_REPO}/commit/([^/]+)", _commit),
    (f"/api/models/{_REPO}/branch/([^/]+)", _branch),
    (f"/api/models/{_REPO}/tag/([^/]+)", _tag),
    (f"/{_REPO}\\.git/info/lfs/objects/batch", _batch),
    (f"/verify/{_REPO}", _verify),
    (f"/{_REPO}/resolve/([^/]+)/(.+)", _resolve),
)


def _serve(hub: TestHub, plane: Plane) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "plane": plane})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
    return server


class _Handler(BaseHTTPRequestHandler):
    hub: TestHub
    plane: Plane
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """The log is `hub.requests`."""

    def handle(self) -> None:
        try:
            super().handle()
        except (Cut, ConnectionError):
            self.close_connection = True

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.plane, self.command, url.path, query, headers)
        self.hub.requests.append(request)
        fault = self.hub.fault(request)
        if fault and fault.drop_request_after is not None:
            self.rfile.read(fault.drop_request_after)
            self._cut()
        request.body = self._body()
        if fault:
            time.sleep(fault.delay)
            if fault.before:
                fault.before()
        if fault and fault.status is not None:
            self._send(Answer(b"{}", fault.status, dict(fault.headers)))
            return
        try:
            answer = self.hub.answer(request)
        except Exception as error:
            self.hub.errors.append(error)
            answer = Answer(b"{}", 500)
        if fault and fault.corrupt:
            middle = len(answer.body) // 2
            flipped = bytes([answer.body[middle] ^ 1])
            answer.body = answer.body[:middle] + flipped + answer.body[middle + 1 :]
        self._send(answer, fault.drop_response_after if fault else None)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, answer: Answer, cut: int | None = None) -> None:
        if cut == 0:
            self._cut()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[:cut])
        if cut is not None:
            self._cut()

    def _cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        raise Cut
