"""GGUF adapters, read back with the gguf package as llama.cpp's loader reads them."""

from pathlib import Path

import pytest
import torch

from patchkit.base import load_model
from patchkit.errors import OutputError, UnsupportedModel
from patchkit.export import export
from patchkit.factors.action import dense
from patchkit.tensors.layout import locate
from tests.unit.export.test_peft import saved

gguf = pytest.importorskip("gguf")
KNOWN = {
    "llama2": "llama",
    "qwen2": "qwen2",
    "gemma2": "gemma2",
    "gemma3_multimodal": "gemma3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
}


@pytest.mark.parametrize("architecture", KNOWN)
@pytest.mark.parametrize(("storage", "within"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_what_llama_cpp_reads_is_the_change_of_the_weights(
    architecture: str, storage: str, within: float, tmp_path: Path
) -> None:
    base, file, patch = saved(architecture, tmp_path)
    out = tmp_path / "p.gguf"
    report = export(base, [file], out, to="gguf", storage=storage)
    reader = gguf.GGUFReader(out)
    keys = {name: field.contents() for name, field in reader.fields.items()}
    assert keys["general.type"] == "adapter"
    assert keys["general.architecture"] == KNOWN[architecture]
    assert keys["adapter.type"] == "lora"
    assert keys["adapter.lora.alpha"] == report.rank
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert len(tensors) == 2 * len(patch.factors)
    model = load_model(base)
    for name, site in locate(model, patch.factors).items():
        a = tensors[f"blk.{site.layer}.ffn_down.weight.lora_a"]
        b = tensors[f"blk.{site.layer}.ffn_down.weight.lora_b"]
        # ggml's ne counts from the fastest axis; these are the loader's two checks.
        assert (a.shape[0], b.shape[1]) == (site.d_in, site.d_out)
        assert a.shape[1] == b.shape[0] == report.rank
        product = values(b, site.d_out) @ values(a, report.rank)
        weight = model.get_submodule(site.module).weight.double()
        change = dense(weight, patch.factors[name], site.layout) - weight
        change = change if site.layout == "linear" else change.T
        assert float((product - change).norm()) <= within * float(change.norm())


def values(tensor: object, rows: int) -> torch.Tensor:
    data = gguf.dequantize(tensor.data, tensor.tensor_type)  # type: ignore[attr-defined]
    return torch.from_numpy(data.copy()).double().reshape(rows, -1)


def test_the_same_patch_gives_the_same_bytes_and_passes_the_self_test(tmp_path: Path) -> None:
    base, file, _ = saved("gpt2", tmp_path)
    for out in ("one.gguf", "two.gguf"):
        assert export(base, [file], tmp_path / out, to="gguf", self_test=True).ok
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize("architecture", ["gptj", "opt"])
def test_an_architecture_without_a_graph_is_refused(architecture: str, tmp_path: Path) -> None:
    base, file, _ = saved(architecture, tmp_path)
    with pytest.raises(UnsupportedModel, match=r"llama\.cpp does not run") as caught:
        export(base, [file], tmp_path / "p.gguf", to="gguf")
    assert "--to peft" in str(caught.value.hint)


def test_without_the_package_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, file, _ = saved("llama2", tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(OutputError, match="needs the gguf package") as caught:
        export(base, [file], tmp_path / "p.gguf", to="gguf")
    assert caught.value.hint == "pip install 'patchkit-lm[gguf]'"


def test_an_existing_file_is_kept_and_a_failure_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, file, _ = saved("llama2", tmp_path)
    out = tmp_path / "p.gguf"
    out.write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        export(base, [file], out, to="gguf")
    before = sorted(path.name for path in tmp_path.iterdir())

    def fail(self: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", fail)
    with pytest.raises(OutputError, match="no space"):
        export(base, [file], out, to="gguf", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert out.read_bytes() == b"mine"
    with pytest.raises(OutputError, match="is not a folder"):
        export(base, [file], tmp_path / "none" / "p.gguf", to="gguf")
