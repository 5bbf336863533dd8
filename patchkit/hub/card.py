"""The README of a patch repository: metadata for the Hub, and a body for people.

A body made here says so in its last line, with the digest of the rest. While that holds, the body
is made again when patches change; once somebody wrote in it, only the metadata is touched.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import ModelCard

from patchkit.errors import FormatError
from patchkit.facts.jsonl import parse_jsonl
from patchkit.hub.index import Listed
from patchkit.hub.sound import Sound
from patchkit.hub.wire import quiet
from patchkit.report import Check
from patchkit.tensors.checkpoint import ATLAS
from patchkit.tensors.digests import bytes_digest

CARD = "README.md"
MAX_BYTES = 1_000_000
TAGS = ("patchkit", "knowledge-editing")
_SAMPLE = 5
_MADE = re.compile(r"\n<!-- made by patchkit push, (sha256:[0-9a-f]{64}) -->\n\Z")
_WITHDRAWN = re.compile(r"^\n> \*\*Withdrawn\*\*: .*\n", re.M)
_SECTION = re.compile(r"^## `([^`\n]+)`\n", re.M)
_BASE = re.compile(r"[\w.-]+(?:/[\w.-]+)?", re.ASCII)
_FIGURES = ("efficacy", "paraphrase", "neighborhood", "locality", "retention", "score")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a card is about: the repository, all its patches, and those that are new here.

    `license` wins over what a card says, `inherited` fills in where it says nothing; `lines` are
    more paragraphs for the sections of new patches.
    """

    repo: str
    listed: Sequence[Listed]
    new: Mapping[str, Sound]
    license: str | None = None
    inherited: str | None = None
    lines: Mapping[str, Sequence[str]] = field(default_factory=dict)


def base_tag(base: str) -> str:
    """The tag by which patches for a base are found; the embedded model has no page there."""
    return f"patchkit-{ATLAS}" if base == ATLAS else f"base_model:adapter:{base}"


def card_text(existing: str | None, subject: Subject) -> str:
    """Return the card with up-to-date metadata; the body too where nobody else wrote it.

    Raises FormatError where an existing card's metadata is not YAML.
    """
    # The client takes a lone carriage return for the line end of the whole file.
    old = re.sub("\r(?!\n)", "\n", existing or "")
    try:
        with quiet():
            card: Any = ModelCard(old, ignore_metadata_errors=True)
    except Exception as error:  # whatever a YAML parser makes of a stranger's text
        raise FormatError(
            f"the metadata of {CARD} on the Hub is not valid YAML",
            hint="correct the card in a browser, then push again",
        ) from error
    before = card.data.to_dict()
    _describe(card, subject)
    body = _body(card.text, subject) if _ours(card.text) or not card.text.strip() else card.text
    if body == card.text and card.data.to_dict() == before:
        return existing or ""
    card.text = body
    return str(card)


def changed_card(known: Mapping[str, bytes], subject: Subject) -> dict[str, bytes]:
    """Return the card by its path where that among `known` files does not say it yet.

    Raises FormatError as `card_text`.
    """
    text = known[CARD].decode(errors="replace") if CARD in known else None
    card = card_text(text, subject)
    return {} if card == text else {CARD: card.encode()}


def _describe(card: Any, subject: Subject) -> None:
    """Bring the metadata up to date; a licence that is there stays."""
    bases = {each.base.repo for each in subject.listed if each.base.repo and "/" in each.base.repo}
    if bases:
        card.data.base_model = min(bases) if len(bases) == 1 else sorted(bases)
        card.data.base_model_relation = "adapter"
    card.data.library_name = "patchkit"
    known = list(card.data.tags or ())
    wanted = [*TAGS, *(base_tag(ATLAS) for each in subject.listed if each.base.repo == ATLAS)]
    card.data.tags = known + [tag for tag in dict.fromkeys(wanted) if tag not in known]
    good = [each for each in subject.listed if each.withdrawn is None]
    card.data.patchkit = {"patches": len(good), "facts": sum(each.facts for each in good)}
    card.data.license = subject.license or card.data.license or subject.inherited


def _ours(body: str) -> bool:
    """Whether a body is exactly as it was made here."""
    made = _MADE.search(body)
    return made is not None and bytes_digest(body[: made.start()].encode()) == made[1]


