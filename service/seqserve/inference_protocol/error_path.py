"""Errors of our requests, in the names of the tensors and parameters that were sent."""

import contextlib
import re
from collections.abc import Iterator

from seqserve.errors import InvalidRequestError

_TENSORS = {"target_prefix_text": "target_prefix", "token_ids": "input_ids", "": "text"}
"""The tensor of each field of an input; others have the name of the field."""
_INPUT = re.compile(r"\binputs?(\[\d+\])?(?:\.(\w+))?(?:\.values)?(?![\w.])")
_OPTIONS = re.compile(r"\boptions(?:\.(\w+))?")
_LABELS = re.compile(r"\bignore_labels\.labels\b")
_QUOTED = re.compile(r"`[^`]*`")


@contextlib.contextmanager
def renamed() -> Iterator[None]:
    """Has errors raised within name what the caller sent.

    Raises:
        InvalidRequestError: As raised within, with another field and message.
    """
    try:
        yield
    except InvalidRequestError as error:
        message = _QUOTED.sub(lambda found: rename(found.group()), str(error))
        raise InvalidRequestError(rename(error.field), message) from error


def rename(path: str) -> str:
    """The path of a field of ``seqserve.v1`` as that of a tensor or parameter.

    ``inputs[2].text`` is ``text[2]``, ``options.num_beams`` is ``num_beams``.
    """
    path = _LABELS.sub("ignore_labels", path)
    path = _OPTIONS.sub(lambda found: found.group(1) or "parameters", path)
    return _INPUT.sub(_to_tensor, path)


def _to_tensor(found: re.Match[str]) -> str:
    place, field = found.group(1) or "", found.group(2) or ""
    return f"{_TENSORS.get(field, field)}{place}"
