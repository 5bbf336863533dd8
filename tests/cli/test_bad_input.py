"""Bad input: a sentence, a hint where one helps, exit code 1, and nothing left behind."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from patchkit.facts.reading import to_jsonl
from patchkit.patch.patch import Patch
from patchkit.tensors.header import read_header
from patchkit.tensors.source import FileSource
from tests.cli.helpers import EDITED, FACTS, run
from tests.unit.models.factory import save_tiny


@dataclass(frozen=True)
class Place:
    """The folders and files of one test, as the arguments of commands."""

    base: Path
    patch: Path

    def command(self, name: str) -> list[str]:
        """A whole command line that uses the base, the patch or both."""
        base, patch = str(self.base), str(self.patch)
        return {
            "inspect": ["inspect", patch],
            "facts": ["facts", patch],
            "apply": ["apply", base, patch, "-o", "out"],
            "verify": ["verify", patch, "--base", base],
            "eval": ["eval", patch, "--base", base, "--facts", "facts.jsonl"],
            "try": ["try", "x", "--patch", patch, "--base", base],
            "edit": ["edit", "facts.jsonl", "--base", base, "-o", "new.patch.safetensors"],
            "edit --on": ["edit", "facts.jsonl", "--base", base, "--on", patch],
        }[name]


@pytest.fixture
def place(base: Path, patch: Path, tmp_path: Path) -> Place:
    """A copy of the base that a test may damage, a patch, and a facts file."""
    shutil.copytree(base, tmp_path / "base")
    Path("facts.jsonl").write_bytes(to_jsonl(FACTS))
    return Place(tmp_path / "base", patch)


def everything() -> dict[str, int]:
    """Every file and folder of the working folder, with its size."""
    return {str(path): path.stat().st_size for path in Path().rglob("*")}


def refused(args: list[str], code: str, sentence: str, hint: str = "", lines: int = 0) -> None:
    """Assert that a command fails as it should, for people and for programs."""
    before = everything()
    ran = run(*args)
    assert (ran.code, ran.stdout) == (1, ""), ran
    said = ran.stderr.splitlines()
    assert said[0].startswith("error: ")
    assert sentence in said[0]
    hints = [line for line in said if line.startswith("hint: ")]
    assert bool(hints) == bool(hint), said
    assert not hint or hint in hints[0]
    ran = run(*args, "--json")
    assert (ran.code, ran.stdout) == (1, "")
    assert len(ran.stderr.splitlines()) == 1
    error = json.loads(ran.stderr)
    assert error["schema"] == "patchkit.error/1"
    assert (error["ok"], error["code"]) == (False, code)
    assert sentence in error["message"]
    assert everything() == before


def truncated(patch: Path) -> str:
    patch.write_bytes(patch.read_bytes()[:-100])
    return "my.patch.safetensors should have"


def flipped_in_the_data(patch: Path) -> str:
    data = bytearray(patch.read_bytes())
    data[read_header(FileSource(patch)).size + 5] ^= 4
    patch.write_bytes(data)
    return "my.patch.safetensors is damaged"


def flipped_in_the_header(patch: Path) -> str:
    data = bytearray(patch.read_bytes())
    data[data.index(b"rotation") + 1] ^= 1
    patch.write_bytes(data)
    return "my.patch.safetensors cannot be used"


def not_a_patch(patch: Path) -> str:
    tensors = load_file(patch)
    save_file({"w": tensors[f"{EDITED}/0/x"]}, patch)
    return "my.patch.safetensors is a safetensors file but not a patch"


def not_safetensors(patch: Path) -> str:
    patch.write_text("just a text, long enough to be mistaken for something")
    return "my.patch.safetensors is not a safetensors file"


def newer(patch: Path) -> str:
    data = patch.read_bytes()
    assert data.count(b'\\"format\\":1') == 1
    patch.write_bytes(data.replace(b'\\"format\\":1', b'\\"format\\":9'))
    return "the patch is of format 9, and this patchkit reads up to format 1"


DAMAGES = (
    truncated,
    flipped_in_the_data,
    flipped_in_the_header,
    not_a_patch,
    not_safetensors,
    newer,
)


@pytest.mark.parametrize("command", ["inspect", "facts", "apply", "eval", "try", "edit --on"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_bad_patch(place: Place, command: str, damage: Callable[[Path], str]) -> None:
    sentence = damage(place.patch)
    hint = "pip install --upgrade" if damage is newer else ""
    refused(place.command(command), "format_invalid", sentence, hint)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_verify_judges_a_bad_patch(place: Place, damage: Callable[[Path], str]) -> None:
    damage(place.patch)
    ran = run(*place.command("verify"), "--json")
    assert (ran.code, ran.stderr, ran.data["ok"]) == (3, "", False)


@pytest.mark.parametrize("command", ["apply", "eval", "try"])
def test_the_wrong_base(place: Place, command: str) -> None:
    shutil.rmtree(place.base)
    save_tiny("llama2", place.base, seed=1)
    hint = "--allow-other-base" if command == "apply" else "load the base"
    refused(place.command(command), "base_mismatch", "the patch was made for", hint)


BASE_COMMANDS = ["apply", "verify", "eval", "try", "edit"]


@pytest.mark.parametrize("command", BASE_COMMANDS)
def test_a_missing_base(place: Place, command: str) -> None:
    shutil.rmtree(place.base)
    refused(
        place.command(command), "checkpoint_invalid", f"no folder {place.base}", "pass a folder"
    )


@pytest.mark.parametrize("command", BASE_COMMANDS)
def test_a_missing_shard(place: Place, command: str) -> None:
    shard = sorted(place.base.glob("*.safetensors"))[0]
    shard.unlink()
    refused(place.command(command), "checkpoint_invalid", shard.name, "fetch")


@pytest.mark.parametrize("command", BASE_COMMANDS)
def test_an_index_naming_a_tensor_that_no_shard_has(place: Place, command: str) -> None:
    path = place.base / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.layers.9.mlp.down_proj.weight"] = next(
        iter(index["weight_map"].values())
    )
    path.write_text(json.dumps(index))
    refused(
        place.command(command),
        "checkpoint_invalid",
        "model.layers.9.mlp.down_proj.weight",
        "fetch",
    )


@pytest.mark.parametrize("command", BASE_COMMANDS)
def test_a_base_of_pickles(place: Place, command: str) -> None:
    for path in place.base.glob("*.safetensors*"):
        path.unlink()
    (place.base / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(place.command(command), "checkpoint_invalid", "pickle", "save_pretrained")


@pytest.mark.parametrize("command", BASE_COMMANDS)
def test_a_quantised_base(place: Place, command: str) -> None:
    path = place.base / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps(config))
    refused(place.command(command), "checkpoint_invalid", "quantised", "full-precision")


def test_a_mixture_of_experts(place: Place) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from tests.unit.models.factory import tiny_tokenizer

    config = AutoConfig.for_model(
        "mixtral",
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    shutil.rmtree(place.base)
    AutoModelForCausalLM.from_config(config).save_pretrained(place.base)
    tiny_tokenizer().save_pretrained(place.base)
    refused(place.command("edit"), "unsupported_model", "expert", "")


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff\n"])
def test_no_facts(place: Place, text: str) -> None:
    Path("facts.jsonl").write_text(text, encoding="utf-8")
    sentence, hint = "facts.jsonl has no facts", "patchkit edit --help"
    refused(place.command("edit"), "facts_invalid", sentence, hint)
    refused(["facts", "facts.jsonl"], "facts_invalid", sentence, hint)


def test_facts_that_are_not_there(place: Place) -> None:
    Path("facts.jsonl").unlink()
    refused(place.command("edit"), "facts_invalid", "cannot read facts.jsonl")


def test_an_existing_output(place: Place) -> None:
    Path("new.patch.safetensors").write_text("precious")
    refused(place.command("edit"), "output_failed", "new.patch.safetensors exists", "--yes")
    Path("out").mkdir()
    Path("out", "config.json").write_text("precious")
    refused(place.command("apply"), "output_failed", "out", "--yes")
    Path("out", "thesis.tex").write_text("precious")
    (Path("out") / "config.json").unlink()
    refused([*place.command("apply"), "--yes"], "output_failed", "holds no model", "-o")


def test_an_output_that_cannot_be_written(place: Place) -> None:
    Path("file").write_text("in the way")
    edit = ["edit", "facts.jsonl", "--base", str(place.base), "-o", "file/p.patch.safetensors"]
    refused(edit, "output_failed", "no folder file")
    refused([*edit[:-1], "."], "output_failed", "is a folder", "-o")
    apply = ["apply", str(place.base), str(place.patch), "-o", "file/out"]
    refused(apply, "output_failed", "file/out cannot be written", "mkdir")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_while_applying(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("patchkit.tensors.rewrite.RangeWriter.write", full)
    refused(place.command("apply"), "output_failed", "no space is left", "free some space")


@pytest.mark.usefixtures("fast_recipe")
def test_a_disk_that_fills_up_while_writing_a_patch(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("patchkit.patch.writing.os.fsync", full)
    refused(place.command("edit"), "output_failed", "new.patch.safetensors", "free some space")


@pytest.mark.usefixtures("fast_recipe")
def test_a_disk_that_fills_up_after_a_patch_was_kept(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, iter([False, True])
    monkeypatch.setattr(
        "patchkit.patch.writing.os.fsync", lambda file: full() if next(calls) else sync(file)
    )
    ran = run(*place.command("edit"))
    assert ran.code == 1
    assert "the patch that stands there is whole" in " ".join(ran.stderr.split())
    assert Patch.read("new.patch.safetensors").facts_jsonl == to_jsonl(FACTS)


@pytest.mark.parametrize("name", ["apply", "edit"])
@pytest.mark.usefixtures("fast_recipe")
def test_ctrl_c_leaves_nothing(place: Place, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("patchkit.tensors.rewrite.RangeWriter.write", interrupt)
    monkeypatch.setattr("patchkit.editing.methods.rotation.solve", interrupt)
    before = everything()
    ran = run(*place.command(name))
    assert (ran.code, ran.stdout, ran.stderr) == (130, "", "error: interrupted\n")
    assert everything() == before
