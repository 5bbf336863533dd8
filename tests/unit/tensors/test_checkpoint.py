"""A folder is a checkpoint only if its files agree with each other."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from patchkit.errors import CheckpointError, FormatError
from patchkit.tensors.checkpoint import Checkpoint
from patchkit.tensors.digests import bytes_digest
from tests.unit.tensors.folders import LINEAR, weights, write_folder

INDEX = "model.safetensors.index.json"


@pytest.fixture(params=[1, 3], ids=["single", "sharded"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_folder(tmp_path / "base", weights(torch.float32), shards=request.param)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "base", weights(torch.float32), shards=3)


def change_index(folder: Path, name: str, shard: object) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"][name] = shard
    (folder / INDEX).write_text(json.dumps(index))


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def test_every_tensor_is_found_with_its_bytes(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    expected = weights(torch.float32)
    assert checkpoint.tensors.keys() == expected.keys()
    assert (checkpoint.repo, checkpoint.revision) == (None, None)
    for name, tensor in expected.items():
        entry = checkpoint.tensor(name)
        assert entry.info.shape == tuple(tensor.shape)
        assert entry.info is checkpoint.shards[entry.shard].tensors[name]
        assert checkpoint.digest(name) == bytes_digest(tensor.numpy().tobytes())


@pytest.mark.parametrize("max_bytes", [1, 80, 200, 10_000])
def test_blocks_are_whole_rows_in_order(folder: Path, max_bytes: int) -> None:
    checkpoint = Checkpoint.open(folder)
    tensor = weights(torch.float32)[LINEAR[1]]
    row = tensor.shape[1] * 4
    expected_row, joined = 0, b""
    for start, data in checkpoint.blocks(LINEAR[1], max_bytes):
        assert start == expected_row
        assert len(data) % row == 0
        assert len(data) <= max(max_bytes, row)
        expected_row += len(data) // row
        joined += data
    assert joined == tensor.numpy().tobytes()


def test_the_configuration_digest_ignores_how_it_is_written(folder: Path) -> None:
    before = Checkpoint.open(folder).config_digest
    config = json.loads((folder / "config.json").read_text())
    reordered = dict(reversed(config.items()))
    (folder / "config.json").write_text(json.dumps(reordered, indent=7))
    assert Checkpoint.open(folder).config_digest == before
    change_config(folder, hidden_size=13)
    assert Checkpoint.open(folder).config_digest != before


def test_a_configuration_may_hold_infinity(folder: Path) -> None:
    change_config(folder, limit=float("inf"))
    assert Checkpoint.open(folder).config_digest.startswith("sha256:")


def test_a_wrong_name_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no tensor 'layers") as caught:
        Checkpoint.open(folder).tensor("layers.1.mlp.down_proj.weight")
    assert LINEAR[1] in (caught.value.hint or "")


def test_a_missing_shard_is_named(sharded: Path) -> None:
    (sharded / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks 1 of 3 shards: model-00002-of-00003"):
        Checkpoint.open(sharded)


def test_an_index_that_names_a_tensor_no_shard_has_is_refused(sharded: Path) -> None:
    change_index(sharded, "ghost.weight", "model-00001-of-00003.safetensors")
    with pytest.raises(CheckpointError, match=r"places tensor 'ghost\.weight'") as caught:
        Checkpoint.open(sharded)
    assert caught.value.details["shard"] == "model-00001-of-00003.safetensors"


@pytest.mark.parametrize(
    "shard",
    ["../x.safetensors", "/etc/passwd", "x.bin", 3, "a\n.safetensors", "x" * 256 + ".safetensors"],
)
def test_an_index_cannot_point_outside_the_folder(sharded: Path, shard: object) -> None:
    change_index(sharded, LINEAR[0], shard)
    with pytest.raises(FormatError, match="not in a safetensors file"):
        Checkpoint.open(sharded)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": 1}', "{" * 9]
)
def test_a_damaged_index_is_refused(sharded: Path, text: str) -> None:
    (sharded / INDEX).write_text(text)
    with pytest.raises(FormatError, match=INDEX):
        Checkpoint.open(sharded)


def test_a_truncated_shard_is_refused(sharded: Path) -> None:
    path = sharded / "model-00003-of-00003.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FormatError, match=r"model-00003-of-00003\.safetensors should have"):
        Checkpoint.open(sharded)


def test_pickles_are_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match="pickle") as caught:
        Checkpoint.open(tmp_path)
    assert "save_pretrained" in (caught.value.hint or "")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_what_is_missing_is_named(tmp_path: Path, file: str) -> None:
    folder = write_folder(tmp_path / "base", weights(torch.float32))
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match=file):
        Checkpoint.open(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is not a folder"):
        Checkpoint.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    "changes",
    [
        {"quantization_config": {"quant_method": "bitsandbytes"}},
        {"text_config": {"quantization_config": {"quant_method": "bitsandbytes"}}},
    ],
)
def test_a_quantised_configuration_is_refused(folder: Path, changes: dict[str, object]) -> None:
    change_config(folder, **changes)
    with pytest.raises(CheckpointError, match=r"quantised \(bitsandbytes\)"):
        Checkpoint.open(folder)


@pytest.mark.parametrize("ending", ["SCB", "qweight"])
def test_quantised_tensors_are_refused(tmp_path: Path, ending: str) -> None:
    tensors = weights(torch.float32) | {f"model.layers.0.{ending}": torch.zeros(2)}
    with pytest.raises(CheckpointError, match=ending):
        Checkpoint.open(write_folder(tmp_path / "base", tensors))


def test_a_single_file_wins_over_an_index(sharded: Path, tmp_path: Path) -> None:
    single = write_folder(tmp_path / "other", weights(torch.float32, seed=1))
    shutil.copy(single / "model.safetensors", sharded)
    assert set(Checkpoint.open(sharded).shards) == {"model.safetensors"}
