"""What ``transformers`` itself computes from a checkpoint folder, to compare our model with.

The graphs are verified against our model. That our model is the one of the checkpoint is verified
here, on single rows without padding and in fp32; so a quirk of a family that we overlooked ends in
an error, never in a model that is quietly wrong.

The library's model is gone before ours is loaded, so that memory holds one of them at a time.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer
from torch import Tensor

from seqserve.manifest import VerificationRecord
from seqserve.task_record import Task
from seqserve_export.checkpoint_config import without_chatter
from seqserve_export.errors import CheckpointError
from seqserve_export.onnx_folder import LOGITS, STATES
from seqserve_export.onnx_reference import OnnxModel
from seqserve_export.onnx_runner import Floats
from seqserve_export.verification import (
    SEED,
    Comparison,
    make_row,
    make_sources,
    make_token_types,
    mask_some,
    to_floats,
    tokenize_samples,
    torch_reference,
)

_CLASSES: dict[Task, Any] = {
    Task.EMBED: transformers.AutoModel,
    Task.CLASSIFY: transformers.AutoModelForSequenceClassification,
    Task.RERANK: transformers.AutoModelForSequenceClassification,
    Task.CLASSIFY_TOKENS: transformers.AutoModelForTokenClassification,
    Task.FILL_MASK: transformers.AutoModelForMaskedLM,
}
_MAX_RANDOM_LENGTH = 48
_MAX_LENGTH = 512
_NUM_RANDOM = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferencePlan:
    """Which model to ask, and what."""

    folder: Path
    config: Any
    """A configuration of ``transformers``."""
    task: Task
    tokenizer: Tokenizer
    samples: Sequence[str]
    max_source_length: int
    vocabulary_size: int
    num_token_types: int = 0
    """Of texts and pairs; up to 1, sources are single texts."""
    mask_token: int | None = None
    is_pickle_allowed: bool = False
    graph: Path | None = None
    """An ONNX graph that is asked instead of the library."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceCase:
    """One source and its states [1, S, M] or logits, [1, V], [1, S, V] or, of masks, [N, V]."""

    tokens: list[int]
    token_types: list[int] | None
    expected: Floats


Predict = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Our model: tokens [1, S], lengths [1] and perhaps token types [1, S] to states or logits."""


def compute_reference(plan: ReferencePlan) -> list[ReferenceCase]:
    """Runs the library's model, or the graph, on samples and random sources.

    Raises:
        CheckpointError: The library cannot load the folder.
    """
    model, has_types = _load(plan), plan.num_token_types > 1
    if isinstance(model, OnnxModel):
        # Graphs of some families are for single texts, whatever their configuration says.
        has_types &= model.has_token_types
    cases = []
    with torch_reference():
        for tokens, types in _make_sources(plan, has_types=has_types):
            row, _ = make_row(tokens)
            feeds = {"input_ids": row, "attention_mask": torch.ones_like(row)}
            if types is not None:
                feeds["token_type_ids"] = torch.tensor([types])
            outputs = model(**feeds)
            if plan.task == Task.EMBED:
                expected = outputs.last_hidden_state
            elif plan.mask_token is not None:
                expected = outputs.logits[row == plan.mask_token]
            else:
                expected = outputs.logits
            values = to_floats(expected).copy()
            cases.append(ReferenceCase(tokens=tokens, token_types=types, expected=values))
    return cases


def compare_reference(
    cases: list[ReferenceCase], predict: Predict, original: str = "transformers"
) -> VerificationRecord:
    """Compares our model with what the original computed.

    Args:
        cases: Sources with what it computed.
        predict: Our model.
        original: Its name in records and messages.

    Raises:
        VerificationError: They differ; the message names the source.
    """
    comparison = Comparison(f"checkpoint: {original} and our model, single rows")
    with torch_reference():
        for index, case in enumerate(cases):
            types = None if case.token_types is None else torch.tensor([case.token_types])
            actual = to_floats(predict(*make_row(case.tokens), types))
            where = f"source {index} of {len(case.tokens)} tokens"
            comparison.add(case.expected, actual, where)
    return comparison.to_record()


def _load(plan: ReferencePlan) -> Any:
    if plan.graph is not None:
        return OnnxModel(plan.graph, STATES if plan.task == Task.EMBED else LOGITS)
    try:
        with without_chatter():
            model = _CLASSES[plan.task].from_pretrained(
                plan.folder,
                config=plan.config,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=None if plan.is_pickle_allowed else True,
                dtype=torch.float32,
                attn_implementation="eager",
                # Wrong shapes are reported with all other problems when ours is loaded.
                ignore_mismatched_sizes=True,
            )
    except Exception as error:
        # The library raises whatever it stumbles over.
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise CheckpointError(f"transformers cannot load {plan.folder}: {reason}") from error
    return model.eval()


def _make_sources(
    plan: ReferencePlan, *, has_types: bool
) -> list[tuple[list[int], list[int] | None]]:
    generator = np.random.default_rng(SEED)
    longest = min(plan.max_source_length, _MAX_LENGTH)
    sources = tokenize_samples(plan.tokenizer, plan.samples, longest)
    sources += make_sources(generator, 1, plan.vocabulary_size, longest)
    sources += make_sources(
        generator, _NUM_RANDOM, plan.vocabulary_size, min(longest, _MAX_RANDOM_LENGTH)
    )
    if plan.mask_token is not None:
        sources = [mask_some(generator, tokens, plan.mask_token) for tokens in sources]
    return [
        (tokens, make_token_types(generator, len(tokens)) if has_types else None)
        for tokens in sources
    ]
