"""Converts the checkpoint for CTranslate2 in int8, in a process of its own.

The weights go the way of CTranslate2's own converter. The tokenizer in the checkpoint is tiny, so
vocabularies are dummies of the right size: token 123 is called ``t123``.

Source: ``MarianMTLoader`` and ``Converter`` of ctranslate2 4.8, ``converters/transformers.py``.
"""

import sys
from pathlib import Path

import torch
from ctranslate2.converters.transformers import MarianMTLoader
from transformers import MarianMTModel

from bench.peer_vocabulary import END_NAME, UNKNOWN_NAME, to_names


def convert(checkpoint: Path, folder: Path) -> None:
    """Writes a model folder of CTranslate2."""
    model = MarianMTModel.from_pretrained(checkpoint)
    with torch.no_grad():
        # It drops the last row of the embedding, which is the padding token's in OPUS-MT.
        spec = MarianMTLoader().get_model_spec(model)
    names = to_names(range(model.config.vocab_size - 1))
    spec.register_source_vocabulary(names)
    spec.register_target_vocabulary(names)
    spec.config.eos_token = END_NAME
    spec.config.unk_token = UNKNOWN_NAME
    # Any token does: the decoder starts with an embedding of zeros.
    spec.config.decoder_start_token = END_NAME
    spec.config.add_source_eos = False  # sources hold it
    spec.validate()
    spec.optimize(quantization="int8")
    folder.mkdir(parents=True)
    spec.save(str(folder))


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
