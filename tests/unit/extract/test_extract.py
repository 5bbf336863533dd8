"""The nearest rotation of a change that need not be one."""

from __future__ import annotations

from pathlib import Path

import pytest
import scipy.linalg
import torch

from patchkit.apply import apply_patches
from patchkit.errors import BaseMismatch, CheckpointError, InvariantError, SolveError
from patchkit.extract import extract, fitting
from patchkit.factors import Side
from patchkit.factors.action import dense
from patchkit.patch.patch import Patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.verify import verify_patch
from tests.unit.extract.folders import NAMES, two_folders, with_config
from tests.unit.models.factory import save_tiny
from tests.unit.tensors.folders import (
    D_IN,
    LINEAR,
    rotation,
    weights,
    write_folder,
    write_patch,
)

NAME = NAMES["linear"]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def residual(patch: Patch, weight: torch.Tensor, edited: torch.Tensor) -> float:
    return float((dense(weight, patch.factors[NAME], "linear") - edited).norm())


def best_residual(weight: torch.Tensor, edited: torch.Tensor, side: Side) -> float:
    """That of the orthogonal Procrustes problem, which is a lower bound for rotations."""
    a, b = (weight, edited) if side == "input" else (weight.T, edited.T)
    r, _ = scipy.linalg.orthogonal_procrustes(a.numpy(), b.numpy())
    return float((a @ torch.from_numpy(r) - b).norm())


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("shape", [(12, 20), (20, 12), (16, 16)])
def test_any_change_gets_the_nearest_of_all_rotations(
    tmp_path: Path, shape: tuple[int, int], side: Side
) -> None:
    weight = normal(*shape)
    edited = weight + 0.2 * normal(*shape, seed=1)
    base, other = two_folders(tmp_path, weight, edited)
    made = extract(base, other, tensors=["*"], side=side, energy=1.0)
    (result,) = made.report.tensors
    size = shape[1] if side == "input" else shape[0]
    assert result.directions == size
    wanted = best_residual(weight, edited, side)
    assert residual(made.patch, weight, edited) == pytest.approx(wanted, rel=1e-6)
    share = 1 - wanted**2 / float((edited - weight).square().sum())
    assert result.explained == pytest.approx(share, abs=1e-6)
    assert result.reachable == pytest.approx(share, abs=1e-9)


def test_a_change_of_low_rank_comes_near_the_nearest_in_few_directions(tmp_path: Path) -> None:
    weight = normal(128, 128)
    edited = weight + 0.1 * normal(128, 2) @ normal(2, 128, seed=1)
    base, other = two_folders(tmp_path, weight, edited)
    (result,) = extract(base, other, tensors=["*"], side="input", energy=1.0).report.tensors
    best = 1 - best_residual(weight, edited, "input") ** 2 / float((edited - weight).norm()) ** 2
    assert result.directions < 32
    assert 0.9 * best <= result.explained <= best + 1e-9


def test_the_rank_keeps_the_planes_that_explain_most(tmp_path: Path) -> None:
    weight = normal(24, 40)
    base, other = two_folders(tmp_path, weight, weight + 0.2 * normal(24, 40, seed=1))
    shares = []
    for rank in (1, 2, 4, 8):
        made = extract(base, other, tensors=["*"], side="input", rank=rank, energy=1.0)
        (result,) = made.report.tensors
        assert result.planes == rank
        shares.append(result.explained)
    assert shares == sorted(shares)
    assert shares[0] > 0


def test_the_energy_keeps_as_few_planes_as_explain_it(tmp_path: Path) -> None:
    weight = normal(24, 24)
    base, other = two_folders(tmp_path, weight, weight + 0.2 * normal(24, 24, seed=1))
    whole = extract(base, other, tensors=["*"], side="input", energy=1.0).report.tensors[0]
    for energy in (0.3, 0.8):
        kept = extract(base, other, tensors=["*"], side="input", energy=energy)
        (result,) = kept.report.tensors
        assert result.reachable == pytest.approx(whole.reachable)
        assert result.explained >= energy * result.reachable - 1e-6
        less = extract(base, other, tensors=["*"], side="input", energy=1.0, rank=result.planes - 1)
        below = less.report.tensors[0]
        assert below.explained < energy * result.reachable or below.planes < result.planes - 1


@pytest.mark.parametrize("side", ["input", "output"])
def test_auto_finds_the_side(tmp_path: Path, side: Side) -> None:
    weight = normal(24, 40)
    turn = rotation(side, 40 if side == "input" else 24, 5)
    base, other = two_folders(tmp_path, weight, dense(weight, [turn], "linear"))
    (result,) = extract(base, other, tensors=["*"]).report.tensors
    assert result.side == side
    assert result.planes == 2
    assert result.explained == pytest.approx(1, abs=1e-9)
    assert result.same


def test_a_large_side_is_searched_in_the_space_of_the_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "LIMIT", 16)
    weight = normal(40, 60)
    turn = rotation("input", 60, 5)
    base, other = two_folders(tmp_path, weight, dense(weight, [turn], "linear"))
    (result,) = extract(base, other, tensors=["*"], energy=1.0).report.tensors
    assert result.directions <= 16
    assert result.explained == pytest.approx(1, abs=1e-9)
    full = weight + 0.1 * normal(40, 60, seed=3)
    _, far = two_folders(tmp_path / "full", weight, full)
    (result,) = extract(base, far, tensors=["*"], side="input").report.tensors
    assert result.directions == 16
    assert 0 < result.explained < 1


