"""A patched folder that follows a series: only what is new, verified, at once, revertible."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from patchkit.apply import apply_patches
from patchkit.apply.lock import read_lock
from patchkit.errors import (
    CheckpointError,
    FormatError,
    HubError,
    HubUnreachable,
    PatchWithdrawn,
)
from patchkit.hub import UpdateReport, plan_update, pull, push, yank
from patchkit.hub import update as run_update
from patchkit.patch.patch import Patch
from patchkit.patch.reader import read_info
from patchkit.revert import revert
from patchkit.verify import verify_folder
from tests.cli.helpers import make_patch, run
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")
REPO = "ada/weekly"
WEIGHTS = "model.safetensors"
Update = Callable[..., UpdateReport]


def week(number: int) -> str:
    return f"week-{number}.patch.safetensors"


@pytest.fixture
def weeks(base: Path, tmp_path: Path) -> list[Path]:
    """Four patches, each made on top of those before it."""
    paths: list[Path] = []
    for number in range(12, 16):
        after = tuple(read_info(path).digest for path in paths)
        made = make_patch(base, seed=number)
        path = tmp_path / week(number)
        replace(made, metadata=replace(made.metadata, after=after)).write(path)
        paths.append(path)
    return paths


@pytest.fixture
def out(hub: TestHub, login: Login, weeks: list[Path], base: Path, tmp_path: Path) -> Path:
    """A folder with week 12, of a series that has gone on until week 15."""
    login()
    push(weeks[:1], REPO, endpoint=hub.endpoint)
    first = pull(REPO, tmp_path / "store", endpoint=hub.endpoint).path
    apply_patches(base, [first], tmp_path / "out")
    push(weeks[1:], REPO, endpoint=hub.endpoint)
    hub.requests.clear()
    return tmp_path / "out"


@pytest.fixture
def update(hub: TestHub, out: Path, tmp_path: Path) -> Update:
    def go(**options: Any) -> UpdateReport:
        plan = plan_update(out, endpoint=hub.endpoint, **options)
        stores = tmp_path / "store", tmp_path / "bases"
        return run_update(plan, *stores, endpoint=hub.endpoint)

    return go


def expected(base: Path, patches: list[Path], tmp_path: Path) -> bytes:
    apply_patches(base, patches, tmp_path / "expected")
    return (tmp_path / "expected" / WEIGHTS).read_bytes()


def test_from_week_12_to_week_15(
    hub: TestHub, out: Path, update: Update, weeks: list[Path], base: Path, tmp_path: Path
) -> None:
    report = update()
    assert [step.path for step in report.plan.steps] == [week(13), week(14), week(15)]
    assert (out / WEIGHTS).read_bytes() == expected(base, weeks, tmp_path)
    assert verify_folder(out).ok
    fetched = {call.path.split("/")[2] for call in hub.calls("/object/", "GET")}
    assert fetched == {read_info(path).digest.removeprefix("sha256:") for path in weeks[1:]}
    again = update()
    assert (again.plan.steps, again.applied) == ((), None)


def test_the_lock_says_where_each_patch_is(hub: TestHub, out: Path, update: Update) -> None:
    report = update()
    lock = read_lock(out)
    assert lock is not None
    assert [patch.source for patch in lock.patches][1:] == [
        f"hf://{REPO}@{report.plan.revision}/{week(number)}" for number in (13, 14, 15)
    ]


def test_what_was_updated_is_taken_off_to_the_bit(
    out: Path, update: Update, base: Path, weeks: list[Path], tmp_path: Path
) -> None:
    before = (out / WEIGHTS).read_bytes()
    update(to="week-13")
    assert (out / WEIGHTS).read_bytes() == expected(base, weeks[:2], tmp_path)
    revert(out, only="week-13")
    assert (out / WEIGHTS).read_bytes() == before
    update()
    revert(out)
    assert (out / WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()


def test_a_damaged_patch_changes_nothing(hub: TestHub, out: Path, update: Update) -> None:
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    hub.fail("/object/", plane="store", corrupt=True, skip=1)
    with pytest.raises(FormatError, match=f"{week(14)} arrived damaged"):
        update()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert len(update().plan.steps) == 3


def test_a_withdrawn_patch_that_others_need_is_refused(
    hub: TestHub, out: Path, update: Update
) -> None:
    yank(REPO, "week-14", "a wrong date", endpoint=hub.endpoint)
    with pytest.raises(PatchWithdrawn, match=f"on top of {week(14)}, which was withdrawn: a wrong"):
        update()
    assert [step.path for step in update(to="week-13").plan.steps] == [week(13)]


def test_a_withdrawn_patch_that_nobody_needs_is_left_out(
    hub: TestHub, out: Path, update: Update
) -> None:
    yank(REPO, "week-15", "a wrong date", endpoint=hub.endpoint)
    plan = update().plan
    assert [step.path for step in plan.steps] == [week(13), week(14)]
    assert [each.path for each in plan.left_out] == [week(15)]
    yank(REPO, "week-12", "older than it says", endpoint=hub.endpoint)
    assert update().plan.carried[0].withdrawn == "older than it says"


def test_patches_for_another_base_are_not_its_series(
    hub: TestHub, out: Path, update: Update, made: Patch, tmp_path: Path
) -> None:
    path = tmp_path / "other.patch.safetensors"
    origin = replace(made.metadata.base, config_digest="sha256:" + "1" * 64)
    replace(made, metadata=replace(made.metadata, base=origin)).write(path)
    push([path], REPO, endpoint=hub.endpoint)
    assert [step.path for step in update().plan.steps] == [week(13), week(14), week(15)]


def test_a_series_without_the_text_of_its_facts(
    hub: TestHub, login: Login, weeks: list[Path], base: Path, tmp_path: Path
) -> None:
    login()
    push(weeks, REPO, embed_facts=False, endpoint=hub.endpoint)
    store = tmp_path / "store"
    first = pull(f"{REPO}/{week(12)}", store, endpoint=hub.endpoint).path
    apply_patches(base, [first], tmp_path / "out")
    plan = plan_update(tmp_path / "out", endpoint=hub.endpoint)
    run_update(plan, store, tmp_path / "bases", endpoint=hub.endpoint)
    found = (tmp_path / "out" / WEIGHTS).read_bytes()
    assert found == expected(base, weeks, tmp_path)


def test_base_and_patches_that_are_gone_are_fetched_again(
    hub: TestHub, login: Login, weeks: list[Path], base: Path, tmp_path: Path
) -> None:
    from shutil import rmtree

    from patchkit.hub import find_base

    login()
    hub.state.repo("meta/tiny")
    hub.state.put("meta/tiny", {path.name: path.read_bytes() for path in base.iterdir()})
    store, bases, out = tmp_path / "store", tmp_path / "bases", tmp_path / "out"
    push(weeks, REPO, endpoint=hub.endpoint)
    first = pull(f"{REPO}/{week(12)}", store, endpoint=hub.endpoint).path
    folder = find_base("meta/tiny", bases, endpoint=hub.endpoint).path
    apply_patches(folder, [first], out)
    rmtree(store)
    rmtree(bases)
    plan = plan_update(out, endpoint=hub.endpoint)
    run_update(plan, store, bases, endpoint=hub.endpoint)
    assert (out / WEIGHTS).read_bytes() == expected(base, weeks, tmp_path)


def test_an_undo_sidecar_is_kept(
    hub: TestHub, login: Login, weeks: list[Path], base: Path, tmp_path: Path
) -> None:
    from shutil import copytree, rmtree

    login()
    copy, out, store = tmp_path / "copy", tmp_path / "out", tmp_path / "store"
    copytree(base, copy)
    push(weeks, REPO, endpoint=hub.endpoint)
    first = pull(f"{REPO}/{week(12)}", store, endpoint=hub.endpoint).path
    apply_patches(copy, [first], out, undo=True)
    rmtree(copy)
    plan = plan_update(out, to="week-13", endpoint=hub.endpoint)
    run_update(plan, store, tmp_path / "bases", endpoint=hub.endpoint)
    revert(out)
    assert (out / WEIGHTS).read_bytes() == (base / WEIGHTS).read_bytes()


def test_what_is_no_follower_is_one_sentence(
    hub: TestHub, out: Path, update: Update, base: Path, weeks: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="has no lock"):
        plan_update(base, endpoint=hub.endpoint)
    apply_patches(base, weeks[:1], tmp_path / "local")
    with pytest.raises(HubError, match="do not come from the Hub") as caught:
        plan_update(tmp_path / "local", endpoint=hub.endpoint)
    assert "--from" in (caught.value.hint or "")
    assert plan_update(tmp_path / "local", series=REPO, endpoint=hub.endpoint).steps
    push([weeks[3]], "ada/else", endpoint=hub.endpoint)
    with pytest.raises(HubError, match="carries none of the 1 patches of ada/else"):
        update(series="ada/else")
    update(to="week-14")
    with pytest.raises(HubError, match=r"carries week-14.*, which comes after week-13"):
        update(to="week-13")
    with pytest.raises(HubError, match="lists no patch named 'week-99'"):
        update(to="week-99")
    with pytest.raises(HubUnreachable):
        plan_update(out, endpoint="http://127.0.0.1:9")


def test_the_command(
    hub: TestHub, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    planned = run("update", out, "--dry-run")
    assert planned.code == 0
    assert planned.stdout.startswith(f"Would apply 3 patches of {REPO} to {out}\n")
    assert json.loads((out / "patchkit.lock.json").read_text())["patches"][1:] == []
    yank(REPO, "week-15", "a wrong date")
    done = run("update", out, "--json")
    assert done.code == 0, done.stderr
    assert [step["path"] for step in done.data["applied"]] == [week(13), week(14)]
    assert [each["reason"] for each in done.data["left_out"]] == ["a wrong date"]
    assert len(done.data["patches"]) == 3
    again = run("update", out)
    assert f"{out} is up to date with {REPO}" in again.stdout
    assert f"{week(15)} is left out, it was withdrawn: a wrong date" in again.stderr
