"""An exported adapter in the real PEFT library answers as the applied checkpoint."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from patchkit.apply import apply_patches
from patchkit.base import load_model
from patchkit.errors import (
    BaseMismatch,
    CheckpointError,
    InvariantError,
    OutputError,
    UnsupportedModel,
)
from patchkit.export import export, peft
from patchkit.export.peft import read, vllm_rank
from patchkit.factors.action import dense
from patchkit.factors.additive import AdditiveDense
from patchkit.factors.rotation import Rotation
from patchkit.patch.drafts import TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.patch import Patch, build_patch
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.layout import locate, sites
from tests.unit.models.factory import ARCHITECTURES, save_tiny
from tests.unit.runtime.samples import close, expected, logits, rebuilt, thin_patch


def saved(
    architecture: str, folder: Path, dtype: torch.dtype | None = None
) -> tuple[Path, Path, Patch]:
    """A base folder, and the file of a patch that carries the names of the base's files."""
    model = save_tiny(architecture, folder / "base", dtype=dtype)
    patch = thin_patch(model, found=sites(model, Checkpoint.open(folder / "base")))
    patch.write(folder / "p.patch.safetensors")
    return folder / "base", folder / "p.patch.safetensors", patch


def with_peft(base: Path, adapter: Path) -> Any:
    model = load_model(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of its own use of transformers
        return pytest.importorskip("peft").PeftModel.from_pretrained(model, adapter)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_answers_as_the_applied_weights_unmerged_and_merged(
    architecture: str, tmp_path: Path
) -> None:
    base, file, patch = saved(architecture, tmp_path)
    model = load_model(base)
    before, wanted = logits(model), expected(model, patch)
    report = export(base, [file], tmp_path / "lora")
    assert report.relative_error < 1e-6
    assert report.tensors == tuple(sorted(patch.factors))
    wrapped = with_peft(base, tmp_path / "lora")
    assert close(logits(wrapped), wanted)
    assert not close(before, wanted, 0.1)
    assert close(logits(wrapped.merge_and_unload()), wanted)


def test_peft_and_the_applied_folder_agree_within_the_stored_type(tmp_path: Path) -> None:
    base, file, patch = saved("llama2", tmp_path, torch.bfloat16)
    exact = expected(load_model(base), patch)
    apply_patches(base, [file], tmp_path / "patched")
    export(base, [file], tmp_path / "lora")
    stored = logits(load_model(tmp_path / "patched"))
    assert close(logits(with_peft(base, tmp_path / "lora")), exact)
    # The folder's weights are rounded to bf16, 2⁻⁹ of each, and the adapter's product is not.
    assert close(stored, exact, 0.1)
    assert not close(stored, exact, 1e-4)


@pytest.mark.parametrize("architecture", ["llama2", "gpt2"])
def test_the_product_is_the_change_of_the_weights(architecture: str, tmp_path: Path) -> None:
    base, file, patch = saved(architecture, tmp_path)
    export(base, [file], tmp_path / "lora")
    found, model = read(tmp_path / "lora"), load_model(base)
    for name, site in locate(model, patch.factors).items():
        weight = model.get_submodule(site.module).weight.double()
        change = dense(weight, patch.factors[name], site.layout) - weight
        change = change if site.layout == "linear" else change.T
        low = found[site.module]
        assert float((low.up @ low.down - change).norm()) <= 1e-6 * float(change.norm())


@pytest.mark.parametrize("side", ["input", "output"])
def test_one_rotation_keeps_its_form_and_twice_its_rank(side: Any, tmp_path: Path) -> None:
    base, file, patch = saved("llama2", tmp_path)
    name = next(iter(patch.factors))
    size = patch.metadata.tensors[name].d_in if side == "input" else 32
    generator = torch.Generator().manual_seed(0)
    rotation = Rotation(side, *torch.randn(2, size, 3, generator=generator) / 8)
    rebuilt(patch, {name: [rotation]}).write(file)
    report = export(base, [file], tmp_path / "lora")
    assert report.rank == 6
    a = load_file(tmp_path / "lora" / "adapter_model.safetensors")[
        f"base_model.model.{name.removesuffix('.weight')}.lora_A.weight"
    ]
    basis = rotation.core().basis
    if side == "input":
        assert torch.allclose(a.double(), basis.T, atol=1e-6)
    else:
        weight = load_model(base).get_parameter(name).double()
        assert torch.allclose(a.double(), basis.T @ weight, atol=1e-5)


def test_all_modules_share_one_rank_and_alpha(tmp_path: Path) -> None:
    base, file, patch = saved("llama2", tmp_path)
    report = export(base, [file], tmp_path / "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    ranks = {t.shape[0] if "lora_A" in name else t.shape[1] for name, t in tensors.items()}
    assert ranks == {config["r"]} == {config["lora_alpha"]} == {report.rank}
    assert len(tensors) == 2 * len(patch.factors) == 2 * len(config["target_modules"])
    assert config["base_model_name_or_path"] is None


def test_the_base_is_named_if_it_can_be_loaded_by_that_name(tmp_path: Path) -> None:
    base, file, patch = saved("llama2", tmp_path)
    names = {"org/name": "org/name", "atlas": None}
    for repo, wanted in names.items():
        origin = replace(patch.metadata.base, repo=repo, revision="abc")
        Patch(replace(patch.metadata, base=origin), patch.factors).write(file)
        export(base, [file], tmp_path / "lora", overwrite=True)
        config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == wanted
        assert config["revision"] == (wanted and "abc")


def test_a_stack_is_exported_as_its_product_at_the_least_rank(tmp_path: Path) -> None:
    base, file, patch = saved("llama2", tmp_path)
    name = next(iter(patch.factors))
    (rotation, *_) = patch.factors[name]
    there, back = rebuilt(patch, {name: [rotation]}), rebuilt(patch, {name: [rotation.inverse()]})
    there.write(file)
    back.write(tmp_path / "back.patch.safetensors")
    twice = export(base, [file, file], tmp_path / "twice")
    none = export(base, [file, tmp_path / "back.patch.safetensors"], tmp_path / "none")
    assert (twice.rank, none.rank) == (4, 1)
    model = load_model(base)
    assert close(logits(with_peft(base, tmp_path / "twice")), expected(model, there, there))
    assert close(logits(with_peft(base, tmp_path / "none")), logits(model))


def test_bfloat16_halves_the_file_and_says_what_that_costs(tmp_path: Path) -> None:
    base, file, _ = saved("llama2", tmp_path)
    whole = export(base, [file], tmp_path / "whole", self_test=True)
    half = export(base, [file], tmp_path / "half", storage="bfloat16", self_test=True)
    assert half.bytes_written < 0.7 * whole.bytes_written
    assert whole.relative_error < 1e-6 < 1e-4 < half.relative_error < 1e-2
    assert whole.ok
    assert half.ok


def test_the_same_patch_gives_the_same_bytes(tmp_path: Path) -> None:
    base, file, _ = saved("gpt2", tmp_path)
    for out in ("one", "two"):
        export(base, [file], tmp_path / out)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_self_test_sees_a_wrong_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, file, _ = saved("llama2", tmp_path)
    assert export(base, [file], tmp_path / "lora", self_test=True).ok
    true = read(tmp_path / "lora")
    wrong = {module: type(low)(-low.up, low.down) for module, low in true.items()}
    monkeypatch.setattr(peft, "read", lambda folder: wrong)
    report = export(base, [file], tmp_path / "lora", overwrite=True, self_test=True)
    assert report.self_test is not None
    assert not report.ok
    assert report.relative_error == pytest.approx(2)


@pytest.mark.parametrize(
    ("rank", "needed"), [(1, 1), (2, 8), (240, 256), (257, 320), (512, 512), (513, None)]
)
def test_vllm_takes_only_some_ranks(rank: int, needed: int | None) -> None:
    assert vllm_rank(rank) == needed


def test_another_base_is_refused_unless_allowed(tmp_path: Path) -> None:
    base, _, _ = saved("llama2", tmp_path)
    (tmp_path / "other").mkdir()
    _, file, _ = saved("gpt2", tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"has no tensor 'transformer\.h\.0"):
        export(base, [file], tmp_path / "lora")
    model = save_tiny("llama2", tmp_path / "changed", seed=1)
    thin_patch(model).write(file)
    with pytest.raises(BaseMismatch, match="made for other weights"):
        export(base, [file], tmp_path / "lora")
    assert not (tmp_path / "lora").exists()
    assert export(base, [file], tmp_path / "lora", allow_other_base=True).ok


def test_a_matrix_that_is_no_mlp_output_is_refused(tmp_path: Path) -> None:
    base, file, _ = saved("llama2", tmp_path)
    name = "model.layers.1.self_attn.o_proj.weight"
    digest = Checkpoint.open(base).digest(name)
    draft = TensorDraft(
        (32, 32), "F32", "linear", digest, [Rotation("input", *torch.eye(32)[:2, :, None])]
    )
    build_patch(BaseMeta(), {name: draft}, None, {}, "one", {}).write(file)
    with pytest.raises(UnsupportedModel, match="is not the output projection of an MLP"):
        export(base, [file], tmp_path / "lora")


def test_a_factor_that_moves_everything_is_refused(tmp_path: Path) -> None:
    base, file, patch = saved("llama2", tmp_path)
    name = next(iter(patch.factors))
    rebuilt(patch, {name: [AdditiveDense(torch.ones(32, 64))]}).write(file)
    with pytest.raises(InvariantError, match="not of low rank"):
        export(base, [file], tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_an_existing_folder_is_replaced_only_when_told_to_and_if_it_is_an_adapter(
    tmp_path: Path,
) -> None:
    base, file, _ = saved("llama2", tmp_path)
    out = tmp_path / "lora"
    export(base, [file], out)
    with pytest.raises(OutputError, match="exists"):
        export(base, [file], out)
    (out / "adapter_model.safetensors").write_bytes(b"")
    export(base, [file], out, overwrite=True)
    assert read(out)
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds no model"):
        export(base, [file], documents, overwrite=True)


def test_a_failure_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, file, _ = saved("llama2", tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(peft, "save_file", fail)
    with pytest.raises(OutputError, match="no space"):
        export(base, [file], tmp_path / "lora")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
