"""Every way a file can be wrong gives one sentence, before anything large is allocated."""

from __future__ import annotations

import json
import math
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from patchkit.errors import FormatError, InvariantError
from patchkit.factors.rotation import Rotation
from patchkit.patch.patch import Patch
from patchkit.patch.reader import read_info
from patchkit.tensors.digests import bytes_digest
from tests.unit.patch.samples import (
    CONV,
    LINEAR,
    metadata_of,
    sample,
    with_header,
    with_metadata,
    with_metadata_text,
)

GOOD = sample().to_bytes()
X, Y = f"{LINEAR}/0/x", f"{LINEAR}/0/y"


def put(path: str, value: object) -> Callable[[dict[str, object]], None]:
    """Set one value of nested JSON; the path is separated by '|'."""

    def change(fields: dict[str, object]) -> None:
        at: object = fields
        *way, last = path.split("|")
        for step in way:
            at = at[int(step)] if isinstance(at, list) else at[step]  # type: ignore[index]
        at[last] = value  # type: ignore[index]

    return change


def drop(key: str) -> Callable[[dict[str, object]], None]:
    return lambda fields: fields.pop(key) and None


def with_value(value: float) -> bytes:
    """The sample with one value of x replaced and all digests made right."""
    patch = sample()
    factor = patch.factors[LINEAR][0]
    assert isinstance(factor, Rotation)
    position = GOOD.index(factor.x.numpy().tobytes())
    word = torch.tensor([value]).numpy().tobytes()
    data = GOOD[:position] + word + GOOD[position + 4 :]
    size = factor.x.numel() * 4 * 2
    digest = bytes_digest(data[position : position + size])
    return with_metadata(data, put(f"tensors|{LINEAR}|factors|0|sha256", digest))


METADATA = {
    "newer format": (put("format", 2), "is of format 2, and this patchkit reads up to format 1"),
    "format zero": (put("format", 0), "should be a number from 1"),
    "format of the wrong type": (put("format", "1"), "should be a number from 1"),
    "format true": (put("format", True), "should be a number from 1"),
    "unknown key": (put("signature", "x"), "'signature', which this version does not understand"),
    "unknown inner key": (put("base|size", 1), "base has the key 'size'"),
    "missing key": (drop("recipe"), "lacks the key 'recipe'"),
    "wrong digest text": (put("after", ["sha256:00"]), r"after\[0\] should be sha256:"),
    "upper-case digest": (put("facts|digest", "sha256:" + "A" * 64), "facts.digest should be"),
    "count of the wrong type": (put("facts|count", 1.0), "facts.count should be an integer"),
    "layout of another kind": (put(f"tensors|{CONV}|layout", "conv2d"), "'linear' or 'conv1d'"),
    "dtype that cannot be edited": (put(f"tensors|{CONV}|dtype", "I8"), "should be 'F64' or"),
    "three axes": (put(f"tensors|{CONV}|shape", [8, 6, 1]), "should have two sizes, not 3"),
    "axis of zero": (put(f"tensors|{CONV}|shape", [8, 0]), "an integer from 1"),
    "huge axis": (put(f"tensors|{CONV}|shape", [8, 2**31]), "an integer from 1 to 2147483647"),
    "no factors": (put(f"tensors|{CONV}|factors", []), "has no factors"),
    "unknown kind": (put(f"tensors|{CONV}|factors|0|kind", "dense"), "or 'additive-dense'"),
    "unknown side": (put(f"tensors|{CONV}|factors|0|side", "left"), "'input' or 'output'"),
    "rank above half the side": (put(f"tensors|{CONV}|factors|0|rank", 4), "3 is the most"),
    "rank of zero": (put(f"tensors|{CONV}|factors|0|rank", 0), "an integer from 1"),
    "rank of blocks": (put(f"tensors|{CONV}|factors|1|rank", 3), "rank 3; 4 is that of its shape"),
    "rank of a dense sum": (put(f"tensors|{CONV}|factors|2|rank", 5), "rank 5; 6 is that of its"),
    "blocks that do not divide the side": (
        put(f"tensors|{CONV}|factors|1|blocks", 3),
        "has 3 blocks, and a side of 8 is not as many equal blocks",
    ),
    "blocks of one": (put(f"tensors|{CONV}|factors|1|blocks", 8), "equal blocks of at least 2"),
    "blocks of zero": (put(f"tensors|{CONV}|factors|1|blocks", 0), "blocks should be an integer"),
    "no blocks": (put(f"tensors|{CONV}|factors|1|kind", "rotation"), "has the key 'blocks'"),
    "blocks that the data does not have": (
        put(f"tensors|{CONV}|factors|1|blocks", 4),
        r"has shape \(2, 6\), and \(4, 1\) is described",
    ),
    "dense sum with a side": (put(f"tensors|{CONV}|factors|2|side", "input"), "has the key 'side'"),
    "rank that the data does not have": (
        put(f"tensors|{CONV}|factors|0|rank", 2),
        r"has shape \(6, 3\), and \(6, 2\) is described",
    ),
    "side that the data does not have": (
        put(f"tensors|{CONV}|factors|0|side", "input"),
        r"has shape \(6, 3\), and \(8, 3\) is described",
    ),
    "other shape of the weight": (put(f"tensors|{LINEAR}|shape", [6, 12]), r"\(12, 3\) is descr"),
    "wrong factor digest": (
        put(f"tensors|{LINEAR}|factors|0|sha256", "sha256:" + "1" * 64),
        f"the data of {LINEAR}/0: sha256:",
    ),
    "wrong facts digest": (put("facts|digest", "sha256:" + "1" * 64), "data of patchkit.facts"),
    "facts that are denied": (put("facts", None), "the metadata says there are none"),
    "more facts than it says": (put("facts|count", 1), "a count of 1 is recorded, found 2"),
    "control character": (put("base|repo", "a\x1b[31m"), r"control character U\+001B"),
    "right-to-left override": (put("method", "a\u202eb"), r"control character U\+202E"),
    "control character in a key": (put("recipe|a\nb", 1), r"control character U\+000A"),
    "name with a slash": (
        lambda fields: put("tensors|../../etc", fields["tensors"][CONV])(fields),  # type: ignore[index]
        "cannot be the name of an edited tensor",
    ),
    "deep nesting": (put("recipe|a", json.loads("[" * 40 + "]" * 40)), "deeper than 16 levels"),
    "text for a record": (put("base", "atlas"), "base should be an object"),
    "list for a record": (put("tensors", []), "tensors should be an object"),
    "strength without a decimal point": (
        put("leaves", [{"digest": "sha256:" + "0" * 64, "strength": 1, "inverted": False}]),
        r"leaves\[0\].strength should be a decimal number",
    ),
}  # fmt: skip

