"""The Open Inference Protocol, called with Triton's own client."""

from typing import Any

import pytest

from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.sequence import Sequence
from serving import MakeServer
from triton_calls import Kind, call, infer, texts, work
from triton_kind import each_kind


@each_kind
async def test_server_and_models_describe_themselves(kind: Kind, serving: MakeServer) -> None:
    """Liveness, readiness, metadata, index and statistics are what the client expects."""
    async with serving() as running:
        (
            live,
            ready,
            model,
            absent,
            metadata,
            tensors,
            index,
            loading,
            unloading,
            config,
        ) = await call(
            running,
            kind,
            {"method": "is_server_live"},
            {"method": "is_server_ready"},
            {"method": "is_model_ready", "model_name": "tiny"},
            {"method": "is_model_ready", "model_name": "nope"},
            {"method": "get_server_metadata", "as_json": True},
            {"method": "get_model_metadata", "model_name": "sentence", "as_json": True},
            {"method": "get_model_repository_index", "as_json": True},
            {"method": "load_model", "model_name": "tiny"},
            {"method": "unload_model", "model_name": "tiny"},
            {"method": "get_model_config", "model_name": "tiny"},
        )
    assert (live, ready, model, absent) == (True, True, True, False)
    assert metadata["name"] == "seqserve"
    assert metadata["extensions"] == [
        *("model_repository", "parameters", "schedule_policy", "statistics"),
    ]
    assert (tensors["platform"], tensors["versions"]) == ("seqserve_embed", ["1"])
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in tensors["inputs"]}
    assert shapes["text"] == ("BYTES", ["-1"])
    assert shapes["input_ids"] == ("INT64", ["-1", "-1"])
    shapes = {one["name"]: (one["datatype"], one["shape"]) for one in tensors["outputs"]}
    assert shapes["embedding"] == shapes["sentence_embedding"] == ("FP32", ["-1", "32"])
    assert shapes["last_hidden_state"] == ("FP32", ["-1", "-1", "32"])
    assert index["models"] == [
        {"name": name, "version": "1", "state": "READY"} for name in ("long", "sentence", "tiny")
    ]
    for result in (loading, unloading):
        assert result == {
            "error": "calls may not load and unload models here (allow_model_control is off)",
            "status": "StatusCode.PERMISSION_DENIED",
        }
    assert config["status"] == "StatusCode.UNIMPLEMENTED"


@each_kind
async def test_models_come_and_go(kind: Kind, serving: MakeServer) -> None:
    """An unloaded model is gone from the index and cannot be called, until it is loaded again."""
    index: dict[str, Any] = {"method": "get_model_repository_index", "as_json": True}
    unload: dict[str, Any] = {"method": "unload_model", "model_name": "tiny"}
    load: dict[str, Any] = {"method": "load_model", "model_name": "tiny"}
    async with serving(allow_model_control=True) as running:
        unloaded, without, refused, loaded, again, served, missing = await call(
            running,
            kind,
            *(unload, index, infer("tiny", texts("a")), load, load, index),
            {"method": "load_model", "model_name": "other"},
        )
    assert "error" not in (unloaded or {})
    assert [one["name"] for one in without["models"]] == ["long", "sentence"]
    assert refused["status"] == "StatusCode.NOT_FOUND"
    assert "error" not in (loaded or {})
    assert "error" not in (again or {})
    assert [one["name"] for one in served["models"]] == ["long", "sentence", "tiny"]
    assert missing == {
        "error": "the store has no model 'other'; it has: long, sentence, tiny",
        "status": "StatusCode.NOT_FOUND",
    }


