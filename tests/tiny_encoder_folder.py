"""Tiny Hugging Face folders of every encoder family, with random weights, for parity tests.

Depends on torch and transformers; import it only where those are at hand.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from seqserve.task_record import Task

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY_SIZE = 90
TEXT = (
    "the cat sat on the mat while a dog slept under the old table",
    "models are small here and read short sentences about cats and dogs",
    "rain fell over the hills and nobody walked along the river",
)

MODEL_CLASSES: dict[Task, Any] = {
    Task.EMBED: transformers.AutoModel,
    Task.CLASSIFY: transformers.AutoModelForSequenceClassification,
    Task.RERANK: transformers.AutoModelForSequenceClassification,
    Task.CLASSIFY_TOKENS: transformers.AutoModelForTokenClassification,
    Task.FILL_MASK: transformers.AutoModelForMaskedLM,
}

_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 80,
    # Some families' own are beyond the vocabulary.
    **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
}
_DEBERTA = {"relative_attention": True, "position_buckets": 16, "pad_token_id": 0}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A family with settings that differ from those of :data:`_SIZES`."""

    name: str
    model_type: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """The name, for the names of tests."""
        return self.name


VARIANTS = (
    Variant("bert", "bert"),
    Variant("roberta", "roberta"),
    Variant("xlm-roberta", "xlm-roberta", {"type_vocab_size": 1}),
    Variant("camembert", "camembert", {"type_vocab_size": 1}),
    Variant("distilbert", "distilbert"),
    Variant("albert", "albert", {"embedding_size": 24, "num_hidden_layers": 3}),
    Variant("mpnet", "mpnet"),
    Variant("electra", "electra", {"embedding_size": 24}),
    Variant(
        "deberta-v3",
        "deberta-v2",
        _DEBERTA
        | {
            "pos_att_type": "p2c|c2p",
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
        },
    ),
    Variant(
        "deberta-v2-xlarge",
        "deberta-v2",
        _DEBERTA
        | {
            "pos_att_type": "p2c|c2p",
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "conv_kernel_size": 3,
            "conv_act": "gelu",
        },
    ),
    Variant(
        "deberta-v2-own-projections",
        "deberta-v2",
        _DEBERTA | {"pos_att_type": "c2p", "position_buckets": -1, "type_vocab_size": 2},
    ),
    Variant("modernbert", "modernbert", {"local_attention": 8, "pad_token_id": 0}),
    Variant(
        "modernbert-mean-bias",
        "modernbert",
        {
            "local_attention": 8,
            "pad_token_id": 0,
            "classifier_pooling": "mean",
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "classifier_bias": True,
        },
    ),
)


def find_variant(name: str) -> Variant:
    """The variant of that name."""
    return next(variant for variant in VARIANTS if variant.name == name)


def make_tiny_encoder_folder(
    folder: Path, variant: Variant, task: Task, seed: int = 1, **settings: Any
) -> Path:
    """Saves a model and a tokenizer as the library does.

    Args:
        folder: Where to write; made if absent.
        variant: Family and settings.
        task: Decides the head.
        seed: Of the weights.
        settings: Fields of the configuration that differ, ``num_labels``, say.

    Returns:
        The folder.
    """
    make_config: Any = transformers.AutoConfig
    values = {"vocab_size": VOCABULARY_SIZE} | _SIZES
    if "id2label" not in settings:
        values["num_labels"] = {Task.CLASSIFY: 3, Task.CLASSIFY_TOKENS: 4}.get(task, 1)
    config = make_config.for_model(variant.model_type, **(values | variant.settings | settings))
    # The generator of the whole process is the only one the library draws from.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODEL_CLASSES[task].from_config(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                is_norm = "norm" in name.lower() and name.endswith("weight")
                # Large enough for outputs to depend on inputs.
                weight.copy_(torch.randn_like(weight) * 0.25 + float(is_norm))
    model.save_pretrained(folder)
    make_tokenizer().save(str(folder / "tokenizer.json"))
    # The class that takes a ready file as it is; that of the family would want its own model.
    settings = {
        "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def make_tokenizer() -> Tokenizer:
    """A WordPiece tokenizer trained on :data:`TEXT`, for single texts and pairs."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=list(SPECIAL_TOKENS), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer
