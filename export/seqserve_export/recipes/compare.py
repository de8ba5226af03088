"""Trains the variants, serves them, and reports how they differ.

``python -m seqserve_export.recipes.compare --help`` lists the options. What is done is not done
again: trainings go on from their last epoch, and finished ones, tests and exports are taken as they
are. Figures of serving and of step times are measured anew.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console

from seqserve_export.recipes.comparison_evaluation import evaluate_run
from seqserve_export.recipes.comparison_machine import describe_machine
from seqserve_export.recipes.comparison_report import REPORT_FILE, read_figures, write_report
from seqserve_export.recipes.comparison_serving import (
    Contestant,
    Extent,
    export_run,
    measure_serving,
)
from seqserve_export.recipes.comparison_task import Task
from seqserve_export.recipes.comparison_training import Budget, Run, train
from seqserve_export.recipes.pronunciation_data import Split, read_dictionary, split_words
from seqserve_export.recipes.step_time import measure_steps
from seqserve_export.variants.catalogue import CATALOGUE

_NUM_TEST, _NUM_VALID = 6000, 2500
"""Words that are not trained on, as in :mod:`seqserve_export.recipes.g2p`."""
_REPEATED = ("transformer", "recurrent", "recurrent-attention")
"""Variants that are trained with every seed; the others with the first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how thoroughly."""

    split: Split
    names: Sequence[str]
    seeds: Sequence[int]
    budget: Budget
    num_questions: int
    extent: Extent
    work: Path
    console: Console

    def run(self, out: Path) -> None:
        """Trains, tests, serves and measures, and writes the report to a folder."""
        tasks = {kind: Task(self.split, is_image=kind) for kind in (False, True)}
        questions = {kind: task.draw_questions(self.num_questions) for kind, task in tasks.items()}
        found: dict[str, dict[str, Any]] = {name: {"runs": []} for name in self.names}
        contestants = []
        for run in self._list_runs():
            kind = CATALOGUE[run.name].is_image
            self._print(f"training {run.label}")
            training = train(run, tasks[kind], self.budget)
            answers = evaluate_run(run, tasks[kind], questions[kind])
            self._print(f"{run.label}: {answers.scores['token_error_rate']:.1%} of tokens wrong")
            found[run.name]["runs"].append(training | answers.scores)
            if run.seed == self.seeds[0]:
                contestants.append(Contestant(run=run, questions=questions[kind], answers=answers))
        store = self.work / "store"
        for contestant in contestants:
            self._print(f"exporting {contestant.run.name}")
            export_run(contestant.run, store)
        measured = measure_serving(contestants, store, self.extent, self.console)
        steps = measure_steps(
            {one.run: tasks[CATALOGUE[one.run.name].is_image] for one in contestants},
            self.budget.batch_size,
            self.extent.num_rounds,
        )
        for name in self.names:
            found[name] |= measured[name] | steps[name] | {"title": CATALOGUE[name].title}
        record = {
            "machine": describe_machine(),
            "budget": dataclasses.asdict(self.budget),
            "seeds": list(self.seeds),
            "num_questions": self.num_questions,
            "extent": dataclasses.asdict(self.extent),
            "variants": found,
        }
        write_report(record, out)
        self._print(f"report: {out / REPORT_FILE}")

    def _list_runs(self) -> list[Run]:
        return [
            Run(name=name, seed=seed, work=self.work)
            for index, seed in enumerate(self.seeds)
            for name in self.names
            if index == 0 or name in _REPEATED
        ]

    def _print(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


def _read_names(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(name for name in value.split(",") if name) or tuple(CATALOGUE)
    if unknown := [name for name in names if name not in CATALOGUE]:
        raise click.BadParameter(
            f"there is no {', '.join(unknown)}; there are {', '.join(CATALOGUE)}"
        )
    return names


@click.command(name="compare", context_settings={"show_default": True})
@click.option(
    "--only",
    default="",
    callback=_read_names,
    help="Variants to compare, by name, with commas between them; all if empty.",
)
@click.option("--steps", default=750, help="Steps of every training.")
@click.option("--batch-size", default=128, help="Examples in a step.")
@click.option("--seeds", default=3, help="Trainings of the main variants; the others have one.")
@click.option("--questions", default=1200, help="Sources of the test.")
@click.option("--rounds", default=5, help="Rounds of measurements.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("work/compare"),
    help="Folder that keeps trainings and served models.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("export/reports"),
    help="Folder to write the report to.",
)
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Train and measure, or only write the report anew from the figures in --out.",
)
def main(
    *,
    only: tuple[str, ...],
    steps: int,
    batch_size: int,
    seeds: int,
    questions: int,
    rounds: int,
    work: Path,
    out: Path,
    measure: bool,
) -> None:
    """Trains small variants with equal budgets, serves them, and writes variants.md."""
    if not measure:
        try:
            write_report(read_figures(out), out)
        except FileNotFoundError as error:
            raise click.UsageError(
                f"{error.filename} does not exist; leave out --no-measure"
            ) from error
        return
    torch.set_num_threads(1)
    split = split_words(read_dictionary(), num_test=_NUM_TEST, num_valid=_NUM_VALID, seed=1)
    Comparison(
        split=split,
        names=only,
        seeds=tuple(range(1, seeds + 1)),
        budget=Budget(num_steps=steps, batch_size=batch_size),
        num_questions=questions,
        extent=Extent(num_rounds=rounds),
        work=work,
        console=Console(),
    ).run(out)


if __name__ == "__main__":
    main()
