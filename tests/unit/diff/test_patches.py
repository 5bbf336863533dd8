"""Two patches beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings

from patchkit.diff import diff_patches
from patchkit.factors.action import Factor
from patchkit.factors.additive import Additive, AdditiveDense
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.distance import commutator_norm, geodesic_distance, principal_angles
from patchkit.factors.rotation import Rotation
from patchkit.facts.fact import Fact, Probe
from patchkit.facts.jsonl import to_jsonl
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from tests.laws.strategies import D_IN, D_OUT, rotations

ZERO = "sha256:" + "0" * 64
ONE = "sha256:" + "1" * 64
FRANCE = Fact("France", "The capital of {} is", "Rome")
ITALY = Fact("Italy", "The capital of {} is", "Paris")


def made(
    factors: Mapping[str, Sequence[Factor]],
    facts: Sequence[Fact] = (),
    *,
    base: BaseMeta | None = None,
    weights: str = ZERO,
    embed_facts: bool = True,
    shape: tuple[int, int] = (D_OUT, D_IN),
) -> Patch:
    drafts = {n: TensorDraft(shape, "BF16", "linear", weights, f) for n, f in factors.items()}
    text = to_jsonl(facts) or None
    return build_patch(base or BaseMeta(), drafts, text, {}, "test", {}, embed_facts=embed_facts)


def plane(angle: float, first: int = 0, second: int = 1) -> Rotation:
    eye = torch.eye(D_IN)
    return Rotation("input", angle * eye[:, first : first + 1], eye[:, second : second + 1])


@settings(max_examples=25)
@given(rotations(sides=("input",), most=3.0), rotations(sides=("input",), most=3.0))
def test_figures_are_those_of_the_stored_rotations(one: Rotation, two: Rotation) -> None:
    a, b = made({"w": [one]}), made({"w": [two]})
    (tensor,) = diff_patches(a, b).tensors
    (side,) = tensor.sides
    stored = [[f for f in patch.factors["w"] if isinstance(f, Rotation)] for patch in (a, b)]
    assert side.planes == (one.rank, two.rank)
    assert side.max_angle == pytest.approx([f[0].norm() for f in stored], abs=1e-7)
    assert side.geodesic == geodesic_distance(*stored)
    assert side.principal == principal_angles(*stored)
    assert side.commutator == commutator_norm(*stored)
    assert tensor.status == ("same" if a.to_bytes() == b.to_bytes() else "modified")


def test_a_patch_is_the_same_as_itself() -> None:
    a = made({"w": [plane(0.5)], "v": [plane(0.1)]}, [FRANCE])
    found = diff_patches(a, Patch.read(a.to_bytes()))
    assert found.equal
    assert found.digests == (a.digest, a.digest)
    assert [(tensor.status, tensor.sides[0].geodesic) for tensor in found.tensors] == [
        ("same", pytest.approx(0, abs=1e-12)),
        ("same", pytest.approx(0, abs=1e-12)),
    ]


def test_tensors_that_only_one_edits() -> None:
    found = diff_patches(made({"a": [plane(0.5)]}), made({"b": [plane(0.7)]}))
    assert [(t.name, t.status) for t in found.tensors] == [("a", "removed"), ("b", "added")]
    removed, added = (tensor.sides[0] for tensor in found.tensors)
    assert (removed.planes, added.planes) == ((1, 0), (0, 1))
    assert removed.max_angle == pytest.approx((0.5, 0.0))
    assert added.geodesic == pytest.approx(math.sqrt(2) * 0.7)
    assert added.principal == ()
    assert not found.equal


def test_each_side_stands_alone() -> None:
    eye = torch.eye(D_OUT)
    output = Rotation("output", 0.3 * eye[:, :1], eye[:, 1:2])
    found = diff_patches(made({"w": [plane(0.5), output]}), made({"w": [output]}))
    sides = {side.side: side for side in found.tensors[0].sides}
    assert sides["input"].planes == (1, 0)
    assert sides["output"].geodesic == pytest.approx(0, abs=1e-12)


def test_facts_are_compared_by_subject_and_prompt() -> None:
    other = replace(FRANCE, target="Berlin")
    probed = replace(ITALY, neighbors=(Probe("The capital of Spain is", "Madrid"),))
    peru = Fact("Peru", "The capital of {} is", "Lima")
    a, b = made({"w": [plane(1)]}, [FRANCE, ITALY]), made({"w": [plane(1)]}, [other, probed, peru])
    facts = diff_patches(a, b).facts
    assert [fact.subject for fact in facts.added] == ["Peru"]
    assert facts.removed == ()
    assert [(x.target, y.target) for x, y in facts.changed] == [("Rome", "Berlin")]
    assert (facts.other_details, facts.same, facts.compared) == (1, False, True)
    assert [fact.subject for fact in diff_patches(b, a).facts.removed] == ["Peru"]


def test_facts_without_text_are_the_same_by_their_digest() -> None:
    a = made({"w": [plane(1)]}, [FRANCE])
    for facts, same in (([FRANCE], True), ([ITALY], False)):
        b = made({"w": [plane(1)]}, facts, embed_facts=False)
        found = diff_patches(a, b)
        assert (found.facts.compared, found.facts.same) == (False, same)
        assert found.equal == same


def test_other_bases_are_said() -> None:
    one = made({"w": [plane(1)]}, base=BaseMeta("org/a", None, ZERO))
    two = made({"w": [plane(1)]}, base=BaseMeta("org/b", "main", ZERO))
    assert diff_patches(one, two).bases == ("repo",)
    weights = diff_patches(made({"w": [plane(1)]}), made({"w": [plane(1)]}, weights=ONE))
    assert (weights.bases, weights.same_base, weights.equal) == ((), False, False)
    unknown = diff_patches(one, made({"w": [plane(1)]}))
    assert unknown.same_base


def test_sums_have_a_rank_and_a_distance() -> None:
    generator = torch.Generator().manual_seed(0)
    l, f = torch.randn(D_OUT, 2, generator=generator), torch.randn(2, D_IN, generator=generator)  # noqa: E741
    a, b = made({"w": [Additive(l, f)]}), made({"w": [Additive(2 * l, f), plane(0.2)]})
    (tensor,) = diff_patches(a, b).tensors
    assert tensor.sums == (2, 2)
    assert tensor.sums_distance == pytest.approx(float((l @ f).norm()), rel=1e-6)
    dense = diff_patches(a, made({"w": [AdditiveDense(torch.ones(D_OUT, D_IN))]})).tensors[0]
    assert (dense.sums, dense.sums_distance) == ((2, D_OUT), None)


def test_what_is_too_dear_is_left_out() -> None:
    size = 8192
    low = Rotation("input", torch.eye(size, 1), torch.eye(size)[:, 1:2])
    blocks = RotationBlocks("input", torch.full((size // 2, 1), 0.1))
    a, b = made({"w": [low]}, shape=(2, size)), made({"w": [blocks]}, shape=(2, size))
    side = diff_patches(a, b).tensors[0].sides[0]
    assert (side.geodesic, side.principal, side.commutator) == (None, None, None)
    assert side.planes == (1, size // 2)
