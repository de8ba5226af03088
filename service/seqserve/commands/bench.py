"""The command ``bench``: puts a load on a server, and tells how it bears it."""

import asyncio
import dataclasses
import functools
import json
import sys
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from seqserve.client import AsyncClient, ModelInfo, Priority
from seqserve.commands.bench_calls import CALLS, TASKS, CallSettings, make_stream
from seqserve.commands.bench_load import Load, LoadRun
from seqserve.commands.bench_report import summarize, to_tables
from seqserve.commands.decoding_options import DECODING_OPTIONS
from seqserve.commands.invocation import (
    PRIORITY,
    Call,
    calling,
    read_inputs,
    refuse_together,
    with_options,
)

_LAG_SECONDS = 0.01
"""Of calls behind their arrivals: more is worth a note."""
_TICK_SECONDS = 0.2
_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.argument("inputs", nargs=-1)
@calling
@click.option(
    "--task",
    type=click.Choice(list(CALLS)),
    help="Which command's calls to make; by default what the model is for.",
)
@click.option("--concurrency", type=click.IntRange(1, 10_000), help="Callers.  [default: 8]")
@click.option("--rate", type=_POSITIVE, help="Calls a second, at random times, instead of callers.")
@click.option(
    "--seconds", type=_POSITIVE, default=10.0, show_default=True, help="How long to measure."
)
@click.option(
    "--warmup-seconds",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    help="How long to make calls before that.",
)
@click.option(
    "--inputs-per-call", type=click.IntRange(min=1), default=1, show_default=True, help="Texts."
)
@click.option("--arrival-seed", type=int, help="Of the times of --rate.  [default: 0]")
@click.option("--stream", is_flag=True, help="Generate piece by piece, and time the tokens.")
@click.option("--query", help="Text to rank the inputs for, with --task rerank.")
@click.option("--truncate", is_flag=True, help="Cut inputs that are too long.")
@PRIORITY
@with_options(DECODING_OPTIONS)
def bench(
    call: Call,
    inputs: tuple[str, ...],
    task: str | None,
    concurrency: int | None,
    rate: float | None,
    seconds: float,
    warmup_seconds: float,
    inputs_per_call: int,
    arrival_seed: int | None,
    stream: bool,
    query: str | None,
    truncate: bool,
    priority: Priority,
    **decoding: Any,
) -> None:
    """Calls a server with each INPUT in turn (default: lines of standard input), again and again.

    With --concurrency so many callers call, each again when it is answered; with --rate calls are
    sent at random times (a Poisson process), whatever is unanswered, and their latency counts from
    those times. Refused calls are counted and not repeated. Prints how calls ended and percentiles
    of how long they took, or with --json one object. Ctrl-C ends it early.
    """
    if rate is not None:
        refuse_together("--rate", ("--concurrency", concurrency is not None))
    elif arrival_seed is not None:
        raise click.UsageError("--arrival-seed has an effect with --rate only; leave it out")
    if stream and inputs_per_call > 1:
        raise click.UsageError("--stream takes one text a call; leave --inputs-per-call out")
    texts = read_inputs(inputs)
    load = Load(
        inputs_per_call=inputs_per_call,
        seconds=seconds,
        warmup_seconds=warmup_seconds,
        concurrency=None if rate is not None else concurrency or 8,
        rate=rate,
        arrival_seed=arrival_seed or 0,
    )
    run = LoadRun(load, texts)
    settings = CallSettings(
        model=call.model,
        version=call.version,
        truncate=truncate,
        priority=priority,
        query=query,
        decoding={name: value for name, value in decoding.items() if value not in (None, ())},
    )
    with call.reporting():
        report = asyncio.run(_measure(call, run, settings, task, stream=stream))
    _print(report, as_json=call.as_json)
    if "OK" not in report["codes"]:
        sys.exit(1)


