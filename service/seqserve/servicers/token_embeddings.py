"""The states of single tokens, for those who compare texts token by token."""

from collections.abc import Iterable, Iterator

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.task_record import EmbeddingRecord
from seqserve.v1 import encoding_pb2, model_pb2

_NUMBER_BYTES = 4


def check_token_embeddings(
    passages: Iterable[Passage], record: EmbeddingRecord, config: ServerConfig
) -> None:
    """Refuses replies that are too large.

    Raises:
        InvalidRequestError: The states take more bytes than a message may have.
    """
    assert record.token_embedding_size is not None
    num_tokens = sum(len(passage.tokens) for passage in passages)
    num_bytes = num_tokens * record.token_embedding_size * _NUMBER_BYTES
    if num_bytes > config.max_message_bytes:
        raise InvalidRequestError(
            "return_token_embeddings",
            f"`return_token_embeddings` may return at most {config.max_message_bytes} bytes "
            f"(max_message_bytes), but {num_tokens} tokens of {record.token_embedding_size} "
            f"numbers take {num_bytes}; send fewer or shorter texts",
        )


def to_token_embeddings(
    model: ServedModel, passage: Passage, answer: EncoderOutput, prompt_length: int
) -> Iterator[encoding_pb2.TokenEmbedding]:
    """The tokens of a passage with their states [S, M]."""
    assert answer.states is not None
    for token, place, state in zip(passage.tokens, passage.offsets, answer.states, strict=True):
        start, end = (max(0, offset - prompt_length) for offset in place or (0, 0))
        yield encoding_pb2.TokenEmbedding(
            token=model_pb2.Token(
                id=token,
                text=model.source_tokenizer.entry(token),
                start_offset=start,
                end_offset=end,
                is_special=place is None,
            ),
            values=state.tolist(),
        )
