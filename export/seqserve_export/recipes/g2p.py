"""Trains the shipped default model: English spelling to phonemes, from CMUdict.

``python -m seqserve_export.recipes.g2p --help`` lists the options. The model card of the shipped
model gives its own.
"""

import dataclasses
from pathlib import Path

import click
import torch
from rich.console import Console
from tokenizers import Tokenizer

from seqserve_export.checkpoint import SAMPLES_FILE, load_checkpoint
from seqserve_export.recipes.evaluation import evaluate
from seqserve_export.recipes.model_card import Results, write_model_card
from seqserve_export.recipes.pronunciation_batch import make_examples
from seqserve_export.recipes.pronunciation_data import (
    Split,
    list_phonemes,
    read_dictionary,
    read_licence,
    split_words,
)
from seqserve_export.recipes.pronunciation_model import (
    GENERATION,
    NAME,
    count_parameters,
    make_model,
    pronounce,
    write_checkpoint,
)
from seqserve_export.recipes.pronunciation_tokenizer import (
    make_source_tokenizer,
    make_target_tokenizer,
)
from seqserve_export.recipes.trainer import Trainer, TrainingConfig
from seqserve_export.transformer import Transformer

_NUM_TEST, _NUM_VALID = 6000, 2500
_VALID_WORDS_PER_SAMPLE = 60
_CARD_BEAMS = (1, 4)
_CARD_WORD = "onomatopoeia"


def resolve_device(device: str) -> str:
    """Resolves ``auto`` to a GPU if there is one."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


def is_bf16_used(precision: str, device: str) -> bool:
    """Resolves ``auto`` to bf16 where the hardware computes in it."""
    if precision != "auto":
        return precision == "bf16"
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training from the dictionary to the shipped folder."""

    split: Split
    config: TrainingConfig
    device: str
    work: Path
    """Holds the state of the training."""
    console: Console

    def run(self, model: Transformer, out: Path, *, is_resumed: bool, is_trained: bool) -> None:
        """Trains the model, then writes the averaged weights with their card to ``out``.

        Raises:
            click.UsageError: Nothing is to be trained, and no state is there to be written.
        """
        source, target = make_source_tokenizer(), self.make_target_tokenizer()
        examples = make_examples(self.split.train, source, target)
        trainer = Trainer(model, examples, self.config, self.work, self.console)
        if not is_resumed:
            trainer.start_over()
        elif trainer.resume():
            self._print(f"resumed after {trainer.epoch} epochs")
        elif not is_trained:
            raise click.UsageError(f"{self.work} holds no training to write; leave out --no-train")
        if is_trained:
            valid = make_examples(self.split.valid, source, target)
            trainer.run(
                lambda epoch: self._print(
                    f"after {epoch} epochs: {evaluate(model, valid, GENERATION, num_beams=1)}"
                )
            )
        trainer.use_averages(lambda _: write_checkpoint(model, source, target, out))
        write_samples(list(self.split.valid)[::_VALID_WORDS_PER_SAMPLE], out)
        self._write_card(trainer, source, target, out)

    def make_target_tokenizer(self) -> Tokenizer:
        """Makes the tokenizer of every phoneme in the dictionary."""
        return make_target_tokenizer(
            list_phonemes(self.split.train | self.split.valid | self.split.test)
        )

    def _write_card(
        self, trainer: Trainer, source: Tokenizer, target: Tokenizer, out: Path
    ) -> None:
        # The weights as shipped: read back, so rounded to fp16.
        model = load_checkpoint(out).model.to(self.device)
        test = make_examples(self.split.test, source, target)
        scores = {
            num_beams: evaluate(model, test, GENERATION, num_beams=num_beams)
            for num_beams in _CARD_BEAMS
        }
        for num_beams, score in scores.items():
            self._print(f"test, {num_beams} beams: {score}")
        results = Results(
            scores=scores,
            word=_CARD_WORD,
            pronunciation=pronounce(model, source, target, [_CARD_WORD])[0],
            num_steps=trainer.step,
            steps_per_epoch=trainer.steps_per_epoch,
            seconds=trainer.elapsed_seconds,
            device=self.device,
            training=self.config,
            architecture=model.config,
            num_parameters=count_parameters(model),
            num_train=len(self.split.train),
            num_valid=len(self.split.valid),
            num_test=len(self.split.test),
            data_licence=read_licence(),
        )
        write_model_card(results, out)

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def write_samples(words: list[str], out: Path) -> None:
    """Writes the words that export compares torch and ONNX on."""
    (out / SAMPLES_FILE).write_text("\n".join(words) + "\n", encoding="utf-8")


@click.command(name="g2p", context_settings={"show_default": True})
@click.option("--epochs", default=40, help="Epochs of the schedule; each word once an epoch.")
@click.option(
    "--max-minutes",
    default=0.0,
    help="End the schedule after this time of training, if earlier; 0 means no limit.",
)
@click.option("--batch-size", default=256, help="Words in a step.")
@click.option("--learning-rate", default=2e-3, help="Peak, after the warm-up.")
@click.option("--warmup-steps", default=500, help="Steps in which the learning rate grows.")
@click.option("--validation-epochs", default=2, help="Epochs between two validations.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("export/checkpoints") / NAME,
    help="Folder to write the model to.",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("work") / NAME,
    help="Folder that keeps the state of the training.",
)
@click.option("--seed", default=1, help="Of the split, the weights and the batches.")
@click.option("--device", default="auto", help="As torch names it; auto takes a GPU if any.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "bf16", "fp32"]),
    default="auto",
    help="Of the matrix products; auto takes bf16 where the hardware has it.",
)
@click.option(
    "--resume/--no-resume", default=True, help="Go on from the state in --work, or start over."
)
@click.option(
    "--train/--no-train", default=True, help="Train, or only write the state in --work to --out."
)
def main(
    *,
    epochs: int,
    max_minutes: float,
    batch_size: int,
    learning_rate: float,
    warmup_steps: int,
    validation_epochs: int,
    out: Path,
    work: Path,
    seed: int,
    device: str,
    precision: str,
    resume: bool,
    train: bool,
) -> None:
    """Trains English spelling to phonemes on CMUdict, and writes the model with its card."""
    device = resolve_device(device)
    recipe = Recipe(
        split=split_words(read_dictionary(), num_test=_NUM_TEST, num_valid=_NUM_VALID, seed=seed),
        config=TrainingConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            warmup_steps=warmup_steps,
            validation_epochs=validation_epochs,
            max_minutes=max_minutes,
            seed=seed,
            is_bf16=is_bf16_used(precision, device),
        ),
        device=device,
        work=work,
        console=Console(),
    )
    torch.manual_seed(seed)
    model = make_model(
        make_source_tokenizer().get_vocab_size(), recipe.make_target_tokenizer().get_vocab_size()
    )
    if not (resume or train):
        raise click.UsageError("--no-resume and --no-train together leave nothing to do")
    recipe.run(model.to(device), out, is_resumed=resume, is_trained=train)


if __name__ == "__main__":
    main()
