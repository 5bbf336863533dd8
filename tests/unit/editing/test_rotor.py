"""The variable of an edit against dense definitions."""

import pytest
import torch
from torch import Tensor, nn

from patchkit.editing.confinement import Confinement, directions
from patchkit.editing.methods.rotation import Options, _Drift, _factor, _rotor
from patchkit.editing.rotor import Rotor
from patchkit.editing.state import SiteState
from patchkit.editing.statistics import Statistics
from patchkit.factors.action import dense
from patchkit.tensors.layout import Site

D_OUT, D_IN = 8, 24


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rotor(scale: float) -> Rotor:
    basis = torch.linalg.qr(random(D_IN, 10, seed=1))[0]
    made = Rotor(random(D_OUT, D_IN), basis, 4)
    made.landing.data = scale * random(6, 4, seed=2)
    return made


def state(weight: Tensor) -> SiteState:
    spread = random(D_IN, D_IN, seed=3)
    site = Site(0, "m", "m.weight", "linear", D_IN, D_OUT, False)
    statistics = Statistics(spread @ spread.T / D_IN, 100)
    empty = weight.new_zeros(0, 1, D_IN), weight.new_zeros(0, 1, D_OUT)
    return SiteState(site, weight, weight, statistics, *empty)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.3, 3.0])
def test_the_hook_acts_as_the_stored_rotation(scale: float) -> None:
    made = rotor(scale)
    module = nn.Linear(D_IN, D_OUT)
    module.weight.data = random(D_OUT, D_IN)
    keys = random(2, 5, D_IN, seed=4)
    with made.turn().acting(module):
        found = module(keys)
    turned = dense(module.weight.detach(), [_factor(made)], "linear").float()
    torch.testing.assert_close(found, keys @ turned.T + module.bias, rtol=2e-4, atol=2e-4)
    torch.testing.assert_close(module(keys), keys @ module.weight.T + module.bias)


@pytest.mark.parametrize("flat", [False, True])
def test_the_hook_turns_only_the_first_token_of_each_row_if_asked(flat: bool) -> None:
    made = rotor(0.3)
    module = nn.Linear(D_IN, D_OUT)
    inside: list[nn.Module] = [nn.Flatten(0, 1), module] if flat else [module]
    rows, keys = nn.Sequential(*inside), random(2, 5, D_IN, seed=4)
    plain = module(keys)
    with made.turn().acting(module):
        everywhere = module(keys)
    with made.turn().acting(module, rows):
        found = rows(keys).reshape(plain.shape)
    torch.testing.assert_close(found[:, 0], everywhere[:, 0])
    torch.testing.assert_close(found[:, 1:], plain[:, 1:], rtol=0, atol=0)
    assert float((found[:, 0] - plain[:, 0]).detach().norm()) > 0.1


def test_nothing_turns_at_first_and_yet_there_is_a_slope() -> None:
    made = rotor(0.0)
    turn = made.turn()
    assert torch.equal(turn.write @ turn.read.T @ torch.zeros(10), torch.zeros(D_OUT))
    change = turn.write @ turn.read.T
    torch.testing.assert_close(change, torch.zeros(D_OUT, 10))
    change.sum().backward()
    assert made.landing.grad is not None
    assert float(made.landing.grad.abs().max()) > 0.01


def test_preserved_drift_is_the_dense_expectation() -> None:
    made = rotor(0.5)
    start = state(random(D_OUT, D_IN))
    moved = start.changed(_factor(rotor(0.2)))
    drift = _Drift.of(made_on(moved.weight, made), moved)
    turn = made_on(moved.weight, made).turn()
    final = moved.weight + (turn.write @ turn.read.T @ made.basis.T).detach()
    moment = moved.statistics.moment

    def energy(matrix: Tensor) -> float:
        return float((matrix @ moment * matrix).sum())

    constant = energy(moved.weight - start.base) / energy(start.base)
    expected = energy(final - start.base) / energy(start.base)
    assert float(drift.preserved(turn).detach()) + constant == pytest.approx(expected, rel=1e-4)


def test_forgetting_is_measured_against_what_was_written() -> None:
    start = state(random(D_OUT, D_IN)).remember(random(3, 2, D_IN, seed=5))
    moved = start.changed(_factor(rotor(0.2)))
    drift = _Drift.of(made_on(moved.weight, rotor(0.0)), moved)
    turn = made_on(moved.weight, rotor(0.0)).turn()
    drift_of = (start.keys @ (moved.weight - start.weight).T).square().sum(-1)  # (3, 2)
    expected = drift_of.mean(1).sum() / start.values.square().sum(-1).mean()
    assert float(drift.forgotten(turn).detach()) == pytest.approx(float(expected), rel=1e-4)


def made_on(weight: Tensor, like: Rotor) -> Rotor:
    made = Rotor(weight, like.basis, like.reading)
    made.landing.data = like.landing.data
    return made


def test_the_free_direction_is_the_dense_solution() -> None:
    start = state(random(D_OUT, D_IN))
    room = Confinement.of(start, softness=0.5)
    moment = start.statistics.moment.double()
    dense_h = moment + 0.5 * float(moment.diagonal().mean()) * torch.eye(D_IN)
    keys = random(4, D_IN, seed=6)
    expected = torch.linalg.solve(dense_h, keys.T.double()).float()
    torch.testing.assert_close(room.free(keys.T), expected, rtol=1e-3, atol=1e-4)
    share = room.share(keys)
    assert bool(((share > 0) & (share < 1)).all())


def test_equal_keys_share_one_direction() -> None:
    columns = random(D_IN, 3, seed=7)
    doubled = torch.cat([columns, 5 * columns[:, :1]], dim=1)
    basis = directions(doubled)
    assert basis.shape == (D_IN, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strong", [False, True])
def test_landing_where_the_matrix_is_strongest_is_offered_if_asked(strong: bool) -> None:
    start = state(random(3, D_IN))
    made = _rotor(start, random(2, D_IN, seed=8), Options(strong=strong))
    assert made.basis.shape == (D_IN, 2 + 3 * (1 + strong))
    outside = start.weight.T - made.basis @ (made.basis.T @ start.weight.T)
    assert (float(outside.norm()) < 1e-4 * float(start.weight.norm())) is strong


def test_no_landing_column_reads() -> None:
    start = state(random(D_OUT, D_IN))
    made = _rotor(start, random(4, D_IN, seed=8), Options())
    made.landing.data.normal_(generator=torch.Generator().manual_seed(9))
    x, p = made.generator()
    torch.testing.assert_close(x.T @ p, torch.zeros(4, 4).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(p.T @ p, torch.eye(4).double(), rtol=0, atol=1e-5)
