"""A store whose versions come and go while it is served: what is done to it, and asked of it."""

from pathlib import Path

from seqserve.store_watch import StoreWatch
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from served_folders import copy_version
from serving import RunningServer, source

PATIENCE_SECONDS = 30.0
SOURCES = [[5, 6, 1], [9, 4, 3, 7], [11] * 12]
TEXT = "ba be bi"


def publish(versions: Path, live: Path, name: str, version: str = "2") -> Path:
    """Puts a version into a live store."""
    return copy_version(versions / name / version, live / name / version)


def withdraw(live: Path, name: str, version: str = "1") -> None:
    """Takes a version out of a live store."""
    (live / name / version).rename(live / f".gone-{name}-{version}")


async def generate(running: RunningServer, version: str = "") -> tuple[str, list[list[int]]]:
    """The version that answered, and its targets."""
    reply = await running.generation.Generate(
        generation_pb2.GenerateRequest(
            model_name="tiny",
            model_version=version,
            inputs=[source(tokens, max_new_tokens=12) for tokens in SOURCES],
        )
    )
    targets = [list(result.hypotheses[0].token_ids) for result in reply.results]
    return reply.model.version, targets


async def embed(running: RunningServer, version: str = "") -> tuple[str, list[float]]:
    """The version that answered, and its vector."""
    reply = await running.encoding.Embed(
        encoding_pb2.EmbedRequest(model_name="sentence", model_version=version, inputs=[TEXT])
    )
    return reply.model.version, list(reply.embeddings[0].values)


def watch_of(running: RunningServer) -> StoreWatch:
    """What looks at the store, to have it look now."""
    return running.server._store_watch


def load_request(name: str = "tiny", version: str = "1") -> model_pb2.LoadModelRequest:
    """A request to load."""
    return model_pb2.LoadModelRequest(model_name=name, model_version=version)


def unload_request(name: str = "tiny", version: str = "1") -> model_pb2.UnloadModelRequest:
    """A request to unload."""
    return model_pb2.UnloadModelRequest(model_name=name, model_version=version)