async def _measure(
    call: Call, run: LoadRun, settings: CallSettings, task: str | None, *, stream: bool
) -> dict[str, Any]:
    """The report of a load."""
    async with call.open_async(retries=False) as client:
        model = await _find_model(client, call, task)
        settings = dataclasses.replace(settings, model=model.name)
        task = task or TASKS[model.tasks[0]]
        _check_options(task, settings, stream=stream)
        make_call = make_stream if stream else CALLS[task]
        showing = asyncio.create_task(_show(run))
        try:
            await run.run(functools.partial(make_call, client, settings))
            until_seconds, is_interrupted = run.load.total_seconds, False
        except asyncio.CancelledError:  # by Ctrl-C
            until_seconds, is_interrupted = run.now, True
        finally:
            showing.cancel()
    return {
        "model": f"{model.name}/{model.version}",
        "task": task,
        "is_stream": stream,
        "is_interrupted": is_interrupted,
        **dataclasses.asdict(run.load),
        **summarize(run.load, run.outcomes, until_seconds),
    }


async def _find_model(client: AsyncClient, call: Call, task: str | None) -> ModelInfo:
    """The model to call: the one that is named, or the only one for the task."""
    if call.model or call.version:
        return await client.get_model(call.model, call.version)
    models = [
        model
        for model in await client.list_models()
        if task is None or task in {TASKS[name] for name in model.tasks}
    ]
    names = sorted({model.name for model in models})
    if len(names) != 1:
        what = "models" if task is None else f"models for {task}"
        raise click.UsageError(
            f"name one of the server's {what} with --model: {', '.join(names)}"
            if names
            else f"the server has no {what}"
        )
    return await client.get_model(names[0])


def _check_options(task: str, settings: CallSettings, *, stream: bool) -> None:
    """Refuses options that would have no effect, and the lack of one that is needed."""
    if task != "generate":
        for option in sorted({"--stream"} if stream else _given_flags(settings)):
            raise click.UsageError(
                f"{option} has an effect with --task generate only; leave it out"
            )
    if (task == "rerank") != (settings.query is not None):
        raise click.UsageError(
            "--task rerank needs --query, the text to rank the inputs for"
            if settings.query is None
            else "--query has an effect with --task rerank only; leave it out"
        )


def _given_flags(settings: CallSettings) -> set[str]:
    """The decoding options that are given, as they are written."""
    parameters = click.get_current_context().command.params
    return {one.opts[0] for one in parameters if one.name in settings.decoding}


async def _show(run: LoadRun) -> None:
    """Tells on a terminal how far it is; ends when it is cancelled."""
    console = Console(stderr=True)
    columns = (BarColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=run.load.total_seconds)
        while True:
            num_answered = len(run.outcomes) - run.num_failed
            text = f"{num_answered} answered, {run.num_failed} failed"
            bar.update(task, completed=run.now, description=text)
            await asyncio.sleep(_TICK_SECONDS)


def _print(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(report, ensure_ascii=False))
    else:
        rate = report["rate"]
        how = f"{report['concurrency']} callers" if rate is None else f"{rate:g} calls/s"
        console = Console()
        console.print(
            f"{report['task']} with {report['model']}, {how}, {report['measured_seconds']:g} s"
            + (" (interrupted)" if report["is_interrupted"] else ""),
            markup=False,
            highlight=False,
        )
        for table in to_tables(report):
            console.print()
            console.print(table)
    if report["truncated_token_count"]:
        click.echo(f"note: {report['truncated_token_count']} tokens were cut", err=True)
    if report["cached_share"]:
        click.echo(
            f"note: {report['cached_share']:.0%} of the answers were kept from equal inputs; give "
            "more inputs to see what computing them takes",
            err=True,
        )
    if report["max_lag_seconds"] > _LAG_SECONDS:
        click.echo(
            f"note: calls were sent up to {report['max_lag_seconds'] * 1000:.0f} ms behind their "
            "times, which latencies include: this process was too busy for the rate",
            err=True,
        )
