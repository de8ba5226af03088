"""Decoding options: what a request says, over what the model defaults to, within the limits."""

import math
import secrets
from typing import Any

from google.protobuf import duration_pb2

from seqserve.config import ServerConfig
from seqserve.decoding_limit import (
    MAX_LENGTH_PENALTY,
    MAX_REPETITION_PENALTY,
    MIN_LENGTH_PENALTY,
    MIN_REPETITION_PENALTY,
)
from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions
from seqserve.servicers.stopping import check_inclusion, check_stop_sequences
from seqserve.task_record import GenerationRecord
from seqserve.v1 import generation_pb2

_BEAM_ONLY = ("length_penalty", "early_stopping")
_SAMPLING_ONLY = ("temperature", "top_k", "top_p", "seed")
_MAX_TOP_LOG_PROBABILITIES = 20
_IN_TOKENS = ("suppressed_token_ids", "suppressed_sequences")
"""Fields about texts or tokens, which :mod:`seqserve.servicers.suppression` reads."""
_MAX_INT32 = 2**31 - 1
_MAX_INT64 = 2**63 - 1


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
            if field.name not in _IN_TOKENS:
                values[field.name], paths[field.name] = value, f"{path}.{field.name}"
    checks = _Checks(values, paths)
    num_beams = checks.integer("num_beams", record.num_beams, 1, config.max_num_beams)
    max_new_tokens = checks.integer(
        "max_new_tokens", record.max_new_tokens, 1, record.max_target_length
    )
    do_sample = bool(values.get("do_sample", record.do_sample))
    if do_sample and num_beams > 1:
        raise InvalidRequestError(
            paths.get("do_sample", paths.get("num_beams", "options")),
            f"`do_sample` must not be set with beams, but `num_beams` is {num_beams}; set "
            "`num_beams` to 1, or `do_sample` to false",
        )
    return_alternatives = bool(values.get("return_alternatives", False))
    is_independent = do_sample or return_alternatives
    max_hypotheses = config.max_num_beams if is_independent else num_beams
    options = GenerateOptions(
        max_new_tokens=max_new_tokens,
        num_beams=num_beams,
        num_return_sequences=checks.integer("num_return_sequences", 1, 1, max_hypotheses),
        length_penalty=checks.between(
            "length_penalty", record.length_penalty, MIN_LENGTH_PENALTY, MAX_LENGTH_PENALTY
        ),
        early_stopping=bool(values.get("early_stopping", record.early_stopping)),
        # A default beyond the request's own limit bars the end token up to that limit.
        min_new_tokens=checks.integer(
            "min_new_tokens", min(record.min_new_tokens, max_new_tokens), 0, max_new_tokens
        ),
        no_repeat_ngram_size=checks.integer(
            "no_repeat_ngram_size", record.no_repeat_ngram_size, 0, record.max_target_length
        ),
        repetition_penalty=checks.between(
            "repetition_penalty",
            record.repetition_penalty,
            MIN_REPETITION_PENALTY,
            MAX_REPETITION_PENALTY,
        ),
        forced_bos_token_id=checks.token(
            "forced_bos_token_id", record.forced_bos_token_id, record.target_vocabulary_size
        ),
        forced_eos_token_id=record.forced_eos_token_id,
        suppressed_tokens=record.suppressed_tokens,
        suppressed_sequences=record.suppressed_sequences,
        do_sample=do_sample,
        temperature=checks.positive("temperature", record.temperature),
        top_k=checks.integer("top_k", record.top_k, 0, _MAX_INT32),
        top_p=checks.probability("top_p", record.top_p),
        seed=checks.integer("seed", secrets.randbits(63) if do_sample else 0, 0, _MAX_INT64),
        is_seed_drawn=do_sample and "seed" not in values,
        return_scores=bool(values.get("return_scores", False)),
        return_token_log_probabilities=bool(values.get("return_token_log_probabilities", False)),
        max_time=checks.span("max_time", math.inf, config.max_request_seconds),
        top_log_probability_count=checks.integer(
            "top_log_probability_count", 0, 0, _MAX_TOP_LOG_PROBABILITIES
        ),
        return_alternatives=return_alternatives,
        min_alternative_probability=checks.share("min_alternative_probability"),
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
    for name in _SAMPLING_ONLY:
        if name in values and not do_sample:
            raise InvalidRequestError(
                paths[name],
                f"`{name}` has an effect on sampling only; leave it unset or set `do_sample`",
            )
    _check_alternatives(options, values, paths)
    return options


def _check_alternatives(
    options: GenerateOptions, values: dict[str, int | float | bool], paths: dict[str, str]
) -> None:
    """Refuses alternatives where there are none."""
    name = "min_alternative_probability"
    if name in values and not options.return_alternatives:
        raise InvalidRequestError(
            paths[name],
            f"`{name}` has an effect on alternatives only; leave it unset or set "
            "`return_alternatives`",
        )
    if not options.return_alternatives:
        return
    rule = None
    if options.num_beams > 1:
        rule = f"needs `num_beams` 1, but it is {options.num_beams}"
    elif options.do_sample:
        rule = "must not be set with `do_sample`: alternatives are continued by greedy search"
    elif options.num_return_sequences == 1:
        rule = "needs `num_return_sequences` above 1, but it is 1"
    if rule is not None:
        name = "return_alternatives"
        raise InvalidRequestError(paths[name], f"`{name}` {rule}")


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

    def between(self, name: str, default: float, low: float, high: float) -> float:
        value = self.finite(name, default)
        if name in self._values and not low <= value <= high:
            raise self._refusal(
                name, f"must be at least {low:g} and at most {high:g}, but is {value:g}"
            )
        return value

    def span(self, name: str, default: float, longest: float) -> float:
        value = self._values.get(name)
        if value is None:
            return default
        assert isinstance(value, duration_pb2.Duration)
        # Not ToNanoseconds, which refuses what is out of range with an error of its own.
        seconds = value.seconds + value.nanos / 1e9
        if seconds <= 0:
            raise self._refusal(name, f"must be above 0 seconds, but is {seconds:g}")
        if seconds > longest:
            raise self._refusal(
                name,
                f"must be at most {longest:g} seconds, after which the server ends requests "
                f"(max_request_seconds), but is {seconds:g}",
            )
        return seconds

    def probability(self, name: str, default: float) -> float:
        value = self.positive(name, default)
        if value > 1:
            raise self._refusal(name, f"must be at most 1, but is {value}")
        return value

    def share(self, name: str) -> float:
        value = self.finite(name, 0.0)
        if not 0 <= value <= 1:
            raise self._refusal(name, f"must be at least 0 and at most 1, but is {value}")
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
