"""Every architecture's editable matrices are found, and named as its checkpoint names them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from patchkit.errors import BaseMismatch, UnsupportedModel
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import blocks, embed, final_norm, head, locate, readout, sites
from tests.unit.models.factory import ARCHITECTURES, VOCABULARY, save_tiny, tiny

CONV1D = {"gpt2"}
BIASED = {"gpt2", "gptj", "gpt_neox", "opt"}


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_layer_has_one_site_with_its_shape(architecture: str) -> None:
    model = tiny(architecture)
    found = sites(model)
    assert [site.layer for site in found] == [0, 1, 2]
    for site in found:
        weight = model.get_submodule(site.module).weight
        assert (site.d_in, site.d_out) == (64, 32)
        assert site.shape == tuple(weight.shape)
        assert site.layout == ("conv1d" if architecture in CONV1D else "linear")
        assert site.has_bias == (architecture in BIASED)


def test_the_site_maps_keys_of_width_d_in_to_values_of_width_d_out(architecture: str) -> None:
    model = tiny(architecture)
    for site in sites(model):
        value = model.get_submodule(site.module)(torch.ones(2, site.d_in))
        assert value.shape == (2, site.d_out)


@pytest.mark.parametrize("shard", [None, "40KB"])
def test_tensor_names_are_those_of_the_saved_files(
    architecture: str, shard: str | None, tmp_path: Path
) -> None:
    model = save_tiny(architecture, tmp_path, max_shard_size=shard)
    stored = {}
    for file in tmp_path.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            stored |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    found = sites(model, Checkpoint.open(tmp_path))
    assert len({site.tensor for site in found}) == 3
    for site in found:
        torch.testing.assert_close(
            stored[site.tensor], model.get_submodule(site.module).weight, rtol=0, atol=0
        )


def test_blocks_norm_and_head_rebuild_the_logits(architecture: str) -> None:
    model = tiny(architecture)
    ids = torch.tensor([[0, 5, 9, 40]])
    assert len(blocks(model)) == 3
    assert embed(model)(ids).shape == (1, 4, 32)
    caught: dict[str, Any] = {}

    def catch(_module: nn.Module, _inputs: Any, output: Any) -> None:
        caught["hidden"] = output[0] if isinstance(output, tuple) else output

    handle = blocks(model)[-1].register_forward_hook(catch)
    expected = model(input_ids=ids).logits
    handle.remove()
    logits = readout(model, final_norm(model)(caught["hidden"]))
    assert logits.shape == (1, 4, VOCABULARY)
    torch.testing.assert_close(logits, expected)
    assert head(model) is model.get_output_embeddings()


def _write(folder: Path, tensors: dict[str, torch.Tensor]) -> Checkpoint:
    save_file(tensors, folder / "model.safetensors")
    return Checkpoint.open(folder)


def test_a_bare_gpt2_file_has_no_prefix(tmp_path: Path) -> None:
    model = save_tiny("gpt2", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    checkpoint = _write(tmp_path, bare)
    found = sites(model, checkpoint)
    assert found[1].tensor == "h.1.mlp.c_proj.weight"
    assert found[1].module == "transformer.h.1.mlp.c_proj"
    assert AutoModelForCausalLM.from_pretrained(tmp_path) is not None


def test_multimodal_names_differ_from_module_paths(tmp_path: Path) -> None:
    model = save_tiny("gemma3_multimodal", tmp_path)
    site = sites(model, Checkpoint.open(tmp_path))[2]
    assert site.module == "model.language_model.layers.2.mlp.down_proj"
    assert site.tensor == "language_model.model.layers.2.mlp.down_proj.weight"


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    save_tiny("llama3", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"] = torch.zeros(32, 48)
    checkpoint = _write(tmp_path, tensors)
    with pytest.raises(BaseMismatch, match=r"\(32, 48\).*\(32, 64\)"):
        sites(tiny("llama3"), checkpoint)


def test_a_checkpoint_without_the_tensor_is_refused(tmp_path: Path) -> None:
    save_tiny("llama3", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.2.mlp.down_proj.weight"]
    with pytest.raises(BaseMismatch, match=r"layers\.2\.mlp\.down_proj\.weight"):
        sites(tiny("llama3"), _write(tmp_path, tensors))


def test_locate_reads_names_with_any_prefix(architecture: str) -> None:
    model = tiny(architecture)
    for site in sites(model):
        tail = ".".join(site.tensor.split(".")[-5:])
        names = {site.tensor, f"other.prefix.{tail}"}
        for name in names:
            assert locate(model, [name])[name].module == site.module


def test_locate_refuses_a_tensor_that_is_no_site() -> None:
    with pytest.raises(UnsupportedModel, match=r"lm_head\.weight is not an editable matrix"):
        locate(tiny("llama2"), ["lm_head.weight"])


def test_another_architecture_is_refused_by_what_was_looked_for() -> None:
    config = AutoConfig.for_model("bloom", vocab_size=32, hidden_size=8, n_layer=1, n_head=2)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedModel, match="output projection of BloomForCausalLM") as caught:
        sites(model)
    assert "gpt_neox" in str(caught.value.hint)


def test_a_missing_module_is_named() -> None:
    model = tiny("llama2")
    del model.model.layers[1].mlp.down_proj
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.1\.mlp\.down_proj"):
        sites(model)


def test_a_wrapped_projection_is_refused() -> None:
    model = tiny("llama2")
    model.model.layers[1].mlp.down_proj = nn.Bilinear(4, 4, 4)
    with pytest.raises(UnsupportedModel, match=r"layers\.1\.mlp\.down_proj, found Bilinear"):
        sites(model)


def test_mixture_of_experts_is_refused() -> None:
    options = {"vocab_size": 32, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "num_local_experts": 4}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **options, **heads))
    with pytest.raises(UnsupportedModel, match=r"mixtral is a mixture of experts"):
        blocks(model)


def test_a_model_without_a_head_is_refused() -> None:
    model = tiny("gpt2").transformer
    model.get_output_embeddings = lambda: None
    with pytest.raises(UnsupportedModel, match="head"):
        head(model)


def test_ambiguous_checkpoint_names_are_refused() -> None:
    model = tiny("llama2")
    entry = SimpleNamespace(info=SimpleNamespace(shape=(32, 64)))
    twice = [f"{side}.layers.{n}.mlp.down_proj.weight" for side in "ab" for n in range(3)]
    checkpoint: Any = SimpleNamespace(tensors=dict.fromkeys(twice, entry))
    with pytest.raises(BaseMismatch, match="one name ending in"):
        sites(model, checkpoint)


def test_saved_configuration_names_the_architecture(tmp_path: Path) -> None:
    save_tiny("opt", tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "opt"
