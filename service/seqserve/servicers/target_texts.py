"""What a request says about its targets in texts: prefixes and suppressed sequences, tokenized."""

from collections.abc import Iterable
from collections.abc import Sequence as Items
from functools import partial

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.served_model import ServedModel
from seqserve.servicers.input_check import check_text
from seqserve.servicers.offloading import off_loop
from seqserve.tokenizer import Tokenizer
from seqserve.v1 import generation_pb2

_MAX_SUPPRESSED_TOKENS = 1024
_MAX_SUPPRESSED_SEQUENCES = 256
_MAX_SUPPRESSED_BYTES = 256
"""Of the text of one suppressed sequence."""
_SIGN = "-"
"""Stands before a text to see how it is tokenized within a word."""

Layers = list[tuple[generation_pb2.GenerateOptions, str]]
"""Option messages with the path of their field; later ones override earlier ones."""


class TargetTexts:
    """The texts about targets of one request, tokenized once each."""

    def __init__(self, tokens: dict[str, tuple[int, ...]]) -> None:
        self._tokens = tokens

    def of_prefix(self, text: str) -> tuple[int, ...]:
        """The tokens of a target prefix."""
        return self._tokens[text]

    def of_suppressed(self, text: str) -> set[tuple[int, ...]]:
        """How a text is tokenized at the beginning, behind a space, and within a word."""
        found = {self._tokens[form] for form in _forms(text)[:2]}
        sign, signed = self._tokens[_SIGN], self._tokens[_SIGN + text]
        if signed[: len(sign)] == sign:
            found.add(signed[len(sign) :])
        return found - {()}


def _forms(text: str) -> list[str]:
    return [text, f" {text}", _SIGN + text, _SIGN]


async def tokenize_targets(
    model: ServedModel,
    inputs: Items[tuple[generation_pb2.GenerateInput, str]],
    layers: Iterable[tuple[generation_pb2.GenerateOptions, str]],
    config: ServerConfig,
) -> TargetTexts:
    """Tokenizes all texts about targets, off the event loop unless they are short.

    Args:
        model: Whose tokenizer of targets to use.
        inputs: The inputs with their paths.
        layers: All options of the request and of its inputs.
        config: Limits of the server.

    Raises:
        InvalidRequestError: A text is empty or too long, or there are too many.
    """
    texts: set[str] = set()
    for message, field in inputs:
        if message.WhichOneof("target_prefix") == "target_prefix_text":
            check_text(message.target_prefix_text, f"{field}.target_prefix_text", config)
            texts.add(message.target_prefix_text)
    for options, path in layers:
        _check_count(
            len(options.suppressed_token_ids),
            f"{path}.suppressed_token_ids",
            _MAX_SUPPRESSED_TOKENS,
        )
        field = f"{path}.suppressed_sequences"
        _check_count(len(options.suppressed_sequences), field, _MAX_SUPPRESSED_SEQUENCES)
        for index, sequence in enumerate(options.suppressed_sequences):
            if sequence.WhichOneof("sequence") == "text":
                _check_suppressed_text(sequence.text, f"{field}[{index}].text", config)
                texts.update(_forms(sequence.text))
    size = sum(map(len, texts))
    return TargetTexts(await off_loop(size, partial(_tokenize, model.target_tokenizer, texts)))


def _tokenize(tokenizer: Tokenizer, texts: set[str]) -> dict[str, tuple[int, ...]]:
    return {text: tokenizer.encode_plain(text) for text in texts}


def _check_count(count: int, field: str, limit: int) -> None:
    if count > limit:
        raise InvalidRequestError(
            field, f"`{field}` must hold at most {limit} entries, but holds {count}"
        )


def _check_suppressed_text(text: str, field: str, config: ServerConfig) -> None:
    check_text(text, field, config)
    size = len(text.encode("utf-8"))
    if size > _MAX_SUPPRESSED_BYTES:
        raise InvalidRequestError(
            field, f"`{field}` must have at most {_MAX_SUPPRESSED_BYTES} bytes, but has {size}"
        )