HEADERS = {
    "missing tensor": (drop(X), "leaves a hole"),
    "undescribed tensor": (
        put("other", {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}),
        "'other' is not described",
    ),
    "overlapping ranges": (put(f"{Y}|data_offsets", [116, 236]), "overlaps another"),
    "hole": (put(f"{X}|data_offsets", [4, 124]), "leaves a hole"),
    "offset beyond the file": (put(f"{X}|data_offsets", [0, 2**40]), "needs 120 bytes"),
    "huge shape": (put(f"{X}|shape", [2**40, 2**40]), "bytes for its shape"),
    "negative size": (put(f"{X}|shape", [-10, 3]), "short list of sizes"),
    "type that factors cannot have": (put(f"{X}|dtype", "I32"), "F32 or BF16 is allowed"),
    "another key of metadata": (put("__metadata__|format", "pt"), "not in canonical form"),
    "facts of another type": (put("patchkit.facts|dtype", "I8"), "should be a list of bytes"),
}


@pytest.mark.parametrize("case", METADATA)
def test_wrong_metadata(case: str) -> None:
    change, sentence = METADATA[case]
    with pytest.raises(FormatError, match=sentence) as caught:
        read_info(with_metadata(GOOD, change))
    assert "\n" not in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("case", HEADERS)
def test_wrong_header(case: str) -> None:
    change, sentence = HEADERS[case]
    with pytest.raises(FormatError, match=sentence):
        read_info(with_header(GOOD, change))


def test_newer_format_hints_at_an_upgrade() -> None:
    with pytest.raises(FormatError) as caught:
        read_info(with_metadata(GOOD, put("format", 2)))
    assert caught.value.hint == "pip install --upgrade patchkit-lm"
    assert dict(caught.value.details) == {"found": 2, "supported": 1}


