"""Names on the Hub."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import HubError, PatchkitError
from patchkit.hub.refs import HubRef, check_path, parse_ref

COMMIT = "0c13d9b2cfa85d05e07050fd6b613dbf118cb589"
WORDS = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9_.]?[A-Za-z0-9])*", fullmatch=True).filter(
    lambda text: len(text) < 40
)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("ada/caps", HubRef("ada/caps")),
        ("hf://ada/caps", HubRef("ada/caps")),
        ("ada/caps@v1.2", HubRef("ada/caps", "v1.2")),
        (f"hf://ada/caps@{COMMIT}/a/b.json", HubRef("ada/caps", COMMIT, "a/b.json")),
        ("hf://ada/caps@refs/pr/3", HubRef("ada/caps", "refs/pr/3")),
        ("hf://ada/caps@refs/pr/3/x.json", HubRef("ada/caps", "refs/pr/3", "x.json")),
        ("ada/caps@new%2Fwork/x.json", HubRef("ada/caps", "new/work", "x.json")),
    ],
)
def test_reads(text: str, ref: HubRef) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text",
    [
        "", "caps", "/caps", "ada/", "ada//caps", "../caps", "ada/..", "ada/.caps", "a--b/caps",
        "ada/ca ps", "ada/caps@", "ada/caps@a b", "ada/caps@%2e%2e%2f", "ada/caps/../x",
        "ada/caps//x", "ada/caps/.git", "ada/caps/a\nb", "ada/caps/\x1b[2J", "https://x/y",
        "ada/caps/" + "x" * 300, "ada/caps@..", "ada/caps@.", "ada/caps@a%2F..%2Fb",
    ],
)  # fmt: skip
def test_refuses_with_one_sentence(text: str) -> None:
    with pytest.raises(HubError) as caught:
        parse_ref(text)
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message


@given(WORDS, WORDS, st.none() | WORDS, st.none() | WORDS)
def test_text_of_a_reference_reads_back(
    org: str, name: str, revision: str | None, path: str | None
) -> None:
    ref = HubRef(f"{org}/{name}", revision, path)
    assert parse_ref(str(ref)) == ref
    assert parse_ref(f"hf://{ref}") == ref


@given(st.text(max_size=60))
def test_no_path_leaves_its_folder(text: str) -> None:
    try:
        path = check_path(text)
    except PatchkitError:
        return
    parts = path.split("/")
    assert path.isprintable()
    assert not any(part in ("", ".", "..") for part in parts)


def test_only_a_full_commit_id_pins() -> None:
    assert HubRef("a/b", COMMIT).pinned
    assert not HubRef("a/b", COMMIT[:12]).pinned
    assert not HubRef("a/b").pinned
