"""Lists that the test hub gives: pull requests, commits, models with filters."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.hubroutes import Answer, Hub, Request, card_data, json_answer
from tests.hubstate import Commit, Repo, User

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PAGE = 50


def discussions(hub: Hub, request: Request, user: User | None, name: str) -> Answer:
    repo = hub.state.readable(name, user)
    numbers = sorted(
        (int(ref.rsplit("/", 1)[1]) for ref in repo.refs if ref.startswith("refs/pr/")),
        reverse=True,
    )
    if request.query.get("status") == "open":
        numbers = [number for number in numbers if number not in repo.closed]
    start = int(request.query.get("p", 0)) * PAGE
    rows = [
        {
            "num": number,
            "title": repo.commits[repo.refs[f"refs/pr/{number}"]].title,
            "author": {"name": "somebody"},
            "createdAt": _date(repo.commits[repo.refs[f"refs/pr/{number}"]]),
            "status": "closed" if number in repo.closed else "open",
            "repo": {"name": name, "type": "model"},
            "isPullRequest": True,
        }
        for number in numbers[start : start + PAGE]
    ]
    return json_answer({"discussions": rows, "count": len(numbers), "start": start})


def commits(hub: Hub, request: Request, user: User | None, name: str, rev: str) -> Answer:
    history = hub.state.readable(name, user).history(rev)
    start = int(request.query.get("p", 0)) * PAGE
    rows = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": "",
            "authors": [{"user": name.split("/")[0]}],
            "date": _date(commit),
        }
        for commit in history[start : start + PAGE]
    ]
    answer = json_answer(rows)
    if start + PAGE < len(history):
        following = f"{hub.endpoint}{request.path}?p={start // PAGE + 1}"
        answer.headers["Link"] = f'<{following}>; rel="next"'
    return answer


def models(hub: Hub, request: Request, user: User | None) -> Answer:
    author, text = request.query.get("author"), request.query.get("search", "").lower()
    wanted = set(request.many.get("filter", []))
    found = [
        repo
        for repo in hub.state.repos.values()
        if (not repo.private or (user is not None and user.name == repo.owner))
        and author in (None, repo.owner)
        and text in repo.name.lower()
        and wanted <= _tags(repo)
    ]
    if request.query.get("sort") == "lastModified":
        found.sort(key=lambda repo: repo.head.moment, reverse=True)
    limit = int(request.query.get("limit", 1000))
    return json_answer([_row(repo) for repo in found[:limit]])


def _row(repo: Repo) -> dict[str, Any]:
    return {
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.owner,
        "sha": repo.head.oid,
        "lastModified": _date(repo.head),
        "private": repo.private,
        "gated": repo.gated,
        "downloads": 0,
        "likes": 0,
        "tags": sorted(_tags(repo)),
        "cardData": json.loads(json.dumps(card_data(repo), default=str)),
        "siblings": [{"rfilename": path} for path in repo.head.files],
    }


def _tags(repo: Repo) -> set[str]:
    """What the Hub makes of a card: its tags, and others that can be filtered by."""
    card = card_data(repo)
    bases = card.get("base_model") or []
    bases = bases if isinstance(bases, list) else [bases]
    relation = card.get("base_model_relation")
    made = {f"base_model:{base}" for base in bases}
    made |= {f"base_model:{relation}:{base}" for base in bases if relation}
    return made | {*(card.get("tags") or []), *filter(None, [card.get("library_name")])}


def _date(commit: Commit) -> str:
    return (_BEGINNING + timedelta(minutes=commit.moment)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
