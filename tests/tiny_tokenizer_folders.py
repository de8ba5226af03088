"""Tokenizers of Hugging Face folders in their original files, trained on the sample sentences."""

import functools
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from seqserve_export.tokenization.sample_lines import SENTENCES

Maker = Callable[[Path], dict[str, Any]]
"""Fills a folder with files of the tokenizer; returns its ``config.json``."""

_T5_IDS: dict[str, Any] = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@functools.cache
def _train(
    sentences: tuple[str, ...], model_type: str, settings: tuple[tuple[str, Any], ...]
) -> bytes:
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_mix(sentences)),
        model_writer=file,
        model_type=model_type,
        vocab_size=1100,
        hard_vocab_limit=False,
        character_coverage=0.98,
        num_threads=1,
        minloglevel=2,
        **dict(settings),
    )
    return file.getvalue()


def _mix(sentences: tuple[str, ...]) -> list[str]:
    """A few hundred lines of the sentences' words, some of them much more frequent than others."""
    generator = random.Random(1)
    words = [word for sentence in sentences for word in sentence.split()]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    generator.shuffle(words)
    return [" ".join(generator.choices(words, weights, k=12)) for _ in range(500)]


def train_pieces(
    sentences: tuple[str, ...] = SENTENCES, model_type: str = "unigram", **settings: Any
) -> bytes:
    """The file of a SentencePiece model."""
    return _train(sentences, model_type, tuple(sorted(settings.items())))


def pieces_of(model: bytes) -> Iterator[str]:
    """Pieces by their SentencePiece ids, the first three left out."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return (processor.id_to_piece(index) for index in range(3, len(processor)))


def make_marian(
    folder: Path, codes: tuple[str, ...] = (), *, is_separate: bool = False, **settings: Any
) -> dict[str, Any]:
    """A model for each side; one vocabulary that merges them, or two.

    Args:
        folder: To be filled.
        codes: Languages of the target.
        is_separate: Whether each side has its vocabulary.
        settings: Of the training of both models.
    """
    source = train_pieces(SENTENCES[::2], **settings)
    target = train_pieces(SENTENCES[1::2], **settings)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    sides = [sorted(pieces_of(source)), sorted(pieces_of(target), reverse=True)]
    if not is_separate:
        sides = [sides[0] + sides[1]]
    for name, pieces in zip(("vocab.json", "target_vocab.json"), sides, strict=False):
        # Some pieces are left out, as in published folders.
        tokens = ["</s>", "<unk>", *(f">>{code}<<" for code in codes), *pieces[7:], "<pad>"]
        unique = dict.fromkeys(tokens)
        write_json(folder / name, {token: index for index, token in enumerate(unique)})
    if is_separate:
        write_json(folder / "tokenizer_config.json", {"separate_vocabs": True})
    return {"model_type": "marian"}


def make_m2m_100(folder: Path, *, has_map: bool = False) -> dict[str, Any]:
    """BPE pieces, a vocabulary of their ids, and languages after it, listed or not."""
    model = train_pieces(model_type="bpe")
    (folder / "sentencepiece.bpe.model").write_bytes(model)
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pieces_of(model))[5:]]
    write_json(folder / "vocab.json", {token: index for index, token in enumerate(tokens)})
    write_json(folder / "tokenizer_config.json", {"src_lang": "en", "tgt_lang": None})
    if has_map:
        codes = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
        special = {"additional_special_tokens": codes, "eos_token": "</s>"}
        write_json(folder / "special_tokens_map.json", special)
    return {"model_type": "m2m_100"}


def make_plbart(folder: Path, language_codes: str = "base") -> dict[str, Any]:
    """Pieces with ids one higher than theirs, then languages."""
    (folder / "sentencepiece.bpe.model").write_bytes(train_pieces())
    write_json(folder / "tokenizer_config.json", {"language_codes": language_codes})
    return {"model_type": "plbart"}


def make_nllb(folder: Path, **settings: Any) -> dict[str, Any]:
    """BPE pieces."""
    (folder / "sentencepiece.bpe.model").write_bytes(train_pieces(model_type="bpe"))
    settings = {"tokenizer_class": "NllbTokenizer", "src_lang": "fra_Latn", **settings}
    write_json(folder / "tokenizer_config.json", settings)
    return {"model_type": "m2m_100"}


def make_mbart(folder: Path) -> dict[str, Any]:
    """Unigram pieces; languages follow from the class."""
    (folder / "sentencepiece.bpe.model").write_bytes(train_pieces())
    return {"model_type": "mbart"}


def make_mbart50(folder: Path) -> dict[str, Any]:
    """As mBART, with more languages."""
    (folder / "sentencepiece.bpe.model").write_bytes(train_pieces())
    return {"model_type": "mbart", "tokenizer_class": "MBart50Tokenizer"}


def make_t5(folder: Path, model_type: str = "t5") -> dict[str, Any]:
    """Unigram pieces, then extra ids."""
    (folder / "spiece.model").write_bytes(train_pieces(**_T5_IDS))
    return {"model_type": model_type}


def make_umt5(folder: Path) -> dict[str, Any]:
    """As T5, whose class it names."""
    make_t5(folder)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    return {"model_type": "umt5"}


def make_pegasus(folder: Path) -> dict[str, Any]:
    """Unigram pieces, 103 reserved ids before them."""
    (folder / "spiece.model").write_bytes(train_pieces(**_T5_IDS))
    return {"model_type": "pegasus"}


_FAIRSEQ_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make_bart(
    folder: Path, model_type: str = "bart", special: tuple[str, ...] = _FAIRSEQ_TOKENS
) -> dict[str, Any]:
    """Pairs of bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.model.save(str(folder))
    return {"model_type": model_type}


