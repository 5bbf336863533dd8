"""An attached patch answers as an applied one, and leaves nothing behind."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from patchkit.base import load_model
from patchkit.errors import BaseMismatch, InvariantError, PatchkitError, UnsupportedModel
from patchkit.factors.action import Factor
from patchkit.factors.additive import AdditiveDense
from patchkit.factors.rotation import Rotation
from patchkit.live import apply
from patchkit.patch.patch import Patch
from patchkit.runtime import attach, attached
from patchkit.runtime.carrier import Carrier
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import sites
from tests.unit.models.factory import ARCHITECTURES, save_tiny, tiny
from tests.unit.runtime.samples import close, expected, logits, rebuilt, thin_patch, traces


def with_factor(patch: Patch, name: str, factor: Factor) -> Patch:
    """A patch of the one tensor `name`, with `factor` alone."""
    return rebuilt(patch, {name: [factor]})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_answers_as_applied_and_leaves_nothing(architecture: str) -> None:
    model = tiny(architecture)
    patch = thin_patch(model)
    before, base, wanted = traces(model), logits(model), expected(model, patch)
    with attached(model, patch) as handle:
        assert handle.active
        assert set(handle.tensors) == set(patch.metadata.tensors)
        assert close(logits(model), wanted)
        assert not close(base, wanted, 0.1)
        assert list(model.state_dict()) == before["state"]
    assert not handle.active
    assert handle.tensors == ()
    assert traces(model) == before
    assert torch.equal(logits(model), base)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_it_is_as_good_as_the_weights(dtype: torch.dtype) -> None:
    exact = tiny("llama2")
    patch = thin_patch(exact)
    wanted = expected(exact, patch)
    model = tiny("llama2").to(dtype)
    with attached(model, patch, allow_other_base=True):
        found = logits(model).float()
    applied = expected(model, patch).float()
    assert float((found - wanted).norm()) <= 2 * float((applied - wanted).norm())


@given(seeds=st.lists(st.integers(0, 50), min_size=2, max_size=3))
@settings(max_examples=4)
def test_several_act_as_their_product(seeds: list[int]) -> None:
    model = tiny("gpt2")
    patches = [thin_patch(model, seed) for seed in seeds]
    with attached(model, patches):
        assert close(logits(model), expected_detached(model, patches), 1e-4)


def expected_detached(model: PreTrainedModel, patches: list[Patch]) -> torch.Tensor:
    return expected(tiny(model.config.model_type), *patches)


@given(strength=st.floats(-2, 2))
@settings(max_examples=5)
def test_any_strength_is_that_of_the_generators(strength: float) -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    wanted = expected(model, patch, strength=strength)
    with attached(model, patch, strength=strength) as handle:
        assert handle.strength == strength
        assert close(logits(model), wanted)
        handle.set_strength(1.0)
        handle.set_strength(strength)
        assert close(logits(model), wanted)


def test_strength_zero_is_the_base_to_the_bit() -> None:
    model = tiny("gpt2")
    base = logits(model)
    with attached(model, thin_patch(model)) as handle:
        handle.set_strength(0.0)
        assert torch.equal(logits(model), base)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), 1e9])
def test_an_impossible_strength_is_refused_and_changes_nothing(strength: float) -> None:
    model = tiny("llama2")
    before = traces(model)
    with pytest.raises(InvariantError):
        attach(model, thin_patch(model), strength=strength)
    assert traces(model) == before
    with attached(model, thin_patch(model)) as handle:
        held = logits(model)
        with pytest.raises(InvariantError):
            handle.set_strength(strength)
        assert handle.strength == 1.0
        assert torch.equal(logits(model), held)


def test_another_patch_takes_its_place() -> None:
    model = tiny("llama2")
    one, two = thin_patch(model, 1), thin_patch(model, 2)
    wanted = expected(model, two), expected(model, two, strength=0.5)
    with attached(model, one) as handle:
        places = [buffer.data_ptr() for _, buffer in model.named_buffers()]
        handle.swap(two)
        assert close(logits(model), wanted[0])
        handle.swap([two], strength=0.5)
        assert close(logits(model), wanted[1])
        assert [buffer.data_ptr() for _, buffer in model.named_buffers()] == places


def test_a_smaller_patch_leaves_other_tensors_to_the_base() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    name = sites(model)[1].tensor
    small = with_factor(patch, name, patch.factors[name][0])
    wanted = expected(model, small)
    with attached(model, patch) as handle:
        handle.swap(small)
        assert close(logits(model), wanted)
        handle.swap(patch)
        assert not close(logits(model), wanted, 0.1)


def test_what_cannot_be_swapped_is_refused_and_the_old_goes_on() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    name = sites(model)[1].tensor
    small = with_factor(patch, name, patch.factors[name][0])
    with attached(model, small) as handle:
        held = logits(model)
        with pytest.raises(BaseMismatch, match=r"only .* can be swapped"):
            handle.swap(patch)
        with pytest.raises(InvariantError, match="does not fit into rank 4"):
            handle.swap(with_factor(patch, name, Rotation("input", *torch.ones(2, 64, 3) / 8)))
        other = thin_patch(tiny("llama2", seed=1))
        with pytest.raises(BaseMismatch, match="made for other weights"):
            handle.swap(with_factor(other, name, other.factors[name][0]))
        assert torch.equal(logits(model), held)


def test_a_second_patch_on_the_same_tensor_is_refused() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    with attached(model, patch) as handle:
        held = logits(model)
        with pytest.raises(InvariantError, match="carries a patch already"):
            attach(model, patch)
        assert handle.active
        assert torch.equal(logits(model), held)


def test_patches_of_different_tensors_are_attached_and_detached_in_any_order() -> None:
    model = tiny("llama2")
    before, whole = traces(model), thin_patch(model)
    one, two = (
        attach(model, with_factor(whole, site.tensor, whole.factors[site.tensor][0]))
        for site in sites(model)[:2]
    )
    one.detach()
    one.detach()
    assert two.active
    two.detach()
    assert traces(model) == before


def test_a_failure_halfway_leaves_the_model_as_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama2")
    before, base = traces(model), logits(model)
    install: Callable[..., None] = Carrier.install

    def failing(self: Carrier, *args: object) -> None:
        if self.site.layer == 2:
            raise MemoryError
        install(self, *args)

    monkeypatch.setattr(Carrier, "install", failing)
    with pytest.raises(MemoryError):
        attach(model, thin_patch(model))
    assert traces(model) == before
    assert torch.equal(logits(model), base)


def test_an_error_inside_the_block_still_detaches() -> None:
    model = tiny("llama2")
    before = traces(model)
    with pytest.raises(ZeroDivisionError), attached(model, thin_patch(model)):
        raise ZeroDivisionError
    assert traces(model) == before


def test_a_forward_that_was_replaced_since_is_not_thrown_away() -> None:
    model = tiny("llama2")
    handle = attach(model, thin_patch(model))
    module = model.get_submodule(sites(model)[0].module)
    ours = module.forward
    module.forward = lambda x: ours(x)
    with pytest.raises(InvariantError, match="was replaced after a patch was attached"):
        handle.detach()
    assert handle.active
    module.forward = ours
    handle.detach()


def test_a_detached_handle_does_nothing_more() -> None:
    model = tiny("llama2")
    handle = attach(model, thin_patch(model))
    handle.detach()
    for act in (lambda: handle.set_strength(0.5), lambda: handle.swap(thin_patch(model))):
        with pytest.raises(InvariantError, match="no longer attached"):
            act()


def test_a_factor_that_moves_everything_is_refused() -> None:
    model = tiny("llama2")
    before = traces(model)
    patch = thin_patch(model)
    name = sites(model)[0].tensor
    with pytest.raises(InvariantError, match="additive-dense is not of low rank") as caught:
        attach(model, with_factor(patch, name, AdditiveDense(torch.ones(32, 64))))
    assert "patchkit apply" in str(caught.value.hint)
    assert traces(model) == before


@pytest.mark.parametrize(
    ("model", "patch", "error"),
    [
        (tiny("llama2", seed=2), thin_patch(tiny("llama2")), BaseMismatch),
        (tiny("llama2", intermediate_size=96), thin_patch(tiny("llama2")), BaseMismatch),
        (tiny("gpt_neox"), thin_patch(tiny("llama2")), UnsupportedModel),
    ],
)
def test_another_base_is_refused(
    model: PreTrainedModel, patch: Patch, error: type[PatchkitError]
) -> None:
    before = traces(model)
    with pytest.raises(error):
        attach(model, patch)
    assert traces(model) == before


def test_a_missing_predecessor_is_refused() -> None:
    model = tiny("llama2")
    first = thin_patch(model, 1)
    second = thin_patch(model, 2, after=[first.digest])
    with pytest.raises(BaseMismatch, match="made on top of"):
        attach(model, second)
    with attached(model, [first, second]):
        assert close(logits(model), expected(tiny("llama2"), first, second), 1e-4)


def test_an_applied_model_is_another_base() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    handle = apply(model, patch)
    with pytest.raises(BaseMismatch):
        attach(model, patch)
    handle.revert()


@pytest.mark.parametrize("architecture", ["gpt2", "gemma3_multimodal"])
def test_names_are_those_of_the_checkpoint(architecture: str, tmp_path: Path) -> None:
    model = save_tiny(architecture, tmp_path, dtype=torch.bfloat16)
    checkpoint = Checkpoint.open(tmp_path)
    patch = thin_patch(model, found=sites(model, checkpoint))
    loaded = load_model(tmp_path)
    wanted = expected(loaded, patch)
    for vouched in (None, checkpoint):
        with attached(loaded, patch, checkpoint=vouched) as handle:
            assert set(handle.tensors) == set(patch.metadata.tensors)
            assert close(logits(loaded), wanted)


def test_tied_embeddings_stay_tied() -> None:
    model = tiny("qwen2")
    tied = model.get_input_embeddings().weight
    with attached(model, thin_patch(model)):
        assert model.get_output_embeddings().weight is tied
    assert model.get_output_embeddings().weight is tied


def test_what_was_attached_in_inference_mode_can_be_changed_outside() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    wanted = expected(model, patch, strength=0.5)
    with torch.inference_mode():
        handle = attach(model, patch)
    handle.set_strength(0.5)
    assert close(logits(model), wanted)
    handle.detach()


def test_gradients_flow_through() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)

    def gradient() -> torch.Tensor:
        hidden = torch.full((1, 4, 32), 0.1, requires_grad=True)
        model(inputs_embeds=hidden).logits.square().mean().backward()
        assert hidden.grad is not None
        return hidden.grad

    applied = apply(model, patch)
    wanted = gradient()
    applied.revert()
    with attached(model, patch):
        assert close(gradient(), wanted, 1e-4)


def test_a_copy_of_an_attached_model_is_attached() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    handle = attach(model, patch)
    twin = copy.deepcopy(model)
    wanted = logits(model)
    handle.set_strength(0.0)
    assert torch.equal(logits(twin), wanted)
    handle.detach()
    assert torch.equal(logits(twin), wanted)


def test_metadata_that_names_another_digest_is_refused() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    tensors = {
        name: replace(meta, base_sha256="sha256:" + "0" * 64)
        for name, meta in patch.metadata.tensors.items()
    }
    with pytest.raises(BaseMismatch):
        attach(model, Patch(replace(patch.metadata, tensors=tensors), patch.factors))