@each_kind
async def test_errors_have_codes_and_names_of_the_tensors(kind: Kind, serving: MakeServer) -> None:
    """As Triton's client shows them."""
    cases: list[tuple[dict[str, Any], str, str]] = [
        (
            infer("tiny", texts("a"), parameters={"num_beams": 0}),
            "INVALID_ARGUMENT",
            "`num_beams` must be at least 1, but is 0",
        ),
        (
            infer("tiny", texts("a"), parameters={"num_beams": "4"}),
            "INVALID_ARGUMENT",
            "`num_beams` must be an integer, but is '4'",
        ),
        (
            infer("sentence", texts("a"), parameters={"beams": 1}),
            "INVALID_ARGUMENT",
            "`beams` is no parameter for these inputs; there are: dimensions, max_active_dims, "
            "normalize, priority, "
            "prompt_name, return_token_embeddings, return_windows, stride, timeout, truncate, "
            "truncation_direction",
        ),
        (
            infer("sentence", texts("a", name="txt")),
            "INVALID_ARGUMENT",
            "`txt` is no input of this model; it takes text; or input_ids [attention_mask] "
            "[source_lengths] [token_type_ids]",
        ),
        (infer("nope", texts("a")), "NOT_FOUND", "there is no model 'nope'; there are: "),
        (
            infer("tiny", texts("a"), sequence_id=3),
            "INVALID_ARGUMENT",
            "`sequence_id` is not supported: models keep nothing from one request to the next; "
            "leave it out",
        ),
        (
            infer("tiny", texts("a"), outputs=["words"]),
            "INVALID_ARGUMENT",
            "`words` is no output for these inputs; there are: text, score, token_count, ",
        ),
        (
            infer("tiny", texts("a"), outputs=["seed"]),
            "INVALID_ARGUMENT",
            "the output `seed` is there with `do_sample` only",
        ),
    ]
    async with serving() as running:
        results = await call(running, kind, *(request for request, _, _ in cases))
    for result, (_, code, message) in zip(results, cases, strict=True):
        assert result["status"] == f"StatusCode.{code}"
        assert result["error"].startswith(message)


@each_kind
async def test_priority_and_timeout_reach_the_scheduler(
    kind: Kind, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 is high and 3 low; a time-out in microseconds is a deadline of the request."""
    seen: list[tuple[str, bool]] = []
    async with serving() as running:
        lanes = running.registry.find("tiny", "", None).lanes
        submit = lanes.submit

        def note(sequences: list[Sequence]) -> None:
            seen.extend((one.priority.name, one.server_limit_seconds is None) for one in sequences)
            submit(sequences)

        monkeypatch.setattr(lanes, "submit", note)
        ready = [
            infer("tiny", texts("a b"), priority=number, timeout=30_000_000)
            for number in (0, 1, 2, 3)
        ]
        *results, unlimited, late, unknown = await call(
            running,
            kind,
            *ready,
            infer("tiny", texts("a b"), timeout=0),
            infer("tiny", texts(*["a b c"] * 40), timeout=1),
            infer("tiny", texts("a b"), priority=9),
        )
    assert all("outputs" in result for result in (*results, unlimited))
    assert [name for name, _ in seen[:4]] == ["NORMAL", "HIGH", "NORMAL", "LOW"]
    assert [is_own for _, is_own in seen[:5]] == [True] * 4 + [False]
    assert late["status"] == "StatusCode.DEADLINE_EXCEEDED"
    assert late["error"] == (
        "the deadline passed before the work was done; allow more time, or ask for less"
    )
    assert unknown["error"] == (
        "`priority` must be 1 (high), 2 (normal), 3 (low) or 0 (the default, normal), but is 9"
    )


@each_kind
async def test_statistics_count_what_was_done(kind: Kind, serving: MakeServer) -> None:
    """Inputs, passes and nanoseconds, by model."""
    async with serving() as running:
        _, one, every = await call(
            running,
            kind,
            infer("sentence", texts("a", "b", "c")),
            {
                "method": "get_inference_statistics",
                "model_name": "sentence",
                "as_json": True,
            },
            {"method": "get_inference_statistics", "as_json": True},
        )
    (statistics,) = one["model_stats"]
    assert (statistics["name"], statistics["version"]) == ("sentence", "1")
    assert int(statistics["inference_count"]) == 3
    assert 1 <= int(statistics["execution_count"]) <= 3
    assert int(statistics["inference_stats"]["queue"]["count"]) == 3
    assert int(statistics["inference_stats"]["compute_infer"]["ns"]) > 0
    assert [other["name"] for other in every["model_stats"]] == ["long", "sentence", "tiny"]


async def test_messages_are_those_of_the_client() -> None:
    """Every field has its number and type, every RPC its messages."""
    theirs = await work({"kind": "messages"})
    found = list(open_inference_pb2.DESCRIPTOR.message_types_by_name.values())
    for message in found:
        found += message.nested_types
        assert theirs["fields"][message.full_name] == {
            one.name: [one.number, one.type, one.is_repeated] for one in message.fields
        }
    (service,) = open_inference_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods:
        names = [method.input_type.full_name, method.output_type.full_name]
        assert theirs["methods"][method.name] == names
