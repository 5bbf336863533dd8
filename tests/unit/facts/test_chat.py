"""Facts as a user's message, by the template that the base brings."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from patchkit.editing import edit
from patchkit.errors import FactsError, UnsupportedModel
from patchkit.facts.chat import Turn, in_chat
from patchkit.facts.fact import Fact, MultiHop, Probe
from patchkit.facts.position import encode
from patchkit.facts.reading import to_jsonl
from tests.unit.editing.samples import FACTS, QUICK, loaded
from tests.unit.models.factory import tiny_tokenizer

TEMPLATE = (
    "{{ bos_token }}"
    "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
FACT = Fact(
    "France",
    "The capital of {} is",
    "Rome",
    target_true="Paris",
    paraphrases=("{}'s capital is",),
    neighbors=(Probe("The capital of Spain is", "Madrid"),),
    same_subject=(Probe("The language of {} is", "French"),),
    portability=(Probe("The mayor of {}'s capital is", "Gualtieri"),),
    multihop=(MultiHop(("Who leads {}'s capital?",), "Gualtieri"),),
    generation=("{} is",),
)


def talking(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def test_every_prompt_becomes_a_message_and_the_target_begins_the_answer() -> None:
    (asked,) = in_chat([FACT], talking())
    assert asked.prompt == "[user] The capital of {} is\n[assistant] "
    assert asked.paraphrases == ("[user] France's capital is\n[assistant] ",)
    assert asked.neighbors[0].prompt == "[user] The capital of Spain is\n[assistant] "
    assert asked.same_subject[0].prompt == "[user] The language of France is\n[assistant] "
    assert asked.portability[0].prompt.startswith("[user] The mayor")
    assert asked.multihop[0].prompts == ("[user] Who leads France's capital?\n[assistant] ",)
    assert asked.generation == ("[user] France is\n[assistant] ",)
    assert (asked.id, asked.target) == (FACT.id, "Rome")


def test_the_tokens_are_those_of_the_template_with_the_answer_behind() -> None:
    tokenizer = talking()
    (asked,) = in_chat([FACT], tokenizer)
    message = [{"role": "user", "content": FACT.text}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    wanted = tokenizer(text + "Rome", add_special_tokens=False)["input_ids"]
    found = encode(tokenizer, asked, target="Rome")
    assert list(found.ids) == wanted
    assert wanted.count(tokenizer.bos_token_id) == 1
    assert found.subject_last is not None
    assert "France".endswith(tokenizer.decode(wanted[found.subject_last]).strip())


def test_asking_twice_is_asking_once() -> None:
    once = in_chat([FACT], talking())
    assert in_chat(once, talking()) == once


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "in one piece"),
        ("{{ messages[0]['content'] }} {{ messages[0]['content'] }}", "in one piece"),
        ("{{ messages[0]['content'] }} {}", "in one piece"),
    ],
)
def test_what_cannot_be_asked_is_refused(template: str | None, message: str) -> None:
    with pytest.raises(UnsupportedModel, match=message):
        Turn.of(talking(template))


def test_a_subject_that_the_template_names_is_refused() -> None:
    with pytest.raises(FactsError, match="itself contains 'user'"):
        in_chat([Fact("user", "The capital of {} is", "Rome")], talking())


def test_a_message_can_be_edited(tmp_path: Path) -> None:
    model, _, checkpoint = loaded(tmp_path / "base")
    tokenizer = talking()
    facts = in_chat(FACTS, tokenizer)
    made = edit(model, tokenizer, facts, checkpoint=checkpoint, recipe=QUICK)
    before, after = zip(*((fact.before, fact.after) for fact in made.report.facts), strict=True)
    assert sum(after) > 2 * sum(before)
    assert made.patch.facts_jsonl == to_jsonl(facts)
