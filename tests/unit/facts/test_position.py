"""Where the subject ends and the target begins, for every family of tokenizers."""

import json
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from patchkit.errors import FactsError, UnsupportedModel
from patchkit.facts.fact import Fact
from patchkit.facts.position import (
    Encoded,
    encode,
    encode_all,
    encode_probe,
    fact_passage,
    pad,
    probe_passage,
)
from tests.unit.facts.toys import BYTE_LEVEL, NAMES, toy

SUBJECTS = [
    "France",
    "Léon Blum",
    "Danielle Darrieux",
    "Cafe\u0301",
    "東京",
    "🎉",
    "👩‍👩‍👧",
    "🇩🇰",
    "Zadie's",
    "O. J. Simpson, Jr.",
]
PROMPTS = ["The capital of {} is", "{} speaks", "Who wrote {}?", "{}'s author is", "It is {}"]

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Z"]), min_size=1)
texts = st.lists(words, min_size=1, max_size=3).map(" ".join)
latin = st.lists(st.text("abdeilnoprstFJDL", min_size=1, max_size=9), min_size=1, max_size=3)


def tokens(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(encoded.ids))


def byte_index_of_token_ends(tokenizer: PreTrainedTokenizerFast, encoded: Encoded) -> list[int]:
    """Where each token ends in UTF-8 bytes: a byte-level token has one character per byte."""
    ends, total = [], 0
    special = set(tokenizer.all_special_ids)
    for token, name in zip(encoded.ids, tokens(tokenizer, encoded), strict=True):
        total += 0 if token in special else len(name)
        ends.append(total)
    return ends


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("context", ["", "Some words first. "])
def test_decoded_prefix_ends_with_the_subject(name: str, prompt: str, context: str) -> None:
    tokenizer = toy(name)
    for subject in ("France", "Danielle Darrieux", "Japan"):
        encoded = encode(tokenizer, Fact(subject, prompt, "Paris"), context=context)
        assert encoded.subject_last is not None
        assert encoded.labels == ()
        before = context + prompt.partition("{}")[0] + subject
        decoded = tokenizer.decode(
            list(encoded.ids[: encoded.subject_last + 1]), skip_special_tokens=True
        )
        assert letters(decoded) == letters(before)


@pytest.mark.parametrize("name", BYTE_LEVEL)
@given(subject=texts, before=texts, after=texts, context=st.just("") | texts, target=texts)
def test_byte_level_positions_are_those_counted_in_bytes(
    name: str, subject: str, before: str, after: str, context: str, target: str
) -> None:
    tokenizer = toy(name)
    prompt = f"{before.replace('{}', '')} {{}} {after.replace('{}', '')}"
    assume("{}" not in subject)
    fact = Fact(subject, prompt, target)
    encoded = encode(tokenizer, fact, context=context, target=fact.target)
    passage = fact_passage(fact, context=context, target=fact.target)
    assert passage.subject is not None
    assert passage.target is not None
    lead = int(name == "byte-level, trimmed offsets, prefix space" and passage.text[0] != " ")
    ends = byte_index_of_token_ends(tokenizer, encoded)
    assert ends[-1] == len(passage.text.encode()) + lead

    def first_reaching(characters: int) -> int:
        wanted = len(passage.text[:characters].encode()) + lead
        return next(i for i, end in enumerate(ends) if end >= wanted)

    assert encoded.subject_last == first_reaching(passage.subject[1])
    start = passage.target[0] - passage.joint
    label = len(passage.text[:start].encode()) + lead
    first = next(i for i, end in enumerate(ends) if end > label)
    assert [position for position, _ in encoded.labels] == list(range(first - 1, len(ends) - 1))
    assert all(encoded.ids[position + 1] == token for position, token in encoded.labels)


@pytest.mark.parametrize("name", ["unigram", "SentencePiece BPE", "WordPiece"])
@given(subject=latin, context=latin, target=latin)
def test_positions_by_letters_elsewhere(
    name: str, subject: list[str], context: list[str], target: list[str]
) -> None:
    """Without spaces and marks, the letters up to a token's end count the same in any family."""
    tokenizer = toy(name)
    fact = Fact(" ".join(subject), "The capital of {} is", " ".join(target))
    encoded = encode(tokenizer, fact, context=" ".join(context), target=fact.target)
    assume(tokenizer.unk_token_id not in encoded.ids)
    special = set(tokenizer.all_special_ids)
    ends, total = [], 0
    for token, text in zip(encoded.ids, tokens(tokenizer, encoded), strict=True):
        total += 0 if token in special else len(text.replace("▁", "").removeprefix("##"))
        ends.append(total)
    upto = len("".join([*context, "Thecapitalof", *subject]))
    assert encoded.subject_last is not None
    assert ends[encoded.subject_last] >= upto
    assert ends[encoded.subject_last - 1] < upto
    first = encoded.labels[0][0] + 1
    wanted = len("".join(target))
    assert total - ends[first - 1] >= wanted
    assert total - ends[first] < wanted or tokens(tokenizer, encoded)[first] == "▁"


