"""Arguments of calls: texts and token ids, in any form that Python has for them."""

from typing import Any

import numpy as np
import pytest

from seqserve.client.arguments import Source, as_list


def test_one_text_becomes_a_list_of_one() -> None:
    """A text is one input, not one input a letter."""
    assert as_list("ab") == ["ab"]
    mixed: list[Source] = ["ab", [5, 6]]
    assert as_list(mixed) == mixed
    assert as_list([]) == []


@pytest.mark.parametrize(
    "flat",
    [[5, 6], (5,), np.array([5, 6]), np.array([5, 6], np.int32)],
    ids=["list", "tuple", "int64 array", "int32 array"],
)
def test_flat_ids_of_any_kind_are_refused(flat: Any) -> None:
    """The message shows the right form, for numbers of numpy as for Python's."""
    with pytest.raises(TypeError, match=r"must be wrapped in a list: \[\[5, 6, 7\]\]"):
        as_list(flat)
