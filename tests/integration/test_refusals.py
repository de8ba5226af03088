"""What the server refuses, with which code and words."""

import json
import shutil
from collections.abc import Awaitable
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from seqserve.manifest import MANIFEST_FILE
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, source, status_of
from tiny_request import generate

Input = generation_pb2.GenerateInput
Options = generation_pb2.GenerateOptions
ALL = list(range(49))
"""Every token of the model."""
NOTHING_LEFT = (
    "no token to go on with: `min_new_tokens`, `no_repeat_ngram_size`, `repetition_penalty`, "
    "suppressed tokens and suppressed sequences, those of the model included, together bar the "
    "whole vocabulary; loosen one of them"
)
REFUSALS = [
    (generate(), "inputs", "`inputs` must not be empty"),
    (generate(inputs=[Input()]), "inputs[0]", "`inputs[0]` must set `text` or `token_ids`"),
    (generate(inputs=[Input(text="")]), "inputs[0].text", "`inputs[0].text` must not be empty"),
    (
        generate(inputs=[source([5]), source([])]),
        "inputs[1].token_ids",
        "`inputs[1].token_ids` must not be empty",
    ),
    (
        generate(inputs=[source([5, -1])]),
        "inputs[0].token_ids.values[1]",
        "`inputs[0].token_ids.values[1]` must be at least 0 and below 30, but is -1",
    ),
    (
        generate(inputs=[source([30])]),
        "inputs[0].token_ids.values[0]",
        "`inputs[0].token_ids.values[0]` must be at least 0 and below 30, but is 30",
    ),
    (
        generate(inputs=[source([5] * 41)]),
        "inputs[0].token_ids",
        "`inputs[0].token_ids` must have at most 40 tokens, but has 41; shorten it, or set "
        "`truncate` to have its end cut",
    ),
    (
        generate(inputs=[Input(text="a " * 60)]),
        "inputs[0].text",
        "`inputs[0].text` must have at most 40 tokens, but has 61; shorten it, or set "
        "`truncate` to have its end cut",
    ),
    (
        generate(inputs=[Input(text="a" * 1001)]),
        "inputs[0].text",
        "`inputs[0].text` must have at most 1000 bytes (max_input_bytes), but has 1001",
    ),
    (
        generate(inputs=[source([5])] * 9),
        "inputs",
        "`inputs` must hold at most 8 entries (max_inputs_per_request), but holds 9",
    ),
    (
        generate(inputs=[source([5])], options=Options(max_new_tokens=0)),
        "options.max_new_tokens",
        "`max_new_tokens` must be at least 1, but is 0",
    ),
    (
        generate(inputs=[source([5])], options=Options(max_new_tokens=33)),
        "options.max_new_tokens",
        "`max_new_tokens` must be at most 32, but is 33",
    ),
    (
        generate(inputs=[source([5]), source([5], num_beams=17)]),
        "inputs[1].options.num_beams",
        "`num_beams` must be at most 16, but is 17",
    ),
    (
        generate(inputs=[source([5])], options=Options(num_return_sequences=2)),
        "options.num_return_sequences",
        "`num_return_sequences` must be at most 1, but is 2",
    ),
    (
        generate(inputs=[source([5])], options=Options(num_beams=2, length_penalty=float("nan"))),
        "options.length_penalty",
        "`length_penalty` must be finite, but is nan",
    ),
    (
        generate(inputs=[source([5])], options=Options(length_penalty=2.0)),
        "options.length_penalty",
        "`length_penalty` has an effect on beam search only; leave it unset or set `num_beams` "
        "above 1",
    ),
    *(
        (
            generate(
                inputs=[
                    source([5]),
                    source([6], suppressed_token_ids=ALL, num_beams=num_beams),
                    source([7]),
                ],
                options=Options(max_new_tokens=3),
            ),
            "inputs[1].options",
            f"`inputs[1].options` leave `inputs[1]` {NOTHING_LEFT}",
        )
        for num_beams in (1, 2)
    ),
    (
        generate(
            inputs=[source([5], suppressed_token_ids=[5]), Input(text="a")],
            options=Options(suppressed_token_ids=ALL),
        ),
        "options",
        f"`options` leave `inputs[1]` {NOTHING_LEFT}",
    ),
]


