"""A library in Rust that panics raises no Exception: its callers are answered all the same."""

from typing import Any

import grpc
import pytest

from seqserve.tokenizer import Tokenizer
from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer, status_of

PATIENCE_SECONDS = 20.0
INTERNAL = "INTERNAL: internal error; the server's log has the details under this request id"


class Panic(BaseException):
    """What pyo3 raises is of this kind."""


@pytest.fixture
def panic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizers that panic, on the event loop and in threads."""

    def fail(*arguments: Any, **settings: Any) -> None:
        raise Panic("secret text")

    for name in ("split", "encode", "encode_all", "encode_truncated"):
        if hasattr(Tokenizer, name):
            monkeypatch.setattr(Tokenizer, name, fail)


@pytest.mark.usefixtures("panic")
@pytest.mark.parametrize("num_words", [1, 3000], ids=["inline", "in a thread"])
async def test_calls_get_internal(serving: MakeServer, num_words: int) -> None:
    """With a status, and counted as what they are."""
    text = "a " * num_words
    async with serving() as running:
        calls: list[Any] = [
            running.encoding.Embed(
                encoding_pb2.EmbedRequest(inputs=[text]), timeout=PATIENCE_SECONDS
            ),
            running.generation.Generate(
                generation_pb2.GenerateRequest(
                    model_name="tiny", inputs=[generation_pb2.GenerateInput(text=text)]
                ),
                timeout=PATIENCE_SECONDS,
            ),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert status_of(caught.value) == INTERNAL
        assert running.num_outstanding == 0
        counted = [
            sample.labels["code"]
            for metric in running.metrics.requests.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        ]
        assert counted == ["INTERNAL", "INTERNAL"]


@pytest.mark.usefixtures("panic")
async def test_stream_goes_on(serving: MakeServer) -> None:
    """An item that panics is that item's error."""
    item = encoding_pb2.EmbedStreamRequest(request=encoding_pb2.EmbedRequest(inputs=["a"]))
    async with serving() as running:
        stream = running.encoding.EmbedStream(iter([item, item]), timeout=PATIENCE_SECONDS)
        errors = [answer.error async for answer in stream]
        assert [error.code for error in errors] == [grpc.StatusCode.INTERNAL.value[0]] * 2
        assert not any("secret" in error.message for error in errors)
