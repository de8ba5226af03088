"""Alignments: what each token of a generated target came from."""

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from seqserve.attention_kind import AttentionKind
from seqserve.attention_reduction import Reduction
from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError, UnsupportedTaskError
from seqserve.explainer import Question
from seqserve.explanation_record import AlignmentRecord
from seqserve.sequence import Sequence
from seqserve.served_model import ServedModel
from seqserve.servicers.attention_choice import (
    NUMBER_BYTES,
    AttentionChoice,
    Lengths,
    check_memory,
    find_explainer,
)
from seqserve.servicers.attention_messages import pack_floats, to_tokens
from seqserve.servicers.attention_source import place_ids, place_source
from seqserve.servicers.languages import Direction
from seqserve.servicers.requests import Source
from seqserve.token_place import PlacedTokens
from seqserve.v1 import generation_pb2

_NOTHING = -1
"""The source token of target tokens that came from none."""


def find_alignment(model: ServedModel) -> AlignmentRecord:
    """The heads that align.

    Raises:
        UnsupportedTaskError: The model was exported without them.
    """
    record = find_explainer(model).record.alignment
    if record is None:
        raise UnsupportedTaskError(
            f"model {model.manifest.name!r} cannot align: export could not tell which of its heads "
            "do, since no sample has two tokens; export it again with longer samples"
        )
    return record


class Aligner:
    """Aligns the hypotheses of one call."""

    def __init__(self, model: ServedModel, config: ServerConfig) -> None:
        """Prepares a question that is the same for all.

        Raises:
            UnsupportedTaskError: The model cannot align.
        """
        self._model = model
        self._config = config
        self._explainer = find_explainer(model)
        heads: dict[int, tuple[int, ...]] = {}
        for layer, head in find_alignment(model).heads:
            heads[layer] = (*heads.get(layer, ()), head)
        self._heads = heads
        most = max(heads.values(), key=len)
        self._choice = AttentionChoice({AttentionKind.CROSS: tuple(heads)}, most, Reduction.MEAN)
        self._num_bytes = 0

    def check_least(self, sequences: Items[Sequence]) -> None:
        """Refuses what is sure to be too much, so that nothing is generated for it.

        Raises:
            InvalidRequestError: The shortest targets that are asked for have too many weights.
        """
        for sequence in sequences:
            assert sequence.search is not None
            options = sequence.search.options
            lengths = Lengths(sequence.source_length, max(1, options.min_new_tokens))
            for _ in range(options.num_return_sequences):
                self._check(lengths)
        self._num_bytes = 0

    async def align(
        self,
        result: generation_pb2.GenerateResult,
        message: generation_pb2.GenerateInput,
        source: Source,
        direction: Direction,
    ) -> None:
        """Adds an alignment to each hypothesis of a result.

        Args:
            result: The hypotheses.
            message: The input they were generated from.
            source: Its tokens.
            direction: Its languages.

        Raises:
            InvalidRequestError: The weights would take too much memory, or too many bytes in all.
        """
        if message.WhichOneof("source") == "text":
            spans, _ = await place_source(self._model, message.text, direction)
            placed = PlacedTokens(message.text, spans)
        else:
            placed = await place_ids(self._model.source_tokenizer, source.tokens)
        for hypothesis in result.hypotheses:
            if not hypothesis.token_ids:  # its turn never came
                continue
            tokens = tuple(hypothesis.token_ids)
            self._check(Lengths(len(source.tokens), len(tokens)))
            question = Question(
                source_tokens=source.tokens,
                decoder_tokens=(direction.decoder_start_token_id, *tokens[:-1]),
                heads={AttentionKind.CROSS: self._heads},
            )
            layers = (await self._explainer.explain(question)).weights[AttentionKind.CROSS]
            weights: NDArray[np.float32] = np.concatenate(layers).mean(
                axis=0
            )  # [N, T, S] -> [T, S]
            target = await place_ids(self._model.target_tokenizer, tokens)
            hypothesis.alignment.CopyFrom(_to_alignment(placed, target, weights))

    def _check(self, lengths: Lengths) -> None:
        """Refuses the next hypothesis if it is too long, or one too many."""
        check_memory(
            self._choice,
            self._explainer.record,
            lengths,
            self._config,
            "return_alignments",
            "lower `max_new_tokens`, leave `return_alignments` out",
        )
        self._num_bytes += NUMBER_BYTES * lengths.cells(AttentionKind.CROSS)
        if self._num_bytes > self._config.max_message_bytes:
            raise InvalidRequestError(
                "return_alignments",
                f"`return_alignments` may return at most {self._config.max_message_bytes} bytes "
                "(max_message_bytes), but the alignments of all hypotheses take more; send fewer "
                "inputs, lower `num_return_sequences`, or shorten the texts",
            )


def _to_alignment(
    source: PlacedTokens, target: PlacedTokens, weights: NDArray[np.float32]
) -> generation_pb2.Alignment:
    """The alignment of weights [T, S], as a message."""
    is_text = np.array([not span.is_special for span in source.spans])
    indices = np.full(len(target.spans), _NOTHING)
    if is_text.any():
        indices = np.where(is_text, weights, -1.0).argmax(axis=1)
    message = generation_pb2.Alignment(
        source_tokens=to_tokens(source.spans),
        target_tokens=to_tokens(target.spans),
        source_indices=[
            _NOTHING if span.is_special else int(index)
            for span, index in zip(target.spans, indices, strict=True)
        ],
    )
    message.MergeFromString(pack_floats(message.WEIGHTS_FIELD_NUMBER, weights))
    return message
