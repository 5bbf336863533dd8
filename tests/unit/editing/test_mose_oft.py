"""MOSE's released form against its definition with dense matrices."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from patchkit.editing import edit
from patchkit.editing.batch import Batch
from patchkit.editing.capture import module_of, weight_of
from patchkit.editing.methods import mose_oft
from patchkit.editing.recipe import Recipe
from patchkit.editing.state import SiteState, install
from patchkit.editing.statistics import Statistics
from patchkit.errors import RecipeError, SolveError
from patchkit.factors.blocks import RotationBlocks
from patchkit.tensors.layout import Site, sites
from patchkit.verify import verify_patch
from tests.unit.editing.samples import FACTS, loaded

QUICK = Recipe(
    method="mose-oft", options={"steps": 8, "rate": 5e-3, "stop": 0.0}, contexts=1, batch=2,
    layers=(1,), corpus_rows=16, corpus_length=12,
)  # fmt: skip


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blockdiag(b: Tensor) -> Tensor:
    return torch.block_diag(*b)  # type: ignore[no-untyped-call, no-any-return]


def test_the_transform_is_cayleys() -> None:
    g = normal(0, 3, 5, 5)
    skew, eye = (g - g.mT) / 2, torch.eye(5, dtype=torch.float64)
    wanted = (eye - skew) @ torch.linalg.inv(eye + skew)
    found = mose_oft.cayley(g)
    assert torch.allclose(found, wanted, atol=1e-13)
    assert torch.allclose(found.mT @ found, eye.expand(3, 5, 5), atol=1e-14)


@pytest.mark.parametrize("shape", [(7, 12), (2, 3, 12)])
def test_rotating_activations_is_multiplying_the_weight(shape: tuple[int, ...]) -> None:
    module = nn.Linear(12, 5).double()
    g = normal(1, 4, 3, 3)
    x = normal(2, *shape)
    with mose_oft.acting(module, g):
        found = module(x)
    wanted = x @ (module.weight @ blockdiag(mose_oft.cayley(g)).T).T + module.bias
    assert torch.allclose(found, wanted, atol=1e-13)
    assert torch.equal(module(x), x @ module.weight.T + module.bias)


def test_the_exported_factor_is_the_same_rotation() -> None:
    weight, g = normal(3, 5, 12), normal(4, 4, 3, 3) / 2
    new = mose_oft.exported(state(weight), g)
    wanted = weight @ blockdiag(mose_oft.cayley(g)).T
    assert float((new.weight.double() - wanted).abs().max()) < 1e-6
    (factor,) = new.factors
    assert isinstance(factor, RotationBlocks)
    assert (factor.side, factor.blocks) == ("input", 4)
    assert torch.equal(mose_oft.start(new, mose_oft.Options()).detach(), g)


def test_blocks_must_divide_the_inputs() -> None:
    for blocks in (5, 12):
        with pytest.raises(SolveError, match=f"{blocks} blocks do not divide the 12 inputs"):
            mose_oft.start(state(normal(3, 5, 12)), mose_oft.Options(blocks=blocks))


@pytest.mark.parametrize("architecture", ["llama3", "gpt2"])
def test_it_is_the_published_loop(tmp_path: Path, architecture: str) -> None:
    """One fact after another, a fresh Adam each, through a dense W₀ blockdiag(B)ᵀ."""
    model, tokenizer, checkpoint = loaded(tmp_path / "base", architecture)
    options = mose_oft.Options(steps=5, rate=5e-3, stop=0.0, published_scales=True, coft=1e-4)
    batch = Batch.of(tokenizer, FACTS, [""], model.device)
    every = sites(model, checkpoint)[:2]
    states = {
        site.layer: SiteState.of(model, site, Statistics(torch.eye(site.d_in), 1)) for site in every
    }
    found = mose_oft.solve(model, states, batch, options, lambda step, of: None)
    install(model, states)

    names = {layer: f"{state.site.module}.weight" for layer, state in states.items()}
    g = {layer: torch.zeros(4, 16, 16, requires_grad=True) for layer in states}
    for index in range(batch.count):
        rows = batch.only([index]).contexts[0]
        optimizer = torch.optim.Adam(list(g.values()), lr=options.rate)
        for _ in range(options.steps):
            weights = {}
            for layer, at in states.items():
                changed = at.base @ blockdiag(mose_oft.cayley(g[layer])).T
                conv1d = at.site.layout == "conv1d"
                weights[names[layer]] = changed.T if conv1d else changed
            logits = torch.func.functional_call(model, weights, (rows.ids,)).logits
            loss = cross_entropy(logits[0, rows.label_position], rows.label_id)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for block in [block for each in g.values() for block in each.detach()]:
                limit = options.coft * 16**2 / math.sqrt(4)
                block.mul_(min(1.0, limit / float(block.norm())))
    for layer, at in states.items():
        wanted = at.base @ blockdiag(mose_oft.cayley(g[layer].detach())).T
        moved = float((wanted - at.base).norm())
        assert moved > 1e-3 * float(at.base.norm())
        assert float((found[layer].weight - wanted).norm()) < 1e-3 * moved
        assert torch.equal(found[layer].values, found[layer].keys @ found[layer].weight.T)


def test_the_rate_falls_with_the_length_of_a_block() -> None:
    """So that the first step of Adam, lr · sign, turns by the same angle in every model."""
    half = normal(5, 256, 1) @ normal(6, 1, 256)
    angles = {}
    for n in (64, 256):
        skew = (half - half.T)[:n, :n]
        g = torch.zeros(1, n, n, dtype=torch.float64, requires_grad=True)
        g.grad = skew[None].clone()
        mose_oft.adam([g], mose_oft.Options(rate=0.01)).step()
        angles[n] = float(torch.linalg.matrix_norm(g.detach()[0], ord=2))
    assert angles[64] == pytest.approx(angles[256], rel=0.2)


def test_a_fact_that_is_answered_ends_its_steps(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    recipe = replace(QUICK, options={"steps": 3, "stop": 1e9})
    patch = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=recipe).patch
    (factor,) = next(iter(patch.factors.values()))
    assert isinstance(factor, RotationBlocks)
    assert not factor.s.any()


def test_batches_go_on_from_one_generator(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    one = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, batch=3))
    two = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, batch=1))
    again = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=replace(QUICK, batch=1))
    assert two.patch.digest == again.patch.digest
    (a,), (b,) = (next(iter(done.patch.factors.values())) for done in (one, two))
    assert isinstance(a, RotationBlocks)
    assert isinstance(b, RotationBlocks)
    assert float((a.s - b.s).abs().max()) < 1e-3 * float(a.s.abs().max())


def test_an_edit_keeps_the_promises_and_leaves_nothing_behind(tmp_path: Path) -> None:
    model, tokenizer, checkpoint = loaded(tmp_path / "base")
    before = weight_of(model, sites(model)[1]).clone()
    done = edit(model, tokenizer, FACTS, checkpoint=checkpoint, recipe=QUICK)
    assert torch.equal(weight_of(model, sites(model)[1]), before)
    assert not module_of(model, sites(model)[1])._forward_pre_hooks
    done.patch.write(tmp_path / "p")
    report = verify_patch(tmp_path / "p", tmp_path / "base")
    assert report["orthogonality"].ok
    assert report["norm"].ok


@pytest.mark.parametrize("options", [{"blocks": 0}, {"rate": 0.0}, {"steps": 0}, {"coft": -1.0}])
def test_settings_that_no_edit_could_use(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match=next(iter(options))):
        mose_oft.Options(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("protection", ["nullspace", "spectrum", "history"])
def test_protections_that_are_not_defined(protection: str) -> None:
    with pytest.raises(RecipeError, match=f"mose-oft does not take the protection {protection}"):
        Recipe(method="mose-oft", protect=(protection,))


def state(weight: Tensor) -> SiteState:
    d_out, d_in = weight.shape
    return SiteState(
        Site(0, "m", "m.weight", "linear", d_in, d_out, False), weight, weight,
        Statistics(torch.eye(d_in), 1), torch.zeros(0, 1, d_in), torch.zeros(0, 1, d_out),
    )  # fmt: skip
