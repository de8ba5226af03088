"""Trains one variant with one seed; what is done is not done again.

A run is a folder ``<work>/<variant>/seed-<seed>``: the state of the training, its log, and when it
has ended, the checkpoint that export takes, and ``training.json``.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from seqserve_export.checkpoint import (
    SAMPLES_FILE,
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    Checkpoint,
    save_checkpoint,
)
from seqserve_export.recipes.comparison_task import MAX_LENGTH, Task
from seqserve_export.recipes.pronunciation_model import GENERATION, count_parameters, initialize
from seqserve_export.recipes.trainer import Trainer, TrainingConfig
from seqserve_export.variants.catalogue import CATALOGUE
from seqserve_export.variants.variant_model import VariantModel

CHECKPOINT_FOLDER = "checkpoint"
TRAINING_FILE = "training.json"
_LOG_FILE = "training.log"
_NUM_EPOCHS = 3
_NUM_SAMPLES = 24


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What every run gets."""

    num_steps: int = 1500
    batch_size: int = 128
    learning_rate: float = 4e-3

    def to_config(self, seed: int) -> TrainingConfig:
        """How to train."""
        return TrainingConfig(
            epochs=_NUM_EPOCHS,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=max(1, self.num_steps // 15),
            # A tenth of the steps, at the end of which the learning rate is all but zero.
            average_decay=max(0.0, 1.0 - 10 / self.num_steps),
            unknown_rate=0.0,
            validation_epochs=_NUM_EPOCHS,
            seed=seed,
        )

    @property
    def num_examples(self) -> int:
        """Examples of an epoch."""
        return self.num_steps * self.batch_size // _NUM_EPOCHS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A variant with a seed."""

    name: str
    seed: int
    work: Path

    @property
    def folder(self) -> Path:
        """Where everything of the run is."""
        return self.work / self.name / f"seed-{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """What it comes to."""
        return self.folder / CHECKPOINT_FOLDER

    @property
    def label(self) -> str:
        """In logs."""
        return f"{self.name}, seed {self.seed}"


def make_untrained(run: Run, task: Task) -> VariantModel:
    """Makes the model that the seed of the run gives."""
    torch.manual_seed(run.seed)
    model = CATALOGUE[run.name].make_model(
        task.source_vocabulary_size, task.target_vocabulary_size, MAX_LENGTH
    )
    initialize(model)
    return model


def train(run: Run, task: Task, budget: Budget) -> dict[str, Any]:
    """Trains the run, or goes on with it, and writes its checkpoint.

    Returns:
        What is known of the training.

    Raises:
        ValueError: The run was trained with another budget.
    """
    num_steps = budget.num_steps * CATALOGUE[run.name].num_budgets
    budget = dataclasses.replace(budget, num_steps=num_steps)
    result = run.folder / TRAINING_FILE
    if result.is_file():
        known: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        if known["budget"] != dataclasses.asdict(budget):
            raise ValueError(
                f"{run.folder} was trained with {known['budget']}, but is asked for with "
                f"{dataclasses.asdict(budget)}; choose another --work, or remove it"
            )
        return known
    run.folder.mkdir(parents=True, exist_ok=True)
    examples = task.draw_examples(budget.num_examples, run.seed)
    model = make_untrained(run, task)
    began_at = time.process_time()
    with (run.folder / _LOG_FILE).open("a", encoding="utf-8") as log:
        trainer = Trainer(
            model, examples, budget.to_config(run.seed), run.folder / "state", Console(file=log)
        )
        is_resumed = trainer.resume()
        trainer.run(lambda epoch: _write_checkpoint(run, task, model))
    found = {
        "variant": run.name,
        "seed": run.seed,
        "budget": dataclasses.asdict(budget),
        "num_steps": trainer.step,
        "num_examples": trainer.step * budget.batch_size,
        "num_parameters": count_parameters(model),
        "losses": trainer.losses,
        "elapsed_seconds": trainer.elapsed_seconds,
        # Of this process, which may have begun in the middle.
        "processor_seconds": None if is_resumed else time.process_time() - began_at,
    }
    result.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def _write_checkpoint(run: Run, task: Task, model: VariantModel) -> None:
    """Writes what export takes; the model has its averaged weights."""
    generation = dataclasses.replace(GENERATION, max_new_tokens=MAX_LENGTH)
    save_checkpoint(
        Checkpoint(name=run.name, model=model, generation=generation),
        run.checkpoint,
        dtype=torch.float32,
    )
    task.source.save(str(run.checkpoint / SOURCE_TOKENIZER_FILE))
    task.target.save(str(run.checkpoint / TARGET_TOKENIZER_FILE))
    samples = [question.text for question in task.draw_questions(_NUM_SAMPLES)]
    (run.checkpoint / SAMPLES_FILE).write_text("\n".join(samples) + "\n", encoding="utf-8")
