"""What hf-xet says in the text of two built-in exceptions, in patchkit's own."""

from __future__ import annotations

import errno

import pytest

from patchkit.errors import AccessDenied, HubError, HubUnreachable, OutputError, PatchkitError
from patchkit.hub.failures import translated
from patchkit.hub.refs import parse_ref

REF = parse_ref("ada/caps@main/a.patch.safetensors")
TASK = "Task error: File reconstruction error: "
STATUS = "Request error: HTTP status {} error ({}), domain: https://cas.example/v1/shards"


@pytest.mark.parametrize(
    ("said", "kind", "sentence"),
    [
        (
            RuntimeError(TASK + f"IO Error: No space left on device (os error {errno.ENOSPC})"),
            OutputError,
            "the disk is full: ada/caps",
        ),
        (
            ConnectionError("Network error: " + STATUS.format("client", "403 Forbidden")),
            AccessDenied,
            "this login may not do this: pulling ada/caps",
        ),
        (
            RuntimeError(TASK + STATUS.format("server", "503 Service Unavailable")),
            HubUnreachable,
            "the Hub answers 503",
        ),
        (
            ConnectionError("Network error: " + STATUS.format("client", "400 Bad Request")),
            HubError,
            "the storage of the Hub answers 400",
        ),
        (
            RuntimeError(TASK + "error sending request for url (https://cas.example)"),
            HubUnreachable,
            "the Hub cannot be reached",
        ),
        (RuntimeError("Task error: no such xorb"), HubError, "broke off: Task error: no such xorb"),
    ],
)
def test_each_is_one_sentence(said: Exception, kind: type[PatchkitError], sentence: str) -> None:
    with pytest.raises(kind, match=sentence) as caught, translated(REF, "pulling"):
        raise said
    assert type(caught.value) is kind


def test_other_exceptions_keep_their_names() -> None:
    text = STATUS.format("client", "403 Forbidden")
    with pytest.raises(KeyError), translated(REF, "pulling"):
        raise KeyError(text)
