"""Verdicts on a patch file, alone and against its base."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from patchkit.errors import CheckpointError, FormatError
from patchkit.factors.action import Factor, dense
from patchkit.factors.rotation import Rotation
from patchkit.patch.patch import Patch
from patchkit.report import Report
from patchkit.tensors.digests import file_digest
from patchkit.verify import verify_patch
from tests.unit.patch.samples import sample, with_metadata
from tests.unit.tensors.folders import (
    CONV,
    LINEAR,
    additive,
    additive_dense,
    rotation,
    rotation_blocks,
    weights,
    write_folder,
    write_patch,
)

NAMES = [
    "format", "digest", "finite", "orthogonality", "base-match", "norm", "condition", "rounding",
    "displacement", "leakage", "facts",
]  # fmt: skip
OF_MODEL = ["displacement", "leakage", "facts"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def written(tmp_path: Path, dtype: torch.dtype = torch.float32, conv: bool = False) -> Path:
    base = write_folder(tmp_path / "base", weights(dtype, conv=conv), shards=2)
    names = CONV if conv else LINEAR
    factors = {
        names[0]: [rotation("input", 20, 1)],
        names[1]: [rotation("output", 12, 2)],
        names[2]: [rotation("input", 20, 3), rotation("output", 12, 4)],
    }
    write_patch(tmp_path / "p.safetensors", base, factors)
    return tmp_path / "p.safetensors"


def verdicts(report: Report) -> dict[str, bool]:
    return {check.name: check.ok for check in report.checks}


def test_alone(tmp_path: Path) -> None:
    path = written(tmp_path)
    report = verify_patch(path)
    assert report.ok
    assert [check.name for check in report.checks] == NAMES
    assert report["digest"].value == file_digest(path)
    assert report["finite"].value == report["finite"].limit == 2 * (2 * 20 * 2 + 2 * 12 * 2)
    for name in ("orthogonality", "norm", "condition"):
        value = report[name].value
        assert isinstance(value, float)
        assert 0 <= value < 1e-12
        assert report[name].limit == 1e-6
    assert {check.name for check in report.skipped} == {"base-match", "rounding", *OF_MODEL}
    for name in ("base-match", "rounding"):
        assert report[name].detail == "needs --base"
    assert {report[name].detail for name in OF_MODEL} == {"needs --base and --behaviour"}


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_with_its_base(tmp_path: Path, dtype: torch.dtype, conv: bool) -> None:
    report = verify_patch(written(tmp_path, dtype, conv), tmp_path / "base")
    assert report.ok
    assert [check.name for check in report.skipped] == OF_MODEL
    assert (report["base-match"].value, report["base-match"].limit) == (3, 3)
    assert report["condition"].detail == "singular values computed"
    noise = report["rounding"].value
    assert isinstance(noise, float)
    eps = torch.finfo(dtype).eps
    assert eps / 20 < noise < 2 * eps


def test_norm_and_condition_are_of_the_edited_weights(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    path = tmp_path / "p.safetensors"
    write_patch(path, base, {LINEAR[0]: [rotation("input", 20, 1), additive(1)]})
    report = verify_patch(path, base)
    before = weights(torch.float32)[LINEAR[0]].double()
    after = dense(before, Patch.read(path).factors[LINEAR[0]], "linear")
    ratio = float(after.norm() / before.norm())
    kappa = float(torch.linalg.cond(after) / torch.linalg.cond(before))
    assert report["norm"].value == pytest.approx(abs(ratio - 1))
    assert report["condition"].value == pytest.approx(abs(kappa - 1))
    assert {name: ok for name, ok in verdicts(report).items() if name not in OF_MODEL} == {
        "format": True, "digest": True, "finite": True, "orthogonality": False,
        "base-match": True, "norm": False, "condition": False, "rounding": True,
    }  # fmt: skip
    assert report["norm"].tensor == LINEAR[0]


@pytest.mark.parametrize("extra", [additive(1), additive_dense(1)], ids=["low rank", "dense"])
def test_additive_factors_break_the_promises(tmp_path: Path, extra: Factor) -> None:
    base = write_folder(tmp_path / "base", weights(torch.float32))
    path = tmp_path / "p.safetensors"
    write_patch(path, base, {LINEAR[0]: [rotation("input", 20, 1)], LINEAR[1]: [extra]})
    report = verify_patch(path)
    assert {check.name for check in report.failed} == {"orthogonality", "norm", "condition"}
    assert all(check.tensor == LINEAR[1] for check in report.failed)
    assert report["orthogonality"].value is None
    assert "additive" in report["orthogonality"].detail


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rotations_in_blocks_keep_the_promises(
    tmp_path: Path, dtype: torch.dtype, conv: bool
) -> None:
    base = write_folder(tmp_path / "base", weights(dtype, conv=conv))
    path = tmp_path / "p.safetensors"
    whole, parts = rotation_blocks("output", 12, 1, 1), rotation_blocks("input", 20, 2, 5)
    names = CONV if conv else LINEAR
    write_patch(path, base, {names[0]: [whole], names[1]: [parts], names[2]: [parts, whole]})
    report = verify_patch(path, base)
    assert report.ok
    assert report["condition"].detail == "singular values computed"


def test_rounding_of_blocks_counts_all_directions(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    path = tmp_path / "p.safetensors"
    factor = rotation_blocks("input", 20, 1, 1)
    write_patch(path, base, {LINEAR[0]: [factor]})
    before = weights(torch.bfloat16)[LINEAR[0]].double()
    after = dense(before, [factor], "linear")
    noise = after.to(torch.bfloat16).double() - after
    wanted = float(noise.norm() / (after - before).norm())
    assert verify_patch(path, base)["rounding"].value == pytest.approx(wanted, rel=1e-3)


def test_another_base(tmp_path: Path) -> None:
    path = written(tmp_path)
    other = write_folder(tmp_path / "other", weights(torch.float32, seed=1))
    report = verify_patch(path, other)
    assert [check.name for check in report.failed] == ["base-match"]
    assert report["base-match"].value == 0
    assert report["base-match"].tensor == LINEAR[0]
    assert "expected sha256:" in report["base-match"].detail
    assert "found sha256:" in report["base-match"].detail


def test_a_base_of_another_type_or_without_the_tensor(tmp_path: Path) -> None:
    path = written(tmp_path)
    half = write_folder(tmp_path / "half", weights(torch.bfloat16))
    report = verify_patch(path, half)
    assert "expected (12, 20) F32, found (12, 20) BF16" in report["base-match"].detail
    assert not report["norm"].ok
    assert "no tensor of this name, shape and type" in report["norm"].detail
    without = weights(torch.float32)
    del without[LINEAR[1]]
    report = verify_patch(path, write_folder(tmp_path / "without", without))
    assert report["base-match"].tensor == LINEAR[1]
    assert "no such tensor" in report["base-match"].detail
    assert report["base-match"].value == 2


def test_tiny_edits_are_lost_in_storage(tmp_path: Path) -> None:
    base = write_folder(tmp_path / "base", weights(torch.bfloat16))
    path = tmp_path / "p.safetensors"
    whole = rotation("input", 20, 1)
    write_patch(path, base, {LINEAR[0]: [whole.power(1e-3)]})
    report = verify_patch(path, base)
    assert [check.name for check in report.failed] == ["rounding"]
    value = report["rounding"].value
    assert isinstance(value, float)
    assert value > 0.5


def test_a_generator_beyond_its_limit_is_a_verdict(tmp_path: Path) -> None:
    path = written(tmp_path)
    patch = Patch.read(path)
    data = patch.to_bytes()
    factor = patch.factors[LINEAR[0]][0]
    assert isinstance(factor, Rotation)
    word = factor.x[0, 0].numpy().tobytes()
    report = verify_patch(data.replace(word, torch.tensor(1e30).numpy().tobytes()), None)
    assert {check.name for check in report.failed} == {
        "digest", "orthogonality", "norm", "condition"
    }  # fmt: skip
    assert "beyond the limit of 64" in report["orthogonality"].detail
    assert report["digest"].tensor == f"{LINEAR[0]}/0"


def test_values_that_are_not_finite_are_a_verdict(tmp_path: Path) -> None:
    path = written(tmp_path)
    patch = Patch.read(path)
    factor = patch.factors[LINEAR[0]][0]
    assert isinstance(factor, Rotation)
    word = factor.x[0, 0].numpy().tobytes()
    data = patch.to_bytes().replace(word, torch.tensor(math.nan).numpy().tobytes())
    report = verify_patch(data, tmp_path / "base")
    assert not report["finite"].ok
    assert report["finite"].tensor == LINEAR[0]
    assert report["finite"].detail == f"{LINEAR[0]} holds values that are not finite (1)"
    assert "not finite" in report["norm"].detail


@pytest.mark.parametrize("data", [b"", b"hello", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_patch_is_a_verdict(data: bytes) -> None:
    report = verify_patch(data)
    assert [check.name for check in report.checks] == NAMES
    assert not any(check.ok for check in report.checks)
    assert "the patch" in report["format"].detail


def test_facts_that_are_more_than_it_says_are_a_verdict() -> None:
    def two(fields: dict[str, object]) -> None:
        fields["facts"] = {**fields["facts"], "count": 3}  # type: ignore[dict-item]

    report = verify_patch(with_metadata(sample().to_bytes(), two))
    assert "a count of 3 is recorded, found 2" in report["digest"].detail
    assert not report.ok


def test_large_matrices_get_a_bound_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path)
    monkeypatch.setattr("patchkit.verify.measure.EXACT_UP_TO", 4)
    report = verify_patch(path, tmp_path / "base")
    assert report["condition"].detail.startswith("bound for 3 of 3 tensors")
    assert report.ok
    deep = verify_patch(path, tmp_path / "base", deep=True)
    assert deep["condition"].detail == "singular values computed"


def test_missing_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a file"):
        verify_patch(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="is not a folder"):
        verify_patch(written(tmp_path), tmp_path / "none")


def test_a_base_that_is_not_finite_is_a_verdict(tmp_path: Path) -> None:
    tensors = weights(torch.float32)
    tensors[LINEAR[1]][3, 4] = math.nan
    base = write_folder(tmp_path / "base", tensors)
    path = tmp_path / "p.safetensors"
    write_patch(path, base, {name: [rotation("input", 20, 1)] for name in LINEAR})
    report = verify_patch(path, base)
    assert not report["norm"].ok
    assert report["norm"].tensor == LINEAR[1]
    assert "no finite value" in report["norm"].detail
    assert not report["rounding"].ok


def test_adding_to_a_weight_of_zeros_changes_its_norm(tmp_path: Path) -> None:
    tensors = weights(torch.float32)
    tensors[LINEAR[0]].zero_()
    base = write_folder(tmp_path / "base", tensors)
    path = tmp_path / "p.safetensors"
    write_patch(path, base, {LINEAR[0]: [additive(1)]})
    assert not verify_patch(path, base)["norm"].ok
    write_patch(path, base, {LINEAR[0]: [rotation("input", 20, 1)]})
    assert verify_patch(path, base).ok