def test_a_reflection_is_followed_as_far_as_a_rotation_can(tmp_path: Path) -> None:
    weight = normal(9, 5)
    mirror = torch.eye(5, dtype=torch.float64)
    mirror[0, 0] = -1
    base, other = two_folders(tmp_path, weight, weight @ mirror)
    made = extract(base, other, tensors=["*"], side="input", energy=1.0)
    (factor,) = made.patch.factors[NAME]
    assert factor.angles()[0] <= torch.pi + 1e-6  # type: ignore[union-attr]
    assert 0 < made.report.tensors[0].explained < 1


def test_the_result_is_an_ordinary_patch(tmp_path: Path) -> None:
    base = with_config(write_folder(tmp_path / "base", weights(torch.bfloat16)))
    turns = {name: [rotation("input", D_IN, seed)] for seed, name in enumerate(LINEAR)}
    write_patch(tmp_path / "p.patch.safetensors", base, turns)
    apply_patches(base, [tmp_path / "p.patch.safetensors"], tmp_path / "out")
    made = extract(base, tmp_path / "out", tensors=["*.down_proj.weight"], rank=2)
    digest = made.patch.write(tmp_path / "e.patch.safetensors")
    assert verify_patch(tmp_path / "e.patch.safetensors", base=base).ok
    meta = made.patch.metadata
    assert (meta.method, meta.facts, meta.after) == ("extract", None, ())
    out = Checkpoint.open(tmp_path / "out")
    assert meta.recipe["edited"] == {name: out.digest(name) for name in LINEAR}
    again = extract(base, tmp_path / "out", tensors=["*.down_proj.weight"], rank=2)
    assert again.patch.digest == digest
    half = extract(base, tmp_path / "out", tensors=["*"], rank=2, storage="bfloat16")
    assert half.report.tensors[0].explained == pytest.approx(
        made.report.tensors[0].explained, abs=1e-4
    )


def test_what_was_not_chosen_is_said(tmp_path: Path) -> None:
    tensors = weights(torch.float32)
    base = with_config(write_folder(tmp_path / "base", tensors))
    changed = dict(tensors)
    turn = [rotation("input", D_IN, 0)]
    changed[LINEAR[1]] = dense(tensors[LINEAR[1]], turn, "linear").float()
    changed["embed.weight"] = tensors["embed.weight"] + 1
    other = with_config(write_folder(tmp_path / "other", changed, shards=2))
    made = extract(base, other, tensors=["*down_proj.weight"])
    assert [result.name for result in made.report.tensors] == [LINEAR[1]]
    assert made.report.unchanged == (LINEAR[0], LINEAR[2])
    assert made.report.left_out == ("embed.weight",)
    only = extract(base, other, tensors=["*down_proj.weight"], layers=[1])
    assert only.report.unchanged == ()
    assert LINEAR[1] in only.patch.factors
    with pytest.raises(SolveError, match=r"same in both.*others differ, such as embed"):
        extract(base, other, tensors=["*down_proj.weight"], layers=[0])
    with pytest.raises(CheckpointError, match="of layers 7"):
        extract(base, other, tensors=["*down_proj.weight"], layers=[7])


def test_a_change_of_length_is_no_rotation(tmp_path: Path) -> None:
    weight = normal(8, 8)
    base, other = two_folders(tmp_path, weight, 2 * weight)
    with pytest.raises(SolveError, match="no rotation explains"):
        extract(base, other, tensors=["*"])


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    weight = normal(8, 12)
    broken = weight.clone()
    broken[3, 4] = torch.inf
    base, other = two_folders(tmp_path, weight, broken)
    with pytest.raises(InvariantError, match="not finite"):
        extract(base, other, tensors=["*"])


def test_types_may_differ_and_shapes_may_not(tmp_path: Path) -> None:
    weight = normal(8, 12).bfloat16()
    turned = dense(weight, [rotation("input", 12, 0)], "linear").float()
    base, other = two_folders(tmp_path, weight, turned)
    (result,) = extract(base, other, tensors=["*"]).report.tensors
    assert result.explained == pytest.approx(1, abs=1e-9)
    _, wide = two_folders(tmp_path / "wide", weight, normal(8, 13))
    with pytest.raises(BaseMismatch, match=r"\(8, 12\) BF16 .* \(8, 13\) F64"):
        extract(base, wide, tensors=["*"])


@pytest.mark.parametrize(("rank", "energy"), [(0, 0.9), (None, 0.0), (None, 1.1)])
def test_impossible_sizes_are_refused(rank: int | None, energy: float, tmp_path: Path) -> None:
    with pytest.raises(InvariantError, match="energy"):
        extract(tmp_path, tmp_path, rank=rank, energy=energy)


def test_default_matrices_are_those_that_edits_change(tmp_path: Path) -> None:
    for architecture in ("llama2", "gpt2"):
        base = tmp_path / architecture
        save_tiny(architecture, base)
        checkpoint = Checkpoint.open(base)
        name = next(n for n in checkpoint.tensors if "down_proj" in n or "mlp.c_proj.weight" in n)
        layout = "conv1d" if architecture == "gpt2" else "linear"
        file = tmp_path / f"{architecture}.patch.safetensors"
        write_patch(file, base, {name: [rotation("output", 32, 2)]}, layout=layout)
        apply_patches(base, [file], tmp_path / f"{architecture}-out")
        made = extract(base, tmp_path / f"{architecture}-out")
        (result,) = made.report.tensors
        assert (result.name, result.side) == (name, "output")
        assert made.patch.metadata.tensors[name].layout == layout
        assert result.explained == pytest.approx(1, abs=1e-6)
        assert len(made.report.unchanged) == 2
