"""Checkpoints of our own Transformer: a folder with weights, configuration and tokenizers.

========================  ==========================================================
file                      content
========================  ==========================================================
``config.json``           format, name, architecture, special ids, defaults; ``variant``, if
                          the model has other parts than the Transformer
``model.safetensors``     the weights, fp32 or fp16; tied tensors are stored once
``tokenizer.json``        source tokenizer of the ``tokenizers`` library
``target_tokenizer.json`` target tokenizer, when it is another one
``samples.txt``           texts to verify an export with, one a line; optional
``README.md``             the model card
========================  ==========================================================
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import torch
from safetensors.torch import save_file
from torch import Tensor

from seqserve_export.errors import CheckpointError
from seqserve_export.transformer import Transformer
from seqserve_export.transformer_config import TransformerConfig
from seqserve_export.variants.variant_config import VariantConfig
from seqserve_export.variants.variant_model import VariantModel
from seqserve_export.weights import WEIGHTS_FILE, assign_weights, read_safetensors

FORMAT = "seqserve-transformer/1"
CONFIG_FILE = "config.json"
SOURCE_TOKENIZER_FILE = "tokenizer.json"
TARGET_TOKENIZER_FILE = "target_tokenizer.json"
SAMPLES_FILE = "samples.txt"

_SECTIONS = ("format", "name", "transformer", "generation", "variant")
"""What ``config.json`` holds; the last one is for models with other parts."""
_Config = TypeVar("_Config")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """Special token ids and the decoding defaults a model ships with."""

    decoder_start_token_id: int
    eos_token_id: int
    pad_token_id: int
    max_new_tokens: int
    """Default limit of new target tokens, the end token included."""
    num_beams: int = 1
    length_penalty: float = 1.0
    """A finished hypothesis scores ``sum_logprobs / length ** length_penalty``."""
    early_stopping: bool = False
    """Beam search ends with the first ``num_beams`` finished hypotheses."""
    min_new_tokens: int = 0
    """The end token is barred before this many tokens; 0 is off."""
    no_repeat_ngram_size: int = 0
    """No n-gram of this size comes twice in a target; 0 is off."""
    repetition_penalty: float = 1.0
    """Above 1 makes tokens the target already has less likely; 1 is off."""
    forced_bos_token_id: int | None = None
    """What every target begins with."""
    forced_eos_token_id: int | None = None
    """What a target that reaches its limit ends with."""
    suppressed_tokens: tuple[int, ...] = ()
    """Never generated, unless forced."""
    suppressed_sequences: tuple[tuple[int, ...], ...] = ()
    """Each of two tokens or more; never generated."""
    do_sample: bool = False
    """Tokens are drawn by their probabilities; with one beam only."""
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model with what is needed to use it."""

    name: str
    model: Transformer
    generation: GenerationConfig


def save_checkpoint(checkpoint: Checkpoint, folder: Path, *, dtype: torch.dtype) -> None:
    """Writes weights (cast to ``dtype``) and configuration; tokenizers are the caller's."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.to(dtype).contiguous()
        for name, tensor in _stored_weights(checkpoint.model).items()
    }
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = {
        "format": FORMAT,
        "name": checkpoint.name,
        "transformer": dataclasses.asdict(checkpoint.model.config),
        "generation": dataclasses.asdict(checkpoint.generation),
    }
    if isinstance(checkpoint.model, VariantModel):
        config["variant"] = dataclasses.asdict(checkpoint.model.variant)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint folder into an fp32 model in evaluation mode.

    Raises:
        CheckpointError: A file is missing or malformed, or weights and configuration disagree;
            the message names all tensors that are missing, unexpected or of another shape.
    """
    config = _read_config(folder / CONFIG_FILE)
    try:
        transformer = _make(TransformerConfig, config["transformer"])
        if "variant" not in config:
            model = Transformer(transformer)
        else:
            model = VariantModel(transformer, _make(VariantConfig, config["variant"]))
        generation = _make(GenerationConfig, config["generation"])
        name = str(config["name"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE} is malformed: {error}") from error
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; a checkpoint folder needs its weights")
    assign_weights(_stored_weights(model), read_safetensors(path), str(path))
    model.eval()
    return Checkpoint(name=name, model=model, generation=generation)


def _make(kind: type[_Config], values: dict[str, Any]) -> _Config:
    """Makes a configuration of what was read.

    Raises:
        ValueError: A field is unknown or missing, or a value is not of its type or breaks a rule.
    """
    # The library ignores what it does not know.
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - fields):
        raise ValueError(f"unknown: {', '.join(unknown)}")
    try:
        # As JSON: strict validation of Python values would take nothing but an instance.
        made: _Config = pydantic.TypeAdapter(kind).validate_json(json.dumps(values), strict=True)
    except pydantic.ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        ]
        raise ValueError("; ".join(problems)) from error
    return made


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist") from error
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise CheckpointError(f'{path} must hold "format": "{FORMAT}"')
    unknown = ", ".join(f"`{name}`" for name in config if name not in _SECTIONS)
    if unknown:
        known = ", ".join(f"`{name}`" for name in _SECTIONS)
        raise CheckpointError(f"{path} sets {unknown}, which nothing reads; it may set {known}")
    return config


def _stored_weights(model: Transformer) -> dict[str, Tensor]:
    """The state dict without second names of shared tensors and without fixed tables."""
    seen: set[int] = set()
    stored = {}
    for name, tensor in model.state_dict().items():
        if _is_fixed_table(model, name) or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        stored[name] = tensor
    return stored


def _is_fixed_table(model: Transformer, name: str) -> bool:
    return model.config.positions == "sinusoidal" and name.endswith("embedding.position.weight")
