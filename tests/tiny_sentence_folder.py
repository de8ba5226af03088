"""A tiny sentence-transformers folder with random weights, for tests that need an encoder.

Depends on torch and transformers; import it only where those are at hand.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "cat", "dog")


def make_tiny_bert(seed: int, **switches: Any) -> BertModel:
    """A BERT of ``transformers`` with random weights in evaluation mode."""
    sizes: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "initializer_range": 0.2,
    }
    # The generator of the whole process is the only one the library draws from.
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: Any = BertModel(BertConfig(**(sizes | switches)))
        for weight in model.parameters():
            torch.nn.init.normal_(weight, float(weight.detach().mean()), 0.2)
    model.eval()
    bert: BertModel = model
    return bert


def make_tiny_sentence_folder(folder: Path, seed: int, **switches: Any) -> Path:
    """Writes encoder, tokenizer, mean pooling and normalization; returns the folder."""
    model = make_tiny_bert(seed, **switches)
    (folder / "1_Pooling").mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    paths = ("", "1_Pooling", "2_Normalize")
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(zip(kinds, paths, strict=True))
    ]
    write_json(folder / "modules.json", modules)
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    write_json(folder / "1_Pooling/config.json", pooling)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 32})
    _make_tokenizer().save(str(folder / "tokenizer.json"))
    # The class that takes a ready file as it is; that of BERT would want WordPiece.
    settings = {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", settings)
    return folder


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(content), encoding="utf-8")


def _make_tokenizer() -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(TOKENS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(list(TOKENS[:5]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As in published folders: both must not reach the served model.
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=8)
    return tokenizer
