"""Going on with what a killed run left: what is finished is looked at, the rest is written."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.errors import OutputError
from patchkit.tensors import rewrite
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import file_digest
from patchkit.tensors.journal import JOURNAL, Finished, Journal
from tests.unit.tensors.folders import D_IN, LINEAR, rotation, weights, write_folder, write_patch

TURN = [rotation("input", D_IN, 1)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "base", weights(torch.float32), shards=3)
    write_patch(tmp_path / "p", folder, dict.fromkeys(LINEAR[:2], TURN))
    write_patch(tmp_path / "q", folder, {LINEAR[0]: [rotation("input", D_IN, 2)]})
    return folder


@pytest.fixture
def expected(tmp_path: Path, base: Path) -> dict[str, bytes]:
    apply_patches(base, [tmp_path / "p"], tmp_path / "expected")
    found = contents(tmp_path / "expected")
    shutil.rmtree(tmp_path / "expected")
    return found


@pytest.fixture
def killed(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Leave the folder of a run that was killed just before its last step."""

    def run(**options: bool) -> Path:
        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(rewrite, "swap", stop)
            patched.setattr(rewrite, "discard", lambda *_: None)
            with pytest.raises(KeyboardInterrupt):
                apply_patches(base, [tmp_path / "p"], tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        return tmp_path / "out.partial"

    return run


def edited_shards(base: Path) -> set[str]:
    return {Checkpoint.open(base).tensor(name).shard for name in LINEAR[:2]}


def test_finished_shards_are_kept(
    tmp_path: Path, base: Path, expected: dict[str, bytes], killed: Callable[..., Path]
) -> None:
    partial = killed()
    before = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
    for name in ("half", ".reflink", ".patchkit.lock.json.77.partial", "folder/half"):
        (partial / name).parent.mkdir(exist_ok=True)
        (partial / name).write_text("x")
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True)
    assert set(report.resumed) == set(before) == set(Checkpoint.open(base).shards)
    after = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.safetensors")
    }
    assert after == before
    assert contents(tmp_path / "out") == expected
    assert not partial.exists()


@pytest.mark.parametrize("damage", ["byte", "length", "missing", "unlisted"])
def test_what_is_not_as_it_was_is_written_again(
    tmp_path: Path,
    base: Path,
    expected: dict[str, bytes],
    killed: Callable[..., Path],
    damage: str,
) -> None:
    partial = killed()
    for name in Checkpoint.open(base).shards:
        file = partial / name
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        if damage == "byte":
            file.write_bytes(data)
        elif damage == "length":
            file.write_bytes(data[:-1])
        elif damage == "missing":
            file.unlink()
    if damage == "unlisted":
        Journal.begin(partial, Journal.read(partial).inputs)
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True)
    assert report.resumed == ()
    assert contents(tmp_path / "out") == expected


def test_a_byte_changed_inside_or_outside_an_edited_tensor_is_noticed(
    tmp_path: Path, base: Path, expected: dict[str, bytes], killed: Callable[..., Path]
) -> None:
    for inside in (True, False):
        partial = killed()
        entry = Checkpoint.open(base).tensor(LINEAR[0])
        data = bytearray((partial / entry.shard).read_bytes())
        data[entry.info.start if inside else entry.info.start - 1] ^= 1
        (partial / entry.shard).write_bytes(data)
        report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True)
        assert entry.shard not in report.resumed
        assert contents(tmp_path / "out") == expected
        shutil.rmtree(tmp_path / "out")


def test_digests_of_files_are_made_up_for(
    tmp_path: Path, base: Path, killed: Callable[..., Path]
) -> None:
    killed()
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True, file_digests=True)
    assert not edited_shards(base) & set(report.resumed)
    killed_again = apply_patches(base, [tmp_path / "p"], tmp_path / "other", file_digests=True)
    assert killed_again.lock.read_bytes() == report.lock.read_bytes()


def test_digests_of_files_survive_a_kill(
    tmp_path: Path, base: Path, killed: Callable[..., Path]
) -> None:
    partial = killed(file_digests=True)
    name = min(edited_shards(base))
    entry = Journal.read(partial).finished[name]
    assert entry.digest == file_digest(partial / name)
    assert entry.base_digest == file_digest(base / name)
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True, file_digests=True)
    assert set(report.resumed) == set(Checkpoint.open(base).shards)


def test_other_patches_are_refused_with_both_values(
    tmp_path: Path, base: Path, killed: Callable[..., Path]
) -> None:
    partial = killed()
    before = contents(partial)
    with pytest.raises(OutputError, match="was begun with patches") as caught:
        apply_patches(base, [tmp_path / "q"], tmp_path / "out", resume=True)
    assert file_digest(tmp_path / "p") in caught.value.message
    assert file_digest(tmp_path / "q") in caught.value.message
    assert "without --resume" in (caught.value.hint or "")
    assert contents(partial) == before
    apply_patches(base, [tmp_path / "q"], tmp_path / "out")
    assert not partial.exists()


def test_another_base_is_refused_with_both_values(
    tmp_path: Path, base: Path, killed: Callable[..., Path]
) -> None:
    killed()
    shutil.copytree(base, tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=r"begun with base \.\./base, .* has \.\./elsewhere"):
        apply_patches(tmp_path / "elsewhere", [tmp_path / "p"], tmp_path / "out", resume=True)
    tensors = weights(torch.float32)
    tensors[LINEAR[1]][0, 0] += 1
    shutil.rmtree(base)
    write_folder(base, tensors, shards=3)
    with pytest.raises(OutputError, match="begun with weights sha256:"):
        apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True, allow_other_base=True)


def test_nothing_to_resume_is_a_fresh_start(
    tmp_path: Path, base: Path, expected: dict[str, bytes]
) -> None:
    report = apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True)
    assert report.resumed == ()
    assert contents(tmp_path / "out") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"schema": "patchkit.journal/2"}',
        '{"schema": "patchkit.journal/1", "inputs": {}, "finished": {"a": {}}}',
        '{"schema": "patchkit.journal/1", "inputs": {}, "finished":'
        ' {"a": {"digest": null, "base_digest": null, "parts": []}}}',
        '{"schema": "patchkit.journal/1", "inputs": {}, "finished":'
        ' {"a": {"digest": 1, "base_digest": null, "parts": {}}}}',
        "[" * 100_000,
    ],
)
def test_a_journal_that_cannot_be_read_is_refused(
    tmp_path: Path, base: Path, killed: Callable[..., Path], text: str
) -> None:
    partial = killed()
    (partial / JOURNAL).write_text(text)
    with pytest.raises(OutputError, match="cannot be resumed from"):
        apply_patches(base, [tmp_path / "p"], tmp_path / "out", resume=True)
    apply_patches(base, [tmp_path / "p"], tmp_path / "out")


def test_reading_a_journal_gives_what_was_added(tmp_path: Path) -> None:
    journal = Journal.begin(tmp_path, {"base": "x"})
    journal.add("a", Finished("1", "2", {"t": "3"}))
    journal.add("b", Finished())
    found = Journal.read(tmp_path)
    assert (found.inputs, found.finished) == (journal.inputs, journal.finished)
    assert {path.name for path in tmp_path.iterdir()} == {JOURNAL}
