"""Which inputs have the same answer: keys that are equal only if everything that matters is.

A key is a keyed hash, so that it takes 32 bytes, holds no text, and cannot be made to collide by
whoever chooses texts. What matters is what a worker reads of a sequence: its source, its search
with all decoding options, and what it returns beside the answer. When it runs, for whom, and when
it must end do not.
"""

import dataclasses
import hashlib
import operator
import struct

from seqserve.generate_options import GenerateOptions
from seqserve.sequence import Sequence

_KEY_BYTES = 32
_WITHOUT_EFFECT = frozenset({"is_seed_drawn", "max_time"})
"""Options that change no hypothesis of a search that ends by itself."""
_read_options = operator.attrgetter(
    *(
        field.name
        for field in dataclasses.fields(GenerateOptions)
        if field.name not in _WITHOUT_EFFECT
    )
)


def key_of(sequence: Sequence, secret: bytes) -> bytes | None:
    """The key of a sequence that has not begun, or None if it shares its answer with nobody.

    Args:
        sequence: What is to be computed.
        secret: Of the model that computes it, 1 to 64 bytes; keys of others are never the same.
    """
    sharing, search = sequence.sharing, sequence.search
    if sharing is None:
        return None
    how: tuple[object, ...] = ()
    if search is not None:
        if search.options.is_seed_drawn:
            return None
        how = (type(search).__name__, search.origin, _read_options(search.options))
    head = repr(
        (
            sharing.group,
            len(sequence.source_tokens),
            len(sequence.token_types),
            sequence.returns_states,
            how,
        )
    ).encode()
    # The head says how long each part is, itself included, so that no two inputs read the same.
    digest = hashlib.blake2b(len(head).to_bytes(8), digest_size=_KEY_BYTES, key=secret)
    digest.update(head)
    for tokens in (sequence.source_tokens, sequence.token_types):
        digest.update(struct.pack(f"{len(tokens)}q", *tokens))
    return digest.digest()
