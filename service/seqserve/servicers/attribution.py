"""Which input of a request an error belongs to, where the search that raised it cannot know."""

import asyncio
import contextlib
from collections.abc import Iterator
from collections.abc import Sequence as Items

from seqserve.errors import InvalidRequestError, NoTokenLeftError
from seqserve.sequence import Sequence
from seqserve.servicers.target_texts import Layers
from seqserve.v1 import generation_pb2


@contextlib.contextmanager
def attributed(
    sequences: Items[Sequence],
    inputs: Items[tuple[generation_pb2.GenerateInput, str]],
    layers: Layers,
) -> Iterator[None]:
    """Names the input whose options left no token, where its sequence is waited for within.

    Args:
        sequences: All that may fail.
        inputs: The message of each with the path of its field.
        layers: The options they share.

    Raises:
        InvalidRequestError: One of them had no token to go on with.
    """
    try:
        yield
    except NoTokenLeftError as error:
        for sequence, (message, field) in zip(sequences, inputs, strict=True):
            future = sequence.future
            assert isinstance(future, asyncio.Future)
            if future.done() and not future.cancelled() and future.exception() is error:
                has_own = message.HasField("options") or not layers
                path = f"{field}.options" if has_own else layers[-1][1]
                raise InvalidRequestError(path, f"`{path}` leave `{field}` {error}") from error
        raise
