"""Versions whose end fails: the caller is told, and nothing that comes after is held up."""

import asyncio
import shutil
import threading
from pathlib import Path

import grpc
import pytest
import structlog

from seqserve.v1 import encoding_pb2, model_pb2
from serving import MakeServer

PATIENCE_SECONDS = 30.0


@pytest.mark.parametrize("is_waited_for", [True, False])
async def test_version_whose_end_failed_is_loaded_again(
    is_waited_for: bool,
    store: Path,
    tmp_path: Path,
    serving: MakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A load that waits for the end goes on, one that comes later does not wait."""
    shutil.copytree(store / "sentence", tmp_path / "sentence")
    may_fail = threading.Event()

    def fail() -> None:
        assert may_fail.wait(PATIENCE_SECONDS)
        raise OSError("no memory was given back")

    monkeypatch.setattr("seqserve.loader.give_back_freed_memory", fail)
    named = {"model_name": "sentence", "model_version": "1"}
    async with serving(models=tmp_path, allow_model_control=True) as running:
        with structlog.testing.capture_logs() as logs:
            unload = asyncio.ensure_future(
                running.model.UnloadModel(model_pb2.UnloadModelRequest(**named))
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                while running.registry.keys:
                    await asyncio.sleep(0)
            if not is_waited_for:
                may_fail.set()
                await asyncio.wait([unload])
            load = asyncio.ensure_future(
                running.model.LoadModel(model_pb2.LoadModelRequest(**named))
            )
            if is_waited_for:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while running.num_in_flight < 2:
                        await asyncio.sleep(0)
                may_fail.set()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unload
            await load
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        (line,) = [line for line in logs if line["event"] == "model was not unloaded in full"]
        assert (line["model"], line["log_level"]) == ("sentence/1", "error")
        reply = await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a b"]))
        assert reply.model.version == "1"
