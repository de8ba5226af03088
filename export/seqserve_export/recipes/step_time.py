"""How long a training step of each variant takes, on the same batch, in turn."""

import time
from collections.abc import Mapping

import torch
from torch.nn import functional

from seqserve_export.recipes.comparison_task import Task
from seqserve_export.recipes.comparison_training import Run, make_untrained
from seqserve_export.recipes.pronunciation_batch import Batch, make_batches
from seqserve_export.recipes.pronunciation_tokenizer import PAD_ID
from seqserve_export.variants.variant_model import VariantModel

_SEED = 1


def measure_steps(
    runs: Mapping[Run, Task], batch_size: int, num_rounds: int
) -> dict[str, dict[str, float]]:
    """Measures one thread's processor time of a step, by the names of the variants.

    It is the shortest of all rounds: the others had to share the processor.
    """
    stages = {}
    for run, task in runs.items():
        examples = task.draw_examples(4 * batch_size, _SEED)
        batches = list(make_batches(examples, batch_size, unknown_rate=0.0, seed=_SEED, epoch=0))
        batch = sorted(batches, key=lambda one: one.source_tokens.shape[1])[len(batches) // 2]
        stages[run.name] = (make_untrained(run, task).train(), batch)
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(num_rounds):
        for name, (model, batch) in stages.items():
            started = time.thread_time()
            _step(model, batch)
            seconds[name].append(time.thread_time() - started)
    return {
        name: {
            "step_seconds": min(seconds[name]),
            "step_source_tokens": int(batch.source_lengths.sum()),
            "step_target_tokens": int(batch.target_lengths.sum()),
        }
        for name, (_, batch) in stages.items()
    }


def _step(model: VariantModel, batch: Batch) -> None:
    """Forward and backward, without the update, which is the same for all."""
    logits = model(
        batch.source_tokens, batch.source_lengths, batch.target_tokens, batch.target_lengths
    )
    loss = functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD_ID
    )
    torch.autograd.grad(loss, [one for one in model.parameters() if one.requires_grad])
