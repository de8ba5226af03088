"""Where tokens stand in texts."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, processors

from seqserve.errors import InvalidRequestError
from seqserve.token_place import place_decoded, read_placed
from seqserve.tokenizer import Tokenizer

WORDS = ["<pad>", "</s>", "▁a", "▁bc", "d", "▁", "<0xC3>", "<0xA9>"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    """Pieces with spaces before words, and bytes of what has no piece."""
    library = Library(
        models.BPE(
            {word: index for index, word in enumerate([*WORDS, "b", "c", "a", "bc"])},
            [("b", "c"), ("▁", "a"), ("▁", "bc")],
            byte_fallback=True,
            unk_token="<pad>",
        )
    )
    library.add_special_tokens(WORDS[:2])
    library.pre_tokenizer = pre_tokenizers.Metaspace()
    library.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    library.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    path = tmp_path / "tokenizer.json"
    library.save(str(path))
    return Tokenizer(path)


def test_tokens_of_a_text_stand_where_they_were(tokenizer: Tokenizer) -> None:
    """The end token, which is added, stands nowhere; what is cut is counted."""
    spans, num_cut = read_placed(tokenizer, "a bcd", 10)
    assert [(one.text, one.start, one.end, one.is_special) for one in spans] == [
        ("▁a", 0, 1, False),
        ("▁bc", 1, 4, False),
        ("d", 4, 5, False),
        ("</s>", 0, 0, True),
    ]
    assert num_cut == 0
    spans, num_cut = read_placed(tokenizer, "a bcd", 2)
    assert ([one.text for one in spans], num_cut) == (["▁a", "</s>"], 2)
    with pytest.raises(InvalidRequestError, match="no text fits into 0 tokens"):
        read_placed(tokenizer, "a", 0)


def test_decoded_tokens_stand_where_the_text_goes_on(tokenizer: Tokenizer) -> None:
    """Without the space before a word; a character belongs to the last of its bytes."""
    text, spans = place_decoded(tokenizer, [2, 3, 6, 7, 4, 1])
    assert text == "a bcéd"
    assert [(text[one.start : one.end], one.is_special) for one in spans] == [
        ("a", False),
        ("bc", False),
        ("", False),
        ("é", False),
        ("d", False),
        ("", True),
    ]
    assert [one.start for one in spans] == [0, 2, 4, 4, 5, 6]
    assert place_decoded(tokenizer, []).spans == []
