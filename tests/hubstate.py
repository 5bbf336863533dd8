"""What the test hub keeps: users, repositories, commits, references, stored objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

_MOMENTS = count()
LFS_ENDINGS = (".safetensors", ".bin", ".png")


class Refused(Exception):
    """An answer other than success: status, sentence, and the code that clients read."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code


@dataclass(frozen=True)
class Blob:
    """The content of one file."""

    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def pointer(self) -> bytes:
        """What git stores: the content, or a pointer to it."""
        if not self.lfs:
            return self.data
        head = "version https://git-lfs.github.com/spec/v1"
        return f"{head}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()

    @property
    def blob_id(self) -> str:
        data = self.pointer
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()

    @property
    def lfs_info(self) -> dict[str, Any] | None:
        if not self.lfs:
            return None
        size = {"size": len(self.data), "pointerSize": len(self.pointer)}
        return {"sha256": self.sha256, "oid": self.sha256, **size}


@dataclass(frozen=True)
class Commit:
    """One state of a repository."""

    oid: str
    parent: str | None
    title: str
    files: Mapping[str, Blob]
    moment: int = 0


@dataclass
class User:
    """Somebody with a token, which may write or only read."""

    name: str
    token: str
    role: str = "write"


@dataclass
class Repo:
    """A repository and its history; `allowed` may read a gated one, `closed` pull requests are."""

    name: str
    private: bool = False
    gated: bool = False
    allowed: set[str] = field(default_factory=set)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)

    @property
    def owner(self) -> str:
        return self.name.split("/")[0]

    @property
    def head(self) -> Commit:
        return self.commit("main")

    def commit(self, revision: str) -> Commit:
        """The commit that a branch, tag, full reference or commit id names."""
        names = (f"refs/heads/{revision}", f"refs/tags/{revision}", revision)
        oid = next((self.refs[name] for name in names if name in self.refs), revision)
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]

    def add(self, files: Mapping[str, Blob], title: str, parent: Commit | None) -> Commit:
        """A commit that replaces the files of its parent by these."""
        content = {path: blob.blob_id for path, blob in sorted(files.items())}
        name = json.dumps([self.name, len(self.commits), parent and parent.oid, title, content])
        oid = hashlib.sha1(name.encode()).hexdigest()
        commit = Commit(oid, parent.oid if parent else None, title, dict(files), next(_MOMENTS))
        self.commits[oid] = commit
        return commit

    def history(self, revision: str = "main") -> list[Commit]:
        """The commit and those before it, newest first."""
        found = [self.commit(revision)]
        while (parent := found[-1].parent) is not None:
            found.append(self.commits[parent])
        return found


@dataclass
class State:
    """Everything on the hub."""

    users: dict[str, User] = field(default_factory=dict)
    repos: dict[str, Repo] = field(default_factory=dict)

    def user(self, name: str, *, role: str = "write") -> str:
        """Add somebody and return the token."""
        token = f"hf_{name}_{role}_secret"
        self.users[token] = User(name, token, role)
        return token

    def repo(self, name: str, *, private: bool = False, gated: bool = False) -> Repo:
        """Add a repository with one empty commit."""
        repo = Repo(name, private, gated)
        repo.refs["refs/heads/main"] = repo.add({}, "initial commit", None).oid
        self.repos[name] = repo
        return repo

    def put(self, name: str, files: Mapping[str, bytes], title: str = "files") -> Commit:
        """Commit files to the main branch as their owner would."""
        repo = self.repos[name]
        blobs = {path: Blob(data, path.endswith(LFS_ENDINGS)) for path, data in files.items()}
        commit = repo.add({**repo.head.files, **blobs}, title, repo.head)
        repo.refs["refs/heads/main"] = commit.oid
        return commit

    def who(self, authorization: str | None) -> User | None:
        """Who a request comes from; None for nobody."""
        if authorization is None:
            return None
        user = self.users.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise Refused(401, "Invalid credentials in Authorization header")
        return user

    def readable(self, name: str, user: User | None) -> Repo:
        """A repository whose existence this user may know."""
        repo = self.repos.get(name)
        if repo is None or (repo.private and (user is None or user.name != repo.owner)):
            if user is None:
                raise Refused(401, "Invalid username or password.", "RepoNotFound")
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo

    def open(self, name: str, user: User | None) -> Repo:
        """A repository whose files this user may read."""
        repo = self.readable(name, user)
        inside = user is not None and (user.name == repo.owner or user.name in repo.allowed)
        if repo.gated and not inside:
            raise Refused(401 if user is None else 403, f"Access to {name} is gated", "GatedRepo")
        return repo

    def writable(self, name: str, user: User | None, *, create_pr: bool = False) -> Repo:
        """A repository that this user may commit to."""
        repo = self.readable(name, user)
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if user.role != "write":
            raise Refused(403, "your token does not have the right to write")
        if user.name != repo.owner and not create_pr:
            raise Refused(403, "pass `create_pr=1` as a query parameter to propose it instead")
        return repo


def changed(repo: Repo, parent: Commit, lines: Iterable[dict[str, Any]]) -> dict[str, Blob]:
    """The files of a commit after the operations of its body."""
    import base64

    files = dict(parent.files)
    for line in lines:
        value = line["value"]
        match line["key"]:
            case "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            case "lfsFile":
                if value["oid"] not in repo.objects:
                    raise Refused(400, f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = Blob(repo.objects[value["oid"]], True)
            case "deletedFile":
                files.pop(value["path"], None)
    return files
