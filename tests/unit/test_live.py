"""A patch goes onto a model in memory, and comes off without a trace."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedModel

from patchkit import live
from patchkit.base import load_model
from patchkit.errors import BaseMismatch, InvariantError, UnsupportedModel
from patchkit.factors.action import dense
from patchkit.live import applied, apply
from patchkit.patch.patch import Patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import sites
from tests.unit.models.factory import ARCHITECTURES, save_tiny, tiny
from tests.unit.models.patches import random_patch


def state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model: PreTrainedModel, before: dict[str, torch.Tensor]) -> bool:
    now = model.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[k], before[k]) for k in before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_patch_does_its_arithmetic_and_reverts_exactly(architecture: str) -> None:
    model = tiny(architecture)
    patch = random_patch(model)
    before = state(model)
    handle = apply(model, patch)
    edited = set()
    for site in sites(model):
        name = f"{site.module}.weight"
        edited.add(name)
        expected = dense(before[name], patch.factors[site.tensor], site.layout).float()
        assert torch.equal(model.state_dict()[name], expected)
        assert not torch.equal(expected, before[name])
    assert all(torch.equal(model.state_dict()[n], t) for n, t in before.items() if n not in edited)
    handle.revert()
    assert same(model, before)
    assert not handle.active


@pytest.mark.parametrize("architecture", ["llama3", "gpt2", "gemma3_multimodal"])
def test_names_are_those_of_the_checkpoint(architecture: str, tmp_path: Path) -> None:
    model = save_tiny(architecture, tmp_path, dtype=torch.bfloat16)
    checkpoint = Checkpoint.open(tmp_path)
    patch = random_patch(model, found=sites(model, checkpoint))
    loaded = load_model(tmp_path)
    before = state(loaded)
    with applied(loaded, patch, checkpoint=checkpoint) as handle:
        assert set(handle.tensors) == set(patch.metadata.tensors)
        assert not same(loaded, before)
    assert same(loaded, before)


def test_edited_weights_are_those_of_the_stored_type(tmp_path: Path) -> None:
    model = save_tiny("llama2", tmp_path, dtype=torch.bfloat16)
    patch = random_patch(model)
    loaded = load_model(tmp_path)
    assert loaded.dtype == torch.float32
    with applied(loaded, patch), applied(model, patch):
        for site in sites(model):
            wide = loaded.get_submodule(site.module).weight
            assert torch.equal(wide, model.get_submodule(site.module).weight.float())


@given(seeds=st.lists(st.integers(0, 50), min_size=1, max_size=3))
def test_any_stack_reverts_exactly(seeds: list[int]) -> None:
    model = tiny("gpt2")
    before = state(model)
    handles = [apply(model, random_patch(model, seed), allow_other_base=True) for seed in seeds]
    for handle in reversed(handles):
        handle.revert()
    assert same(model, before)


def test_a_lower_patch_does_not_come_off_first() -> None:
    model = tiny("llama2")
    lower = apply(model, random_patch(model, 1))
    upper = apply(model, random_patch(model, 2), allow_other_base=True)
    held = state(model)
    with pytest.raises(InvariantError, match="changed after this patch was applied"):
        lower.revert()
    assert same(model, held)
    assert lower.active
    upper.revert()
    lower.revert()


def test_reverting_twice_does_nothing() -> None:
    model = tiny("llama2")
    handle = apply(model, random_patch(model))
    handle.revert()
    with applied(model, random_patch(model, 3)):
        held = state(model)
        handle.revert()
        assert same(model, held)


def test_an_error_inside_the_block_still_reverts() -> None:
    model = tiny("llama2")
    before = state(model)
    with pytest.raises(ZeroDivisionError), applied(model, random_patch(model)):
        raise ZeroDivisionError
    assert same(model, before)


def test_patches_given_together_are_rounded_once() -> None:
    model = tiny("llama2").to(torch.bfloat16)
    first = random_patch(model, 1)
    second = random_patch(model, 2, after=[first.digest])
    before = state(model)
    with applied(model, [first, second]):
        for site in sites(model):
            factors = first.factors[site.tensor] + second.factors[site.tensor]
            weight = before[f"{site.module}.weight"]
            expected = dense(weight, factors, site.layout).bfloat16()
            assert torch.equal(model.get_submodule(site.module).weight, expected)
    assert same(model, before)


@pytest.mark.parametrize("order", [[1], [1, 0]])
def test_a_missing_or_reordered_predecessor_is_refused(order: list[int]) -> None:
    model = tiny("llama2")
    first = random_patch(model, 1)
    stack = [first, random_patch(model, 2, after=[first.digest])]
    before = state(model)
    with pytest.raises(BaseMismatch, match="made on top of") as caught:
        apply(model, [stack[index] for index in order])
    assert caught.value.details["expected"] == [first.digest]
    assert same(model, before)


def test_other_weights_are_refused_unless_allowed() -> None:
    patch = random_patch(tiny("llama2", seed=1))
    model = tiny("llama2", seed=2)
    before = state(model)
    with pytest.raises(BaseMismatch, match="made for other weights") as caught:
        apply(model, patch)
    assert caught.value.details["expected"] != caught.value.details["found"]
    assert same(model, before)
    with applied(model, patch, allow_other_base=True):
        assert not same(model, before)


def test_a_patched_model_is_not_the_base() -> None:
    model = tiny("llama2")
    patch = random_patch(model)
    with applied(model, patch), pytest.raises(BaseMismatch):
        apply(model, patch)


def test_patches_of_different_bases_are_refused() -> None:
    one, other = tiny("llama2", seed=1), tiny("llama2", seed=2)
    with pytest.raises(BaseMismatch, match="different weights"):
        apply(one, [random_patch(one), random_patch(other)])


def test_the_checkpoint_may_vouch_for_the_base(tmp_path: Path) -> None:
    model = save_tiny("llama2", tmp_path)
    patch = random_patch(model)
    half = load_model(tmp_path, dtype="bfloat16")
    with pytest.raises(BaseMismatch):
        apply(half, patch)
    with applied(half, patch, checkpoint=Checkpoint.open(tmp_path)):
        assert half.dtype == torch.bfloat16


def test_another_architecture_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="not an editable matrix"):
        apply(tiny("gpt_neox"), random_patch(tiny("llama2")))


def test_another_shape_is_refused() -> None:
    patch = random_patch(tiny("llama2"))
    wide = tiny("llama2", intermediate_size=96)
    with pytest.raises(BaseMismatch, match=r"\(32, 96\) in the model and linear \(32, 64\)"):
        apply(wide, patch)


def test_a_bad_last_tensor_leaves_all_weights() -> None:
    model = tiny("llama2")
    patch = random_patch(model)
    last = sites(model)[-1].tensor
    tensors = dict(patch.metadata.tensors)
    tensors[last] = replace(tensors[last], base_sha256="sha256:" + "0" * 64)
    bad = Patch(replace(patch.metadata, tensors=tensors), patch.factors)
    before = state(model)
    with pytest.raises(BaseMismatch):
        apply(model, bad)
    assert same(model, before)


def test_offloaded_weights_are_refused() -> None:
    model = tiny("llama2")
    patch = random_patch(model)
    with pytest.raises(UnsupportedModel, match="not in memory"):
        apply(model.to("meta"), patch, allow_other_base=True)


def test_moving_the_model_keeps_the_handle() -> None:
    model = tiny("llama2")
    before = state(model)
    handle = apply(model, random_patch(model))
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    handle.revert()
    assert same(model, before)


def test_a_change_in_place_is_noticed() -> None:
    model = tiny("llama2")
    patch = random_patch(model)
    handle = apply(model, patch)
    weight = model.get_submodule(sites(model)[1].module).weight
    kept = weight.data[0, 0].clone()
    weight.data[0, 0] += 1
    held = state(model)
    with pytest.raises(InvariantError, match="was changed") as caught:
        handle.revert()
    assert caught.value.details["tensor"] == sites(model)[1].tensor
    assert same(model, held)
    weight.data[0, 0] = kept
    handle.revert()
    assert not handle.active


class Parameter:
    """Stands for one; the value 13 it refuses."""

    def __init__(self, data: int) -> None:
        self._data = data

    @property
    def data(self) -> int:
        return self._data

    @data.setter
    def data(self, value: int) -> None:
        if value == 13:
            raise KeyboardInterrupt
        self._data = value


def test_weights_are_put_all_or_none() -> None:
    parameters = [Parameter(i) for i in range(3)]
    with pytest.raises(KeyboardInterrupt):
        live._put([(p, new) for p, new in zip(parameters, (7, 8, 13), strict=True)])  # type: ignore[misc]
    assert [p.data for p in parameters] == [0, 1, 2]
    live._put([(p, 5) for p in parameters])  # type: ignore[misc]
    assert [p.data for p in parameters] == [5, 5, 5]


def test_values_that_overflow_are_refused() -> None:
    model = tiny("llama2").to(torch.float16)
    model.get_submodule(sites(model)[1].module).weight.fill_(6e4)
    patch = random_patch(model)
    before = state(model)
    with pytest.raises(InvariantError, match="not finite"):
        apply(model, patch)
    assert same(model, before)


@pytest.mark.gpu
def test_a_patched_model_may_change_its_device() -> None:
    model = tiny("gpt2")
    before = state(model)
    handle = apply(model, random_patch(model))
    model.to("cuda")
    handle.revert()
    assert model.device.type == "cuda"
    assert same(model.to("cpu"), before)
