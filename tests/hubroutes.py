"""What the test hub answers: one function for each route, as the real Hub does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from tests.hubstate import LFS_ENDINGS, Blob, Refused, Repo, State, User, changed

if TYPE_CHECKING:
    from tests.hubcas import Cas

Plane = Literal["hub", "store", "cas"]


class Hub(Protocol):
    """What a route needs of the hub."""

    state: State
    cas: Cas
    endpoint: str
    storage: str
    cas_url: str


@dataclass
class Request:
    """One request as it came in."""

    plane: Plane
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    many: Mapping[str, list[str]] = field(default_factory=dict)


@dataclass
class Answer:
    """What goes back."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def json_answer(value: object, status: int = 200, **headers: str) -> Answer:
    kind = {"Content-Type": "application/json"}
    return Answer(json.dumps(value).encode(), status, {**kind, **headers})


def refusal(refused: Refused) -> Answer:
    headers = {"X-Error-Message": refused.message}
    if refused.code:
        headers["X-Error-Code"] = refused.code
    return json_answer({"error": refused.message}, refused.status, **headers)


def ranged(data: bytes, wanted: str | None) -> Answer:
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if not match:
        return Answer(data, headers={"Accept-Ranges": "bytes"})
    start, end = int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data))
    place = f"bytes {start}-{end - 1}/{len(data)}"
    return Answer(data[start:end], 206, {"Content-Range": place})


def _whoami(hub: Hub, request: Request, user: User | None) -> Answer:
    if user is None:
        raise Refused(401, "Invalid username or password.")
    token = {"displayName": "test", "role": user.role}
    auth = {"type": "access_token", "accessToken": token}
    return json_answer({"type": "user", "name": user.name, "orgs": [], "auth": auth})


def _create(hub: Hub, request: Request, user: User | None) -> Answer:
    body = json.loads(request.body)
    if user is None:
        raise Refused(401, "Invalid username or password.")
    namespace = body.get("organization") or user.name
    name = f"{namespace}/{body['name']}"
    if user.role != "write" or namespace != user.name:
        raise Refused(403, "You don't have the rights to create a model under this namespace")
    answer = {"url": f"{hub.endpoint}/{name}", "name": name}
    if name in hub.state.repos:
        return json_answer({"error": "You already created this model repo", **answer}, 409)
    private = body.get("visibility") == "private" or bool(body.get("private"))
    hub.state.repo(name, private=private)
    return json_answer(answer)


def _info(hub: Hub, request: Request, user: User | None, name: str, *revision: str) -> Answer:
    repo = hub.state.readable(name, user)
    commit = repo.commit(*revision or ("main",))
    siblings = [
        {"rfilename": path, "size": len(blob.data), "blobId": blob.blob_id, "lfs": blob.lfs_info}
        for path, blob in commit.files.items()
    ]
    about = {"id": name, "sha": commit.oid, "private": repo.private, "gated": repo.gated}
    return json_answer({**about, "tags": [], "siblings": siblings, "cardData": card_data(repo)})


def card_data(repo: Repo) -> dict[str, Any]:
    import yaml

    card = repo.head.files.get("README.md")
    match = re.match(rb"---\n(.*?)\n---", card.data if card else b"", re.S)
    try:
        data = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError:
        data = {}
    return data if isinstance(data, dict) else {}


def _refs(hub: Hub, request: Request, user: User | None, name: str) -> Answer:
    rows: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": []}
    for ref, oid in hub.state.readable(name, user).refs.items():
        for kind, prefix in (("branches", "refs/heads/"), ("tags", "refs/tags/")):
            if ref.startswith(prefix):
                row = {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid}
                rows[kind].append(row)
    return json_answer(rows)


def _preupload(hub: Hub, request: Request, user: User | None, name: str, rev: str) -> Answer:
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
    return json_answer({"files": files})


