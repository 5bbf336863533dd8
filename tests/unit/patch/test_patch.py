from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from patchkit.errors import FormatError, InvariantError, OutputError
from patchkit.factors.additive import Additive
from patchkit.factors.rotation import Rotation
from patchkit.patch.metadata import BaseMeta, Leaf, PatchMetadata
from patchkit.patch.patch import Patch, Storage, TensorDraft, build_patch
from patchkit.patch.reader import read_info
from patchkit.tensors.digests import file_digest
from tests.unit.patch.samples import CONV, FACTS, LINEAR, ZERO, sample, with_metadata

STORAGES: tuple[Storage, ...] = ("float32", "bfloat16")


def draft(*factors: Rotation | Additive) -> TensorDraft:
    return TensorDraft((4, 6), "F32", "linear", ZERO, factors)


@pytest.mark.parametrize("storage", STORAGES)
def test_the_safetensors_library_writes_the_same_bytes(storage: Storage) -> None:
    patch = sample(storage)
    data = patch.to_bytes()
    metadata = {"patchkit": patch.metadata.to_json().decode()}
    assert save(load(data), metadata) == data


@pytest.mark.parametrize("storage", STORAGES)
def test_tensors_are_named_typed_and_aligned(storage: Storage) -> None:
    info = read_info(sample(storage).to_bytes())
    factors = {name: t for name, t in info.header.tensors.items() if name != "patchkit.facts"}
    assert set(factors) == {
        f"{LINEAR}/0/x", f"{LINEAR}/0/y", f"{LINEAR}/1/f", f"{LINEAR}/1/l",
        f"{CONV}/0/x", f"{CONV}/0/y", f"{CONV}/1/s", f"{CONV}/2/d", f"{CONV}/3/s",
    }  # fmt: skip
    size = 4 if storage == "float32" else 2
    assert all(tensor.start % size == 0 for tensor in factors.values())
    assert info.header.size % 8 == 0


def test_reading_gives_back_what_was_written(tmp_path: Path) -> None:
    patch = sample()
    path = tmp_path / "facts.patch.safetensors"
    digest = patch.write(path)
    again = Patch.read(path)
    assert digest == file_digest(path) == again.digest == patch.digest
    assert again.metadata == patch.metadata
    assert again.facts_jsonl == FACTS
    one, two = patch.factors[LINEAR][0], again.factors[LINEAR][0]
    assert isinstance(one, Rotation)
    assert isinstance(two, Rotation)
    assert torch.equal(one.x, two.x)
    assert torch.equal(one.y, two.y)
    assert [path] == list(tmp_path.iterdir())


def test_info_says_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    digest = sample().write(path)
    info = read_info(path)
    assert (info.digest, info.bytes) == (digest, path.stat().st_size)
    assert info.facts_jsonl == FACTS
    assert info.metadata.facts is not None
    assert info.metadata.facts.count == 2
    assert info.metadata.tensors[LINEAR].d_out == 6
    assert info.metadata.tensors[CONV].d_out == 6
    assert info.metadata.tensors[CONV].d_in == 8
    assert info.metadata.created_by.startswith("patchkit ")


def test_facts_can_be_left_out_but_not_forgotten() -> None:
    patch = build_patch(BaseMeta(), {}, FACTS, {}, "rotation", {}, embed_facts=False)
    info = read_info(patch.to_bytes())
    assert info.facts_jsonl is None
    assert info.metadata.facts is not None
    assert info.metadata.facts.count == 2


def test_a_patch_may_be_empty() -> None:
    patch = build_patch(BaseMeta(), {}, None, {}, "rotation", {})
    again = Patch.read(patch.to_bytes())
    assert again.factors == {}
    assert again.metadata.facts is None


def test_factors_of_rank_zero_are_left_out() -> None:
    nothing = Rotation("input", torch.zeros(6, 0), torch.zeros(6, 0))
    some = Additive(torch.ones(4, 1), torch.ones(1, 6))
    patch = build_patch(
        BaseMeta(), {"a": draft(nothing), "b": draft(nothing, some)}, None, {}, "m", {}
    )
    assert list(patch.factors) == ["b"]
    assert [f.kind for f in patch.factors["b"]] == ["additive"]


