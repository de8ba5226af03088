"""Alignments as text: ``0-0 1-2`` says that target unit 0 came from source unit 0, 2 from 1.

Source: the format of Pharaoh, Moses and fast_align, source before target, both from 0.
"""

from collections.abc import Sequence as Items

from seqserve.client.alignment_unit import Unit, number_units, split_units
from seqserve.client.results import Alignment, Token


def to_pharaoh(
    alignment: Alignment, texts: tuple[str, str] | None = None, unit: Unit = "words"
) -> str:
    """The hard alignment, sorted by source.

    Args:
        alignment: Of a hypothesis.
        texts: Source and target, whose units are then counted; None counts tokens, special ones
            left out.
        unit: Words between white space, each told by the tokens that end in it; or characters but
            white space, all of a token by that token.
    """
    source_text, target_text = texts or (None, None)
    sources = _number(alignment.source_tokens, source_text, unit)
    targets = _number(alignment.target_tokens, target_text, unit)
    pairs = {
        (one, other)
        for target, source in enumerate(alignment.source_indices)
        if source >= 0
        for one in sources[source]
        for other in targets[target]
    }
    return " ".join(f"{source}-{target}" for source, target in sorted(pairs))


def _number(tokens: Items[Token], text: str | None, unit: Unit) -> list[list[int]]:
    """The numbers of each token's units, or its own."""
    if text is not None:
        return number_units(tokens, split_units(text, unit), unit)
    numbers = iter(range(len(tokens)))
    return [[] if token.is_special else [next(numbers)] for token in tokens]
