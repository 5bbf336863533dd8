"""The card that a push writes: what it says, and that a second push has nothing to change."""

import pytest

from patchkit.hub.card import Subject, card_text
from patchkit.hub.index import Listed
from patchkit.hub.sound import sound
from tests.unit.patch.samples import sample

PATH = "a.patch.safetensors"
CHECKED = sound(sample(additive=False).to_bytes(), name=PATH)
SUBJECT = Subject("ada/caps", [Listed.of(PATH, CHECKED.info)], {PATH: CHECKED})


@pytest.mark.parametrize(
    "old",
    [
        None,
        "",
        "# Mine\n",
        "---\nlicense: mit\n---\n# Mine\n",
        "---\r\nlicense: mit\r\n---\r\n# Mine\r\n",
        "# Mine\rwith old line ends\r",
        "text\r",
        "---\na: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nbody\n",
    ],
)
def test_a_card_that_is_up_to_date_stays_as_it_is(old: str | None) -> None:
    text = card_text(old, SUBJECT)
    assert text.count("library_name: patchkit") == 1
    assert card_text(text, SUBJECT) == text
