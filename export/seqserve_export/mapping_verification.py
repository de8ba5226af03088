"""Compares our model, into which a checkpoint was mapped, with what the original computes."""

from seqserve_export.source import GenerationSource
from seqserve_export.verification import (
    Comparison,
    choose_effort,
    make_row,
    to_floats,
    torch_reference,
)


def compare_with_transformers(source: GenerationSource) -> Comparison:
    """Compares encoder states and logits of whole targets.

    Raises:
        VerificationError: Names what differs.
    """
    comparison = Comparison(f"mapping: {source.original} and our Transformer, states and logits")
    with torch_reference(choose_effort(source.model)):
        for index, case in enumerate(source.reference):
            source_tokens, source_lengths = make_row(case.source)
            states = source.model.encode(source_tokens, source_lengths)
            comparison.add(
                case.encoder_states, to_floats(states[0]), f"encoder states of source {index}"
            )
            logits = source.model(source_tokens, source_lengths, *make_row(case.target))
            comparison.add(case.logits, to_floats(logits[0]), f"logits of target {index}")
    return comparison