def _body(old: str, subject: Subject) -> str:
    """The body: what the repository is, one section for each patch, how to use it."""
    kept = _sections(old)
    parts = [_head(subject)]
    for each in subject.listed:
        checked = subject.new.get(each.path)
        lines = subject.lines.get(each.path, ())
        section = _section(each, checked, lines) if checked else kept.get(each.path)
        section = section or _brief(each)
        parts.append(_marked(section, each))
    text = "\n" + "\n".join([*parts, _usage(subject)])
    return f"{text}\n<!-- made by patchkit push, {bytes_digest(text.encode())} -->\n"


def _sections(body: str) -> dict[str, str]:
    """The sections of an earlier body by the file they describe."""
    found = list(_SECTION.finditer(body))
    ends = [match.start() for match in found[1:]] + [body.find("\n## How to use")]
    return {
        match[1]: body[match.start() : end].rstrip() + "\n"
        for match, end in zip(found, ends, strict=False)
    }


def _marked(section: str, listed: Listed) -> str:
    """A section that says whether its patch is withdrawn, and why."""
    bare = _WITHDRAWN.sub("", section)
    if listed.withdrawn is None:
        return bare
    heading, rest = bare.split("\n", 1)
    return f"{heading}\n\n> **Withdrawn**: {plain(listed.withdrawn)}\n{rest}"


def _head(subject: Subject) -> str:
    patches = "a patch" if len(subject.listed) == 1 else f"{len(subject.listed)} patches"
    return (
        f"# {subject.repo.split('/')[1]}\n\n"
        f"This repository holds {patches} for a language model: small, exact, reversible edits "
        "that\n`patchkit` writes, checks, applies and takes off again.\n"
    )


def _brief(listed: Listed) -> str:
    base = listed.base.repo or "a local checkpoint"
    revision = f" at `{listed.base.revision}`" if listed.base.revision else ""
    return (
        f"## `{listed.path}`\n\n"
        f"- base: {plain(base)}{revision}\n"
        f"- facts: {listed.facts}\n"
        f"- size: {listed.bytes} bytes\n"
        f"- digest: `{listed.digest}`\n"
    )


def _section(listed: Listed, checked: Sound, lines: Sequence[str]) -> str:
    parts = [_brief(listed)]
    if facts := checked.info.facts_jsonl:
        sample = parse_jsonl(facts, name=listed.path).facts[:_SAMPLE]
        rows = [(fact.prompt.replace("{}", fact.subject), fact.target) for fact in sample]
        parts.append(_table(("prompt", "answer"), rows))
        if listed.facts > len(sample):
            parts.append(f"… and {listed.facts - len(sample)} more.\n")
    measured = checked.info.metadata.measured
    figures = [(name, _value(measured[name])) for name in _FIGURES if name in measured]
    if figures:
        parts.append(_table(("measured", "value"), figures))
    checks = [(check.name, _value(check.value), _verdict(check)) for check in checked.report.checks]
    parts.append(_table(("check", "value", "verdict"), checks))
    return "\n".join([*parts, *lines])


def _usage(subject: Subject) -> str:
    good = [each for each in subject.listed if each.withdrawn is None]
    first = (good or subject.listed)[0]
    named = first.base.repo is not None and _BASE.fullmatch(first.base.repo)
    base = first.base.repo if named else "BASE"
    one = "" if len(subject.listed) == 1 else f"/{first.path}"
    return f"""## How to use

```sh
pip install patchkit-lm
patchkit pull {subject.repo}{one.replace("/", " --file ", 1)}
patchkit apply {base} hf://{subject.repo}{one} -o ./patched
patchkit export hf://{subject.repo}{one} --base {base} --to peft -o ./lora
```

The patched folder loads in transformers like any other, the adapter in PEFT and vLLM:

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("./patched")
same = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "./lora")
```

```sh
vllm serve {base} --enable-lora --lora-modules patched=./lora
```

On a model in memory:

```python
import patchkit

report = patchkit.pull("{subject.repo}{one}", cache_dir="patches")
handle = patchkit.apply(model, patchkit.Patch.read(report.path))
```
"""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def plain(text: str) -> str:
    """Text of somebody else as one line of Markdown in which nothing is markup."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"([\\`*_{}\[\]<>()#!|~&$])", r"\\\1", line[:300])


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else "" if value is None else str(value)


def _verdict(check: Check) -> str:
    return "skipped" if check.skipped else "ok" if check.ok else "FAILED"
