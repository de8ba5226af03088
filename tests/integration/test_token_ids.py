"""Token ids that there are not, in every field that can carry them: none reads another token.

The fields of ours are int32; the Open Inference Protocol carries 64 bits, as numbers, as bytes and
as JSON in a text.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Awaitable, Callable, Iterator

import pytest

from inference_messages import Contents, Parameter, Tensor, integers, refusal, request, stub, texts
from integration.test_request_sizes import raw, refuse
from seqserve.inference_protocol.v2 import open_inference_pb2 as messages
from seqserve.v1 import generation_pb2, model_pb2
from serving import MakeServer, RunningServer, source

SOURCE_SIZE, TARGET_SIZE = 30, 49
"""Tokens that the tiny model reads and writes."""
TOKEN = 5
"""That there is: what others would become if their upper bits were lost."""
Ids = generation_pb2.TokenIds
Input = generation_pb2.GenerateInput
Suppressed = generation_pb2.SuppressedSequence
Make = Callable[[RunningServer, int], Awaitable[object]]


def generate(one: Input) -> generation_pb2.GenerateRequest:
    """A request to the tiny model."""
    return generation_pb2.GenerateRequest(model_name="tiny", inputs=[one])


def score(running: RunningServer, token: int) -> Awaitable[object]:
    """Scores a target."""
    target = generation_pb2.Target(token_ids=Ids(values=[TOKEN, token]))
    one = generation_pb2.ScoreTargetsInput(text="a", targets=[target])
    return running.generation.ScoreTargets(
        generation_pb2.ScoreTargetsRequest(model_name="tiny", inputs=[one])
    )


def detokenize(running: RunningServer, token: int) -> Awaitable[object]:
    """Makes a text of tokens."""
    row = model_pb2.TokenSequence(token_ids=[TOKEN, token])
    return running.model.Detokenize(model_pb2.DetokenizeRequest(model_name="tiny", sequences=[row]))


CALLS: list[tuple[str, int, Make]] = [
    (
        "inputs[0].token_ids.values[1]",
        SOURCE_SIZE,
        lambda running, token: running.generation.Generate(generate(source([TOKEN, token]))),
    ),
    (
        "inputs[0].target_prefix_token_ids.values[1]",
        TARGET_SIZE,
        lambda running, token: running.generation.Generate(
            generate(Input(text="a", target_prefix_token_ids=Ids(values=[TOKEN, token])))
        ),
    ),
    (
        "inputs[0].options.suppressed_token_ids[1]",
        TARGET_SIZE,
        lambda running, token: running.generation.Generate(
            generate(source([TOKEN], suppressed_token_ids=[TOKEN, token]))
        ),
    ),
    (
        "inputs[0].options.suppressed_sequences[0].token_ids.values[1]",
        TARGET_SIZE,
        lambda running, token: running.generation.Generate(
            generate(
                source(
                    [TOKEN], suppressed_sequences=[Suppressed(token_ids=Ids(values=[TOKEN, token]))]
                )
            )
        ),
    ),
    ("inputs[0].targets[0].token_ids.values[1]", TARGET_SIZE, score),
    ("sequences[0].token_ids[1]", TARGET_SIZE, detokenize),
]
"""The field that is named, how many tokens there are, and what sends one."""


@pytest.mark.parametrize(("field", "size", "call"), CALLS)
async def test_ids_of_our_fields_are_those_of_the_vocabulary(
    serving: MakeServer, field: str, size: int, call: Make
) -> None:
    """The last token is taken; below the first and beyond the last all are refused."""
    async with serving() as running:
        await call(running, size - 1)
        for token in (-(2**31), -1, size, 2**31 - 1):
            assert await refuse(call(running, token)) == (
                f"INVALID_ARGUMENT: `{field}` must be at least 0 and below {size}, but is {token}"
            )


async def test_id_of_32_bits_without_a_sign_is_below_zero(serving: MakeServer) -> None:
    """As protobuf reads 2^31, and refused as such."""
    data = generate(source([-(2**31)])).SerializeToString()
    number = b"\x80\x80\x80\x80\xf8\xff\xff\xff\xff\x01"  # seven bits a byte, the sign to the end
    assert data.count(number) == 1
    unsigned = b"\x80\x80\x80\x80\x88\x80\x80\x80\x80\x00"  # the same number of bytes
    async with serving() as running:
        found = await refuse(raw(running.channel)(data.replace(number, unsigned)))
    assert found == (
        "INVALID_ARGUMENT: `inputs[0].token_ids.values[0]` must be at least 0 and below "
        f"{SOURCE_SIZE}, but is {-(2**31)}"
    )


def tensors_of(token: int) -> Iterator[messages.ModelInferRequest]:
    """Requests that carry an id of 64 bits, as number and as bytes."""
    yield request("tiny", integers("input_ids", [[TOKEN, token]]))
    form = Tensor(name="input_ids", datatype="INT64", shape=[1, 2])
    yield request("tiny", form, raw_input_contents=[struct.pack("<2q", TOKEN, token)])


@pytest.mark.parametrize(
    "token",
    [
        -(2**63),
        TOKEN - 2**32,
        -(2**31),
        -1,
        SOURCE_SIZE,
        2**31 - 1,
        2**31,
        2**32 + TOKEN,
        2**63 - 1,
    ],
)
async def test_ids_of_64_bits_keep_all_of_them(serving: MakeServer, token: int) -> None:
    """In one piece and in streams, by their contents or as bytes."""
    async with serving() as running:
        for message in tensors_of(token):
            text = await refusal(running, message)
            assert text.startswith("INVALID_ARGUMENT: `input_ids[0][1]` must be ")
            assert text.endswith(f", but is {token}")
            (answer,) = [one async for one in stub(running).ModelStreamInfer(iter([message]))]
            # A stream has one input in a request, and names its tokens without its place.
            assert answer.error_message.startswith("`input_ids[")
            assert answer.error_message.endswith(f", but is {token}")


@pytest.mark.parametrize("datatype", ["UINT64", "UINT32", "INT32", "INT16", "FP32"])
async def test_ids_are_of_one_datatype(serving: MakeServer, datatype: str) -> None:
    """Others are refused by its name, whatever they hold; none is converted."""
    form = Tensor(name="input_ids", datatype=datatype, shape=[1, 2])
    expected = f"INVALID_ARGUMENT: `input_ids` must have the datatype INT64, but has {datatype}"
    held = {
        "UINT64": Contents(uint64_contents=[TOKEN, 2**64 - 1]),
        "UINT32": Contents(uint_contents=[TOKEN, 2**32 - 1]),
        "FP32": Contents(fp32_contents=[TOKEN, float(TOKEN)]),
    }.get(datatype, Contents(int_contents=[TOKEN, TOKEN]))
    told = Tensor(name="input_ids", datatype=datatype, shape=[1, 2], contents=held)
    async with serving() as running:
        data = struct.pack("<2Q", TOKEN, 2**64 - 1)
        assert await refusal(running, request("tiny", form, raw_input_contents=[data])) == expected
        assert await refusal(running, request("tiny", told)) == expected


async def test_unsigned_numbers_in_a_tensor_of_signed_ones_are_refused(
    serving: MakeServer,
) -> None:
    """By the fields they stand in and should stand in."""
    form = Tensor(
        name="input_ids",
        datatype="INT64",
        shape=[1, 2],
        contents=Contents(uint64_contents=[TOKEN, 2**63 + TOKEN]),
    )
    async with serving() as running:
        assert await refusal(running, request("tiny", form)) == (
            "INVALID_ARGUMENT: `input_ids` of INT64 must have its elements in `int64_contents`, "
            "but has some in `uint64_contents`"
        )


@pytest.mark.parametrize(
    "token", [-1, TARGET_SIZE, 2**31, 2**32 + TOKEN, 2**63, 2**64 + TOKEN, -(2**64) + TOKEN]
)
async def test_ids_in_lists_of_parameters_keep_all_their_digits(
    serving: MakeServer, token: int
) -> None:
    """Numbers in JSON have no end."""
    async with serving() as running:
        for name, value in (
            ("suppressed_token_ids", [TOKEN, token]),
            ("suppressed_sequences", [[TOKEN, token]]),
        ):
            parameters = {name: Parameter(string_param=json.dumps(value))}
            text = await refusal(running, request("tiny", texts("a"), parameters=parameters))
            assert text.startswith(f"INVALID_ARGUMENT: `{name}")
            assert str(token) in text


async def test_counts_of_64_bits_keep_all_of_them(serving: MakeServer) -> None:
    """Signed or not: what fits into no field of ours is refused, and never cut to 32 bits."""
    async with serving() as running:
        for value in (2**31, 2**32 + 1, 2**63 - 1):
            for parameter in (Parameter(int64_param=value), Parameter(uint64_param=value)):
                assert await refusal(
                    running, request("tiny", texts("a"), parameters={"max_new_tokens": parameter})
                ) == (
                    "INVALID_ARGUMENT: `max_new_tokens` must be at least -2147483648 and below "
                    f"2147483648, but is {value}"
                )
