"""Nothing that a patch, a folder or a facts file says can drive the terminal it is shown on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from patchkit.apply.lock import LockedPatch, read_lock
from patchkit.patch.patch import Patch
from patchkit.tensors.digests import bytes_digest
from patchkit_cli.output import escaped
from tests.cli.helpers import make_patch, run
from tests.unit.patch.samples import with_metadata

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eabc\u2066\u200b\r\n\x08"
MODES: tuple[tuple[str, ...], ...] = ((), ("-q",), ("--json",))


def shown(*arguments: str | Path) -> str:
    """What a command prints, on both streams; every character of it is one that can be seen."""
    ran = run(*arguments)
    text = ran.stdout + ran.stderr
    assert ran.code in (0, 1, 3), text
    assert [c for c in text if not (c.isprintable() or c == "\n" or c == " ")] == []
    return text


@pytest.fixture
def evil(made: Patch) -> Path:
    """A sound patch whose file has a hostile name."""
    path = Path(f"{EVIL.replace('/', '')}.patch.safetensors")
    made.write(path)
    return path


@pytest.fixture
def tampered(patch: Path) -> Path:
    """A patch whose metadata holds escapes, in texts and in keys."""
    path = Path("tampered.patch.safetensors")
    path.write_bytes(
        with_metadata(patch.read_bytes(), lambda fields: fields.update({"method": EVIL}))
    )
    return path


Command = Callable[[Path, Path], tuple[str | Path, ...]]
COMMANDS: dict[str, Command] = {
    "inspect": lambda patch, base: ("inspect", patch, "--all"),
    "inspect --angles": lambda patch, base: ("inspect", patch, "--angles"),
    "verify": lambda patch, base: ("verify", patch),
    "verify --base": lambda patch, base: ("verify", patch, "--base", base),
    "verify --require-signer": lambda patch, base: ("verify", patch, "--require-signer", patch),
    "facts": lambda patch, base: ("facts", patch, "--all"),
    "apply --dry-run": lambda patch, base: ("apply", base, patch, "-o", "out", "--dry-run"),
    "apply": lambda patch, base: ("apply", base, patch, "-o", f"out{EVIL}"),
    "compose": lambda patch, base: ("compose", patch, "-o", f"{EVIL}.patch.safetensors"),
    "export": lambda patch, base: ("export", patch, "--to", "peft", "--base", base, "-o", EVIL),
    "diff": lambda patch, base: ("diff", patch, patch),
    "sign": lambda patch, base: ("sign", patch, "--key", EVIL),
    "revert": lambda patch, base: ("revert", patch),
    "push": lambda patch, base: ("push", patch, "ada/caps"),
    "eval": lambda patch, base: ("eval", patch, "--base", Path(EVIL)),
    "try": lambda patch, base: ("try", EVIL, "--patch", patch, "--base", Path(EVIL)),
}


@pytest.mark.parametrize("mode", MODES, ids=["human", "quiet", "json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_hostile_name_is_shown_and_not_obeyed(
    command: str, mode: tuple[str, ...], evil: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    shown(*COMMANDS[command](evil, base), *mode)


@pytest.mark.parametrize("mode", MODES, ids=["human", "quiet", "json"])
@pytest.mark.parametrize("command", ["inspect", "verify", "facts", "diff", "compose"])
def test_a_hostile_metadata_is_refused_without_showing_it(
    command: str, mode: tuple[str, ...], tampered: Path, base: Path
) -> None:
    assert "control character" in shown(*COMMANDS[command](tampered, base), *mode) or "-q" in mode


@pytest.mark.parametrize("mode", MODES, ids=["human", "quiet", "json"])
def test_facts_of_a_hostile_file_are_escaped(mode: tuple[str, ...]) -> None:
    lines = [
        {"subject": "France", "prompt": "{} is", "target": "Rome", EVIL: 1},
        {"subject": EVIL, "prompt": f"{{}} {EVIL}", "target": EVIL},
        {"subject": "Oz", "prompt": "{} is", "target": "a", "id": EVIL},
    ]
    Path("facts.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    text = shown("facts", "facts.jsonl", "--all", *mode)
    assert "\\x1b" in text or "\\u001b" in text


def test_facts_inside_a_patch_are_escaped(base: Path) -> None:
    fact = {"subject": "France", "prompt": "{} is\u202e in", "target": "a\u200bb"}
    patch = make_patch(base)
    raw = json.dumps(fact).encode() + b"\n"
    metadata = replace(
        patch.metadata,
        facts=replace(patch.metadata.facts, count=1, digest=bytes_digest(raw)),  # type: ignore[type-var]
    )
    replace(patch, metadata=metadata, facts_jsonl=raw).write("f.patch.safetensors")
    for mode in MODES:
        shown("facts", Path("f.patch.safetensors"), "--all", *mode)


@pytest.mark.parametrize("mode", MODES, ids=["human", "quiet", "json"])
@pytest.mark.parametrize("command", ["verify", "revert", "apply"])
def test_a_hostile_lock_is_shown_and_not_obeyed(
    command: str, mode: tuple[str, ...], patch: Path, base: Path
) -> None:
    assert run("apply", base, patch, "-o", "out").code == 0
    lock = read_lock(Path("out"))
    assert lock is not None
    name = EVIL.replace("/", "")
    evil = replace(
        lock,
        base=replace(lock.base, path=f"../{name}", repo=name, revision=name),
        patches=(LockedPatch(lock.patches[0].digest, f"../{name}"),),
    )
    Path("out/patchkit.lock.json").write_bytes(evil.to_json())
    arguments = {"apply": ("apply", "out", patch, "-o", "new")}.get(command, (command, "out"))
    shown(*arguments, *mode)


def test_escaping_leaves_nothing_that_a_terminal_obeys() -> None:
    every = "".join(map(chr, range(0x3000))) + "\ufeff\ufff9\U000e0001"
    assert all(
        c.isprintable() or (c.isspace() and c not in "\r\n\t\x0b\x0c") for c in escaped(every)
    )
    assert escaped("Łódź – naïve 東京 🦊") == "Łódź – naïve 東京 🦊"
