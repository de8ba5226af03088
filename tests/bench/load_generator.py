"""Sends requests to a server as a Poisson process, in a process of its own; the same for all sides.

The loop is open: a request is sent when its time has come, however many are unanswered, and its
latency counts from that time.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import time
from typing import Any

import grpc

from bench.json_process import answer
from bench.request import TIMEOUT_SECONDS, read_targets, to_input, to_request
from bench.trial import Outcome, Trial, summarize
from bench.workload import Sentence, check_targets, make_arrivals, make_sentences
from seqserve.v1 import generation_pb2, generation_pb2_grpc

_GRACE_SECONDS = 1.0
"""Beyond the latency limit; who is unanswered then is given up."""
_SENTENCE_SEED = 7


def run_trial(
    target: str, rate: float, seconds: float, warmup_seconds: float, limit_seconds: float, seed: int
) -> dict[str, Any]:
    """Sends requests at a rate; see :func:`bench.trial.summarize` for the result."""
    arrivals = make_arrivals(rate, seconds, seed)
    sentences = make_sentences(len(arrivals), _SENTENCE_SEED)
    outcomes = asyncio.run(_send(target, arrivals, sentences, limit_seconds))
    trial = Trial(rate, seconds, warmup_seconds, limit_seconds)
    return summarize(trial, outcomes)


async def _send(
    target: str, arrivals: list[float], sentences: list[Sentence], limit_seconds: float
) -> list[Outcome]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        # Waits for what an earlier trial may have left behind.
        await stub.Generate(to_request(sentences[:1]), timeout=TIMEOUT_SECONDS)
        started_at = time.perf_counter()
        tasks = []
        for arrival, sentence in zip(arrivals, sentences, strict=True):
            await asyncio.sleep(max(0.0, started_at + arrival - time.perf_counter()))
            tasks.append(asyncio.create_task(_call(stub, started_at, arrival, sentence)))
        if tasks:
            await asyncio.wait(tasks, timeout=limit_seconds + _GRACE_SECONDS)
        gave_up_at = time.perf_counter() - started_at
        for task in tasks:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    outcomes = []
    for arrival, sentence, found in zip(arrivals, sentences, answers, strict=True):
        if isinstance(found, asyncio.CancelledError):
            outcomes.append(Outcome(arrival, gave_up_at, sentence.target_length, is_answered=False))
        elif isinstance(found, BaseException):
            raise found
        else:
            outcomes.append(found)
    return outcomes


async def _call(
    stub: generation_pb2_grpc.GenerationServiceAsyncStub,
    started_at: float,
    arrival: float,
    sentence: Sentence,
) -> Outcome:
    try:
        response = await stub.Generate(to_request([sentence]), timeout=TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED:
            raise
        is_answered = False
    else:
        check_targets("the server", [sentence], read_targets(response))
        is_answered = True
    answered_at = time.perf_counter() - started_at
    return Outcome(arrival, answered_at, sentence.target_length, is_answered)


def run_burst(target: str, num_sentences: int) -> float:
    """Sends single requests all at once; returns requests answered per second."""
    sentences = make_sentences(num_sentences, _SENTENCE_SEED)
    return num_sentences / asyncio.run(_burst(target, sentences))


async def _burst(target: str, sentences: list[Sentence]) -> float:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        started_at = time.perf_counter()
        await asyncio.gather(*(_call(stub, started_at, 0.0, sentence) for sentence in sentences))
        return time.perf_counter() - started_at


def time_single(target: str, sentence: list[Any], num_calls: int) -> list[float]:
    """Seconds of single calls, one after the other."""
    one = Sentence(*sentence)
    seconds = []
    with grpc.insecure_channel(target) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        for _ in range(num_calls):
            started_at = time.perf_counter()
            response = stub.Generate(to_request([one]), timeout=TIMEOUT_SECONDS)
            seconds.append(time.perf_counter() - started_at)
            check_targets("the server", [one], read_targets(response))
    return seconds


def time_first_token(target: str, sentence: list[Any], num_calls: int) -> list[float]:
    """Seconds to the first token of single streams, one after the other."""
    request = generation_pb2.GenerateStreamRequest(input=to_input(Sentence(*sentence)))
    seconds = []
    with grpc.insecure_channel(target) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        for _ in range(num_calls):
            started_at = time.perf_counter()
            stream = stub.GenerateStream(request, timeout=TIMEOUT_SECONDS)
            next(stream)
            seconds.append(time.perf_counter() - started_at)
            for _ in stream:
                pass  # to its end, so that the next one starts alone
    return seconds


if __name__ == "__main__":
    answer(
        {
            "run_trial": run_trial,
            "run_burst": run_burst,
            "time_single": time_single,
            "time_first_token": time_first_token,
        }
    )
