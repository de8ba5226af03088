"""Stop sequences of a request: checked, and made into what finds them."""

from collections.abc import Sequence as Items

from seqserve.errors import InvalidRequestError
from seqserve.generate_options import GenerateOptions
from seqserve.stop_sequences import StopSequences
from seqserve.tokenizer import Tokenizer

_MAX_SEQUENCES = 16
_MAX_CHARACTERS = 256
_REPLACEMENT = "\ufffd"


def check_stop_sequences(sequences: Items[str], field: str) -> tuple[str, ...]:
    """Refuses too many, and such as could not or must not be found.

    Args:
        sequences: The stop sequences of one input.
        field: The path of their field in the request.

    Raises:
        InvalidRequestError: One of them is wrong, or there are too many.
    """
    if len(sequences) > _MAX_SEQUENCES:
        raise InvalidRequestError(
            field,
            f"`stop_sequences` must hold at most {_MAX_SEQUENCES} entries, but holds "
            f"{len(sequences)}",
        )
    for index, sequence in enumerate(sequences):
        rule = ""
        if not sequence:
            rule = "must not be empty"
        elif len(sequence) > _MAX_CHARACTERS:
            rule = f"must have at most {_MAX_CHARACTERS} characters, but has {len(sequence)}"
        elif _REPLACEMENT in sequence:
            rule = "must not hold U+FFFD, which stands for bytes that are no character (yet)"
        if rule:
            raise InvalidRequestError(f"{field}[{index}]", f"`stop_sequences[{index}]` {rule}")
    return tuple(sequences)


def check_inclusion(options: GenerateOptions, field: str) -> None:
    """Refuses to include a stop sequence where there is none.

    Raises:
        InvalidRequestError: It has no effect.
    """
    if not options.stop_sequences:
        raise InvalidRequestError(
            field,
            "`include_stop_sequence` has an effect with `stop_sequences` only; leave it unset or "
            "set those, too",
        )


def check_target_prefix(options: GenerateOptions, tokenizer: Tokenizer, field: str) -> None:
    """Refuses a target prefix that a stop sequence would end before anything is generated.

    Raises:
        InvalidRequestError: The prefix contains a stop sequence.
    """
    if not options.stop_sequences or not options.target_prefix:
        return
    text = tokenizer.decode(list(options.target_prefix))
    for sequence in options.stop_sequences:
        if sequence in text:
            raise InvalidRequestError(
                field,
                f"the target prefix already contains the stop sequence {sequence!r}; take it out "
                "of the prefix or of `stop_sequences`",
            )


def make_stops(options: GenerateOptions, tokenizer: Tokenizer) -> StopSequences | None:
    """What finds the stop sequences of the options, None if they have none."""
    if not options.stop_sequences:
        return None
    return StopSequences(
        tokenizer, options.stop_sequences, is_included=options.include_stop_sequence
    )
