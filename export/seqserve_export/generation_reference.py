"""What ``transformers`` computes from a folder, to hold our own model against.

However carefully a family is mapped, a checkpoint may use a switch nobody thought of. So every
folder is run by ``transformers``, too, one source at a time and without padding, and an export
goes on only if our model comes to the same. The model of ``transformers`` is gone before ours is
made, so that two copies are never in memory.

Shapes: S source length, T target length, M model width, V vocabulary.
"""

import dataclasses
import gc
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

from seqserve_export.checkpoint_config import without_chatter
from seqserve_export.errors import CheckpointError
from seqserve_export.onnx_runner import Floats
from seqserve_export.verification import choose_effort, make_row, to_floats, torch_reference


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceCase:
    """One source and one target with what ``transformers`` made of them."""

    source: list[int]
    target: list[int]
    """With the start token, without an end token."""
    encoder_states: Floats
    """[S, M]."""
    logits: Floats
    """[T, V]."""


def run_transformers(
    folder: Path, sources: Sequence[list[int]], targets: Sequence[list[int]]
) -> list[ReferenceCase]:
    """Runs the encoder-decoder model of a folder over whole targets, in fp32.

    Raises:
        CheckpointError: ``transformers`` cannot load the folder.
    """
    try:
        with without_chatter():
            model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="eager",
            )
    except Exception as error:
        # The library raises what it likes for a malformed folder.
        raise CheckpointError(
            f"transformers cannot load {folder}: {type(error).__name__}: {error}"
        ) from error
    model.eval()
    with torch_reference(choose_effort(model)):
        cases = [
            _run(model, source, target) for source, target in zip(sources, targets, strict=True)
        ]
    del model
    gc.collect()
    return cases


def _run(model: torch.nn.Module, source: list[int], target: list[int]) -> ReferenceCase:
    source_tokens, _ = make_row(source)
    target_tokens, _ = make_row(target)
    output = model(
        input_ids=source_tokens,
        attention_mask=torch.ones_like(source_tokens),
        decoder_input_ids=target_tokens,
        use_cache=False,
    )
    return ReferenceCase(
        source=source,
        target=target,
        encoder_states=to_floats(output.encoder_last_hidden_state[0]),
        logits=to_floats(output.logits[0]),
    )
