"""What was applied comes off to the bit, from the base or from the sidecar."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from patchkit.apply import apply_patches
from patchkit.apply.lock import read_lock
from patchkit.errors import BaseMismatch, CheckpointError, FormatError, OutputError
from patchkit.factors.action import dense
from patchkit.factors.kinds import Factor
from patchkit.patch.patch import Patch
from patchkit.revert import plan_revert, removal, revert
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify import verify_folder
from tests.unit.tensors.folders import (
    CONV,
    D_IN,
    D_OUT,
    LINEAR,
    additive,
    additive_dense,
    rotation,
    rotation_blocks,
    weights,
    write_folder,
    write_patch,
)

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
FACTORS: list[list[Factor]] = [
    [rotation("input", D_IN, 1), rotation("output", D_OUT, 2)],
    [additive(3), rotation_blocks("output", D_OUT, 5, 1)],
    [rotation_blocks("input", D_IN, 7), additive_dense(8)],
]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def make(
    tmp_path: Path,
    dtype: torch.dtype = torch.bfloat16,
    *,
    conv: bool = False,
    undo: bool = False,
    on: bool = False,
) -> Path:
    """Three patches on a base of three shards, each of two tensors; `on` makes a stack of them."""
    base = write_folder(tmp_path / "base", weights(dtype, conv=conv), shards=3)
    (base / "tokenizer").mkdir()
    (base / "tokenizer" / "vocab.txt").write_text("a b")
    names, digests, files = CONV if conv else LINEAR, [], []
    for i in range(3):
        files.append(tmp_path / f"{'abc'[i]}.patch.safetensors")
        edits = {names[i]: FACTORS[i], names[(i + 1) % 3]: FACTORS[0]}
        digests.append(write_patch(files[-1], base, edits, after=digests if on else ()))
    apply_patches(base, files, tmp_path / "out", undo=undo)
    return tmp_path / "out"


def lose(tmp_path: Path, what: str = "base") -> None:
    """Take the base, or a patch, away; `tmp_path / "lost"` keeps it for comparison."""
    (tmp_path / what).rename(tmp_path / "lost")


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", ["base", "undo"])
def test_reverting_gives_the_base(
    tmp_path: Path, dtype: torch.dtype, conv: bool, source: str
) -> None:
    out = make(tmp_path, dtype, conv=conv, undo=source == "undo")
    before = contents(tmp_path / "base")
    if source == "undo":
        lose(tmp_path)
    report = revert(out)
    assert contents(out) == before
    assert (report.source, report.bit_exact, report.error) == (source, True, 0.0)
    assert (report.restored, len(report.shards)) == (3, 3)
    assert len(report.reverted) == 3
    assert report.remaining == ()
    assert report.checks.ok
    assert not report.checks.skipped
    assert report.checks["files"].value == 3


@pytest.mark.parametrize("source", ["base", "undo"])
def test_into_another_folder(tmp_path: Path, source: str) -> None:
    out = make(tmp_path, undo=source == "undo")
    before, patched = contents(tmp_path / "base"), contents(out)
    if source == "undo":
        lose(tmp_path)
    report = revert(out, out=tmp_path / "new")
    assert report.path == tmp_path / "new"
    assert contents(tmp_path / "new") == before
    assert contents(out) == patched
    with pytest.raises(OutputError, match="exists"):
        revert(out, out=tmp_path / "new")
    assert contents(tmp_path / "new") == before
    revert(out, out=tmp_path / "new", overwrite=True)


def test_restored_files_share_nothing_with_the_base(tmp_path: Path) -> None:
    out = make(tmp_path)
    revert(out)
    for path in out.glob("*.safetensors"):
        assert path.stat().st_nlink == 1
        assert not path.samefile(tmp_path / "base" / path.name)


def test_a_base_that_lies_elsewhere_or_is_cut_into_other_shards(tmp_path: Path) -> None:
    out = make(tmp_path)
    before = {name: Checkpoint.open(tmp_path / "base").digest(name) for name in LINEAR}
    single = write_folder(tmp_path / "single", weights(torch.bfloat16))
    lose(tmp_path)
    report = revert(out, base=single)
    assert {name: Checkpoint.open(out).digest(name) for name in LINEAR} == before
    assert report.checks["files"].skipped
    shards = list(out.glob("*.safetensors"))
    assert len(shards) == 3
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "lost" / shard.name).read_bytes()


def test_a_changed_folder_is_restored_from_the_base(tmp_path: Path) -> None:
    out = make(tmp_path)
    shard = out / Checkpoint.open(out).tensor(LINEAR[0]).shard
    data = bytearray(shard.read_bytes())
    data[-1] ^= 255
    shard.write_bytes(data)
    revert(out)
    assert contents(out) == contents(tmp_path / "base")


@pytest.mark.parametrize("place", [0, -1])
def test_a_changed_folder_is_not_restored_from_a_sidecar(tmp_path: Path, place: int) -> None:
    out = make(tmp_path, undo=True)
    lose(tmp_path)
    entries = sorted(Checkpoint.open(out).tensors.values(), key=lambda entry: entry.info.start)
    entry = [e for e in entries if e.shard == entries[0].shard][place]
    shard = out / entry.shard
    data = bytearray(shard.read_bytes())
    data[entry.info.start] ^= 1
    shard.write_bytes(data)
    held = contents(out)
    with pytest.raises(BaseMismatch, match="was changed"):
        revert(out)
    assert contents(out) == held


def test_another_base_is_refused(tmp_path: Path) -> None:
    out = make(tmp_path)
    other = write_folder(tmp_path / "other", weights(torch.bfloat16, seed=9), shards=3)
    held = contents(out)
    with pytest.raises(BaseMismatch, match="is not the base") as caught:
        revert(out, base=other)
    assert caught.value.details["found"] == Checkpoint.open(other).digest(
        str(caught.value.details["tensor"])
    )
    half = write_folder(tmp_path / "half", weights(torch.float16), shards=3)
    with pytest.raises(BaseMismatch, match="BF16"):
        revert(out, base=half)
    assert contents(out) == held


@pytest.mark.parametrize("only", [None, "b"])
def test_a_base_that_was_changed_gives_way_to_the_sidecar(tmp_path: Path, only: str | None) -> None:
    out = make(tmp_path, undo=True)
    before = contents(tmp_path / "base")
    entry = Checkpoint.open(tmp_path / "base").tensor(LINEAR[1])
    data = bytearray((tmp_path / "base" / entry.shard).read_bytes())
    data[entry.info.start] ^= 1
    (tmp_path / "base" / entry.shard).write_bytes(data)
    with pytest.raises(BaseMismatch):
        revert(out, base=tmp_path / "base")
    assert revert(out, only=only).source == "undo"
    assert revert(out).source == "undo" if only else contents(out) == before


def cut_short(monkeypatch: pytest.MonkeyPatch, out: Path, count: int) -> None:
    """Begin to revert in place, and fail after `count` shards."""
    write, calls = removal.restore_shard, []

    def failing(*given: Any) -> str:
        calls.append(1)
        if len(calls) > count:
            raise OSError(28, "No space left on device")
        return write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(removal, "restore_shard", failing)
        with pytest.raises(OutputError, match="no space"):
            revert(out)


def test_an_interrupted_revert_is_only_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make(tmp_path, undo=True)
    before, patched = contents(tmp_path / "base"), contents(out)
    lose(tmp_path)
    cut_short(monkeypatch, out, 0)
    assert contents(out) == patched
    cut_short(monkeypatch, out, 1)
    assert (out / "patchkit.revert.json").exists()
    cut_short(monkeypatch, out, 0)
    assert (out / "patchkit.revert.json").exists()
    assert "interrupted" in verify_folder(out)["lock"].detail
    for given in ({"only": "a"}, {"out": tmp_path / "new"}):
        with pytest.raises(OutputError, match="was interrupted"):
            revert(out, **given)  # type: ignore[arg-type]
    report = revert(out)
    assert contents(out) == before
    assert report.checks["files"].value == 3


def test_an_interrupted_revert_is_completed_from_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = make(tmp_path, undo=True)
    cut_short(monkeypatch, out, 2)
    assert revert(out).checks["files"].value == 3
    assert contents(out) == contents(tmp_path / "base")


def test_without_base_and_sidecar_it_is_refused_with_a_way_out(tmp_path: Path) -> None:
    out = make(tmp_path)
    lose(tmp_path)
    held = contents(out)
    with pytest.raises(CheckpointError, match="is gone, and it has no undo sidecar") as caught:
        revert(out)
    assert "--base" in (caught.value.hint or "")
    assert "--approximate" in (caught.value.hint or "")
    assert contents(out) == held
    with pytest.raises(OutputError, match="no longer be reverted"):
        revert(out, approximate=True)
    assert contents(out) == held


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_an_estimate_is_within_its_bound(tmp_path: Path, dtype: torch.dtype) -> None:
    out = make(tmp_path, dtype)
    lose(tmp_path)
    report = revert(out, approximate=True, out=tmp_path / "near")
    assert report.source == "estimate"
    assert not report.bit_exact
    assert report.checks.ok
    worst = 0.0
    for name, tensor in weights(dtype).items():
        found = read(tmp_path / "near", name).double()
        error = float((found - tensor.double()).norm() / found.norm())
        worst = max(worst, error)
        assert error == 0.0 or name in LINEAR
    assert 0 < worst <= report.error < torch.finfo(dtype).eps
    assert "patchkit.lock.json" not in contents(tmp_path / "near")


def read(folder: Path, name: str) -> torch.Tensor:
    from safetensors import safe_open

    with safe_open(folder / Checkpoint.open(folder).tensor(name).shard, "pt") as file:
        tensor: torch.Tensor = file.get_tensor(name)
        return tensor


@pytest.mark.parametrize("source", ["base", "undo"])
@pytest.mark.parametrize("only", [0, 1, 2])
def test_one_patch_comes_out_of_the_stack(tmp_path: Path, source: str, only: int) -> None:
    out = make(tmp_path, undo=source == "undo")
    files = [tmp_path / f"{name}.patch.safetensors" for name in "abc"]
    rest = [file for i, file in enumerate(files) if i != only]
    apply_patches(tmp_path / "base", rest, tmp_path / "wanted", undo=source == "undo")
    if source == "undo":
        lose(tmp_path)
    report = revert(out, only=files[only])
    assert contents(out) == contents(tmp_path / "wanted")
    assert len(report.remaining) == 2
    assert report.reverted == (Patch.read(files[only]).digest,)
    assert report.checks.ok
    before = contents(tmp_path / ("lost" if source == "undo" else "base"))
    revert(out)
    assert contents(out) == before


def test_what_stays_is_rounded_once(tmp_path: Path) -> None:
    out = make(tmp_path)
    revert(out, only="b", out=tmp_path / "new")
    stack = [Patch.read(tmp_path / f"{name}.patch.safetensors") for name in "ac"]
    for name, tensor in weights(torch.bfloat16).items():
        factors = [f for patch in stack for f in patch.factors.get(name, ())]
        expected = dense(tensor, factors, "linear").bfloat16() if factors else tensor
        assert torch.equal(read(tmp_path / "new", name), expected)
    assert verify_folder(tmp_path / "new").ok


@pytest.mark.parametrize("form", ["name", "stem", "file", "digest", "path"])
def test_a_patch_goes_by_several_names(tmp_path: Path, form: str) -> None:
    out = make(tmp_path)
    file = tmp_path / "b.patch.safetensors"
    digest = Patch.read(file).digest
    forms = {"name": file.name, "stem": "b", "file": str(file), "digest": digest[:15], "path": file}
    assert plan_revert(out, only=forms[form]).reverted[0].digest == digest


def test_an_unknown_patch_is_said(tmp_path: Path) -> None:
    out = make(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not carry x; it carries a\.patch"):
        revert(out, only="x")


def test_the_only_patch_is_all_patches(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    write_patch(tmp_path / "p", base, {LINEAR[0]: FACTORS[0]})
    apply_patches(base, [tmp_path / "p"], tmp_path / "out")
    revert(tmp_path / "out", only="p")
    assert contents(tmp_path / "out") == contents(base)


def test_a_patch_that_others_were_made_on_comes_out_only_when_told(tmp_path: Path) -> None:
    out = make(tmp_path, on=True)
    held = contents(out)
    with pytest.raises(BaseMismatch, match="once that patch is taken off") as caught:
        revert(out, only="b")
    assert "--allow-missing" in (caught.value.hint or "")
    assert contents(out) == held
    assert len(revert(out, only="b", allow_missing=True).remaining) == 2
    lock = read_lock(out)
    assert lock is not None
    assert [Path(patch.path).name[0] for patch in lock.patches] == ["a", "c"]


@pytest.mark.parametrize("only", [None, "a"])
def test_a_patch_that_is_gone_is_said(tmp_path: Path, only: str | None) -> None:
    out = make(tmp_path, undo=True)
    lose(tmp_path)
    (tmp_path / "b.patch.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"b\.patch\.safetensors.*gone"):
        revert(out, only=only)


def test_the_base_needs_no_patches(tmp_path: Path) -> None:
    out = make(tmp_path)
    for name in "abc":
        (tmp_path / f"{name}.patch.safetensors").unlink()
    revert(out)
    assert contents(out) == contents(tmp_path / "base")


def test_applying_on_top_of_a_folder_whose_base_is_gone(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16), shards=2)
    for name, factors in (("a", FACTORS[0]), ("b", FACTORS[1])):
        write_patch(tmp_path / name, base, {LINEAR[0]: factors})
    apply_patches(base, [tmp_path / "a", tmp_path / "b"], tmp_path / "both", undo=True)
    apply_patches(base, [tmp_path / "a"], tmp_path / "out", undo=True)
    lose(tmp_path)
    apply_patches(tmp_path / "out", [tmp_path / "b"], tmp_path / "more", undo=True)
    assert contents(tmp_path / "more") == contents(tmp_path / "both")
    apply_patches(tmp_path / "out", [tmp_path / "b"], tmp_path / "out", undo=True, overwrite=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "both")
    revert(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "lost")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b", "both", "lost", "more", "out"}


def damage_block(data: bytearray) -> None:
    data[40] ^= 1


def damage_text(data: bytearray) -> None:
    data[-30] ^= 1


def cut(data: bytearray) -> None:
    del data[-5:]


@pytest.mark.parametrize("damage", [damage_block, damage_text, cut])
def test_a_damaged_sidecar_is_refused(tmp_path: Path, damage: Callable[[bytearray], None]) -> None:
    out = make(tmp_path, undo=True)
    data = bytearray((out / "patchkit.undo").read_bytes())
    damage(data)
    (out / "patchkit.undo").write_bytes(data)
    assert not verify_folder(out)["undo"].ok
    held = contents(out)
    lose(tmp_path)
    with pytest.raises(FormatError, match="undo"):
        revert(out)
    assert contents(out) == held
    lost = tmp_path / "lost"
    lost.rename(tmp_path / "base")
    revert(out)
    assert contents(out) == contents(tmp_path / "base")


def test_a_sidecar_says_what_it_is(tmp_path: Path) -> None:
    out = make(tmp_path, undo=True)
    data = (out / "patchkit.undo").read_bytes()
    assert data.startswith(b"patchkit.undo/1\n")
    length = int.from_bytes(data[-8:], "little")
    text = json.loads(data[-8 - length : -8])
    assert "units in the last place" in text["rule"]
    lock = read_lock(out)
    assert lock is not None
    assert text["patches"] == [patch.digest for patch in lock.patches]
    for name, tensor in lock.tensors.items():
        assert (text["tensors"][name]["before"], text["tensors"][name]["after"]) == (
            tensor.before,
            tensor.after,
        )
    assert all(shard.before is not None for shard in lock.shards.values() if shard.after)


def test_a_sidecar_is_the_same_every_time(tmp_path: Path) -> None:
    out = make(tmp_path, undo=True)
    data = (out / "patchkit.undo").read_bytes()
    shutil.rmtree(out)
    apply_patches(
        tmp_path / "base",
        [tmp_path / f"{name}.patch.safetensors" for name in "abc"],
        out,
        undo=True,
    )
    assert (out / "patchkit.undo").read_bytes() == data


def test_a_plan_reads_headers_alone(tmp_path: Path) -> None:
    out = make(tmp_path)
    plan = plan_revert(out)
    assert (plan.source, len(plan.shards)) == ("base", 3)
    assert plan.bytes_restored == 3 * D_IN * D_OUT * 2
    assert plan.bytes_rewritten == sum(path.stat().st_size for path in out.glob("*.safetensors"))


def test_a_folder_that_carries_no_patch(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    with pytest.raises(CheckpointError, match="has no lock"):
        revert(base)


def test_an_output_does_not_lie_in_what_is_read(tmp_path: Path) -> None:
    out = make(tmp_path)
    for place in (out / "inner", tmp_path / "base" / "inner"):
        with pytest.raises(OutputError, match="inside each other"):
            revert(out, out=place)
