"""Weights that cannot be read: quantised, offloaded, or spread over devices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from patchkit.errors import BaseMismatch, UnsupportedModel
from patchkit.live import apply
from patchkit.runtime import attach, attached
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import sites
from tests.unit.models.factory import save_tiny, tiny
from tests.unit.runtime.samples import close, expected, logits, thin_patch, traces


def torchao_int8(model: PreTrainedModel) -> None:
    quantisation = pytest.importorskip("torchao.quantization")
    quantise(model, quantisation, quantisation.Int8WeightOnlyConfig())


def torchao_int4(model: PreTrainedModel) -> None:
    quantisation = pytest.importorskip("torchao.quantization")
    groups = quantisation.PerGroup(32)
    config = quantisation.IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=groups)
    quantise(model, quantisation, config)


def quantise(model: PreTrainedModel, quantisation: Any, config: Any) -> None:
    quantisation.quantize_(model, config, filter_fn=lambda _, name: "down_proj" in name)


def bitsandbytes_int8(model: PreTrainedModel) -> None:
    kinds = pytest.importorskip("bitsandbytes").nn
    replace_down(model, lambda i, o: kinds.Linear8bitLt(i, o, bias=False, has_fp16_weights=False))


def bitsandbytes_nf4(model: PreTrainedModel) -> None:
    kinds = pytest.importorskip("bitsandbytes").nn
    replace_down(
        model,
        lambda i, o: kinds.Linear4bit(
            i, o, bias=False, compute_dtype=torch.float32, quant_type="nf4"
        ),
    )


def replace_down(model: PreTrainedModel, make: Callable[[int, int], torch.nn.Module]) -> None:
    for site in sites(model):
        module = make(site.d_in, site.d_out)
        module.load_state_dict(model.get_submodule(site.module).state_dict())
        model.set_submodule(site.module, module.to("cpu"))


def as_dense(model: PreTrainedModel) -> PreTrainedModel:
    """A plain model whose weights are the values that the quantised ones stand for."""
    plain = tiny("llama2")
    for site in sites(plain):
        module = model.get_submodule(site.module)
        weight = module(torch.eye(site.d_in)).T.contiguous()
        plain.get_submodule(site.module).weight.data = weight
    return plain


QUANTISERS = [torchao_int8, torchao_int4, bitsandbytes_int8, bitsandbytes_nf4]


@pytest.mark.filterwarnings("ignore")  # of the quantisers' own making
@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_a_quantised_weight_is_rotated_as_it_is(
    quantiser: Callable[[PreTrainedModel], None],
) -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    quantiser(model)
    before, base, wanted = traces(model), logits(model), expected(as_dense(model), patch)
    # 8-bit activations are rounded per token, and rotated ones to other values.
    within = 0.05 if quantiser is bitsandbytes_int8 else 1e-4
    with attached(model, patch, allow_other_base=True):
        assert close(logits(model), wanted, within)
        assert not close(base, wanted, 0.1)
    assert traces(model) == before
    assert torch.equal(logits(model), base)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("quantiser", [torchao_int8, bitsandbytes_nf4])
def test_a_quantised_weight_needs_a_checkpoint_to_be_recognised(
    quantiser: Callable[[PreTrainedModel], None], tmp_path: Path
) -> None:
    model = save_tiny("llama2", tmp_path)
    patch, other = thin_patch(model), thin_patch(tiny("llama2", seed=1))
    quantiser(model)
    before, checkpoint = traces(model), Checkpoint.open(tmp_path)
    with pytest.raises(BaseMismatch, match="quantised or not in memory") as caught:
        attach(model, patch)
    assert "checkpoint=" in str(caught.value.hint)
    with pytest.raises(BaseMismatch, match="made for other weights"):
        attach(model, other, checkpoint=checkpoint)
    assert traces(model) == before
    with attached(model, patch, checkpoint=checkpoint) as handle:
        assert handle.active


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_weight_is_not_overwritten() -> None:
    model = tiny("llama2")
    patch = thin_patch(model)
    torchao_int8(model)
    with pytest.raises(UnsupportedModel, match="plain weights"):
        apply(model, patch)


@pytest.mark.parametrize("architecture", ["qwen2", "gpt2"])
def test_an_offloaded_weight_is_rotated_where_it_runs(architecture: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    model = save_tiny(architecture, tmp_path)
    patch, checkpoint = thin_patch(model), Checkpoint.open(tmp_path)
    base, wanted = logits(model), expected(model, patch)
    accelerate.cpu_offload(model, execution_device="cpu")
    module = model.get_submodule(sites(model)[0].module)
    forward = module.forward
    assert module.weight.is_meta
    with pytest.raises(BaseMismatch, match="quantised or not in memory"):
        attach(model, patch)
    with attached(model, patch, checkpoint=checkpoint) as handle:
        assert close(logits(model), wanted)
        handle.set_strength(0.0)
        assert torch.equal(logits(model), base)
    assert module.forward is forward
    assert module.weight.is_meta
    assert torch.equal(logits(model), base)


def test_a_model_spread_by_a_device_map_is_rotated_everywhere(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    folder = tmp_path / "base"
    model = save_tiny("llama2", folder)
    patch, checkpoint = thin_patch(model), Checkpoint.open(folder)
    wanted = expected(model, patch)
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu"}
    layers = {"model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk"}
    accelerate.dispatch_model(
        model,
        device_map={**places, **layers, "lm_head": "cpu"},
        main_device="cpu",
        offload_dir=str(tmp_path / "offload"),
    )
    places_of = [model.get_submodule(site.module).weight.device.type for site in sites(model)]
    assert places_of == ["cpu", "meta", "meta"]
    with attached(model, patch, checkpoint=checkpoint):
        assert close(logits(model), wanted)


@pytest.mark.gpu
def test_a_model_on_two_devices_is_rotated_on_both() -> None:
    accelerate = pytest.importorskip("accelerate")
    model = tiny("llama2")
    patch = thin_patch(model)
    wanted = expected(model, patch)
    accelerate.dispatch_model(
        model,
        device_map={
            "model.embed_tokens": 0, "model.norm": 0, "model.rotary_emb": 0, "lm_head": 0,
            "model.layers.0": 0, "model.layers.1": "cpu", "model.layers.2": 0,
        },
    )  # fmt: skip
    with attached(model, patch, allow_other_base=True):
        assert close(logits(model).cpu(), wanted, 1e-3)
