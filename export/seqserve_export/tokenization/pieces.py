"""Tokenizers that ``transformers`` runs with ``sentencepiece``, made into what the server runs.

Ids are those of the checkpoint's vocabulary, which orders the pieces differently, leaves some out
and may hold the pieces of two models.

Source: ``PythonBackend.tokenize`` and ``SentencePieceBackend`` of ``transformers``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from seqserve.sentencepiece_record import AddedTokenRecord, SentencePieceRecord
from seqserve.sentencepiece_tokenizer import SentencePieceTokenizer
from seqserve_export.errors import UnsupportedError
from seqserve_export.tokenization.rust import check_splitting

Side = Literal["source", "target"]

DECODING: Mapping[str, Literal["pieces", "spaces", "pieces_and_spaces"]] = {
    "M2M100Tokenizer": "pieces",
    "MarianTokenizer": "pieces_and_spaces",
    "PLBartTokenizer": "spaces",
}
"""The classes that are supported, and how they turn pieces into text."""


def make_pieces_tokenizer(original: Any, side: Side, *, has_frame: bool) -> SentencePieceTokenizer:
    """Makes the tokenizer of one side.

    Args:
        original: As ``transformers`` reads it.
        side: Marian has a model for each.
        has_frame: Whether special tokens are put around a text by others.

    Raises:
        UnsupportedError: A setting that the server's tokenizer does not have.
    """
    kind = type(original).__name__
    check_splitting(original)
    if original.sp_model_kwargs:
        raise UnsupportedError(
            f'"sp_model_kwargs": {original.sp_model_kwargs} (tokenizer_config.json) is not '
            "supported; pieces must not be sampled"
        )
    is_marian = kind == "MarianTokenizer"
    if is_marian:
        model, decoding_model = _read_marian_models(original, side)
    else:
        model, decoding_model = original.sp_model.serialized_model_proto(), None
    vocabulary = _read_vocabulary(original, side)
    tokens = _read_tokens(original, vocabulary)
    return SentencePieceTokenizer(
        SentencePieceRecord(
            tokens=tokens,
            other_ids=_find_other_ids(tokens, vocabulary),
            unknown_id=vocabulary[str(original.unk_token)],
            special_ids=tuple(sorted(set(original.all_special_ids))),
            special_tokens=tuple(map(str, original.all_special_tokens)),
            added_tokens=_read_added_tokens(original, len(tokens)),
            prefix_ids=(),
            suffix_ids=() if has_frame else (int(original.eos_token_id),),
            has_language_prefix=is_marian,
            decoding=DECODING[kind],
            is_space_cleaned=bool(original.clean_up_tokenization_spaces),
            model=model,
            decoding_model=decoding_model,
        )
    )


def _read_marian_models(original: Any, side: Side) -> tuple[bytes, bytes | None]:
    """The model that encodes a side, and the one that decodes if it is another.

    With one vocabulary for both sides, ``transformers`` decodes by the source's model.
    """
    source, target = (Path(path).read_bytes() for path in original.spm_files)
    model = source if side == "source" else target
    decoding_model = target if original.separate_vocabs else source
    return model, None if decoding_model == model else decoding_model


def _read_vocabulary(original: Any, side: Side) -> dict[str, int]:
    """Id of every piece, for encoding."""
    match type(original).__name__:
        case "MarianTokenizer" if side == "target" and original.separate_vocabs:
            return dict(original.target_encoder)
        case "MarianTokenizer":
            return dict(original.encoder)
        case "M2M100Tokenizer":
            return {**original.encoder, **original.lang_token_to_id}
        case _:
            return dict(original.get_vocab())


def _read_tokens(original: Any, vocabulary: Mapping[str, int]) -> tuple[str | None, ...]:
    """Entry of every id, for decoding; added tokens go first, then the last of equal ids.

    Added tokens have their id in the source's vocabulary. Where the target has fewer entries they
    are left out there.
    """
    entries = {token_id: token for token, token_id in vocabulary.items()}
    added = {token_id: token.content for token_id, token in original.added_tokens_decoder.items()}
    size = 1 + max(entries)
    if not getattr(original, "separate_vocabs", False):
        size = max(size, 1 + max(added, default=-1))
    entries |= added
    return tuple(entries.get(token_id) for token_id in range(size))


def _find_other_ids(tokens: Sequence[str | None], vocabulary: Mapping[str, int]) -> dict[str, int]:
    places: dict[str | None, int] = {}
    for token_id, token in enumerate(tokens):
        places.setdefault(token, token_id)
    return {token: found for token, found in vocabulary.items() if places.get(token) != found}


def _read_added_tokens(original: Any, num_tokens: int) -> tuple[AddedTokenRecord, ...]:
    settings = {token.content: token for token in original.added_tokens_decoder.values()}
    records = []
    # Special tokens that are pieces of the model are split off, too, but strip nothing.
    for content in sorted({*settings, *original.all_special_tokens} & original.tokens_trie._tokens):
        token = settings.get(content)
        if token is not None and token.single_word:
            raise UnsupportedError(
                f'the added token {content!r} with "single_word": true is not supported'
            )
        token_id = int(original.convert_tokens_to_ids(content))
        if token_id < num_tokens:
            records.append(
                AddedTokenRecord(
                    content=content,
                    token_id=token_id,
                    is_left_stripped=token is not None and token.lstrip,
                    is_right_stripped=token is not None and token.rstrip,
                )
            )
    return tuple(records)