def test_factors_are_rounded_once_to_the_stored_type() -> None:
    x = torch.full((6, 1), 1 / 3, dtype=torch.float64)
    patch = build_patch(
        BaseMeta(), {"a": draft(Rotation("input", x, x))}, None, {}, "m", {}, storage="bfloat16"
    )
    factor = patch.factors["a"][0]
    assert isinstance(factor, Rotation)
    assert torch.equal(factor.x, x.to(torch.bfloat16))


def test_composition_and_predecessors_are_kept() -> None:
    leaf = Leaf(ZERO, 0.5, True)
    patch = build_patch(BaseMeta(), {}, None, {}, "composed", {}, [ZERO], leaves=[leaf])
    metadata = Patch.read(patch.to_bytes()).metadata
    assert metadata.leaves == (leaf,)
    assert metadata.after == (ZERO,)


def test_optional_keys_of_later_versions_are_kept() -> None:
    data = with_metadata(sample().to_bytes(), lambda fields: fields.update({"x-note": [1, "a"]}))
    patch = Patch.read(data)
    assert patch.metadata.extra == {"x-note": [1, "a"]}
    assert patch.to_bytes() == data


def test_metadata_is_canonical_whatever_the_order_it_was_built_in() -> None:
    one = build_patch(BaseMeta(), {}, None, {"a": 1, "b": (2, 3)}, "m", {})
    two = build_patch(BaseMeta(), {}, None, {"b": [2, 3], "a": 1}, "m", {})
    assert one.to_bytes() == two.to_bytes()
    assert PatchMetadata.from_json(one.metadata.to_json()) == one.metadata


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\x00"])
def test_metadata_that_cannot_be_written_is_refused(value: object) -> None:
    with pytest.raises(FormatError):
        build_patch(BaseMeta(), {}, None, {"value": value}, "m", {})


def test_what_a_reader_would_refuse_is_not_built() -> None:
    wide = Rotation("input", torch.zeros(6, 4), torch.zeros(6, 4))
    with pytest.raises(FormatError, match="rank 4; 3 is the most"):
        build_patch(BaseMeta(), {"a": draft(wide)}, None, {}, "m", {})
    other = Rotation("input", torch.zeros(5, 1), torch.zeros(5, 1))
    with pytest.raises(InvariantError, match="does not fit"):
        build_patch(BaseMeta(), {"a": draft(other)}, None, {}, "m", {})
    wild = Rotation("input", torch.full((6, 1), 1e30), torch.eye(6)[:, :1])
    with pytest.raises(InvariantError, match="beyond the limit"):
        build_patch(BaseMeta(), {"a": draft(wild)}, None, {}, "m", {})
    with pytest.raises(FormatError, match="cannot be the name"):
        build_patch(BaseMeta(), {"a/b": draft(Additive(torch.ones(4, 1), torch.ones(1, 6)))},
                    None, {}, "m", {})  # fmt: skip


def test_infinite_additive_factors_are_refused() -> None:
    factor = Additive(torch.full((4, 1), 1e39, dtype=torch.float64), torch.ones(1, 6))
    with pytest.raises(InvariantError, match="not finite"):
        build_patch(BaseMeta(), {"a": draft(factor)}, None, {}, "m", {})


def test_factors_that_metadata_does_not_describe_are_not_written() -> None:
    patch = sample()
    swapped = Patch(patch.metadata, {**patch.factors, CONV: patch.factors[LINEAR]}, FACTS)
    with pytest.raises(InvariantError, match=f"factors of {CONV} are not those"):
        swapped.to_bytes()
    with pytest.raises(InvariantError, match="facts of the patch are not those"):
        Patch(patch.metadata, patch.factors, b"{}\n").to_bytes()


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        sample().write(tmp_path / "missing" / "p.safetensors")
    target = tmp_path / "taken"
    target.mkdir()
    with pytest.raises(OutputError, match="taken could not be written"):
        sample().write(target)
    assert [target] == list(tmp_path.iterdir())


def test_an_interrupted_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"old")

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sample().write(path)
    assert path.read_bytes() == b"old"
    assert [path] == list(tmp_path.iterdir())
