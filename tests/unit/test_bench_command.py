"""The command ``bench``, against a server with canned answers."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2

from canned_answers import make_result
from command_line import run
from fake_server import FakeServer, Refusal
from processes import ROOT
from seqserve.v1 import encoding_pb2, generation_pb2, priority_pb2

QUICK = ("--seconds", "0.3", "--warmup-seconds", "0.1")


def report(server: FakeServer, *arguments: str) -> dict[str, Any]:
    """What is printed with --json."""
    result = run(server, "bench", "--json", *QUICK, *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def calls(server: FakeServer, kind: type) -> list[Any]:
    """The requests of one kind."""
    return [request for request in server.requests if isinstance(request, kind)]


def test_callers_share_the_texts(server: FakeServer) -> None:
    """Each call has the next ones; the report says what came of them."""
    found = report(
        server,
        *("--model", "fake", "--concurrency", "2", "--inputs-per-call", "2", "--priority", "high"),
        *("--num-beams", "3", "a", "bb", "c"),
    )
    requests = calls(server, generation_pb2.GenerateRequest)
    pairs = collections.Counter(tuple(one.text for one in request.inputs) for request in requests)
    assert set(pairs) == {("a", "bb"), ("bb", "c"), ("c", "a")}
    # Two calls at a time are under way, and may come in another order than they were made in.
    assert max(pairs.values()) - min(pairs.values()) <= 1
    assert {request.options.num_beams for request in requests} == {3}
    assert {request.priority for request in requests} == {priority_pb2.PRIORITY_HIGH}
    assert (found["model"], found["task"], found["concurrency"]) == ("fake/1", "generate", 2)
    assert found["codes"]["OK"] <= len(requests)
    assert found["inputs_per_second"] == pytest.approx(2 * found["calls_per_second"])
    assert found["tokens_per_second"] == pytest.approx(4 * found["calls_per_second"])
    assert list(found["latency_seconds"]) == ["mean", "p50", "p90", "p95", "p99", "max"]
    assert found["decode_seconds"]["p50"] == pytest.approx(0.003)


def test_rate_is_kept(server: FakeServer) -> None:
    """The same arrivals for the same seed."""
    counts = []
    for _ in range(2):
        server.requests.clear()
        report(server, "--model", "fake", "--rate", "100", "--arrival-seed", "7", "a")
        counts.append(len(calls(server, generation_pb2.GenerateRequest)))
    assert counts[0] == counts[1]
    assert 15 <= counts[0] <= 70


def test_stream_times_tokens(server: FakeServer) -> None:
    """The first, and those behind it."""
    found = report(server, "--model", "fake", "--stream", "--concurrency", "1", "abcd")
    assert calls(server, generation_pb2.GenerateStreamRequest)
    assert 0 < found["first_token_seconds"]["p50"] <= found["latency_seconds"]["max"]
    assert 0 < found["inter_token_seconds"]["p50"] <= found["latency_seconds"]["max"]


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("embed", encoding_pb2.EmbedRequest),
        ("classify", encoding_pb2.ClassifyRequest),
        ("tag", encoding_pb2.ClassifyTokensRequest),
        ("rerank", encoding_pb2.RerankRequest),
        ("fill-mask", encoding_pb2.FillMaskRequest),
    ],
)
def test_every_task_has_its_call(server: FakeServer, task: str, kind: type) -> None:
    """Tokens are those that were read, and those that were cut are told."""
    arguments = ("--model", "vectors", "--version", "2", "--task", task, "--truncate", "long")
    query = ("--query", "q") if task == "rerank" else ()
    found = report(server, *arguments, *query)
    requests = calls(server, kind)
    assert requests
    assert {(one.model_name, one.model_version, one.truncate) for one in requests} == {
        ("vectors", "2", True)
    }
    assert found["tokens_per_second"] == pytest.approx(4 * found["calls_per_second"])
    assert found["truncated_token_count"] == 3 * found["codes"]["OK"]
    if task == "rerank":
        assert {one.query for one in requests} == {"q"}


def test_model_is_found_by_the_task(server: FakeServer) -> None:
    """If there is only one; the task of the only model, if none is named."""
    assert report(server, "--task", "embed", "a")["model"] == "vectors/2"
    del server.models[0]
    found = report(server, "a")
    assert (found["model"], found["task"]) == ("vectors/2", "embed")


def test_table_says_how_calls_ended(server: FakeServer) -> None:
    """Codes with their first messages, rates, and percentiles in milliseconds."""
    refusal = Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "[all] places are taken",
        error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=50_000_000)),
    )
    # The first two calls are those that ask for the model.
    server.refusals = [None, None, *[refusal] * 3]
    result = run(
        server, "bench", "--warmup-seconds", "0", "--seconds", "0.5", "--task", "generate", "a"
    )
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "generate with fake/1, 8 callers, 0.5 s"
    refused = next(line for line in lines if line.startswith("RESOURCE_EXHAUSTED"))
    assert refused.split(maxsplit=3)[1] == "3"
    assert refused.endswith("[all] places are taken")
    assert any(line.split()[:3] == ["calls/s", "inputs/s", "tokens/s"] for line in lines)
    decoding = next(line for line in lines if line.startswith("server: decode"))
    assert decoding.split()[2:] == ["3.00"] * 6


def test_nothing_but_failures_is_a_failure(server: FakeServer) -> None:
    """Exit code 1, with the report."""
    refusal = Refusal(grpc.StatusCode.INTERNAL, "broken")
    server.refusals = [None, *[refusal] * 1000]
    result = run(server, "bench", "--json", *QUICK, "--model", "fake", "a")
    assert result.exit_code == 1
    assert set(json.loads(result.stdout)["codes"]) == {"INTERNAL"}


def test_call_that_cannot_succeed_ends_it(server: FakeServer) -> None:
    """One line, at once, as of the command that makes the call once."""
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "`inputs[0]` is too long")
    server.refusals = [None, *[refusal] * 100]
    began_at = time.monotonic()
    result = run(server, "bench", "--seconds", "60", "--model", "fake", "a")
    assert time.monotonic() - began_at < 30
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: INVALID_ARGUMENT: `inputs[0]` is too long\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rate", "1", "--concurrency", "1"], "--concurrency has no effect with --rate"),
        (["--arrival-seed", "1"], "--arrival-seed has an effect with --rate only"),
        (["--stream", "--inputs-per-call", "2"], "--stream takes one text a call"),
        (["--task", "embed", "--stream"], "--stream has an effect with --task generate only"),
        (["--task", "embed", "--num-beams", "2"], "--num-beams has an effect with --task generate"),
        (["--task", "rerank"], "--task rerank needs --query"),
        (["--task", "embed", "--query", "q"], "--query has an effect with --task rerank only"),
        (["--task", "tag"], "the server has no models for tag"),
        ([], "name one of the server's models with --model: fake, vectors"),
        (["--rate", "0"], "0.0 is not in the range x>0"),
        (["--concurrency", "0"], "0 is not in the range"),
    ],
)
def test_options_without_effect_are_refused(
    server: FakeServer, arguments: list[str], message: str
) -> None:
    """Exit code 2, and no call of the load is made."""
    model = ["--model", "fake"] if "rerank" in arguments or "embed" in arguments else []
    result = run(server, "bench", *arguments, *model, "a")
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert calls(server, generation_pb2.GenerateRequest) == []


def test_kept_answers_are_told(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """They say nothing of what computing takes."""

    def make_kept(*arguments: Any) -> generation_pb2.GenerateResult:
        result = make_result(*arguments)
        result.timing.is_cached = True
        return result

    monkeypatch.setattr("fake_server.make_result", make_kept)
    result = run(server, "bench", *QUICK, "--model", "fake", "a")
    assert "note: 100% of the answers were kept from equal inputs" in result.stderr


def test_unreachable_server(server: FakeServer) -> None:
    """The line of every command."""
    result = run(server, "bench", "--target", "127.0.0.1:1", "--timeout", "5", "a")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: UNAVAILABLE: ")
    assert "start one with: seqserve serve" in result.stderr


def test_interrupt_ends_it_with_its_report(server: FakeServer) -> None:
    """What was measured until then."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "seqserve", "bench", "--target", server.target, "--json"),
            *("--model", "fake", "--warmup-seconds", "0", "--seconds", "120", "a"),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
        stdout=subprocess.PIPE,
        text=True,
    )
    give_up_at = time.monotonic() + 60
    while len(server.requests) < 20 and time.monotonic() < give_up_at:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    found = json.loads(printed)
    assert found["is_interrupted"]
    assert found["codes"]["OK"] >= 10
    assert 0 < found["measured_seconds"] < 60