@pytest.mark.parametrize("name", NAMES)
@given(subject=texts, context=st.just("") | texts, target=texts)
def test_invariants_for_any_text(name: str, subject: str, context: str, target: str) -> None:
    tokenizer = toy(name)
    assume("{}" not in subject)
    fact = Fact(subject, "The mother tongue of {} is", target)
    try:
        alone = encode(tokenizer, fact, context=context)
        encoded = encode(tokenizer, fact, context=context, target=fact.target)
    except FactsError:
        assume(False)  # a normaliser that drops every character: tested below
    assert encoded.subject_last == alone.subject_last
    assert alone.subject_last is not None
    assert 0 <= alone.subject_last < len(alone.ids)
    assert alone.ids[: alone.subject_last + 1] == encoded.ids[: alone.subject_last + 1]
    assert encoded.labels
    assert all(position >= alone.subject_last for position, _ in encoded.labels)
    positions = [position for position, _ in encoded.labels]
    assert positions == list(range(positions[0], len(encoded.ids) - 1))
    assert tuple(token for _, token in encoded.labels) == encoded.ids[positions[0] + 1 :]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_is_found_at_start_middle_and_end(name: str, subject: str) -> None:
    tokenizer = toy(name)
    for prompt in ("{} is", "Near {} is", "Near {}"):
        encoded = encode(tokenizer, Fact(subject, prompt, "x"))
        passage = fact_passage(Fact(subject, prompt, "x"))
        assert passage.subject is not None
        prefix = encode_probe(tokenizer, passage.text[: passage.subject[1]])
        # In these prompts no tokenizer merges across the subject's end, so the prefix agrees.
        assert encoded.ids[: len(prefix.ids)] == prefix.ids
        assert encoded.subject_last == len(prefix.ids) - 1


def test_the_subject_that_is_meant_is_found_when_the_context_repeats_it() -> None:
    tokenizer = toy("byte-level")
    fact = Fact("France", "The capital of {} is", "Lyon")
    plain = encode(tokenizer, fact)
    repeated = encode(tokenizer, fact, context="France is France. ")
    assert plain.subject_last is not None
    assert repeated.subject_last == plain.subject_last + len(repeated.ids) - len(plain.ids)


def test_a_space_is_put_after_a_context() -> None:
    fact = Fact("France", "The capital of {} is", "Lyon")
    with_space = fact_passage(fact, context="Well then. ")
    assert fact_passage(fact, context="Well then.") == with_space
    assert with_space.text == "Well then. The capital of France is"
    assert fact_passage(fact, context="Q: what?\nA:\n").text.endswith(
        "A:\nThe capital of France is"
    )


def test_a_targets_own_leading_space_is_not_doubled() -> None:
    assert probe_passage("It is", " Lyon") == probe_passage("It is", "Lyon")
    assert probe_passage("It is ", " Lyon").text == "It is Lyon"


def test_another_prompt_for_the_same_subject() -> None:
    fact = Fact("France", "The capital of {} is", "Lyon")
    assert fact_passage(fact, prompt="{} is a").text == "France is a"
    with pytest.raises(FactsError, match="exactly once"):
        fact_passage(fact, prompt="France is a")
    with pytest.raises(FactsError, match="exactly once"):
        fact_passage(fact, prompt="{} is {}")


def test_special_tokens_behind_the_text_are_dropped_and_in_front_kept() -> None:
    wordpiece = encode_probe(toy("WordPiece"), "The capital", "Paris")
    assert tokens(toy("WordPiece"), wordpiece)[0] == "[CLS]"
    assert "[SEP]" not in tokens(toy("WordPiece"), wordpiece)
    unigram = encode_probe(toy("unigram"), "The capital", "Paris")
    assert toy("unigram").eos_token_id not in unigram.ids
    assert encode_probe(toy("byte-level, BOS"), "The capital").ids[0] == 0


def test_padding_side_of_the_tokenizer_does_not_matter() -> None:
    tokenizer = toy("byte-level, BOS")
    facts = [
        Fact("France", "The capital of {} is", "Lyon"),
        Fact("Léon Blum", "{} speaks", "Danish"),
    ]
    passages = [fact_passage(fact, target=fact.target) for fact in facts]
    found = []
    for side in ("left", "right"):
        tokenizer.padding_side = side
        found.append(encode_all(tokenizer, passages))
    assert found[0] == found[1]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_moves_positions_along(side: str) -> None:
    tokenizer = toy("byte-level")
    passages = [
        fact_passage(Fact("France", "The capital of {} is", "Lyon"), target="Lyon"),
        fact_passage(Fact("Léon Blum", "{} speaks", "Danish"), target="Danish"),
        probe_passage("東京は", "日本"),
    ]
    encodings = encode_all(tokenizer, passages)
    batch = pad(encodings, 999, side)  # type: ignore[arg-type]
    longest = max(len(encoded.ids) for encoded in encodings)
    for row, encoded in enumerate(encodings):
        ids, mask = batch.ids[row], batch.mask[row]
        assert len(ids) == len(mask) == longest
        assert tuple(i for i, real in zip(ids, mask, strict=True) if real) == encoded.ids
        assert {i for i, real in zip(ids, mask, strict=True) if not real} <= {999}
        assert mask == tuple(sorted(mask, reverse=side == "right"))
        last = batch.subject_last[row]
        assert (last is None) == (encoded.subject_last is None)
        if last is not None and encoded.subject_last is not None:
            assert ids[last] == encoded.ids[encoded.subject_last]
        for (place, token), (_, expected) in zip(batch.labels[row], encoded.labels, strict=True):
            assert token == expected == ids[place + 1]


