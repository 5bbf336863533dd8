"""The synthetic checkpoint of the benchmark of scale is one, and of the size it says."""

import math
from pathlib import Path

import pytest

from benchmarks import scale
from patchkit.apply import apply_patches
from patchkit.diff import diff_checkpoints
from patchkit.tensors.checkpoint import Checkpoint

TINY = {"hidden": 16, "inner": 24, "heads": 4, "kv_heads": 2, "vocabulary": 40}


def test_sixteen_gigabytes_are_llama_3_8b() -> None:
    assert scale.layers_for(scale.LARGE, 16) == 32
    shapes = dict(scale.llama(scale.LARGE, 32))
    assert sum(math.prod(shape) for shape in shapes.values()) == 8_030_261_248
    groups = list(scale.in_shards(shapes))
    assert [name for group in groups for name in group] == list(shapes)
    sizes = [sum(2 * math.prod(shapes[name]) for name in group) for group in groups]
    assert max(sizes) <= scale.SHARD_BYTES
    assert len(groups) == 4


def test_a_checkpoint_can_be_opened_and_has_finite_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    monkeypatch.setattr(scale, "SMALL", TINY)
    monkeypatch.setattr(scale, "SHARD_BYTES", 20_000)
    scale.make_checkpoint(tmp_path / "base", 1e-6)
    found = Checkpoint.open(tmp_path / "base")
    assert found.config["num_hidden_layers"] == scale.EDITED
    assert {name: entry.info.shape for name, entry in found.tensors.items()} == dict(
        scale.llama(TINY, scale.EDITED)
    )
    assert len(found.shards) > 1
    for shard in found.shards:
        for tensor in load_file(tmp_path / "base" / shard).values():
            assert tensor.dtype == torch.bfloat16
            assert tensor.abs().min() >= 2**-7
            assert tensor.abs().max() < 2**-5
            assert (tensor < 0).any()


def test_a_process_that_fails_says_so(tmp_path: Path) -> None:
    row = scale.timed("fail", "sh", tmp_path, ["sh", "-c", "echo broken; exit 3"])
    assert row.error == "exit 3: broken"
    assert scale.timed("work", "sh", tmp_path, ["true"]).error is None


def test_the_row_of_diff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that is timed runs, finds every edit, and explains it."""
    monkeypatch.setattr(scale, "SMALL", TINY)
    monkeypatch.setattr(scale, "RANK", 2)
    base, patch, out = tmp_path / "base", tmp_path / "p.patch.safetensors", tmp_path / "out"
    scale.make_checkpoint(base, 1e-6)
    scale.make_patch(base, patch)
    apply_patches(base, [patch], out)
    command = scale.patchkit("diff", base, out)
    assert scale.timed("diff", "patchkit", base, command).error is None
    found = diff_checkpoints(base, out)
    assert len(found.changes) == scale.EDITED
    assert not found.unexplained
