"""Bases by their names on the Hub: planned from headers, fetched as far as needed, pinned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, hf_hub_download

from patchkit.errors import CheckpointError, FormatError, HubError, HubUnreachable
from patchkit.hub import FoundBase, find_base
from patchkit.tensors.checkpoint import INDEX, Checkpoint
from tests.cli.helpers import EDITED
from tests.testhub import TestHub
from tests.unit.models.factory import save_tiny

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "meta/tiny"
Find = Callable[..., FoundBase]


@pytest.fixture(scope="session")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama in several shards, with a pickle and a script beside them."""
    folder = tmp_path_factory.mktemp("models") / "sharded"
    save_tiny("llama2", folder, max_shard_size="20KB")
    (folder / "old.bin").write_bytes(b"pickle")
    (folder / "modeling.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def published(hub: TestHub, sharded: Path) -> TestHub:
    hub.state.repo(REPO)
    hub.state.put(REPO, {path.name: path.read_bytes() for path in sharded.iterdir()})
    return hub


@pytest.fixture
def find(hub: TestHub, tmp_path: Path) -> Find:
    def run(ref: str = REPO, **options: Any) -> FoundBase:
        return find_base(ref, tmp_path / "bases", **{"endpoint": hub.endpoint, **options})

    return run


def head(hub: TestHub) -> str:
    return hub.state.repos[REPO].head.oid


def moved(hub: TestHub) -> set[str]:
    """The shards whose content came from storage, whole."""
    names = {blob.sha256: path for path, blob in hub.state.repos[REPO].head.files.items()}
    asked = [call for call in hub.calls("/object/", "GET") if "range" not in call.headers]
    return {names[call.path.split("/")[2]] for call in asked}


def test_all_of_a_base_is_what_was_published(published: TestHub, find: Find, sharded: Path) -> None:
    found = find()
    assert (found.repo, found.revision, found.offline) == (REPO, head(published), False)
    assert found.bytes_fetched > 0
    there = {path.name for path in found.path.iterdir() if not path.name.startswith(".")}
    assert there == {path.name for path in sharded.iterdir()} - {"old.bin", "modeling.py"}
    assert all((found.path / name).read_bytes() == (sharded / name).read_bytes() for name in there)


def test_a_plan_needs_headers_alone(published: TestHub, find: Find, sharded: Path) -> None:
    found = find(tensors=())
    assert Checkpoint.open(found.path).tensors == Checkpoint.open(sharded).tensors
    assert moved(published) == set()
    ranges = {call.headers["range"] for call in published.calls("/object/")}
    assert all(text.startswith("bytes=0-") for text in ranges)


def test_only_shards_of_edited_tensors_are_fetched(
    published: TestHub, find: Find, sharded: Path
) -> None:
    base = Checkpoint.open(sharded)
    found = find(tensors=[EDITED])
    shard = base.tensor(EDITED).shard
    assert moved(published) == {shard}
    assert len(base.shards) > 2
    assert Checkpoint.open(found.path).digest(EDITED) == base.digest(EDITED)
    others = set(base.shards) - {shard}
    sizes = {name: (found.path / name).stat().st_size for name in others}
    assert sizes == {name: (sharded / name).stat().st_size for name in others}


def test_a_base_in_one_file(hub: TestHub, find: Find, base: Path) -> None:
    hub.state.repo(REPO)
    hub.state.put(REPO, {path.name: path.read_bytes() for path in base.iterdir()})
    planned = find(tensors=())
    assert Checkpoint.open(planned.path).tensors == Checkpoint.open(base).tensors
    assert Checkpoint.open(find().path).digest(EDITED) == Checkpoint.open(base).digest(EDITED)


def test_what_is_here_is_not_fetched_again(published: TestHub, find: Find) -> None:
    first = find(tensors=[EDITED])
    assert find().bytes_fetched > 0
    published.requests.clear()
    again = find()
    assert (again.bytes_fetched, len(published.requests)) == (0, 1)
    assert again.path != first.path
    published.requests.clear()
    pinned = find(f"{REPO}@{head(published)}", endpoint="http://127.0.0.1:9")
    assert (pinned.path, pinned.offline, published.requests) == (again.path, False, [])


def test_a_checkpoint_says_where_it_is_from(published: TestHub, find: Find) -> None:
    for tensors in (None, ()):
        opened = Checkpoint.open(find(tensors=tensors).path)
        assert (opened.repo, opened.revision) == (REPO, head(published))


def test_a_branch_is_used_as_it_was_where_the_hub_is_down(published: TestHub, find: Find) -> None:
    first = find()
    again = find(endpoint="http://127.0.0.1:9")
    assert (again.path, again.offline) == (first.path, True)
    with pytest.raises(HubUnreachable, match="cannot be reached"):
        find("meta/other", endpoint="http://127.0.0.1:9")


@pytest.fixture
def client_cache(
    published: TestHub, sharded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The client's own cache with the whole base in it."""
    cache = tmp_path / "hf-cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    for path in sharded.iterdir():
        hf_hub_download(REPO, path.name, cache_dir=cache, endpoint=published.endpoint)
    published.requests.clear()
    return cache


def test_the_clients_cache_is_used_and_never_written(
    published: TestHub, find: Find, client_cache: Path, sharded: Path
) -> None:
    before = {path: path.lstat().st_mtime_ns for path in client_cache.rglob("*")}
    found = find()
    assert found.bytes_fetched == 0
    assert moved(published) == set()
    assert Checkpoint.open(found.path).digest(EDITED) == Checkpoint.open(sharded).digest(EDITED)
    assert {path: path.lstat().st_mtime_ns for path in client_cache.rglob("*")} == before


@pytest.mark.parametrize("tensors", [None, (EDITED,)])
def test_without_the_hub_the_clients_cache_is_enough(
    published: TestHub, find: Find, client_cache: Path, tensors: Any
) -> None:
    found = find(endpoint="http://127.0.0.1:9", tensors=tensors)
    assert (found.revision, found.offline) == (head(published), True)
    assert Checkpoint.open(found.path).tensors


@pytest.mark.parametrize("missing", ["config.json", "model-00001-of-00010.safetensors"])
def test_half_a_base_in_the_clients_cache_is_none_and_does_no_harm(
    published: TestHub, find: Find, client_cache: Path, missing: str
) -> None:
    next(client_cache.rglob(missing)).unlink()
    with pytest.raises(HubUnreachable, match="the Hub cannot be reached"):
        find(endpoint="http://127.0.0.1:9")
    assert Checkpoint.open(find(f"{REPO}@{head(published)}").path).tensors


def test_a_damaged_copy_in_the_clients_cache_is_not_used(
    published: TestHub, find: Find, client_cache: Path, sharded: Path
) -> None:
    shard = Checkpoint.open(sharded).tensor(EDITED).shard
    blob = next(path for path in client_cache.rglob(shard)).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(data)
    found = find()
    assert moved(published) == {shard}
    assert Checkpoint.open(found.path).digest(EDITED) == Checkpoint.open(sharded).digest(EDITED)


def test_wrong_bytes_from_storage_are_not_kept(published: TestHub, find: Find) -> None:
    published.fail("/object/", plane="store", corrupt=True)
    with pytest.raises(FormatError, match="arrived damaged"):
        find()
    assert find().bytes_fetched > 0


def test_a_file_that_changed_here_is_found(published: TestHub, find: Find) -> None:
    shard = next(find().path.glob("*.safetensors"))
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FormatError, match=r"the kept copy of .* was changed or damaged"):
        find()
    assert find().bytes_fetched == len(data)


def test_a_server_without_ranges_sends_no_more_than_is_read(
    published: TestHub, find: Find, sharded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tests.testhub as module
    from tests.hubroutes import Answer

    monkeypatch.setattr(module, "ranged", lambda data, _: Answer(data))
    found = find(tensors=())
    assert Checkpoint.open(found.path).tensors == Checkpoint.open(sharded).tensors


def mapped(shard: str) -> bytes:
    return json.dumps({"weight_map": {"a": shard}}).encode()


def put(hub: TestHub, files: dict[str, bytes]) -> None:
    hub.state.repo("eve/bad")
    hub.state.put("eve/bad", files)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "has no model.safetensors or"),
        ({"model.safetensors": b"x"}, r"has no config\.json"),
        ({"config.json": b"{}", "model.safetensors": b"no header"}, "is not a safetensors file"),
        ({"config.json": b"{}", INDEX: b"[]"}, "has no weight_map"),
        ({"config.json": b"{}", INDEX: mapped("../x")}, "is not a file name"),
        ({"config.json": b"{}", INDEX: mapped("m.safetensors")}, "lacks 1 of 1 shards: m.safet"),
    ],
)
def test_what_is_no_base_is_one_sentence(
    hub: TestHub, find: Find, files: dict[str, bytes], told: str
) -> None:
    put(hub, files)
    with pytest.raises((CheckpointError, FormatError, HubError), match=told):
        find("eve/bad", tensors=())


def test_names_that_are_no_base(published: TestHub, find: Find, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"there is no folder meta/none here either"):
        find("meta/none")
    with pytest.raises(HubError, match="a base is a whole repository"):
        find(f"hf://{REPO}/config.json")
    with pytest.raises(CheckpointError, match="no folder nowhere"):
        find("nowhere")


def test_a_folder_here_wins(
    published: TestHub, find: Find, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(base, tmp_path / REPO)
    assert find().path == Path(REPO)
    assert published.requests == []
    assert find(f"hf://{REPO}").repo == REPO
