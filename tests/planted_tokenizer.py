"""A tokenizer that does something else before it reads a text."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from seqserve.tokenizer import Tokenizer


def plant(patch: pytest.MonkeyPatch, tokenizer: Tokenizer, before: Callable[[str], object]) -> None:
    """Has a function called with each text before it is split, alone or with others."""
    split, encode_all = tokenizer.split, tokenizer.encode_all

    def split_after(text: str) -> Any:
        before(text)
        return split(text)

    def encode_all_after(texts: Sequence[str]) -> list[Any]:
        for text in texts:
            before(text)
        return encode_all(texts)

    patch.setattr(tokenizer, "split", split_after)
    patch.setattr(tokenizer, "encode_all", encode_all_after)
