"""Finding patches on the Hub: by text, author and base, newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from huggingface_hub import HfApi

from patchkit.errors import HubError
from patchkit.hub.card import TAGS, base_tag
from patchkit.hub.failures import translated
from patchkit.hub.refs import HubRef
from patchkit.hub.wire import client, quiet

_SEARCH = HubRef("models")
_MAX = 1 << 53


@dataclass(frozen=True, slots=True)
class Found:
    """A repository of patches as its card describes it; what the card does not say is None.

    `bases` are names on the Hub and `relation` is how the patches relate to them; `patches` and
    `facts` count those that are not withdrawn.
    """

    repo: str
    revision: str | None
    updated: datetime | None
    bases: tuple[str, ...]
    relation: str | None
    patches: int | None
    facts: int | None
    license: str | None
    private: bool
    gated: bool


def search(
    query: str | None = None,
    *,
    base: str | None = None,
    author: str | None = None,
    limit: int = 20,
    endpoint: str | None = None,
) -> tuple[Found, ...]:
    """Find repositories of patches whose name has `query`, for `base`, of `author`; newest first.

    `base` is `org/name` or `atlas`. What a card says is not verified: `pull` does that. Raises
    HubError (AccessDenied, HubUnreachable).
    """
    api, tags = client(endpoint), [TAGS[0]]
    if base is not None:
        tags.append(base_tag(base))
    with translated(_SEARCH, "searching"), quiet():
        models = list(_listed(api, query, author, tags, limit))
    return tuple(_found(model) for model in models)


def _listed(
    api: HfApi, query: str | None, author: str | None, tags: list[str], limit: int
) -> list[Any]:
    if limit < 1:
        raise HubError(f"{limit} results were asked for; at least 1 can be")
    return list(
        api.list_models(
            filter=tags,
            author=author,
            search=query,
            sort="last_modified",
            limit=limit,
            full=True,
            cardData=True,
        )
    )


def _found(model: Any) -> Found:
    card: Mapping[str, Any] = {} if model.card_data is None else model.card_data.to_dict()
    base, ours = card.get("base_model"), card.get("patchkit")
    ours = ours if isinstance(ours, Mapping) else {}
    bases = base if isinstance(base, list) else [base]
    return Found(
        repo=model.id,
        revision=model.sha,
        updated=model.last_modified,
        bases=tuple(each for each in bases if isinstance(each, str)),
        relation=_text(card.get("base_model_relation")),
        patches=_number(ours.get("patches")),
        facts=_number(ours.get("facts")),
        license=_text(card.get("license")),
        private=bool(model.private),
        gated=bool(model.gated),
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if type(value) is int and 0 <= value < _MAX else None
