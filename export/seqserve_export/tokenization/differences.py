"""Says where a tokenizer of ``transformers`` differs from the files it is made of.

Models are served with what ``transformers`` makes of their files. Version 5 takes the normalizer of
some classes from their code, and its normalizer is not quite that of SentencePiece; both may be
other tokens than the model was trained with. Whoever exports should know.
"""

from pathlib import Path

import sentencepiece
import transformers
from transformers import TokenizersBackend

from seqserve_export.errors import CheckpointError
from seqserve_export.tokenization.sample_lines import LINES, SENTENCES
from seqserve_export.tokenizer_file import read_tokenizer


def compare_with_ready_file(path: Path, original: TokenizersBackend) -> tuple[str, ...]:
    """Compares tokens of all sample lines with a ``tokenizer.json``.

    Returns:
        One sentence if some differ.

    Raises:
        CheckpointError: The vocabulary or the model is not that of the file.
    """
    ready, backend = read_tokenizer(path), original.backend_tokenizer
    is_same_model = type(ready.model) is type(backend.model)
    if not is_same_model or not ready.get_vocab().items() <= backend.get_vocab().items():
        raise CheckpointError(
            f"{_name(original)} does not take its vocabulary and model from {path}; name the class "
            'that wrote the file as "tokenizer_class" in tokenizer_config.json, or remove the file'
        )
    different = [
        line
        for line in LINES
        if ready.encode(line, add_special_tokens=False).ids
        != backend.encode(line, add_special_tokens=False).ids
    ]
    return _describe(original, path, different, len(LINES))


def compare_with_model(path: Path, original: TokenizersBackend) -> tuple[str, ...]:
    """Compares pieces of the sample sentences with a SentencePiece model.

    A class that turns texts into lower case before SentencePiece sees them is not compared.

    Returns:
        One sentence if some differ.
    """
    if getattr(original, "do_lower_case", False):
        return ()
    model = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    unknown = str(original.unk_token)
    different = []
    for line in SENTENCES:
        expected = [
            unknown if model.piece_to_id(piece) == model.unk_id() else piece
            for piece in model.encode(line, out_type=str)
        ]
        ids = original.backend_tokenizer.encode(line, add_special_tokens=False).ids
        if original.convert_ids_to_tokens(ids) != expected:
            different.append(line)
    return _describe(original, path, different, len(SENTENCES))


def _name(original: TokenizersBackend) -> str:
    return f"{type(original).__name__} of transformers {transformers.__version__}"


def _describe(
    original: TokenizersBackend, path: Path, different: list[str], num_lines: int
) -> tuple[str, ...]:
    if not different:
        return ()
    return (
        f"{_name(original)} gives other tokens than {path.name} of the folder on {len(different)} "
        f"of {num_lines} sample lines, first on {different[0]!r}; the model is served with those "
        "of transformers",
    )
