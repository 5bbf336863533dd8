"""Several layers that write one value together, on real activations."""

import pytest
import torch

from patchkit.editing.additive import write
from patchkit.editing.batch import Batch
from patchkit.editing.methods import emmet, rect
from patchkit.editing.place import Place
from patchkit.editing.state import SiteState, borrowed
from patchkit.editing.statistics import Statistics
from patchkit.editing.targets import groups_of, optimise
from patchkit.factors.additive import AdditiveDense
from patchkit.tensors.layout import sites
from tests.unit.editing.samples import FACTS
from tests.unit.models.factory import tiny, tiny_tokenizer

OPTIONS = emmet.Options(steps=4, rate=0.3, mu=0.0)


@pytest.mark.parametrize(
    ("architecture", "layers"), [("llama3", (1,)), ("llama3", (0, 1, 2)), ("gemma3", (1,))]
)
def test_the_last_layer_brings_the_value_that_was_wanted(
    architecture: str, layers: tuple[int, ...]
) -> None:
    model, tokenizer = tiny(architecture), tiny_tokenizer()
    found = [sites(model)[layer] for layer in layers]
    batch = Batch.of(tokenizer, FACTS, ("",), model.device)
    place = Place.behind(model, found)
    before = place.values(batch.contexts[0])
    wanted = optimise(batch, groups_of(batch, OPTIONS), place, OPTIONS, lambda step, of: None)
    even = Statistics(torch.eye(found[0].d_in), 100)
    states = {site.layer: SiteState.of(model, site, even) for site in found}
    with borrowed(model, found):
        made = write(model, states, batch, OPTIONS, emmet.solver(OPTIONS), lambda step, of: None)
        after = place.values(batch.contexts[0])
    assert float((wanted - before).norm()) > 0.1
    torch.testing.assert_close(after, wanted, rtol=1e-3, atol=1e-3)
    moved = [float((state.weight - state.base).norm()) for state in made.values()]
    assert all(size > 0 for size in moved)
    assert all(len(state.keys) == len(FACTS) for state in made.values())


def test_a_sifted_update_changes_its_share_of_the_entries() -> None:
    model, tokenizer = tiny("llama3"), tiny_tokenizer()
    (site,) = sites(model)[1:2]
    batch = Batch.of(tokenizer, FACTS, ("",), model.device)
    state = SiteState.of(model, site, Statistics(torch.eye(site.d_in), 100))
    options = rect.Options(keep=0.25, host_options={"steps": 3, "rate": 0.3, "lam": 1.0})
    with borrowed(model, [site]):
        made = rect.solve(model, {1: state}, batch, options, lambda step, of: None)[1]
    (factor,) = made.factors
    assert isinstance(factor, AdditiveDense)
    share = float((factor.d != 0).double().mean())
    assert share == pytest.approx(0.25, abs=0.001)