def make_bert(
    folder: Path, model_type: str = "bert", special: tuple[str, ...] = _BERT_TOKENS
) -> dict[str, Any]:
    """Words and their continuations."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=800, show_progress=False, special_tokens=list(special)
    )
    tokenizer.train_from_iterator(SENTENCES * 4, trainer)
    tokenizer.model.save(str(folder))
    write_json(folder / "tokenizer_config.json", {"clean_up_tokenization_spaces": True})
    return {"model_type": model_type}


def make_albert(folder: Path) -> dict[str, Any]:
    """Unigram pieces with BERT's special tokens among them."""
    model = train_pieces(
        pad_id=0,
        unk_id=1,
        bos_id=2,
        bos_piece="[CLS]",
        eos_id=3,
        eos_piece="[SEP]",
        control_symbols="[MASK]",
    )
    (folder / "spiece.model").write_bytes(model)
    return {"model_type": "albert"}


def make_deberta_v2(folder: Path) -> dict[str, Any]:
    """Unigram pieces with BERT's special tokens before them."""
    model = train_pieces(
        pad_id=0,
        pad_piece="[PAD]",
        bos_id=1,
        bos_piece="[CLS]",
        eos_id=2,
        eos_piece="[SEP]",
        unk_id=3,
        unk_piece="[UNK]",
    )
    (folder / "spm.model").write_bytes(model)
    return {"model_type": "deberta-v2"}


def make_xlm_roberta(folder: Path, model_type: str = "xlm-roberta") -> dict[str, Any]:
    """Unigram pieces, in fairseq's order."""
    (folder / "sentencepiece.bpe.model").write_bytes(train_pieces())
    return {"model_type": model_type}


FAMILIES: dict[str, Maker] = {
    "marian": make_marian,
    "marian-multilingual": functools.partial(make_marian, codes=("fra", "zho_Hans", "deu")),
    "marian-separate": functools.partial(make_marian, is_separate=True),
    "m2m_100": make_m2m_100,
    "m2m_100-listed": functools.partial(make_m2m_100, has_map=True),
    "plbart-base": make_plbart,
    "plbart-multi": functools.partial(make_plbart, language_codes="multi"),
    "nllb": make_nllb,
    "nllb-legacy": functools.partial(make_nllb, legacy_behaviour=True),
    "mbart": make_mbart,
    "mbart50": make_mbart50,
    "t5": make_t5,
    "mt5": functools.partial(make_t5, model_type="mt5"),
    "umt5": make_umt5,
    "pegasus": make_pegasus,
    "bart": make_bart,
    "led": functools.partial(make_bart, model_type="led"),
    "roberta": functools.partial(make_bart, model_type="roberta"),
    "deberta": functools.partial(make_bart, model_type="deberta", special=_BERT_TOKENS),
    "bert": make_bert,
    "distilbert": functools.partial(make_bert, model_type="distilbert"),
    "electra": functools.partial(make_bert, model_type="electra"),
    "mpnet": functools.partial(make_bert, model_type="mpnet", special=(*_FAIRSEQ_TOKENS, "[UNK]")),
    "albert": make_albert,
    "deberta-v2": make_deberta_v2,
    "xlm-roberta": make_xlm_roberta,
    "camembert": functools.partial(make_xlm_roberta, model_type="camembert"),
}


def make_tokenizer_folder(family: str, folder: Path) -> Path:
    """A folder of one of :data:`FAMILIES`."""
    folder.mkdir(parents=True)
    write_json(folder / "config.json", FAMILIES[family](folder))
    return folder
