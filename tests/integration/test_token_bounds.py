"""How many tokens a request may hold, and what is not even looked at beyond."""

import threading
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from seqserve.tokenizer import TokenSpan
from seqserve.v1 import generation_pb2, model_pb2
from serving import MakeServer, source, status_of
from tiny_request import generate


async def test_tokens_of_a_request_are_bounded(serving: MakeServer) -> None:
    """Whether they are given or asked for; the limit itself is allowed."""
    row = model_pb2.TokenSequence(token_ids=[5] * 5)
    stream = generation_pb2.GenerateStreamRequest(
        model_name="tiny", input=source([5] * 11), truncate=True
    )
    async with serving(max_tokens_per_request=10) as running:
        calls: list[tuple[Awaitable[object], str]] = [
            (
                running.generation.Generate(generate(inputs=[source([5] * 6), source([5] * 5)])),
                "`inputs` must hold at most 10 tokens in all (max_tokens_per_request), but it "
                "holds 11",
            ),
            (
                running.generation.GenerateStream(stream).read(),
                "`input.token_ids` must hold at most 10 tokens in all (max_tokens_per_request), "
                "but it holds 11",
            ),
            (
                running.model.Detokenize(
                    model_pb2.DetokenizeRequest(model_name="tiny", sequences=[row, row, row])
                ),
                "`sequences` must hold at most 10 tokens in all (max_tokens_per_request), but it "
                "holds 15",
            ),
            (
                running.model.Tokenize(
                    model_pb2.TokenizeRequest(model_name="tiny", texts=["a b c d", "a b c d e", ""])
                ),
                "`texts[2]` must not be empty",
            ),
            (
                running.model.Tokenize(
                    model_pb2.TokenizeRequest(
                        model_name="tiny", texts=["a b c d", "a b c d e", "a"]
                    )
                ),
                "`texts` must hold at most 10 tokens in all (max_tokens_per_request), but the "
                "first 2 of 3 hold 11",
            ),
        ]
        for call, expected in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert status_of(caught.value) == f"INVALID_ARGUMENT: {expected}"
        whole = generate(inputs=[source([5] * 5)] * 2)
        assert len((await running.generation.Generate(whole)).results) == 2
        joined = await running.model.Detokenize(
            model_pb2.DetokenizeRequest(model_name="tiny", sequences=[row, row])
        )
        assert len(joined.texts) == 2
        split = await running.model.Tokenize(
            model_pb2.TokenizeRequest(model_name="tiny", texts=["a b c d", "a b c d"])
        )
        assert [len(one.tokens) for one in split.tokenizations] == [5, 5]


async def test_tokens_beyond_what_the_model_reads_are_not_looked_at(serving: MakeServer) -> None:
    """A source of token ids is measured before it is copied and checked."""
    ids = [5] * 40 + [-1] * 100_000
    async with serving() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.generation.Generate(generate(inputs=[source(ids)]))
        cut = await running.generation.Generate(generate(inputs=[source(ids)], truncate=True))
    assert "must have at most 40 tokens, but has 100040" in status_of(caught.value)
    (result,) = cut.results
    assert (result.source_token_count, result.truncated_token_count) == (40, 100_000)


async def test_token_messages_are_not_made_on_the_event_loop(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request about many tokens keeps nobody else waiting."""
    threads: set[threading.Thread] = set()
    make_token = model_pb2.Token

    def keep_token(**fields: Any) -> model_pb2.Token:
        threads.add(threading.current_thread())
        return make_token(**fields)

    async with serving() as running:
        tokenizer = running.registry.find("tiny", "", None).source_tokenizer
        whole = tokenizer.spans

        def keep(*arguments: Any) -> list[TokenSpan]:
            threads.add(threading.current_thread())
            return whole(*arguments)

        monkeypatch.setattr(tokenizer, "spans", keep)
        monkeypatch.setattr(model_pb2, "Token", keep_token)
        await running.model.Tokenize(model_pb2.TokenizeRequest(model_name="tiny", texts=["a b"]))
    assert threads
    assert threading.main_thread() not in threads
