"""Tiny Hugging Face encoder-decoder folders with seeded weights, as ``transformers`` writes them.

Depends on torch and transformers; import it only where those are at hand.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from seqserve_export.tokenization.folder_tokenizers import read_folder_tokenizers
from tiny_tokenizer_folders import make_tokenizer_folder

_BART_SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
}
_T5_SIZES = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    # As many in each stack: transformers sizes the cache of its decoder by the encoder.
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}
_GATED = {"feed_forward_proj": "gated-gelu"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TinyFamily:
    """How to make one."""

    model: str
    """Class of ``transformers``."""
    tokenizer: str
    """Of :data:`tiny_tokenizer_folders.FAMILIES`."""
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of the configuration."""
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Of ``generation_config.json``."""


def _bart(model: str, tokenizer: str, defaults: Any = None, **settings: Any) -> TinyFamily:
    return TinyFamily(
        model=model,
        tokenizer=tokenizer,
        settings=_BART_SIZES | settings,
        defaults=defaults or {},
    )


def _t5(model: str, tokenizer: str, **settings: Any) -> TinyFamily:
    return TinyFamily(model=model, tokenizer=tokenizer, settings=_T5_SIZES | settings)


_MARIAN = {"scale_embedding": True, "activation_function": "swish"}

FAMILIES: dict[str, TinyFamily] = {
    "marian": _bart("MarianMTModel", "marian", {"num_beams": 4}, **_MARIAN),
    "marian-multilingual": _bart("MarianMTModel", "marian-multilingual", **_MARIAN),
    "marian-separate": _bart(
        "MarianMTModel", "marian-separate", share_encoder_decoder_embeddings=False, **_MARIAN
    ),
    "bart": _bart(
        "BartForConditionalGeneration",
        "bart",
        {
            "num_beams": 4,
            "early_stopping": True,
            "no_repeat_ngram_size": 3,
            "forced_bos_token_id": 0,
            "min_length": 4,
            "length_penalty": 2.0,
        },
    ),
    "plbart": _bart("PLBartForConditionalGeneration", "plbart-base"),
    "mbart": _bart("MBartForConditionalGeneration", "mbart", scale_embedding=True),
    "mbart50": _bart("MBartForConditionalGeneration", "mbart50", scale_embedding=True),
    "pegasus": _bart(
        "PegasusForConditionalGeneration",
        "pegasus",
        {"num_beams": 8, "length_penalty": 0.8},
        scale_embedding=True,
        activation_function="relu",
    ),
    "m2m_100": _bart("M2M100ForConditionalGeneration", "m2m_100"),
    "nllb": _bart("M2M100ForConditionalGeneration", "nllb"),
    "t5": _t5("T5ForConditionalGeneration", "t5"),
    "t5-v1.1": _t5("T5ForConditionalGeneration", "t5", tie_word_embeddings=False, **_GATED),
    "mt5": _t5("MT5ForConditionalGeneration", "mt5"),
    "umt5": _t5("UMT5ForConditionalGeneration", "umt5"),
}


def make_hugging_face_folder(
    family: str, folder: Path, seed: int = 0, *, is_filled: bool = True, **settings: Any
) -> Path:
    """Writes tokenizer, configuration and weights of one of :data:`FAMILIES`.

    Args:
        family: Its name.
        folder: Where to write; made.
        seed: Of the weights.
        is_filled: Whether weights are large enough for outputs to depend on inputs, or as
            ``transformers`` begins with.
        settings: Of the configuration, over those of the family.

    Returns:
        The folder.
    """
    tiny = FAMILIES[family]
    make_tokenizer_folder(tiny.tokenizer, folder)
    tokenizer_config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    torch.manual_seed(seed)
    model = _make_model(tiny, folder, tokenizer_config, settings)
    if is_filled:
        # T5 does not scale attention scores: large weights would make it chaotic.
        fill_weights(model, seed, 0.15 if "T5" in tiny.model else 0.3)
    for name, value in tiny.defaults.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    if "tokenizer_class" in tokenizer_config:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["tokenizer_class"] = tokenizer_config["tokenizer_class"]
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _make_model(
    tiny: TinyFamily, folder: Path, tokenizer_config: dict[str, Any], settings: dict[str, Any]
) -> Any:
    tokenizers = read_folder_tokenizers(folder, tokenizer_config)
    original = tokenizers.original
    sizes = [
        1 + max(one.get_vocab().values())
        for one in (tokenizers.source, tokenizers.target or tokenizers.source)
    ]
    is_separate = tiny.settings.get("share_encoder_decoder_embeddings") is False
    values: dict[str, Any] = {
        "vocab_size": sizes[0] if is_separate else max(sizes),
        "pad_token_id": original.pad_token_id,
        "eos_token_id": original.eos_token_id,
    }
    if tiny.model == "MarianMTModel":
        values |= {
            "decoder_vocab_size": sizes[1] if is_separate else max(sizes),
            "decoder_start_token_id": original.pad_token_id,
            "forced_eos_token_id": original.eos_token_id,
        }
    model_class = getattr(transformers, tiny.model)
    config = model_class.config_class(**(values | tiny.settings | settings))
    model = model_class(config).eval()
    if tiny.model == "MarianMTModel":
        model.generation_config.bad_words_ids = [[original.pad_token_id]]
    if tiny.model == "PLBartForConditionalGeneration":
        model.generation_config.decoder_start_token_id = original.eos_token_id
    return model


@torch.no_grad()
def fill_weights(model: nn.Module, seed: int, size: float) -> None:
    """Fills a model with random weights, large enough for outputs to depend on inputs.

    Args:
        model: To be changed.
        seed: Of the weights.
        size: Standard deviation of all but norms. The end token is made likely, so that targets
            end at many lengths.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            continue  # sinusoids
        noise = torch.randn(weight.shape, generator=generator)
        is_norm = "norm" in name and name.endswith("weight")
        weight.copy_(1 + 0.1 * noise if is_norm else size * noise)
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            eos = model.config.eos_token_id  # type: ignore[union-attr]
            buffer[0, eos] = 2.0  # type: ignore[index]