@pytest.mark.parametrize(("request_message", "field", "message"), REFUSALS)
async def test_invalid_request_names_field_rule_and_value(
    serving: MakeServer,
    request_message: generation_pb2.GenerateRequest,
    field: str,
    message: str,
) -> None:
    """INVALID_ARGUMENT, in words and as google.rpc.BadRequest."""
    async with serving(max_inputs_per_request=8, max_input_bytes=1000) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(request_message)
    assert status_of(caught.value) == f"INVALID_ARGUMENT: {message}"
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in status.details)
    assert bad_request.field_violations[0].field == field


async def test_stream_without_any_token_left_names_its_input(serving: MakeServer) -> None:
    """The same refusal as in one piece, under the name the input has there."""
    request = generation_pb2.GenerateStreamRequest(
        model_name="tiny", input=source([5], suppressed_token_ids=ALL)
    )
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in running.generation.GenerateStream(request):
                pass
    message = f"`input.options` leave `input` {NOTHING_LEFT}"
    assert status_of(caught.value) == f"INVALID_ARGUMENT: {message}"


async def test_unknown_model_version_and_task_are_told_apart(serving: MakeServer) -> None:
    """NOT_FOUND lists what there is; a task the model lacks is UNIMPLEMENTED."""
    async with serving() as running:
        calls: list[tuple[Awaitable[object], str]] = [
            (
                running.generation.Generate(generate(model_name="nope", inputs=[source([5])])),
                "NOT_FOUND: there is no model 'nope'; there are: long, sentence, tiny",
            ),
            (
                running.generation.Generate(generate(model_version="7", inputs=[source([5])])),
                "NOT_FOUND: model 'tiny' has no version '7'; it has: 1",
            ),
            (
                running.generation.Generate(generate(model_name="sentence", inputs=[source([5])])),
                "UNIMPLEMENTED: model 'sentence' cannot generate; it can: embed",
            ),
            (
                running.encoding.Embed(encoding_pb2.EmbedRequest(model_name="tiny", inputs=["a"])),
                "UNIMPLEMENTED: model 'tiny' cannot embed; it can: generate",
            ),
            (
                running.model.GetModel(model_pb2.GetModelRequest()),
                "INVALID_ARGUMENT: `model_name` is empty, but the models are: long, sentence, tiny",
            ),
        ]
        for call, expected in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert status_of(caught.value) == expected


async def test_truncation_on_request_is_reported(serving: MakeServer) -> None:
    """Cut sources say how many tokens were cut, keep the end token, and equal the short source."""
    async with serving() as running:
        cut = await running.generation.Generate(
            generate(inputs=[Input(text="a " * 60), Input(text="b")], truncate=True)
        )
        short = await running.generation.Generate(generate(inputs=[Input(text="a " * 39)]))
    counts = [(r.source_token_count, r.truncated_token_count) for r in cut.results]
    assert counts == [(40, 21), (2, 0)]
    assert cut.results[0].hypotheses == short.results[0].hypotheses


@pytest.mark.parametrize("truncate", [False, True])
async def test_model_too_short_for_any_text_reads_none(
    serving: MakeServer, store: Path, tmp_path: Path, truncate: bool
) -> None:
    """A manifest may leave no room for special tokens; no call then exceeds it without a word."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    path = copy / "sentence" / "1" / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"max_source_length": 1}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    async with serving(models=copy) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.encoding.Embed(
                encoding_pb2.EmbedRequest(inputs=[" ", "cat dog"], truncate=truncate)
            )
    assert status_of(caught.value) == (
        "INVALID_ARGUMENT: no text fits into 1 tokens: 2 special tokens are added to every text; "
        "use another model, or token ids if the method takes them"
    )


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe"])
async def test_malformed_bytes_are_an_invalid_argument(serving: MakeServer, data: bytes) -> None:
    """Neither broken protobuf nor invalid UTF-8 gives UNKNOWN or names a class."""
    async with serving() as running:
        for method in ("Generate", "GenerateStream"):  # both fail before they stream
            path = f"/seqserve.v1.GenerationService/{method}"
            call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = running.channel.unary_unary(
                path, request_serializer=bytes
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(data)
            expected = "INVALID_ARGUMENT: the request's bytes are not a message of its type"
            assert status_of(caught.value) == expected


async def test_unexpected_errors_leak_nothing(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug is INTERNAL without its text, and the server goes on."""
    async with serving() as running:
        model = running.registry.find("tiny", "", None)

        def explode(*args: object, **kwargs: object) -> None:
            raise RuntimeError("secret path")

        with monkeypatch.context() as patch:
            patch.setattr(model.lanes, "submit", explode)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.generation.Generate(generate(inputs=[source([5])]))
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(caught.value)
        assert (await running.generation.Generate(generate(inputs=[source([5])]))).results