def _batch(hub: Hub, request: Request, user: User | None, name: str) -> Answer:
    repo = hub.state.writable(name, user, create_pr=True)
    rows: list[dict[str, Any]] = []
    for item in json.loads(request.body)["objects"]:
        row: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
        if item["oid"] not in repo.objects:
            upload = {"href": f"{hub.storage}/upload/{item['oid']}/{name}"}
            verify = {"href": f"{hub.endpoint}/verify/{name}"}
            row["actions"] = {"upload": upload, "verify": verify}
        rows.append(row)
    return json_answer({"transfer": "basic", "objects": rows})


def _verify(hub: Hub, request: Request, user: User | None, name: str) -> Answer:
    body = json.loads(request.body)
    data = hub.state.writable(name, user, create_pr=True).objects.get(body["oid"], b"")
    if hashlib.sha256(data).hexdigest() != body["oid"]:
        hub.state.repos[name].objects.pop(body["oid"], None)
        raise Refused(422, "the content does not have this sha256")
    return json_answer({})


def _commit(hub: Hub, request: Request, user: User | None, name: str, rev: str) -> Answer:
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
    return json_answer(answer)


def _branch(hub: Hub, request: Request, user: User | None, name: str, branch: str) -> Answer:
    repo = hub.state.writable(name, user)
    if f"refs/heads/{branch}" in repo.refs:
        raise Refused(409, "Reference already exists")
    start = json.loads(request.body or b"{}").get("startingPoint") or "main"
    repo.refs[f"refs/heads/{branch}"] = repo.commit(start).oid
    return json_answer({}, 201)


def _tag(hub: Hub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    repo, tag = hub.state.writable(name, user), json.loads(request.body)["tag"]
    if f"refs/tags/{tag}" in repo.refs:
        raise Refused(409, "Tag already exists")
    repo.refs[f"refs/tags/{tag}"] = repo.commit(rev).oid
    return json_answer({}, 201)


def _resolve(
    hub: Hub, request: Request, user: User | None, name: str, rev: str, path: str
) -> Answer:
    repo = hub.state.open(name, user)
    commit = repo.commit(rev)
    blob = commit.files.get(path)
    if blob is None:
        missing = refusal(Refused(404, "Entry not found", "EntryNotFound"))
        missing.headers["X-Repo-Commit"] = commit.oid
        return missing
    headers = {"X-Repo-Commit": commit.oid}
    if not blob.lfs:
        return Answer(blob.data, headers={**headers, "ETag": f'"{blob.blob_id}"'})
    repo.objects.setdefault(blob.sha256, blob.data)
    linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.data))}
    place = {"Location": f"{hub.storage}/object/{blob.sha256}/{name}"}
    chunked = _xet_headers(hub, f"/api/models/{name}/xet-read-token/{commit.oid}", blob)
    return Answer(status=302, headers={**headers, **linked, **chunked, **place})


def _xet_headers(hub: Hub, route: str, blob: Blob) -> dict[str, str]:
    """Where a file is that came in chunks; it can be had in one piece all the same."""
    if blob.sha256 not in hub.cas.names:
        return {}
    link = f'<{hub.endpoint}{route}>; rel="xet-auth"'
    return {"X-Xet-Hash": hub.cas.names[blob.sha256], "Link": link}


def _fine(hub: Hub, request: Request, user: User | None) -> Answer:
    return json_answer({"errors": [], "warnings": []})


REPO = r"([\w.-]+/[\w.-]+)"
ROUTES: tuple[tuple[str, Callable[..., Answer]], ...] = (
    ("/api/whoami-v2", _whoami),
    ("/api/validate-yaml", _fine),
    ("/api/repos/create", _create),
    (f"/api/models/{REPO}", _info),
    (f"/api/models/{REPO}/revision/([^/]+)", _info),
    (f"/api/models/{REPO}/refs", _refs),
    (f"/api/models/{REPO}/preupload/([^/]+)", _preupload),
    (f"/api/models/{REPO}/commit/([^/]+)", _commit),
    (f"/api/models/{REPO}/branch/([^/]+)", _branch),
    (f"/api/models/{REPO}/tag/([^/]+)", _tag),
    (f"/{REPO}\\.git/info/lfs/objects/batch", _batch),
    (f"/verify/{REPO}", _verify),
    (f"/{REPO}/resolve/([^/]+)/(.+)", _resolve),
)
