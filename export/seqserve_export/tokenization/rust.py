"""Tokenizers that ``transformers`` itself runs with ``tokenizers``: taken as they are."""

from tokenizers import Tokenizer, decoders, processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from seqserve.sentencepiece_tokenizer import SPACE_CLEAN_UP
from seqserve_export.errors import UnsupportedError


def make_rust_tokenizer(original: TokenizersBackend, *, has_frame: bool) -> Tokenizer:
    """Copies the tokenizer, without truncation and padding, which belong to requests.

    Args:
        original: As ``transformers`` reads it.
        has_frame: Whether special tokens are put around a text by others.

    Raises:
        UnsupportedError: A setting that has no place in the file.
    """
    check_splitting(original)
    tokenizer: Tokenizer = Tokenizer.from_str(original.backend_tokenizer.to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    if has_frame:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B")
    if _is_space_cleaned(original):
        steps = [] if tokenizer.decoder is None else [tokenizer.decoder]
        # Only where the pieces are one text can a space be seen together with what follows it.
        steps.append(decoders.Fuse())
        steps += [decoders.Replace(found, replacement) for found, replacement in SPACE_CLEAN_UP]
        tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def check_splitting(original: PreTrainedTokenizerBase) -> None:
    """Refuses a switch that lives outside of the files of both libraries.

    Raises:
        UnsupportedError: Special tokens in a text are to be split like words.
    """
    if original.split_special_tokens:
        raise UnsupportedError(
            '"split_special_tokens": true (tokenizer_config.json) is not supported; set it to false'
        )


def _is_space_cleaned(original: TokenizersBackend) -> bool:
    """Whether decoding removes spaces before punctuation.

    Source: ``TokenizersBackend._decode`` of ``transformers``, which leaves BPE out.
    """
    if not original.clean_up_tokenization_spaces:
        return False
    is_forced = original.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output
    return bool(is_forced) or not isinstance(original.backend_tokenizer.model, BPE)
