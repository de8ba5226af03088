"""Tokens of NLLB folders that keep nothing but the SentencePiece file.

Other folders list them in ``tokenizer.json``, or in ``tokenizer_config.json`` as
``added_tokens_decoder``. Without either, ``transformers`` 5 has no token for any language.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

MODEL_FILE = "sentencepiece.bpe.model"


def read_missing_tokens(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Makes what ``NllbTokenizer.from_pretrained`` must be told; empty if the folder tells it.

    Languages follow the pieces, whose ids are one higher than SentencePiece's; ``<mask>`` is last.

    Source: ``NllbTokenizer`` of ``transformers`` 4, ``fairseq_tokens_to_ids``.
    """
    if (folder / "tokenizer.json").is_file() or "added_tokens_decoder" in settings:
        return {}
    model = (folder / MODEL_FILE).read_bytes()
    first = len(sentencepiece.SentencePieceProcessor(model_proto=model)) + 1
    codes = list(FAIRSEQ_LANGUAGE_CODES)
    added = {
        token_id: AddedToken(code, special=True, normalized=False)
        for token_id, code in enumerate(codes, first)
    }
    added[first + len(codes)] = AddedToken("<mask>", special=True, normalized=True, lstrip=True)
    return {"added_tokens_decoder": added, "additional_special_tokens": codes}