def test_padding_nothing() -> None:
    assert pad([], 0, "left").ids == ()
    assert encode_all(toy("byte-level"), []) == ()


def test_the_space_before_a_target_belongs_to_the_answer() -> None:
    """A token that is only that space is a label, whether offsets are trimmed or not."""
    for name in BYTE_LEVEL:
        encoded = encode_probe(toy(name), "The flag is", "🎉")
        first = toy(name).convert_ids_to_tokens([encoded.labels[0][1]])[0]
        assert first.startswith("Ġ")


def merging_tokenizer() -> PreTrainedTokenizerFast:
    """A vocabulary without any splitting, so that tokens run across words."""
    pieces = ["<unk>", *"abcdefghijklmnopqrstuvwxyz ", "is p", "is ", "aris", "of x"]
    scores = [0.0, *[-10.0] * 27, -1.0, -2.0, -3.0, -1.0]
    vocabulary = list(zip(pieces, scores, strict=True))
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_a_target_that_merges_with_the_prompts_last_token() -> None:
    tokenizer = merging_tokenizer()
    merged = encode(tokenizer, Fact("x", "of {} is", "paris"), target="paris")
    assert [tokens(tokenizer, merged)[place + 1] for place, _ in merged.labels] == ["is p", "aris"]
    # "is " ends the prompt and takes only the joint: not a token of the answer.
    spaced = encode(tokenizer, Fact("x", "of {} is", "quito"), target="quito")
    assert [tokens(tokenizer, spaced)[place + 1] for place, _ in spaced.labels] == list("quito")


def test_a_target_that_merges_with_the_subject_is_refused() -> None:
    tokenizer = merging_tokenizer()
    with pytest.raises(FactsError, match="merges the target") as caught:
        encode(tokenizer, Fact("is", "what {}", "paris"), target="paris")
    assert caught.value.hint == "end the prompt with a word after {}"
    with pytest.raises(FactsError, match="merges the target"):
        encode_probe(tokenizer, "is", "paris")


def test_a_subject_that_the_normaliser_removes_is_refused() -> None:
    fact = Fact("\u0301", "near {} is", "x")
    with pytest.raises(FactsError, match="leaves nothing of the subject"):
        encode(toy("WordPiece"), fact)
    with pytest.raises(FactsError, match="leaves nothing of the target"):
        encode_probe(toy("WordPiece"), "near", "\u0301")


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: object, **options: object) -> object:
            raise AssertionError("not reached")

    with pytest.raises(UnsupportedModel, match="Slow gives no character offsets"):
        encode_probe(Slow(), "x")


@pytest.fixture(scope="module")
def gpt2(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    folder = Path(request.config.getoption("--data")) / "tokenizer_gpt2"
    if not folder.is_dir():
        pytest.skip(f"no GPT-2 tokenizer in {folder} (name the data folder with --data)")
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    lines = (folder / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    merges = [tuple(line.split(" ")) for line in lines if line]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))  # type: ignore[arg-type]
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("subject", SUBJECTS)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_gpt2(gpt2: PreTrainedTokenizerFast, subject: str, prompt: str) -> None:
    fact = Fact(subject, prompt, "São Tomé")
    encoded = encode(gpt2, fact, context="Once. ", target=fact.target)
    assert encoded.subject_last is not None
    upto = gpt2.decode(list(encoded.ids[: encoded.subject_last + 1]))
    assert upto.startswith("Once. " + prompt.partition("{}")[0] + subject)
    assert gpt2.decode([token for _, token in encoded.labels]) == " São Tomé"


def test_gpt2_published_example(gpt2: PreTrainedTokenizerFast) -> None:
    """ROME's first record: the last of four tokens of "Danielle Darrieux" is at index 7."""
    fact = Fact("Danielle Darrieux", "The mother tongue of {} is", "English")
    encoded = encode(gpt2, fact, target=fact.target)
    assert encoded.ids == (464, 2802, 11880, 286, 39808, 7491, 5034, 2821, 318, 3594)
    assert encoded.subject_last == 7
    assert encoded.labels == ((8, 3594),)
