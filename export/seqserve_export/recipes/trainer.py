"""The training loop: steps, schedule, averaged weights, and resuming.

A training is a folder with the state after its last epoch. States are written under another name
and then renamed, so that there is a whole one at any moment. Starting again goes on from it, with
the same weights at the end as without the interruption.
"""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.recipes.pronunciation_batch import Batch, Example, make_batches
from seqserve_export.recipes.pronunciation_tokenizer import PAD_ID
from seqserve_export.transformer import Transformer

_WEIGHTS_FILE = "weights.safetensors"
_PROGRESS_FILE = "progress.pt"
_STEPS_PER_LINE = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How to train; the command line describes each."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    average_decay: float = 0.999
    """Of the averaged weights, a step; smaller in the first steps."""
    unknown_rate: float = 0.01
    validation_epochs: int = 2
    """Epochs between two validations."""
    max_minutes: float = 0.0
    """The schedule also ends after this time of training; 0 means no limit."""
    seed: int = 1
    is_bf16: bool = False


class Trainer:
    """Trains a model on examples; the averaged weights are the result."""

    def __init__(
        self,
        model: Transformer,
        examples: Sequence[Example],
        config: TrainingConfig,
        folder: Path,
        console: Console,
    ) -> None:
        self.model, self.examples, self.config = model, examples, config
        self.folder, self.console = folder, console
        self.device = model.head.weight.device
        self.averages = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.epoch = self.step = 0
        self.elapsed_seconds = 0.0
        self.losses: list[float] = []
        """The mean loss of each epoch."""
        self._is_out_of_time = False

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which each word is seen once."""
        return -(-len(self.examples) // self.config.batch_size)

    def run(self, validate: Callable[[int], None]) -> None:
        """Trains to the end of the schedule.

        Args:
            validate: Called with the number of epochs done, each ``validation_epochs`` and at the
                end, while the model holds the averaged weights.
        """
        self.model.train()
        with self._make_progress() as progress:
            task = progress.add_task("", total=self.config.epochs * self.steps_per_epoch)
            while self.epoch < self.config.epochs and not self._is_out_of_time:
                self._train_epoch(
                    lambda line: progress.update(task, completed=self.step, description=line)
                )
                self.epoch += 1
                is_last = self.epoch >= self.config.epochs or self._is_out_of_time
                self._save()
                if is_last or self.epoch % self.config.validation_epochs == 0:
                    self.use_averages(validate)

    def use_averages(self, action: Callable[[int], None]) -> None:
        """Calls ``action`` with the number of epochs done while the model has averaged weights."""
        trained = {name: weight.clone() for name, weight in self._weights().items()}
        self._assign(self.averages)
        action(self.epoch)
        self._assign(trained)

    def resume(self) -> bool:
        """Restores the newest state of the folder; returns whether there was one."""
        states = sorted(self.folder.glob("epoch-????"))
        if not states:
            return False
        stored = load_file(states[-1] / _WEIGHTS_FILE, device=str(self.device))
        self._assign({name: stored[f"model/{name}"] for name in self.averages})
        self.averages = {name: stored[f"average/{name}"] for name in self.averages}
        # Everything in it is tensors, numbers and containers: nothing that could run code.
        state: dict[str, Any] = torch.load(states[-1] / _PROGRESS_FILE, weights_only=True)
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self.elapsed_seconds, self.losses = state["elapsed_seconds"], state["losses"]
        torch.set_rng_state(state["cpu_random"])
        if state["cuda_random"]:
            torch.cuda.set_rng_state_all(state["cuda_random"])
        return True

    def start_over(self) -> None:
        """Removes the states of the folder."""
        for state in self.folder.glob("epoch-*"):
            shutil.rmtree(state)

    def _train_epoch(self, report: Callable[[str], None]) -> None:
        config = self.config
        loss_sum = torch.zeros((), device=self.device)
        num_steps, first_step = 0, self.step
        started = line_started = time.monotonic()
        elapsed_before = self.elapsed_seconds
        batches = make_batches(
            self.examples,
            config.batch_size,
            unknown_rate=config.unknown_rate,
            seed=config.seed,
            epoch=self.epoch,
        )
        for batch in batches:
            progress = self._measure_progress()
            if progress >= 1.0:
                self._is_out_of_time = True
                break
            loss_sum += self._train_step(batch.to(self.device), progress)
            num_steps += 1
            self.elapsed_seconds = elapsed_before + time.monotonic() - started
            if num_steps % _STEPS_PER_LINE == 0:
                seconds = time.monotonic() - line_started
                speed = _STEPS_PER_LINE * config.batch_size / seconds
                line_started = time.monotonic()
                left = self.elapsed_seconds * (1 / self._measure_progress() - 1) / 60
                text = (
                    f"epoch {self.epoch + 1}/{config.epochs} step {self.step} "
                    f"loss {loss_sum.item() / num_steps:.4f} {speed:.0f} words/s "
                    f"{left:.0f} min left"
                )
                report(text)
                if not self.console.is_terminal:
                    self.console.print(text, highlight=False, soft_wrap=True)
        if self.step > first_step:
            self.losses.append(loss_sum.item() / num_steps)

    def _train_step(self, batch: Batch, progress: float) -> Tensor:
        config = self.config
        for group in self.optimizer.param_groups:
            warmup = min(1.0, (self.step + 1) / config.warmup_steps)
            group["lr"] = config.learning_rate * warmup * (1.0 - progress)
        with self._make_autocast():
            logits = self.model(
                batch.source_tokens, batch.source_lengths, batch.target_tokens, batch.target_lengths
            )
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1),  # [B, T, V] -> [B*T, V]
            batch.labels.flatten(),
            ignore_index=PAD_ID,
            label_smoothing=config.label_smoothing,
        )
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), config.max_gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        self._average()
        return loss.detach()

    @torch.no_grad()
    def _average(self) -> None:
        # Early weights are poor and soon forgotten: the average begins short and grows long.
        decay = min(self.config.average_decay, (1 + self.step) / (10 + self.step))
        for name, weight in self.model.named_parameters():
            self.averages[name].lerp_(weight, 1.0 - decay)

    def _measure_progress(self) -> float:
        """How much of the schedule is done: in steps or in time, whichever is further."""
        progress = self.step / (self.config.epochs * self.steps_per_epoch)
        if self.config.max_minutes > 0:
            progress = max(progress, self.elapsed_seconds / (60 * self.config.max_minutes))
        return progress

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.model.named_parameters()}

    def _assign(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self._weights().items():
            weight.copy_(weights[name])

    def _save(self) -> None:
        final = self.folder / f"epoch-{self.epoch:04d}"
        partial = self.folder / f"{final.name}.partial"
        for leftover in (partial, final):
            if leftover.exists():
                shutil.rmtree(leftover)
        partial.mkdir(parents=True)
        weights = {f"model/{name}": weight for name, weight in self._weights().items()}
        weights |= {f"average/{name}": weight for name, weight in self.averages.items()}
        save_file(weights, partial / _WEIGHTS_FILE)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "step": self.step,
            "elapsed_seconds": self.elapsed_seconds,
            "losses": self.losses,
            "cpu_random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
        }
        torch.save(state, partial / _PROGRESS_FILE)
        partial.rename(final)
        for older in sorted(self.folder.glob("epoch-????"))[:-1]:
            shutil.rmtree(older)

    def _make_autocast(self) -> AbstractContextManager[None]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.is_bf16)

    def _make_progress(self) -> Progress:
        return Progress(
            BarColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
