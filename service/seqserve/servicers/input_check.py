"""What inputs may be: how many, how long, of which tokens."""

from collections.abc import Collection, Iterable

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.sequence import Sequence
from seqserve.served_model import ServedModel


def check_count(num_inputs: int, field: str, config: ServerConfig) -> None:
    """Refuses requests with no input or too many."""
    if num_inputs == 0:
        raise InvalidRequestError(field, f"`{field}` must not be empty")
    if num_inputs > config.max_inputs_per_request:
        raise InvalidRequestError(
            field,
            f"`{field}` must hold at most {config.max_inputs_per_request} entries "
            f"(max_inputs_per_request), but holds {num_inputs}",
        )


def check_token_count(
    num_tokens: int, field: str, config: ServerConfig, *, found: str = "it holds"
) -> None:
    """Refuses requests with too many tokens to look at each."""
    if num_tokens > config.max_tokens_per_request:
        raise InvalidRequestError(
            field,
            f"`{field}` must hold at most {config.max_tokens_per_request} tokens in all "
            f"(max_tokens_per_request), but {found} {num_tokens}",
        )


def check_token_ids(token_ids: Iterable[int], vocabulary_size: int, field: str) -> None:
    """Refuses ids outside the vocabulary: they would read the embedding of another token."""
    for index, token in enumerate(token_ids):
        if not 0 <= token < vocabulary_size:
            raise InvalidRequestError(
                f"{field}[{index}]",
                f"`{field}[{index}]` must be at least 0 and below {vocabulary_size}, but is "
                f"{token}",
            )


def check_tokens(tokens: Collection[object], field: str) -> None:
    """Refuses texts that nothing is left of."""
    if not tokens:
        raise InvalidRequestError(
            field, f"`{field}` has no tokens: the model's tokenizer drops all of it"
        )


def check_cache(
    model: ServedModel,
    sequence: Sequence,
    field: str,
    *,
    remedy: str = "lower `max_new_tokens`, `num_beams` or `num_return_sequences`",
) -> None:
    """Refuses what could never run: its keys and values alone would exceed the budget."""
    budget = model.budget
    if budget is None:
        return
    num_bytes = budget.bytes_for(sequence.extent)
    if num_bytes > budget.max_bytes:
        num_rows, target_length, source_length = sequence.extent
        raise InvalidRequestError(
            field,
            f"`{field}` needs {num_bytes} bytes of cache ({num_rows} hypotheses of {target_length} "
            f"target tokens and {source_length} source tokens), but a lane has {budget.max_bytes} "
            f"(cache_bytes / lanes); {remedy}, or shorten the source",
        )


def check_text(text: str, field: str, config: ServerConfig) -> None:
    """Refuses empty texts, and those too large to be tokenized."""
    if not text:
        raise InvalidRequestError(field, f"`{field}` must not be empty")
    size = len(text.encode("utf-8"))
    if size > config.max_input_bytes:
        raise InvalidRequestError(
            field,
            f"`{field}` must have at most {config.max_input_bytes} bytes (max_input_bytes), "
            f"but has {size}",
        )


def check_length(length: int, limit: int, field: str, *, others: str = "") -> None:
    """Refuses sources that are longer than the model reads.

    Args:
        length: The tokens there are.
        limit: The tokens there may be.
        field: Where the source comes from.
        others: What is read together with it, as in " with `query`".
    """
    if length > limit:
        raise InvalidRequestError(
            field,
            f"`{field}` must have at most {limit} tokens{others}, but has {length}; shorten it, or "
            "set `truncate` to have its end cut",
        )
