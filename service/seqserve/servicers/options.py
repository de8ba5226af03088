"""Decoding options: what a request says, over what the model defaults to, within the limits."""

import math
from typing import Any

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.sequence import GenerateOptions
from seqserve.servicers.stopping import check_inclusion, check_stop_sequences
from seqserve.task_record import GenerationRecord
from seqserve.v1 import generation_pb2

_BEAM_ONLY = ("length_penalty", "early_stopping")


def resolve_options(
    layers: list[tuple[generation_pb2.GenerateOptions, str]],
    record: GenerationRecord,
    config: ServerConfig,
) -> GenerateOptions:
    """Merges and checks the options of one input.

    Args:
        layers: Option messages with the path of their field; later ones override earlier ones.
        record: Defaults and limits of the model.
        config: Limits of the server.

    Raises:
        InvalidRequestError: A value is out of range, or is set where it has no effect.
    """
    values: dict[str, Any] = {}
    paths: dict[str, str] = {}
    for message, path in layers:
        for field, value in message.ListFields():
            values[field.name], paths[field.name] = value, f"{path}.{field.name}"
    checks = _Checks(values, paths)
    num_beams = checks.integer("num_beams", record.num_beams, 1, config.max_num_beams)
    max_new_tokens = checks.integer(
        "max_new_tokens", record.max_new_tokens, 1, record.max_target_length
    )
    options = GenerateOptions(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        num_return_sequences=checks.integer("num_return_sequences", 1, 1, num_beams),
        length_penalty=checks.finite("length_penalty", record.length_penalty),
        early_stopping=bool(values.get("early_stopping", record.early_stopping)),
        # A default beyond the request's own limit bars the end token up to that limit.
        min_new_tokens=checks.integer(
            "min_new_tokens", min(record.min_new_tokens, max_new_tokens), 0, max_new_tokens
        ),
        no_repeat_ngram_size=checks.integer(
            "no_repeat_ngram_size", record.no_repeat_ngram_size, 0, record.max_target_length
        ),
        repetition_penalty=checks.positive("repetition_penalty", record.repetition_penalty),
        forced_bos_token_id=checks.token(
            "forced_bos_token_id", record.forced_bos_token_id, record.target_vocabulary_size
        ),
        forced_eos_token_id=record.forced_eos_token_id,
        suppressed_tokens=record.suppressed_tokens,
        return_scores=bool(values.get("return_scores", False)),
        return_token_log_probabilities=bool(values.get("return_token_log_probabilities", False)),
        stop_sequences=check_stop_sequences(
            values.get("stop_sequences", ()), paths.get("stop_sequences", "")
        ),
        include_stop_sequence=bool(values.get("include_stop_sequence", False)),
    )
    if "include_stop_sequence" in values:
        check_inclusion(options, paths["include_stop_sequence"])
    for name in _BEAM_ONLY:
        if name in values and num_beams == 1:
            raise InvalidRequestError(
                paths[name],
                f"`{name}` has an effect on beam search only; leave it unset or set `num_beams` "
                "above 1",
            )
    return options


class _Checks:
    """Ranges of set values; defaults come from a checked manifest."""

    def __init__(self, values: dict[str, Any], paths: dict[str, str]) -> None:
        self._values = values
        self._paths = paths

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self._values.get(name)
        if value is None:
            return default
        if value < low:
            raise self._refusal(name, f"must be at least {low}, but is {value}")
        if value > high:
            raise self._refusal(name, f"must be at most {high}, but is {value}")
        return int(value)

    def finite(self, name: str, default: float) -> float:
        value = self._values.get(name)
        if value is None:
            return default
        if not math.isfinite(value):
            raise self._refusal(name, f"must be finite, but is {value}")
        return float(value)

    def positive(self, name: str, default: float) -> float:
        value = self.finite(name, default)
        if value <= 0:
            raise self._refusal(name, f"must be above 0, but is {value}")
        return value

    def token(self, name: str, default: int | None, vocabulary_size: int) -> int | None:
        value = self._values.get(name)
        if value is None:
            return default
        if not 0 <= value < vocabulary_size:
            raise self._refusal(
                name, f"must be at least 0 and below {vocabulary_size}, but is {value}"
            )
        return int(value)

    def _refusal(self, name: str, rule: str) -> InvalidRequestError:
        return InvalidRequestError(self._paths[name], f"`{name}` {rule}")
