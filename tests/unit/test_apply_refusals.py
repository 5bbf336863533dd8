"""What apply refuses, and that it leaves the disk as it was."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from patchkit.apply import apply_patches, folder, plan_apply, shards
from patchkit.apply import weights as apply_weights
from patchkit.errors import (
    BaseMismatch,
    CheckpointError,
    FormatError,
    InvariantError,
    OutputError,
)
from patchkit.tensors.rewrite import RangeWriter
from tests.unit.tensors.folders import (
    CONV,
    D_IN,
    LINEAR,
    additive,
    rotation,
    weights,
    write_folder,
    write_patch,
)

TURN = [rotation("input", D_IN, 1)]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "base", weights(torch.float32), shards=3)


@pytest.fixture
def patch(tmp_path: Path, base: Path) -> Path:
    write_patch(tmp_path / "p", base, {LINEAR[0]: TURN})
    return tmp_path / "p"


@pytest.fixture
def unchanged(tmp_path: Path, base: Path, patch: Path) -> Callable[[], bool]:
    """Tell whether every file is as it was when the test began."""

    def state() -> dict[str, bytes]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path.as_posix(): path.read_bytes() for path in files}

    before = state()
    return lambda: state() == before and not (tmp_path / "out.partial").exists()


def test_another_base_is_refused_with_both_digests(tmp_path: Path, patch: Path) -> None:
    other = write_folder(tmp_path / "other", weights(torch.float32, seed=1))
    with pytest.raises(BaseMismatch, match="made for another base") as caught:
        apply_patches(other, [patch], tmp_path / "out")
    details = caught.value.details
    assert str(details["expected"])[:15] in caught.value.message
    assert str(details["found"])[:15] in caught.value.message
    assert (details["tensor"], details["shard"]) == (LINEAR[0], "model.safetensors")
    assert "--allow-other-base" in (caught.value.hint or "")
    assert not (tmp_path / "out").exists()


def test_another_base_is_patched_when_asked(tmp_path: Path, patch: Path) -> None:
    other = write_folder(tmp_path / "other", weights(torch.float32, seed=1))
    report = apply_patches(other, [patch], tmp_path / "out", allow_other_base=True)
    assert report.other_base == (LINEAR[0],)
    assert report.tensors_changed == 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_another_shape_or_type_is_refused_even_when_asked(
    tmp_path: Path, patch: Path, dtype: torch.dtype
) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in weights(torch.float32).items()}
    if dtype is torch.float32:
        tensors[LINEAR[0]] = tensors[LINEAR[0]][:-1].contiguous()
    other = write_folder(tmp_path / "other", tensors)
    with pytest.raises(BaseMismatch, match="12x20 F32"):
        plan_apply(other, [patch], allow_other_base=True)


def test_a_base_without_the_tensor_is_refused(tmp_path: Path, patch: Path) -> None:
    other = write_folder(tmp_path / "other", weights(torch.float32, conv=True))
    with pytest.raises(CheckpointError, match="no tensor"):
        plan_apply(other, [patch])


def test_patches_must_agree_on_the_layout(tmp_path: Path) -> None:
    tensors = {"a.c_proj.weight": torch.eye(D_IN)}
    base = write_folder(tmp_path / "base", tensors)
    write_patch(tmp_path / "a", base, {"a.c_proj.weight": TURN})
    write_patch(tmp_path / "b", base, {"a.c_proj.weight": TURN}, layout="linear")
    with pytest.raises(BaseMismatch, match="conv1d in a, linear in b"):
        plan_apply(base, [tmp_path / "a", tmp_path / "b"])


def test_predecessors_must_be_there_in_order(tmp_path: Path, base: Path) -> None:
    first = write_patch(tmp_path / "a", base, {LINEAR[0]: TURN})
    second = write_patch(tmp_path / "b", base, {LINEAR[1]: TURN}, after=[first])
    write_patch(tmp_path / "c", base, {LINEAR[2]: TURN}, after=[first, second])
    a, b, c = (tmp_path / name for name in "abc")
    assert len(plan_apply(base, [a, b, c]).patches) == 3
    with pytest.raises(BaseMismatch, match=f"c was made on top of patch {second[:15]}….* missing"):
        plan_apply(base, [a, c])
    with pytest.raises(BaseMismatch, match="comes too late"):
        plan_apply(base, [b, a])
    with pytest.raises(BaseMismatch, match="comes too late"):
        plan_apply(base, [a, c, b])
    assert len(plan_apply(base, [b], allow_other_base=True).patches) == 1


def test_no_patch_is_a_mistake_of_the_caller(base: Path) -> None:
    with pytest.raises(ValueError, match="no patch"):
        plan_apply(base, [])


def test_a_damaged_patch_is_refused(tmp_path: Path, base: Path, patch: Path) -> None:
    patch.write_bytes(patch.read_bytes()[:-5])
    with pytest.raises(FormatError):
        apply_patches(base, [patch], tmp_path / "out")


def test_an_existing_output_stays(tmp_path: Path, base: Path, patch: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    with pytest.raises(OutputError, match="out exists"):
        apply_patches(base, [patch], tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == "mine"
    apply_patches(base, [patch], tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "patchkit.lock.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"base", "out", "p"}


@pytest.mark.parametrize("place", ["base", "base/out", "."])
def test_the_base_is_never_written_to(
    tmp_path: Path, base: Path, patch: Path, place: str, unchanged: Callable[[], bool]
) -> None:
    with pytest.raises(OutputError, match=r"inside each other|holds no model"):
        apply_patches(base, [patch], tmp_path / place, overwrite=True)
    assert unchanged()


def test_a_patch_is_not_removed_with_the_folder_it_is_in(tmp_path: Path, base: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("{}")
    write_patch(tmp_path / "out" / "p", base, {LINEAR[0]: TURN})
    with pytest.raises(OutputError, match="holds p, which is being applied"):
        apply_patches(base, [tmp_path / "out" / "p"], tmp_path / "out", overwrite=True)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["overwriting", "copying"])
def test_a_disk_that_fills_up_is_a_sentence_and_leaves_nothing(
    tmp_path: Path,
    base: Path,
    patch: Path,
    where: str,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[], bool],
) -> None:
    if where == "overwriting":
        monkeypatch.setattr(RangeWriter, "write", full_disk)
    else:
        monkeypatch.setattr(shards, "create", lambda *_: Path(_[1]).touch())
        monkeypatch.setattr(shards, "fill", lambda *_, **__: full_disk())
        monkeypatch.setattr(folder, "can_reflink", lambda *_: False)
    with pytest.raises(OutputError, match="no space is left on its disk") as caught:
        apply_patches(base, [patch], tmp_path / "out")
    assert "free some space" in (caught.value.hint or "")
    assert unchanged()


def test_too_small_a_disk_is_noticed_before_writing(
    tmp_path: Path,
    base: Path,
    patch: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[], bool],
) -> None:
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OutputError, match="its disk has 10 left"):
        apply_patches(base, [patch], tmp_path / "out")
    assert unchanged()


def test_an_undo_sidecar_needs_space_of_its_own(
    tmp_path: Path, base: Path, patch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_apply(base, [patch])
    usage = type("Usage", (), {"free": plan.bytes_total})
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(folder, "can_reflink", lambda *_: False)
    with pytest.raises(OutputError, match=f"needs {plan.bytes_total + plan.undo_bytes} bytes"):
        apply_patches(base, [patch], tmp_path / "out", undo=True)
    apply_patches(base, [patch], tmp_path / "out")


def test_an_interruption_leaves_nothing(
    tmp_path: Path,
    base: Path,
    patch: Path,
    monkeypatch: pytest.MonkeyPatch,
    unchanged: Callable[[], bool],
) -> None:
    def interrupt(*_: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(apply_weights, "rewrite_tensor", interrupt)
    with pytest.raises(KeyboardInterrupt):
        apply_patches(base, [patch], tmp_path / "out")
    assert unchanged()


def test_an_unwritable_place_is_a_sentence(tmp_path: Path, base: Path, patch: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is not a folder"):
        apply_patches(base, [patch], tmp_path / "file" / "out")


@pytest.mark.parametrize("factor", ["base", "patch"])
def test_values_that_are_not_finite_are_never_written(tmp_path: Path, factor: str) -> None:
    tensors = weights(torch.float16)
    if factor == "base":
        tensors[LINEAR[0]][5, 3] = float("inf")
    base = write_folder(tmp_path / "base", tensors)
    large = additive(2)
    large.l[:5] = 0
    large.l[5:] *= 1e9
    write_patch(tmp_path / "p", base, {LINEAR[0]: TURN if factor == "base" else [large]})
    with pytest.raises(InvariantError, match="row 5 that are not finite as F16"):
        apply_patches(base, [tmp_path / "p"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pickled_base_and_a_quantised_one_are_refused(
    tmp_path: Path, base: Path, patch: Path
) -> None:
    config = base / "config.json"
    config.write_text(json.dumps({"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CheckpointError, match="quantised"):
        plan_apply(base, [patch])
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="pickle"):
        plan_apply(pickled, [patch])


def test_a_conv1d_name_is_no_linear_one(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32, conv=True))
    write_patch(tmp_path / "p", base, {CONV[0]: TURN})
    assert plan_apply(base, [tmp_path / "p"]).tensors[0].entry.info.shape == (20, 12)
