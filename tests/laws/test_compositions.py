"""Patches are an algebra: products, inverses and strengths obey their laws in whole files."""

from __future__ import annotations

from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.compose import Part, compose
from patchkit.factors import Layout
from patchkit.factors.action import dense
from patchkit.factors.distance import spectral_distance
from patchkit.factors.kinds import Factor, Turn
from patchkit.facts.fact import Fact
from patchkit.facts.reading import to_jsonl
from patchkit.patch.drafts import Storage, TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from tests.laws.strategies import D_IN, D_OUT, factor_lists, normal, rotations
from tests.unit.patch.samples import ZERO

LAYOUTS: dict[str, Layout] = {"a.weight": "linear", "b.weight": "conv1d"}
ULP = {"BF16": 2.0**-8, "F32": 2.0**-23}


def rotation_lists(most: int = 3) -> st.SearchStrategy[list[Factor]]:
    return st.lists(rotations(), min_size=1, max_size=most)


@st.composite
def patches(
    draw: st.DrawFn,
    factors: st.SearchStrategy[list[Factor]] | None = None,
    storage: Storage | None = None,
) -> Patch:
    """A patch of up to two tensors in two layouts, with facts that may contradict others'."""
    drafts = {
        name: TensorDraft(
            (D_OUT, D_IN) if LAYOUTS[name] == "linear" else (D_IN, D_OUT),
            "F32", LAYOUTS[name], ZERO, draw(factor_lists() if factors is None else factors),
        )
        for name in draw(st.sets(st.sampled_from(sorted(LAYOUTS)), min_size=1))
    }  # fmt: skip
    subjects = draw(st.lists(st.sampled_from("ABCD"), max_size=3, unique=True))
    facts = [Fact(each, "{} is in", draw(st.sampled_from(["X", "Y"]))) for each in subjects]
    recipe = draw(st.sampled_from([{}, {"steps": 3}]))
    after = draw(st.sampled_from([(), (ZERO,)]))
    base = BaseMeta(draw(st.sampled_from([None, "atlas"])))
    kind = storage or draw(st.sampled_from(["float32", "bfloat16"]))
    return build_patch(base, drafts, to_jsonl(facts), recipe, "law", {}, after, storage=kind)


def product(*parts: Patch | Part) -> Patch:
    return compose(parts, allow_other_base=True).patch


def turns(patch: Patch, name: str, side: str) -> list[Turn]:
    listed = patch.factors.get(name, ())
    return [factor for factor in listed if isinstance(factor, Turn) and factor.side == side]


def gap(one: Patch, two: Patch) -> float:
    """The largest spectral distance of the rotations of any tensor and side."""
    return max(
        spectral_distance(turns(one, name, side), turns(two, name, side))
        for name in LAYOUTS
        for side in ("input", "output")
    )


@given(patches(), patches(), patches())
def test_products_are_associative_in_bytes(a: Patch, b: Patch, c: Patch) -> None:
    whole = product(a, b, c).to_bytes()
    assert product(product(a, b), c).to_bytes() == whole
    assert product(a, product(b, c)).to_bytes() == whole
    assert Patch.read(whole).to_bytes() == whole


@given(patches())
def test_one_patch_alone_keeps_its_bytes(a: Patch) -> None:
    assert compose([a]).patch.to_bytes() == a.to_bytes()
    assert compose([a], method="karcher").patch.to_bytes() == a.to_bytes()


@settings(max_examples=25)
@given(patches(rotation_lists()))
def test_a_patch_and_its_inverse_are_the_identity(a: Patch) -> None:
    back = product(Part(a, inverted=True))
    both = product(a, back)
    nothing = product(Part(a, strength=0.0))
    assert gap(both, nothing) <= 1e-6
    assert gap(compose([a, back], compress=1e-6, allow_other_base=True).patch, nothing) <= 1e-6
    assert [leaf.inverted for leaf in both.metadata.leaves] == [False, True]


@given(patches(), patches())
def test_the_inverse_of_a_product_is_the_product_of_inverses_backwards(a: Patch, b: Patch) -> None:
    whole = product(Part(product(a, b), inverted=True))
    apart = product(Part(b, inverted=True), Part(a, inverted=True))
    assert whole.metadata.leaves == apart.metadata.leaves
    assert whole.metadata.tensors == apart.metadata.tensors


@settings(max_examples=25)
@given(
    patches(st.lists(rotations(most=3.0), min_size=1, max_size=1), "float32"),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
def test_strengths_of_one_factor_add(a: Patch, alpha: float, beta: float) -> None:
    parts = [Part(a, strength=alpha), Part(a, strength=beta)]
    assert gap(product(*parts), product(Part(a, strength=alpha + beta))) <= 1e-5


@settings(max_examples=25)
@given(patches(rotation_lists(), "float32"), st.floats(-0.9, 0.9), st.floats(-0.9, 0.9))
def test_strengths_of_several_factors_add_once_they_are_compressed(
    a: Patch, alpha: float, beta: float
) -> None:
    one = compose([a], compress=1e-9, allow_other_base=True).patch
    parts = [Part(one, strength=alpha), Part(one, strength=beta)]
    assert gap(product(*parts), product(Part(one, strength=alpha + beta))) <= 1e-5


@settings(max_examples=25)
@given(st.lists(patches(rotation_lists()), min_size=1, max_size=4), st.sampled_from([1e-6, 0.1]))
def test_compression_keeps_the_bound_it_states(given: list[Patch], tolerance: float) -> None:
    made = compose(given, compress=tolerance, allow_other_base=True)
    assert gap(made.patch, product(*given)) <= made.report.bound
    assert made.patch.metadata.recipe["compressed"] == [
        {"tolerance": tolerance, "bound": made.report.bound}
    ]
    listed = chain.from_iterable(made.patch.factors.values())
    assert all(factor.kind in ("rotation", "rotation-blocks") for factor in listed)


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@settings(max_examples=25)
@given(a=patches(), b=patches(), seed=st.integers(0, 1000))
def test_applying_a_product_is_applying_one_after_another(
    a: Patch, b: Patch, seed: int, dtype: str
) -> None:
    both = product(a, b)
    w = normal(torch.Generator().manual_seed(seed), D_OUT, D_IN)
    for name, layout in LAYOUTS.items():
        stored = w if layout == "linear" else w.T.contiguous()
        once = dense(stored, both.factors.get(name, ()), layout)
        between = dense(stored, a.factors.get(name, ()), layout)
        apart = dense(between, b.factors.get(name, ()), layout)
        scale = float(between.norm() + apart.norm())
        assert float((once - apart).abs().max()) <= 1e-12 * scale
        kind = torch.bfloat16 if dtype == "BF16" else torch.float32
        rounded = dense(between.to(kind), b.factors.get(name, ()), layout)
        assert float((once - rounded).norm()) <= ULP[dtype] * scale
