"""Every additive method against its dense definition in fp64, and their identities."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from patchkit.editing.additive import Ridge
from patchkit.editing.merging import low_rank_sum, merged
from patchkit.editing.methods import alphaedit, emmet, memit, prune, rect, rome
from patchkit.editing.metric import Metric
from patchkit.editing.protect import Guard, Protection
from patchkit.editing.state import SiteState
from patchkit.editing.statistics import Statistics
from patchkit.errors import SolveError
from patchkit.factors.action import dense
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.tensors.layout import Site
from tests.unit.editing import literal

D_OUT, D_IN, FACTS = 8, 24, 3
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def random(*shape: int, seed: int) -> Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=made, dtype=torch.float64)


def state(seed: int = 0, spread: float = 1.0) -> SiteState:
    """A matrix and preserved keys whose energies span a few orders of magnitude."""
    axes = torch.linalg.qr(random(D_IN, D_IN, seed=seed))[0]
    energies = torch.logspace(-3 * spread, spread, D_IN, dtype=torch.float64)
    moment = (axes * energies) @ axes.T
    weight = random(D_OUT, D_IN, seed=seed + 1).float()
    site = Site(0, "m", "m.weight", "linear", D_IN, D_OUT, False)
    empty = weight.new_zeros(0, 1, D_IN), weight.new_zeros(0, 1, D_OUT)
    return SiteState(site, weight, weight, Statistics(moment.float(), 100), *empty)


def request(seed: int = 5, count: int = FACTS) -> tuple[Tensor, Tensor]:
    """Keys (u, d_in) and residuals (u, d_out)."""
    return random(count, D_IN, seed=seed), random(count, D_OUT, seed=seed + 1)


def delta(factor: Additive) -> Tensor:
    return factor.l @ factor.f


def nothing() -> Tensor:
    return torch.zeros(D_IN, 0, dtype=torch.float64)


@given(lam=st.floats(0.1, 1e5), seed=st.integers(0, 50))
def test_memit_is_its_definition(lam: float, seed: int) -> None:
    start = state(seed)
    keys, residual = request(seed)
    solver = memit.solver(memit.Options(lam=lam))(start)
    moment = start.statistics.moment.double()
    expected = literal.memit(moment, keys.T, residual.T, lam, nothing())
    torch.testing.assert_close(delta(solver.factor(keys, residual)), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("batches", [2, 9])
def test_memit_with_history_counts_the_keys_of_earlier_batches(batches: int) -> None:
    # Nine batches of three are more keys than d_in / 4, so the decomposition is renewed.
    start = state()
    solver = memit.solver(memit.Options(lam=10.0, history=True))(start)
    earlier = []
    for batch in range(batches):
        keys, _ = request(10 * batch)
        solver = solver.after(keys)
        earlier.append(keys.T)
    keys, residual = request(777)
    moment = start.statistics.moment.double()
    expected = literal.memit(moment, keys.T, residual.T, 10.0, torch.cat(earlier, dim=1))
    torch.testing.assert_close(delta(solver.factor(keys, residual)), expected, rtol=1e-6, atol=1e-8)
    alone = memit.solver(memit.Options(lam=10.0))(start)
    assert alone.after(keys) is alone


@given(lam=st.floats(0.1, 1e4), mu=st.floats(0.01, 10), seed=st.integers(0, 50))
def test_emmet_is_its_definition_and_memit_with_another_weight(
    lam: float, mu: float, seed: int
) -> None:
    start = state(seed)
    keys, residual = request(seed)
    found = delta(emmet.solver(emmet.Options(lam=lam, mu=mu))(start).factor(keys, residual))
    expected = literal.emmet(start.statistics.moment.double(), keys.T, residual.T, lam, mu)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    other = memit.solver(memit.Options(lam=lam * mu))(start).factor(keys, residual)
    torch.testing.assert_close(found, delta(other), rtol=1e-6, atol=1e-8)


def test_emmet_without_a_ridge_meets_every_value() -> None:
    keys, residual = request()
    factor = emmet.solver(emmet.Options(mu=0.0))(state()).factor(keys, residual)
    torch.testing.assert_close(delta(factor) @ keys.T, residual.T, rtol=1e-6, atol=1e-6)
    twice = torch.cat([keys, keys[:1]])
    with pytest.raises(SolveError, match="depend on each other"):
        emmet.solver(emmet.Options(mu=0.0))(state()).factor(
            twice, torch.cat([residual, residual[:1]])
        )


@pytest.mark.parametrize("published", [False, True])
def test_alphaedit_in_coordinates_is_the_large_form(published: bool) -> None:
    start = state()
    options = alphaedit.Options(threshold=0.2, l2=0.05, published_scales=published)
    energy, total = start.statistics.energy, float(start.statistics.moment.double().trace())
    threshold = 0.2 if published else 0.2 * energy
    l2 = 0.05 if published else 0.05 * total
    solver = alphaedit.solver(options)(start)
    earlier = nothing()
    moment = start.statistics.moment.double()
    for batch in range(4):
        keys, residual = request(20 + batch)
        expected = literal.alphaedit(moment, keys.T, residual.T, threshold, l2, earlier)
        torch.testing.assert_close(delta(solver.factor(keys, residual)), expected, **CLOSE)
        solver = solver.after(keys)
        earlier = torch.cat([earlier, keys.T], dim=1)


def test_alphaedit_leaves_preserved_keys_exactly_alone() -> None:
    start = state()
    keys, residual = request()
    factor = alphaedit.solver(alphaedit.Options(threshold=0.2))(start).factor(keys, residual)
    values, vectors = torch.linalg.eigh(start.statistics.moment.double())
    occupied = vectors[:, values >= 0.2 * start.statistics.energy]
    assert 0 < occupied.shape[1] < D_IN
    assert float((delta(factor) @ occupied).abs().max()) < 1e-13
    assert float((delta(factor) @ keys.T).norm()) > 0.01
    with pytest.raises(SolveError, match="the threshold is 1e-09"):
        alphaedit.solver(alphaedit.Options(threshold=1e-9))(start)


@pytest.mark.parametrize("moment", [False, True])
def test_rome_meets_its_value_at_the_key_it_is_told(moment: bool) -> None:
    start = state()
    metric = Metric.of(start.statistics.moment) if moment else None
    mean, bare = request(count=2)[0]
    change = random(D_OUT, seed=9)
    exact = rome.rank_one(metric, mean, mean, change)
    torch.testing.assert_close(delta(exact) @ mean, change, **CLOSE)
    mixed = rome.rank_one(metric, mean, bare, change)
    torch.testing.assert_close(delta(mixed) @ bare, change, **CLOSE)
    assert float((delta(mixed) @ mean - change).norm()) > 0.01
    if moment:
        inverse = torch.linalg.inv(start.statistics.moment.double())
        expected = torch.outer(change, inverse @ mean) / (mean @ inverse @ mean)
        torch.testing.assert_close(delta(exact), expected, rtol=1e-6, atol=1e-8)


def test_rome_refuses_a_key_that_nothing_reads() -> None:
    one, two = torch.eye(D_IN, dtype=torch.float64)[:2]
    with pytest.raises(SolveError, match="orthogonal"):
        rome.rank_one(None, one, two, random(D_OUT, seed=1))


@given(keep=st.floats(0.01, 1.0), seed=st.integers(0, 50))
def test_rect_keeps_the_largest_relative_changes(keep: float, seed: int) -> None:
    change, weight = random(D_OUT, D_IN, seed=seed), random(D_OUT, D_IN, seed=seed + 1)
    expected = literal.rect(change, weight, keep)
    torch.testing.assert_close(rect.largest(change, weight, keep), expected, rtol=0, atol=0)


def test_rect_as_released_keeps_what_stands_on_minus_epsilon() -> None:
    change, weight = torch.ones(1, 4), torch.tensor([[-1e-8, 0.1, 0.2, 0.3]])
    change[0, 0] = 1e-6
    kept = [
        rect.largest(change.double(), weight.double(), 0.25, signed) for signed in (False, True)
    ]
    assert kept[0].nonzero().tolist() == [[0, 0]]  # 1e-6 / 2e-8 is the largest in both
    assert kept[1].nonzero().tolist() == [[0, 0]]
    change[0, 0] = 1e-9
    kept = [
        rect.largest(change.double(), weight.double(), 0.25, signed) for signed in (False, True)
    ]
    assert kept[0].nonzero().tolist() == [[0, 1]]
    assert kept[1].nonzero().tolist() == [[0, 0]]


@given(base=st.sampled_from([1.2, 1.5, 2.0, math.e]), size=st.floats(0.1, 30))
def test_prune_restrains_the_whole_update_once(base: float, size: float) -> None:
    start = state()
    parts = [
        Additive(size * random(D_OUT, 2, seed=seed), random(2, D_IN, seed=seed + 1))
        for seed in (1, 3, 5)
    ]
    done = prune.finish({0: start.changed(*parts)}, prune.Options(base=base))[0]
    whole = sum((delta(part) for part in parts), torch.zeros(D_OUT, D_IN, dtype=torch.float64))
    expected = literal.prune(start.base.double(), whole, base)
    found = dense(start.base.double(), done.factors, "linear") - start.base.double()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)
    doubled = prune.finish({0: start.changed(*parts)}, prune.Options(base=base, doubled=True))[0]
    found = dense(start.base.double(), doubled.factors, "linear") - start.base.double()
    torch.testing.assert_close(found, whole + expected, rtol=1e-8, atol=1e-8)


def test_prune_leaves_earlier_patches_alone_and_counts_them_as_the_base() -> None:
    carried = Additive(40 * random(D_OUT, 1, seed=1), random(1, D_IN, seed=2))
    part = Additive(9 * random(D_OUT, 1, seed=3), random(1, D_IN, seed=4))
    start = state().carrying([carried])
    done = prune.finish({0: start.changed(part)}, prune.Options())[0]
    assert done.carried == (carried,)
    expected = literal.prune(start.base.double() + delta(carried), delta(part), math.e)
    torch.testing.assert_close(delta(done.factors[0]), expected, **CLOSE)  # type: ignore[arg-type]


@given(seed=st.integers(0, 50), energy=st.floats(0.05, 0.95), exponent=st.sampled_from([1.0, 2.0]))
@settings(max_examples=25)
def test_the_spectrum_is_protected_as_revive_defines_it(
    seed: int, energy: float, exponent: float
) -> None:
    start = state(seed)
    thresholds = Protection(energy=energy, exponent=exponent)
    guard = Guard.of(start.base, start.statistics, ["spectrum"], thresholds)
    factor = Additive(random(D_OUT, 3, seed=seed), random(3, D_IN, seed=seed + 9))
    expected = literal.revive(start.base.double(), delta(factor), energy, exponent)
    left, right = guard.additive(factor.l, factor.f)
    torch.testing.assert_close(left @ right, expected, **CLOSE)
    torch.testing.assert_close(guard.dense(delta(factor)), expected, **CLOSE)


def test_dropping_the_null_space_leaves_the_rows_of_the_matrix_alone() -> None:
    start = state()
    thresholds = Protection(energy=0.3, null="drop")
    guard = Guard.of(start.base, start.statistics, ["spectrum"], thresholds)
    change = guard.dense(random(D_OUT, D_IN, seed=3))
    null = torch.linalg.svd(start.base.double())[2][D_OUT:].T
    assert float((change @ null).abs().max()) < 1e-12
    assert float(change.norm()) > 0.1


def test_two_protections_hold_together() -> None:
    start = state()
    asked = ["nullspace", "spectrum"]
    guard = Guard.of(start.base, start.statistics, asked, Protection(nullspace=0.5, energy=0.5))
    change = guard.dense(random(D_OUT, D_IN, seed=3))
    values, vectors = torch.linalg.eigh(start.statistics.moment.double())
    occupied = vectors[:, values >= 0.5 * start.statistics.energy]
    left, sizes, right = torch.linalg.svd(start.base.double(), full_matrices=False)
    assert float((change @ occupied).abs().max()) < 1e-12
    assert float((change @ right[0]).abs().max()) < 1e-12
    assert float((left[:, 0] @ change).abs().max()) < 1e-12
    assert sizes[0] > 0
    assert float(change.norm()) > 0.01


def test_one_condition_on_a_basis_protects_both_sides_of_the_spectrum() -> None:
    start = state()
    guard = Guard.of(start.base, start.statistics, ["spectrum"], Protection(energy=0.5))
    basis = torch.linalg.qr(guard.inputs(random(D_IN, 6, seed=2)))[0]
    turn = torch.linalg.matrix_exp(
        basis @ (skew := random(6, 6, seed=4) - random(6, 6, seed=4).T) @ basis.T
    )
    change = start.base.double() @ turn - start.base.double()
    left, sizes, right = torch.linalg.svd(start.base.double(), full_matrices=False)
    assert float(skew.abs().max()) > 0.1
    assert sizes[0] > 0
    assert float((change @ right[0]).abs().max()) < 1e-5  # the base is fp32
    assert float((left[:, 0] @ change).abs().max()) < 1e-5
    assert float(change.norm()) > 0.1


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=6), seed=st.integers(0, 30))
def test_sums_of_low_rank_become_one_of_the_least_rank(counts: list[int], seed: int) -> None:
    parts = [
        Additive(random(D_OUT, n, seed=seed + n), random(n, D_IN, seed=seed + n + 1))
        for n in counts
    ]
    whole = sum((delta(part) for part in parts), torch.zeros(D_OUT, D_IN, dtype=torch.float64))
    one = low_rank_sum([*parts, parts[0].inverse(), parts[0]])
    torch.testing.assert_close(delta(one), whole, rtol=1e-8, atol=1e-8)
    assert one.rank == int(torch.linalg.matrix_rank(whole)) <= D_OUT


def test_dense_sums_become_one() -> None:
    parts = [AdditiveDense(random(D_OUT, D_IN, seed=seed)) for seed in range(3)]
    (one,) = merged(parts, torch.zeros(D_OUT, D_IN))
    assert isinstance(one, AdditiveDense)
    torch.testing.assert_close(one.d, parts[0].d + parts[1].d + parts[2].d, **CLOSE)


def test_a_moment_of_too_few_keys_is_raised_until_it_can_be_solved_with() -> None:
    few = random(D_IN, 5, seed=1)
    metric = Metric.of((few @ few.T).float())
    found = metric.solve(few)
    assert bool(torch.isfinite(found).all())
    with pytest.raises(SolveError, match="not positive definite"):
        Metric.of(-torch.eye(D_IN))


def test_keys_of_carried_patches_count_from_the_first_batch_on() -> None:
    keys = random(2, 1, D_IN, seed=3).float()
    start = state().remember(keys)
    solver = memit.solver(memit.Options(lam=1.0, history=True))(start)
    fresh = memit.solver(memit.Options(lam=1.0, history=True))(state())
    expected = fresh.after(keys[:, 0])
    mine, residual = request()
    torch.testing.assert_close(
        delta(solver.factor(mine, residual)), delta(expected.factor(mine, residual)), **CLOSE
    )


def test_protecting_the_history_makes_a_method_remember() -> None:
    guarded = replace(state(), guard=Guard(history=True))
    assert memit.solver(memit.Options())(guarded).remembers
    assert emmet.solver(emmet.Options())(guarded).remembers
    assert not emmet.solver(emmet.Options())(state()).remembers
    assert isinstance(memit.solver(memit.Options())(guarded), Ridge)
