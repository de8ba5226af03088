"""The name of a call: the caller's, if it gives one, and in the log, the reply and the spans."""

import uuid
from collections.abc import Iterable

REQUEST_ID_KEY = "x-request-id"
"""Of the metadata that comes, and of the trailing metadata that goes back."""
_MAX_LENGTH = 128


def request_id_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's id of its call, or a new one.

    An id that is too long, given twice, or no printable ASCII without spaces is replaced, which the
    caller sees in the reply: it must not tear up the log.
    """
    values = [value for key, value in metadata if key == REQUEST_ID_KEY]
    if len(values) == 1:
        (value,) = values
        if isinstance(value, str) and 1 <= len(value) <= _MAX_LENGTH and _is_printable(value):
            return value
    return uuid.uuid4().hex


def _is_printable(value: str) -> bool:
    return all("!" <= character <= "~" for character in value)
