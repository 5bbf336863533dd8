"""Adapters as GGUF, with the keys and names that llama.cpp's loader looks for."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch

from patchkit.errors import OutputError, UnsupportedModel
from patchkit.export.adapter import Adapter, Storage, matrices
from patchkit.factors.lowrank import LowRank
from patchkit.tensors.clone import sync_file
from patchkit.tensors.rewrite import output_error

# model_type of a base, and the architecture that llama.cpp's conversion makes of it. What is
# missing here (gptj, opt) has no graph in llama.cpp.
_ARCHITECTURES: Mapping[str, str] = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
    "gpt2": "gpt2",
    "gpt_neox": "gptneox",
}


def package() -> Any:
    """Import gguf; OutputError with the command that installs it."""
    try:
        return importlib.import_module("gguf")
    except ImportError as error:
        raise OutputError(
            "GGUF export needs the gguf package, which is not installed",
            hint="pip install 'patchkit-lm[gguf]'",
        ) from error


def architecture(model_type: str) -> str:
    """Return llama.cpp's name of an architecture; UnsupportedModel where it has none."""
    if model_type not in _ARCHITECTURES:
        raise UnsupportedModel(
            f"llama.cpp does not run models of model_type {model_type!r}",
            hint="patchkit export PATCH --to peft -o OUT",
            details={"model_type": model_type},
        )
    return _ARCHITECTURES[model_type]


def check_place(out: Path, *, overwrite: bool) -> None:
    """OutputError unless a file can be made at `out`, or replaced there if `overwrite`."""
    if not out.parent.is_dir():
        raise OutputError(
            f"{out} cannot be written: {out.parent} is not a folder", hint=f"mkdir -p {out.parent}"
        )
    if os.path.lexists(out) and (not overwrite or not out.is_file()):
        raise OutputError(f"{out} exists", hint="replace it with --yes, or name another with -o")


def write(adapter: Adapter, out: Path, storage: Storage, *, overwrite: bool) -> None:
    """Write the file at once or not at all; OutputError if it cannot be written."""
    gguf = package()
    check_place(out, overwrite=overwrite)
    sibling = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        _fill(gguf, sibling, adapter, storage)
        sync_file(sibling)
        os.replace(sibling, out)
    except OSError as error:
        raise output_error(out, error) from error
    finally:
        with suppress(OSError):
            sibling.unlink(missing_ok=True)


def _fill(gguf: Any, path: Path, adapter: Adapter, storage: Storage) -> None:
    with closing(gguf.GGUFWriter(path, architecture(adapter.architecture))) as writer:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(adapter.rank))
        for layer in adapter.layers:
            name = tensor_name(gguf, layer.site.layer)
            for suffix, matrix in zip("ab", matrices(layer, storage), strict=True):
                _add(gguf, writer, f"{name}.lora_{suffix}", matrix)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def read(out: Path, adapter: Adapter) -> dict[str, LowRank]:
    """Return each module's change in fp64, scaled as llama.cpp scales it, by its path in the model.

    The scale is alpha divided by the rank that B has.
    """
    gguf = package()
    reader = gguf.GGUFReader(out)
    alpha = float(reader.get_field(gguf.Keys.Adapter.LORA_ALPHA).contents())
    tensors = {tensor.name: _values(gguf, tensor) for tensor in reader.tensors}
    found = {}
    for layer in adapter.layers:
        name = tensor_name(gguf, layer.site.layer)
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        found[layer.site.module] = LowRank(alpha / b.shape[1] * b, a)
    return found


def tensor_name(gguf: Any, layer: int) -> str:
    """Return llama.cpp's name of the MLP output projection of a layer, `blk.N.ffn_down.weight`."""
    name: str = gguf.TENSOR_NAMES[gguf.MODEL_TENSOR.FFN_DOWN]
    return name.format(bid=layer) + ".weight"


def _add(gguf: Any, writer: Any, name: str, matrix: torch.Tensor) -> None:
    if matrix.dtype == torch.float32:
        writer.add_tensor(name, matrix.numpy())
        return
    kind = gguf.GGMLQuantizationType.BF16
    packed = matrix.view(torch.uint8).numpy()  # the bytes of a row, as GGUF counts them
    writer.add_tensor(name, packed, raw_dtype=kind)


def _values(gguf: Any, tensor: Any) -> torch.Tensor:
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    shape = [int(size) for size in reversed(tensor.shape)]  # GGUF names the fastest axis first
    return torch.from_numpy(values.copy()).reshape(shape).to(torch.float64)
