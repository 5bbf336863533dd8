"""A small, faithful hub over real HTTP, for the real client; its storage has other host names.

    with TestHub() as hub:
        token = hub.state.user("ada")
        hub.fail(r"/commit/", status=503, times=2)

It speaks what huggingface_hub 1.33 and 2.4 ask for when HF_HUB_DISABLE_XET is set, and with
`xet=True` what hf-xet asks for besides. `hub.requests` is the log, `hub.errors` the exceptions of
the hub itself, `hub.leaks` the tokens that reached a host that has no business with them.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from tests import hubcas, hublists
from tests.hubcas import Cas
from tests.hubroutes import REPO, ROUTES, Answer, Plane, Request, ranged, refusal
from tests.hubstate import Refused, State

Routes = tuple[tuple[str, Callable[..., Answer]], ...]
HOSTS: dict[Plane, str] = {"hub": "127.0.0.1", "store": "localhost", "cas": "127.0.0.2"}
LISTS: Routes = (
    ("/api/models", hublists.models),
    (f"/api/models/{REPO}/discussions", hublists.discussions),
    (f"/api/models/{REPO}/commits/([^/]+)", hublists.commits),
)


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


class Cut(BaseException):
    """The connection ends here."""


class TestHub:
    """The running hub; `endpoint` is what HF_ENDPOINT should be."""

    __test__ = False

    def __init__(self, *, xet: bool = False) -> None:
        self.xet = xet
        self.state, self.cas = State(), Cas()
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.leaks: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()

    def __enter__(self) -> TestHub:
        self._servers = {
            plane: _serve(self, plane) for plane in HOSTS if self.xet or plane != "cas"
        }
        self.endpoint, self.storage, self.cas_url = map(self._url, HOSTS)
        return self

    def _url(self, plane: Plane) -> str:
        port = self._servers[plane].server_port if plane in self._servers else 9
        return f"http://{HOSTS[plane]}:{port}"

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
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
                if request.plane == "cas":
                    return self._route(hubcas.CAS_ROUTES, request, self._admitted(request))
                user = self.state.who(request.headers.get("authorization"))
                routes = (*ROUTES, *LISTS, *(hubcas.HUB_ROUTES if self.xet else ()))
                return self._route(routes, request, user)
        except Refused as refused:
            return refusal(refused)

    def _route(self, routes: Routes, request: Request, who: object) -> Answer:
        for pattern, handle in routes:
            if match := re.fullmatch(pattern, request.path):
                return handle(self, request, who, *(unquote(part) for part in match.groups()))
        raise Refused(404, "Not Found")

    def _admitted(self, request: Request) -> hubcas.Pass:
        """What a token of the CAS allows; one of the hub's own has no business here."""
        self.leaks += [token for token in self.state.users if token in str(request.headers)]
        return hubcas.admitted(self, request)

    def _store(self, request: Request) -> Answer:
        if token := request.headers.get("authorization"):
            self.leaks.append(token)
        _, kind, oid, *name = request.path.split("/", 3)
        if kind in hubcas.STORE_ROUTES:
            return hubcas.STORE_ROUTES[kind](self, request, oid)
        repo = self.state.repos["/".join(name)]
        if kind == "upload":
            repo.objects[oid] = request.body
            return Answer(headers={"ETag": f'"{hashlib.md5(request.body).hexdigest()}"'})
        return ranged(repo.objects[oid], request.headers.get("range"))


def _serve(hub: TestHub, plane: Plane) -> ThreadingHTTPServer:
    handler = type("Handler", (_Handler,), {"hub": hub, "plane": plane})
    server = ThreadingHTTPServer((HOSTS[plane].replace("localhost", "127.0.0.1"), 0), handler)
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
        many = parse_qs(url.query)
        query = {key: values[-1] for key, values in many.items()}
        headers = {key.lower(): value for key, value in self.headers.items()}
        request = Request(self.plane, self.command, url.path, query, headers, many=many)
        self.hub.requests.append(request)
        fault = self.hub.fault(request)
        if fault and fault.drop_request_after is not None:
            if self.command in ("POST", "PUT"):
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
            return self._read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline() or self._gone(), 16):
            data += self._read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        return data if len(data) == size else self._gone()

    def _gone(self) -> NoReturn:
        """Whoever sent this was killed in the middle of it."""
        raise Cut

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
