"""MOSE's paper form against its definition, written down densely in fp64."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from patchkit.editing import edit
from patchkit.editing.capture import Flow, capture, module_of
from patchkit.editing.methods import mose
from patchkit.editing.protect import Guard
from patchkit.editing.recipe import Recipe
from patchkit.editing.state import SiteState
from patchkit.editing.statistics import Statistics
from patchkit.errors import RecipeError
from patchkit.factors.action import dense
from patchkit.factors.blocks import RotationBlocks, blocks_from_matrices
from patchkit.factors.rotation import Rotation
from patchkit.live import applied
from patchkit.tensors.layout import Site, sites
from patchkit.verify import verify_patch
from tests.unit.editing.samples import FACTS, loaded

D_OUT, D_IN, FACTS_N = 8, 20, 3


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state(seed: int = 0, earlier: int = 0) -> SiteState:
    """A small matrix with a moment, and a history that it has drifted away from."""
    weight = normal(seed, D_OUT, D_IN)
    root = normal(seed + 1, D_IN, D_IN)
    return SiteState(
        site=Site(0, "w", "w.weight", "linear", D_IN, D_OUT, False),
        base=weight,
        weight=rotation_near(0.3, seed + 5) @ weight,
        statistics=Statistics(root @ root.T / D_IN, 100),
        keys=normal(seed + 2, earlier, 2, D_IN),
        values=normal(seed + 3, earlier, 2, D_OUT),
    )


def rotation_near(size: float, seed: int) -> Tensor:
    half = size * normal(seed, D_OUT, D_OUT)
    return torch.linalg.matrix_exp(half - half.T)


def objective(
    r: Tensor, at: SiteState, keys: Tensor, missing: Tensor, options: mose.Options
) -> float:
    """λ E‖R W k − W₀k‖² + Σ‖R W k − v‖² + η n mean‖R W k − v‖², as it is written."""
    kept = at.base if options.drift else at.weight
    change = r @ at.weight - kept
    total = options.lam * float(((change @ at.statistics.moment) * change).sum())
    wanted = keys @ at.weight.T + missing
    total += float((keys @ (r @ at.weight).T - wanted).square().sum())
    if len(at.keys):
        every = at.keys.flatten(0, 1)
        values = at.values.flatten(0, 1) if options.drift else every @ at.weight.T
        error = (every @ (r @ at.weight).T - values).square().sum(1).mean()
        total += options.history * len(keys) * float(error)
    return total


@pytest.mark.parametrize("drift", [True, False])
@pytest.mark.parametrize("earlier", [0, 4])
@pytest.mark.parametrize("lam", [0.01, 1.0, 100.0])
def test_no_rotation_does_better(lam: float, earlier: int, drift: bool) -> None:
    at, options = state(earlier=earlier), mose.Options(lam=lam, drift=drift, history=0.7)
    keys, missing = normal(7, FACTS_N, D_IN), normal(8, FACTS_N, D_OUT)
    found = mose.procrustes(mose.correlation(at, keys, missing, options))
    eye = torch.eye(D_OUT, dtype=torch.float64)
    assert float((found.T @ found - eye).abs().max()) < 1e-13
    assert float(torch.linalg.det(found)) == pytest.approx(1.0)
    best = objective(found, at, keys, missing, options)
    assert best < objective(eye, at, keys, missing, options)
    for seed in range(50):
        for size in (1e-3, 0.1, 1.0):
            other = rotation_near(size, seed) @ found
            assert objective(other, at, keys, missing, options) >= best - 1e-9 * best


def test_it_is_the_procrustes_solution_over_stacked_columns() -> None:
    """M = B Aᵀ for A = [√λ W₀K₀, W K], B = [√λ W₀K₀, V], the form of the paper."""
    at = replace(state(), weight=state().base)
    preserved = normal(9, D_IN, 50)
    at = replace(at, statistics=Statistics(preserved @ preserved.T / 50, 50))
    keys, missing = normal(7, FACTS_N, D_IN), normal(8, FACTS_N, D_OUT)
    options = mose.Options(lam=3.0)
    root = (options.lam / 50) ** 0.5
    a = torch.cat([root * at.weight @ preserved, at.weight @ keys.T], dim=1)
    b = torch.cat([root * at.weight @ preserved, at.weight @ keys.T + missing.T], dim=1)
    found = mose.correlation(at, keys, missing, options)
    assert torch.allclose(found, b @ a.T, atol=1e-12)


def test_a_reflection_is_turned_back_where_it_costs_the_least() -> None:
    u, v = rotation_near(1.0, 0), rotation_near(1.0, 1)
    sizes = torch.linspace(8.0, 1.0, D_OUT, dtype=torch.float64)
    sizes[-1] = -sizes[-1]
    cross = (u * sizes) @ v.T
    found = mose.procrustes(cross)
    assert torch.allclose(found, u @ v.T, atol=1e-12)
    assert float((found * cross).sum()) == pytest.approx(float(sizes.sum()))


def test_fixed_directions_stay_and_the_rest_is_optimal() -> None:
    cross = normal(4, D_OUT, D_OUT)
    fixed = torch.linalg.qr(normal(5, D_OUT, 3))[0]
    found = mose.procrustes(cross, fixed)
    assert torch.allclose(found @ fixed, fixed, atol=1e-13)
    assert torch.allclose(found.T @ fixed, fixed, atol=1e-13)
    free = torch.linalg.qr(fixed, mode="complete")[0][:, 3:]
    for seed in range(30):
        half = 0.1 * normal(seed, D_OUT - 3, D_OUT - 3)
        near = free @ torch.linalg.matrix_exp(half - half.T) @ free.T + fixed @ fixed.T
        assert float((near @ found * cross).sum()) <= float((found * cross).sum()) + 1e-12


def test_protecting_the_spectrum_keeps_the_dominant_triplets() -> None:
    left, _, right = torch.linalg.svd(state().base, full_matrices=False)
    at = replace(state(), weight=state().base, guard=Guard(right[:2].T, left[:, :2]))
    options = mose.Options(lam=0.1)
    cross = mose.correlation(at, normal(7, 3, D_IN), normal(8, 3, D_OUT), options)
    new = mose.turned(at, mose.procrustes(cross, at.guard.writes))
    change = new.weight.double() - at.base
    assert float((change @ right[:2].T).abs().max()) < 1e-6
    assert float((left[:, :2].T @ change).abs().max()) < 1e-6
    assert float(change.norm()) > 0.1


@pytest.mark.parametrize("stored", [False, True], ids=["going on", "after a last step"])
def test_batches_become_one_factor(stored: bool) -> None:
    at = replace(state(), weight=state().base)
    first, second = rotation_near(0.2, 1), rotation_near(0.2, 2)
    before = mose.turned(at, first)
    before = mose.finish({0: before}, mose.Options(tolerance=2.0))[0] if stored else before
    first = dense(torch.eye(D_OUT), before.factors, "linear")
    new = mose.turned(before, second)
    (factor,) = new.factors
    assert isinstance(factor, RotationBlocks)
    assert torch.allclose(factor.matrices()[0], second @ first, atol=1e-12)
    assert torch.allclose(new.weight.double(), second @ first @ at.base, atol=1e-6)


def test_few_planes_are_stored_as_planes() -> None:
    at = replace(state(), weight=state().base)
    one = torch.eye(D_OUT, dtype=torch.float64)
    one[:2, :2] = torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    for rotation, kind in ((one, Rotation), (rotation_near(0.3, 1), RotationBlocks)):
        turned = mose.turned(at, rotation)
        last = mose.finish({0: turned}, mose.Options())[0]
        assert isinstance(last.factors[0], kind)
        assert torch.allclose(
            dense(at.base, last.factors, "linear"), rotation @ at.base, atol=1e-12
        )


def test_several_blocks_are_left_alone() -> None:
    blocks = blocks_from_matrices(torch.eye(10, dtype=torch.float64).repeat(2, 1, 1), "input")
    last = mose.finish({0: state().with_factors([blocks])}, mose.Options())[0]
    assert last.factors == (blocks,)


@pytest.mark.parametrize("options", [{"lam": 0.0}, {"history": -1.0}, {"tolerance": 0.0}])
def test_settings_that_no_edit_could_use(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        mose.Options(**options)  # type: ignore[arg-type]


def test_protections_that_are_not_defined() -> None:
    with pytest.raises(RecipeError, match="nullspace: an output-side rotation turns"):
        Recipe(method="mose", protect=("nullspace",))
    assert Recipe(method="mose", protect=("spectrum",)).protect == ("spectrum",)


QUICK = Recipe(
    method="mose", options={"steps": 6, "lam": 0.01}, contexts=1, batch=2,
    layers=(0, 1), corpus_rows=16, corpus_length=12,
)  # fmt: skip


def flow(model: Any, tokenizer: Any, site: Site) -> Flow:
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    return capture(model, ids, torch.ones_like(ids), [site])[site.layer]


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "opt"])
def test_an_edit_is_an_output_rotation_that_leaves_biases_where_they_are(
    tmp_path: Path, architecture: str
) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base", architecture)
    done = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    again = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    assert done.patch.digest == again.patch.digest
    assert len(done.patch.factors) == 2
    for factors in done.patch.factors.values():
        assert len(factors) == 1
        assert getattr(factors[0], "side", None) == "output"
    done.patch.write(tmp_path / "p")
    assert verify_patch(tmp_path / "p", tmp_path / "base").ok
    site = sites(model, checkpoint)[0]
    (factor,) = done.patch.factors[site.tensor]
    rotation = dense(torch.eye(site.d_out), [factor], "linear").float()
    bias = getattr(module_of(model, site), "bias", None)
    bias = torch.zeros(site.d_out) if bias is None else bias.detach()
    assert site.has_bias == bool(bias.any())
    before = flow(model, tokenizer, site)
    with applied(model, done.patch, checkpoint=checkpoint):
        after = flow(model, tokenizer, site)
    wanted = (before.values - bias) @ rotation.T + bias
    assert float((after.values - wanted).abs().max()) < 1e-4 * float(wanted.abs().max())
    assert float((after.values - before.values).norm()) > 1e-2 * float(before.values.norm())
