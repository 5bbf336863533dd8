"""What composing refuses, and what it says of bases, facts, recipes and predecessors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from patchkit.compose import Part, compose
from patchkit.compose.facts import united
from patchkit.compose.revision import replaced, without
from patchkit.errors import BaseMismatch, FactsError, FormatError, InvariantError, SolveError
from patchkit.factors.additive import Additive
from patchkit.factors.blocks import RotationBlocks
from patchkit.factors.distance import spectral_distance
from patchkit.factors.kinds import Factor, Turn
from patchkit.factors.rotation import Rotation
from patchkit.facts.fact import Fact
from patchkit.facts.reading import parse_facts, to_jsonl
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.digests import bytes_digest

NAME = "w.weight"
SHAPE = (6, 8)


def turn(seed: int, side: Any = "input", angle: float = 0.5) -> Rotation:
    generator = torch.Generator().manual_seed(seed)
    size = SHAPE[1] if side == "input" else SHAPE[0]
    basis, _ = torch.linalg.qr(torch.randn(size, 2, generator=generator, dtype=torch.float64))
    return Rotation(side, angle * basis[:, :1], basis[:, 1:])


def patch(
    factors: Sequence[Factor] = (),
    *,
    weights: bytes = b"w",
    shape: tuple[int, int] = SHAPE,
    layout: Any = "linear",
    base: BaseMeta | None = None,
    facts: Sequence[Fact] = (),
    recipe: dict[str, object] | None = None,
    after: Sequence[str] = (),
    **options: Any,
) -> Patch:
    draft = TensorDraft(shape, "F32", layout, bytes_digest(weights), factors or [turn(0)])
    origin, text = base or BaseMeta(), to_jsonl(facts)
    return build_patch(origin, {NAME: draft}, text, recipe or {}, "test", {}, after, **options)


def fact(target: str, subject: str = "Rome", id: str = "") -> Fact:
    return Fact(subject, "{} is in", target, id=id)


def test_nothing_cannot_be_composed() -> None:
    with pytest.raises(ValueError, match="no patch"):
        compose([])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"weights": b"v"}, "different weights of w.weight"),
        ({"shape": (8, 8)}, "different weights of w.weight"),
        ({"layout": "conv1d", "shape": (8, 6)}, "different weights of w.weight"),
        ({"base": BaseMeta("org/b")}, "differ in their repo"),
        ({"base": BaseMeta("org/a", "beef")}, "differ in their revision"),
        ({"base": BaseMeta(None, None, bytes_digest(b"c"))}, "differ in their config"),
    ],
)
def test_other_bases_are_refused(other: dict[str, Any], words: str) -> None:
    one = patch(base=BaseMeta("org/a", "cafe", bytes_digest(b"b")))
    with pytest.raises(BaseMismatch, match=words) as raised:
        compose([one, patch(**other)])
    assert raised.value.details["expected"] != raised.value.details["found"]
    assert raised.value.hint is not None


def test_another_shape_is_refused_even_where_other_bases_are_allowed() -> None:
    with pytest.raises(BaseMismatch, match="different weights"):
        compose([patch(), patch(shape=(8, 8))], allow_other_base=True)
    kept = compose([patch(weights=b"a"), patch(weights=b"b")], allow_other_base=True).patch
    assert kept.metadata.tensors[NAME].base_sha256 == bytes_digest(b"a")


def test_what_one_part_knows_of_the_base_is_known_of_the_whole() -> None:
    made = compose([patch(), patch(base=BaseMeta("org/a")), patch(base=BaseMeta(None, "cafe"))])
    assert made.patch.metadata.base == BaseMeta("org/a", "cafe")


def test_predecessors_come_first_or_are_named() -> None:
    one = patch([turn(1)])
    two = patch([turn(2)], after=[one.digest])
    assert compose([one, two]).patch.metadata.after == ()
    for parts, words in (([two, one], "comes too late"), ([two, patch([turn(3)])], "is missing")):
        with pytest.raises(BaseMismatch, match=words):
            compose(parts)
    alone = compose([two, patch([turn(3)])], allow_other_base=True).patch
    assert alone.metadata.after == (one.digest,)
    assert compose([two]).patch is two


def test_a_product_finds_the_leaves_of_a_product() -> None:
    one, two = patch([turn(1)]), patch([turn(2)])
    late = patch([turn(3)], after=[one.digest, two.digest])
    inner = compose([one, Part(two, strength=0.5)]).patch
    made = compose([inner, Part(late, strength=0.5, inverted=True)]).patch
    assert [(leaf.digest, leaf.strength, leaf.inverted) for leaf in made.metadata.leaves] == [
        (one.digest, 1.0, False), (two.digest, 0.5, False), (late.digest, 0.5, True),
    ]  # fmt: skip
    whole = compose([Part(inner, strength=2.0, inverted=True)]).patch
    assert [(leaf.strength, leaf.inverted) for leaf in whole.metadata.leaves] == [
        (1.0, True), (2.0, True),
    ]  # fmt: skip


def test_the_later_fact_wins_and_the_conflict_is_reported() -> None:
    one = patch(facts=[fact("Italy"), fact("France", "Paris")])
    two = patch([turn(1)], facts=[fact("Spain")])
    made = compose([Part(one, "one"), Part(two, "two")])
    assert [each.target for each in parse_facts(made.patch.facts_jsonl or b"").facts] == [
        "France", "Spain",
    ]  # fmt: skip
    (conflict,) = made.report.conflicts
    assert (conflict.text, conflict.targets, conflict.names) == (
        "Rome is in", ("Italy", "Spain"), ("one", "two"),
    )  # fmt: skip
    with pytest.raises(FactsError, match="contradict each other in 1 fact") as raised:
        compose([one, two], on_conflict="error")
    assert '"Italy"' in raised.value.problems[0].message


def test_a_fact_that_is_repeated_is_no_conflict() -> None:
    made = compose([patch(facts=[fact("Italy")]), patch([turn(1)], facts=[fact("Italy")])])
    assert (made.report.facts, made.report.conflicts) == (1, ())


def test_ids_stay_unique_and_the_last_one_keeps_its_own() -> None:
    parts = [
        patch([turn(i)], facts=[fact("X", subject, "1")]) for i, subject in enumerate(("A", "B"))
    ]
    facts = united([Part(part) for part in parts]).facts
    assert [each.id for each in facts] == [facts[0].derived_id, "1"]


def test_what_has_no_text_is_named_and_what_is_undone_writes_nothing() -> None:
    bare = patch(facts=[fact("Italy")], embed_facts=False)
    made = compose([Part(bare, "bare"), Part(patch(facts=[fact("Spain")]), inverted=True)])
    assert made.report.silent == ("bare",)
    assert made.patch.metadata.facts is None


def test_a_shared_recipe_stays_and_others_do_not() -> None:
    same = [patch([turn(i)], recipe={"steps": 3}) for i in range(2)]
    assert compose(same).patch.metadata.recipe == {"steps": 3}
    assert compose([*same, patch(recipe={"steps": 4})]).patch.metadata.recipe == {}
    once = compose(same, compress=1e-6).patch
    twice = compose([once, patch([turn(5)], recipe={"steps": 3})], compress=1e-3).patch
    history = twice.metadata.recipe["compressed"]
    assert isinstance(history, list)
    assert [each["tolerance"] for each in history] == [1e-6, 1e-3]
    assert twice.metadata.recipe["steps"] == 3


def test_strengths_have_limits() -> None:
    with pytest.raises(InvariantError, match="nan"):
        Part(patch(), strength=float("nan"))
    with pytest.raises(InvariantError, match="beyond the limit"):
        compose([Part(patch([turn(0, angle=1.0)]), strength=100.0)])


@pytest.mark.parametrize("angle", [-1e-9, 4.0, float("nan")])
def test_an_angle_that_is_none_is_refused(angle: float) -> None:
    with pytest.raises(InvariantError, match="radians"):
        compose([patch()], compress=angle)


def test_a_scaled_factor_keeps_its_type() -> None:
    small = patch(storage="bfloat16")
    made = compose([Part(small, strength=0.5)]).patch
    (before,), (after,) = small.factors[NAME], made.factors[NAME]
    assert isinstance(before, Rotation)
    assert isinstance(after, Rotation)
    assert after.x.dtype == torch.bfloat16
    assert torch.equal(after.x, before.x / 2)


def test_too_many_factors_name_the_way_out() -> None:
    many = patch([turn(0)] * 1500)
    with pytest.raises(FormatError, match="6000 tensors and a patch file at most 4095") as raised:
        compose([many, many])
    assert "--compress" in (raised.value.hint or "")
    merged = compose([many, many], compress=1e-6).patch
    assert sum(map(len, merged.factors.values())) == 1


def test_order_matters_only_on_one_side_and_only_where_planes_meet() -> None:
    one, two = patch([turn(1)]), patch([turn(2)])
    met = compose([Part(one, "one"), Part(two, "two")]).report
    assert met.interaction is not None
    assert met.interaction.pair == ("one", "two")
    assert met.order_matters == ((met.interaction.commutator or 0.0) > 0.1)
    apart = compose([one, patch([turn(2, "output")])]).report
    assert apart.interaction is None
    assert not apart.order_matters
    assert compose([one, two], method="mean").report.interaction is None


def test_many_patches_are_compared_with_their_neighbours() -> None:
    report = compose([patch([turn(i)]) for i in range(20)]).report
    assert not report.every_pair
    assert report.interaction is not None


def test_a_side_too_long_to_compare_has_no_commutator() -> None:
    def wide(factor: Factor) -> Patch:
        return patch([factor], shape=(2, 8192))

    plane = torch.zeros(8192, 1)
    plane[0] = 1.0
    report = compose(
        [
            wide(RotationBlocks("input", torch.full((4096, 1), 0.1))),
            wide(Rotation("input", plane, plane.roll(1, 0))),
        ]
    ).report
    assert report.tensors[0].commutator is None
    assert report.tensors[0].factors == 2


@pytest.mark.parametrize("method", ["mean", "karcher"])
def test_a_mean_has_one_factor_a_side_whatever_the_order(method: Any) -> None:
    one, two = patch([turn(1), turn(2, "output")]), patch([turn(3)])
    made, other = (compose(parts, method=method) for parts in ([one, two], [two, one]))
    assert made.patch.metadata.method == method
    assert len(made.patch.factors[NAME]) == 2
    for a, b in zip(made.patch.factors[NAME], other.patch.factors[NAME], strict=True):
        assert isinstance(a, Turn)
        assert isinstance(b, Turn)
        assert a.side == b.side
        assert spectral_distance([a], [b]) <= 1e-6


def test_what_has_no_mean_is_refused() -> None:
    added = patch([Additive(torch.ones(6, 1), torch.ones(1, 8))])
    with pytest.raises(InvariantError, match="only rotations have a mean"):
        compose([patch(), added], method="mean")
    with pytest.raises(SolveError, match="cancel"):
        compose([patch(), Part(patch(), inverted=True)], method="mean")


def test_facts_can_be_left_out_and_corrected() -> None:
    facts = (fact("Italy", id="a"), fact("France", "Paris", "b"))
    assert without(facts, ["a"]) == facts[1:]
    with pytest.raises(FactsError, match="'c'"):
        without(facts, ["c"])
    by_id = Fact("Paris", "{} lies in", "Spain", id="b")
    assert replaced(facts, [by_id]) == (facts[0], by_id)
    by_prompt = fact("Spain")
    assert replaced(facts, [by_prompt]) == (by_prompt, facts[1])
    with pytest.raises(FactsError, match="corrects no fact"):
        replaced(facts, [fact("Spain", "Madrid")])
