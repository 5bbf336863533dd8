"""A reference becomes a folder, a model and a tokenizer, or a sentence."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from patchkit.base import load_model, load_tokenizer, outline
from patchkit.errors import CheckpointError, UnsupportedModel
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.refs import resolve_base
from tests.unit.models.factory import TEXT, save_tiny, tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tiny("llama3", tmp_path)
    return tmp_path


def test_a_local_folder_is_itself(folder: Path) -> None:
    assert resolve_base(folder) == folder
    assert resolve_base(str(folder)) == folder


def test_a_hub_name_is_told_how_to_be_downloaded() -> None:
    with pytest.raises(CheckpointError, match="no folder org/some-model") as caught:
        resolve_base("org/some-model")
    assert caught.value.hint == (
        "to get it from the Hub: hf download org/some-model --local-dir some-model"
    )


@pytest.mark.parametrize("ref", ["nowhere", "../a/b/c", "/nowhere/at/all"])
def test_a_missing_folder_is_told_what_a_base_is(ref: str) -> None:
    with pytest.raises(CheckpointError, match="no folder") as caught:
        resolve_base(ref)
    assert "config.json" in str(caught.value.hint)


def test_a_file_is_no_base(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="is a file"):
        resolve_base(folder / "model.safetensors")


def test_the_model_is_ready_for_inference(folder: Path) -> None:
    model = load_model(folder)
    expected = tiny("llama3")
    ids = torch.tensor([[0, 4, 5]])
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(model(input_ids=ids).logits, expected(input_ids=ids).logits)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_on_a_cpu(
    stored: torch.dtype, tmp_path: Path
) -> None:
    saved = save_tiny("llama2", tmp_path, dtype=stored)
    model = load_model(tmp_path)
    assert model.dtype == torch.float32
    assert torch.equal(model.lm_head.weight.to(stored), saved.lm_head.weight)


def test_a_named_dtype_is_kept(folder: Path) -> None:
    assert load_model(folder, dtype="bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"device": "cuda:99"}])
def test_what_cannot_be_had_is_refused(folder: Path, options: dict[str, str]) -> None:
    if "device" in options and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UnsupportedModel, match=r"is not one of|no CUDA device"):
        load_model(folder, **options)


def test_missing_tensors_are_not_made_up(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks 1 tensors .*layers\.1\.mlp\.down_proj"):
        load_model(folder)


def test_an_unknown_architecture_is_a_sentence(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["model_type"] = "not_a_model"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="model_type 'not_a_model'") as caught:
        load_model(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_sizes_that_do_not_fit_together_are_a_sentence(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["num_attention_heads"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="not a multiple of the number"):
        outline(Checkpoint.open(folder))
    with pytest.raises(CheckpointError, match="not a multiple of the number"):
        load_model(folder)


def test_an_encoder_is_no_base(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model("t5", vocab_size=32, d_model=8, d_ff=8, num_layers=1, num_heads=2)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedModel, match="causal language model"):
        load_model(tmp_path)


def test_loading_is_silent_and_leaves_the_settings(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    transformers_logging.set_verbosity(logging.INFO)
    try:
        load_model(folder)
        load_tokenizer(folder)
        assert transformers_logging.get_verbosity() == logging.INFO
        assert transformers_logging.is_progress_bar_enabled()
    finally:
        transformers_logging.set_verbosity_warning()
    assert capfd.readouterr() == ("", "")


def test_the_tokenizer_round_trips(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(TEXT[0])["input_ids"]
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == TEXT[0]


def test_a_base_without_tokenizer_is_refused(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises((CheckpointError, UnsupportedModel), match="tokenizer"):
        load_tokenizer(folder)
