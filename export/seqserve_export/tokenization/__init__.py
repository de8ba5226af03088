"""Tokenizers of Hugging Face folders, in whatever files they keep them.

===================================  =============================================================
file                                 what it does
===================================  =============================================================
:mod:`~.folder_tokenizers`           reads a folder
:mod:`~.folder_files`                says what a folder holds, and what it lacks
:mod:`~.rust`                        tokenizers that ``transformers`` runs with ``tokenizers``
:mod:`~.pieces`                      tokenizers that it runs with ``sentencepiece``
:mod:`~.differences`                 says where ``transformers`` leaves a folder's own files
:mod:`~.languages`                   language codes, and the frame of a source
:mod:`~.nllb`                        what NLLB folders may leave to the reader
:mod:`~.tokenizer_verification`      compares what was written with ``transformers``
:mod:`~.sample_lines`                the texts it is compared on
===================================  =============================================================
"""
