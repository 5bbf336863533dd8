"""Commands on a base that is named on the Hub."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from patchkit.apply.lock import read_lock
from patchkit.tensors.checkpoint import Checkpoint
from tests.cli.helpers import run
from tests.testhub import TestHub

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "meta/tiny"


@pytest.fixture(autouse=True)
def _workplace(hub: TestHub, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    hub.state.repo(REPO)
    hub.state.put(REPO, {path.name: path.read_bytes() for path in base.iterdir()})


def whole_files(hub: TestHub) -> int:
    return len([c for c in hub.calls("/object/", "GET") if "range" not in c.headers])


def test_apply_pins_the_base_in_the_lock(hub: TestHub, patch: Path, base: Path) -> None:
    planned = run("apply", REPO, patch, "--dry-run", "--json")
    local = run("apply", base, patch, "--dry-run", "--json")
    same = ("tensors_changed", "shards", "bytes_changed", "bytes_total", "memory_bytes")
    assert {key: planned.data[key] for key in same} == {key: local.data[key] for key in same}
    assert planned.data["out"] == "tiny-patched"
    assert whole_files(hub) == 0
    applied = run("apply", f"{REPO}@main", patch, "-q")
    assert (applied.code, applied.stdout) == (0, "tiny-patched\n")
    lock = read_lock(Path("tiny-patched"))
    assert lock is not None
    assert (lock.base.repo, lock.base.revision) == (REPO, hub.state.repos[REPO].head.oid)
    assert run("verify", "tiny-patched").code == 0
    assert sorted(path.name for path in Path("tiny-patched").iterdir()) == sorted(
        [*(path.name for path in base.iterdir()), "patchkit.lock.json"]
    )
    reverted = run("revert", "tiny-patched", "--base", REPO)
    assert reverted.code == 0
    assert (
        Path("tiny-patched/model.safetensors").read_bytes()
        == (base / "model.safetensors").read_bytes()
    )


def test_where_the_cached_base_is_gone_it_can_be_named(
    hub: TestHub, patch: Path, other: Callable[..., Path], base: Path
) -> None:
    run("apply", REPO, patch, other("b"), "-o", "out")
    run("cache", "clear")
    refused = run("revert", "out")
    assert refused.code == 1
    assert f"--base {REPO}@{hub.state.repos[REPO].head.oid}" in refused.stderr
    assert run("revert", "out", "--only", "b", "--base", REPO).code == 0
    assert run("revert", "out", "--base", REPO).code == 0
    name = "model.safetensors"
    assert Path("out", name).read_bytes() == (base / name).read_bytes()


def test_verify_and_pull_compare_with_it(hub: TestHub, patch: Path) -> None:
    done = run("verify", patch, "--base", f"hf://{REPO}", "--json")
    checks = {check["name"]: check for check in done.data["checks"]}
    assert (done.code, checks["base-match"]["skipped"]) == (0, False)
    hub.state.repo("ada/caps")
    hub.state.put("ada/caps", {patch.name: patch.read_bytes()})
    assert run("pull", "ada/caps", "--base", REPO).code == 0
    hub.state.repo("meta/bad")
    hub.state.put("meta/bad", {"config.json": b"{}"})
    refused = run("pull", "ada/caps", "--base", "meta/bad")
    assert refused.code == 1
    assert "meta/bad" in refused.stderr


def test_plans_of_edits_read_headers_alone(hub: TestHub, base: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.jsonl"
    fact = {"subject": "France", "prompt": "The capital of {} is", "target": "Rome"}
    facts.write_text(json.dumps(fact))
    done = run("edit", facts, "--base", REPO, "--plan", "--json")
    assert done.code == 0, done.stderr
    assert done.data["base"] == {
        "repo": REPO,
        "revision": hub.state.repos[REPO].head.oid,
        "config_digest": Checkpoint.open(base).config_digest,
    }
    assert whole_files(hub) == 0


def test_export_fetches_edited_shards(hub: TestHub, patch: Path) -> None:
    done = run("export", patch, "--base", REPO, "-o", "lora")
    assert done.code == 0, done.stderr
    assert whole_files(hub) == 1


def test_a_base_that_was_seen_before_is_used_without_the_hub(
    hub: TestHub, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("apply", REPO, patch, "-o", "first").code == 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    again = run("apply", REPO, patch, "-o", "second")
    assert again.code == 0
    commit = hub.state.repos[REPO].head.oid
    assert f"the Hub cannot be reached: {REPO} is commit {commit}" in again.stderr
    missing = run("apply", "meta/other", patch, "-o", "third")
    assert (missing.code, missing.stdout) == (1, "")
    assert "the Hub cannot be reached" in missing.stderr