def test_changed_metadata_without_a_new_seal() -> None:
    text = json.dumps(metadata_of(GOOD), sort_keys=True, separators=(",", ":")).encode()
    changed = text.replace(b'"efficacy":0.98', b'"efficacy":0.99')
    with pytest.raises(FormatError, match="does not match its seal"):
        read_info(with_metadata_text(GOOD, changed))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b'{"format":1,"format":1}', "same key twice"),
        (b'{"format":1e999}', "too large for a number"),
        (b'{"format":NaN}', "NaN is not a number"),
        (b'{"format":1,"base":"\\ud800"}', "control character U\\+D800|not Unicode"),
        (b"[" * 100_000, "nested too deeply|not valid JSON"),
    ],
)
def test_metadata_that_is_not_an_object(text: bytes, sentence: str) -> None:
    with pytest.raises(FormatError, match=sentence):
        read_info(with_metadata_text(GOOD, text))


def test_spaces_in_metadata_are_not_canonical() -> None:
    text = json.dumps(metadata_of(GOOD), sort_keys=True).encode()
    with pytest.raises(FormatError, match="metadata is not in canonical form"):
        read_info(with_metadata_text(GOOD, text))


def test_duplicate_keys_in_the_header() -> None:
    size = 8 + int.from_bytes(GOOD[:8], "little")
    text = GOOD[8:size].rstrip()[:-1] + b',"patchkit.facts":{}}'
    with pytest.raises(FormatError, match="same key twice"):
        read_info(len(text).to_bytes(8, "little") + text + GOOD[size:])


def test_parts_of_two_types() -> None:
    patch = sample("bfloat16")
    data = patch.to_bytes()

    def change(header: dict[str, object]) -> None:
        entry = header[Y]
        assert isinstance(entry, dict)
        entry["dtype"] = "F16"

    with pytest.raises(FormatError, match="stored as F16"):
        read_info(with_header(data, change))


def test_not_a_patch(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(save({"weight": torch.zeros(2)}))
    with pytest.raises(FormatError) as caught:
        read_info(path)
    assert caught.value.message == (
        'model.safetensors is a safetensors file but not a patch (no "patchkit" metadata)'
    )


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"hello, this is a text file\n"])
def test_not_safetensors(data: bytes) -> None:
    with pytest.raises(FormatError, match="is not a safetensors file"):
        read_info(data)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nothing\.safetensors is not a file"):
        read_info(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("cut", [1, 100, len(GOOD) // 2, len(GOOD) - 1])
def test_truncated(cut: int) -> None:
    with pytest.raises(FormatError):
        read_info(GOOD[:-cut])


def test_bytes_left_over() -> None:
    with pytest.raises(FormatError, match="should have"):
        read_info(GOOD + b"\0")


def test_oversized_header_is_refused_unread() -> None:
    size = 9_000_000
    data = size.to_bytes(8, "little") + b" " * size
    tracemalloc.start()
    with pytest.raises(FormatError, match="header of 9000000 bytes; 8000000 are allowed"):
        read_info(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_huge_declared_shape_in_a_small_file_allocates_nothing() -> None:
    def change(fields: dict[str, object]) -> None:
        put(f"tensors|{LINEAR}|shape", [2**31 - 1, 2**31 - 1])(fields)
        put(f"tensors|{LINEAR}|factors|0|rank", 2**30 - 1)(fields)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(FormatError, match="has shape"):
        Patch.read(with_metadata(GOOD, change))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(value: float) -> None:
    data = with_value(value)
    assert read_info(data).bytes == len(data)
    with pytest.raises(
        FormatError, match=rf"factors of {LINEAR} hold values that are not finite \(1\)"
    ):
        Patch.read(data)


def test_huge_generator_is_read_but_never_exponentiated() -> None:
    patch = Patch.read(with_value(1e30))
    factor = patch.factors[LINEAR][0]
    assert isinstance(factor, Rotation)
    with pytest.raises(InvariantError, match="beyond the limit of 64"):
        factor.core()


def test_too_many_tensors() -> None:
    def change(fields: dict[str, object]) -> None:
        tensor = fields["tensors"][LINEAR]  # type: ignore[index]
        tensor["factors"] = tensor["factors"][:1] * 2048

    with pytest.raises(FormatError, match="4101 tensors; 4095 are allowed"):
        read_info(with_metadata(GOOD, change))
