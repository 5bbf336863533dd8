"""A repository made ready for a commit, and a tag put on one."""

from __future__ import annotations

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from patchkit.errors import HubError
from patchkit.hub.failures import status, translated
from patchkit.hub.refs import HubRef
from patchkit.hub.wire import Remote, look, quiet


def present(api: HfApi, ref: HubRef) -> Remote | None:
    """The branch as it is; None where there is no such repository or branch yet."""
    try:
        return look(api, ref)
    except HubError as error:
        missing = isinstance(error.__cause__, RepositoryNotFoundError | RevisionNotFoundError)
        if missing and not isinstance(error.__cause__, GatedRepoError):
            return None
        raise


def ready(api: HfApi, ref: HubRef, *, private: bool, create_pr: bool) -> Remote:
    """Make the repository, and the branch from the main one, where they are missing.

    A pull request is made against a branch that exists, and makes none.
    """
    main = HubRef(ref.repo)
    with translated(main, "creating"), quiet():
        if present(api, main) is None:
            api.create_repo(ref.repo, private=private, exist_ok=True)
        if ref.revision is not None and not create_pr:
            api.create_branch(ref.repo, branch=ref.revision, exist_ok=True)
    return look(api, ref)


def base_license(api: HfApi, bases: frozenset[str]) -> str | None:
    """The licence that the one base of some patches has on the Hub; None if that is not known."""
    if len(bases) != 1:
        return None
    ref = HubRef(*bases)
    try:
        with translated(ref, "looking at"), quiet():
            card = api.model_info(ref.repo).card_data
    except HubError:
        return None
    return card.license if card is not None and isinstance(card.license, str) else None


def tag_commit(api: HfApi, ref: HubRef, tag: str, commit: str | None) -> None:
    """Put a tag on a commit; HubError where the tag is on another one."""
    with translated(ref, "tagging"), quiet():
        try:
            api.create_tag(ref.repo, tag=tag, revision=commit)
        except HfHubHTTPError as error:
            if status(error) != 409:
                raise
            refs = api.list_repo_refs(ref.repo).tags
            there = next((each.target_commit for each in refs if each.name == tag), None)
            if there != commit:
                raise HubError(
                    f"the patch is pushed, and the tag {tag} is on another commit, "
                    f"{(there or 'unknown')[:8]}",
                    hint="choose another tag",
                ) from error
