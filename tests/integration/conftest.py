"""A real server over tiny exported models, in the test's own process and event loop."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bearer_metadata import ADMIN, BOTH, INFER
from seqserve.config import ServerConfig
from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.server import Server
from seqserve.task_record import Task
from seqserve_export.exporter import export_model
from served_folders import copy_version
from serving import TOKEN_LABELS, MakeServer, RunningServer
from tiny_checkpoint import make_tiny_checkpoint
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder
from tiny_sentence_folder import make_tiny_sentence_folder


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with ``tiny/1``, ``long/1`` (encoder-decoders) and ``sentence/1`` (an encoder).

    ``long`` has relative positions and reads and writes more than the first capacity of the cache.
    """
    torch.set_num_threads(1)
    sources = tmp_path_factory.mktemp("sources")
    store = tmp_path_factory.mktemp("store")
    export_model(make_tiny_checkpoint(sources / "tiny", 8), store, name="tiny")
    export_model(
        make_tiny_checkpoint(
            sources / "long",
            5,
            positions="relative",
            norm="rms",
            max_source_length=300,
            max_target_length=200,
        ),
        store,
        name="long",
    )
    export_model(make_tiny_sentence_folder(sources / "sentence", 1), store, name="sentence")
    return store


@pytest.fixture(scope="session")
def head_sources(tmp_path_factory: pytest.TempPathFactory) -> dict[Task, Path]:
    """Hugging Face folders of BERTs, one for each task of a head."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("heads")
    settings: dict[Task, Any] = {Task.CLASSIFY_TOKENS: {"id2label": dict(enumerate(TOKEN_LABELS))}}
    return {
        task: make_tiny_encoder_folder(
            folder / task, find_variant("bert"), task, **settings.get(task, {})
        )
        for task in (Task.CLASSIFY, Task.CLASSIFY_TOKENS, Task.RERANK, Task.FILL_MASK)
    }


@pytest.fixture(scope="session")
def heads(head_sources: dict[Task, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model for each task of a head, named after the task."""
    torch.set_num_threads(1)
    store = tmp_path_factory.mktemp("store")
    for task, folder in head_sources.items():
        export_model(folder, store, name=task)
    return store


@pytest.fixture(scope="session")
def versions(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions of ``tiny`` and of ``sentence``, of other weights each."""
    torch.set_num_threads(1)
    sources = tmp_path_factory.mktemp("sources")
    versions = tmp_path_factory.mktemp("versions")
    for name in ("tiny", "sentence"):
        copy_version(store / name / "1", versions / name / "1")
    export_model(make_tiny_checkpoint(sources / "tiny", 21), versions, name="tiny", version="2")
    folder = make_tiny_sentence_folder(sources / "sentence", 2)
    export_model(folder, versions, name="sentence", version="2")
    return versions


@pytest.fixture
def live(versions: Path, tmp_path: Path) -> Path:
    """A store with the first version of each model."""
    for name in ("tiny", "sentence"):
        copy_version(versions / name / "1", tmp_path / name / "1")
    return tmp_path


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """Tokens of every kind."""
    path = tmp_path / "tokens.toml"
    path.write_text(
        f"""
        [[tokens]]
        name = "search"
        value = "{INFER}"
        max_priority = "normal"
        [[tokens]]
        name = "operator"
        value = "{ADMIN}"
        scopes = ["admin"]
        [[tokens]]
        name = "owner"
        value = "{BOTH}"
        scopes = ["infer", "admin"]
        """,
        encoding="utf-8",
    )
    return path


@pytest.fixture
def serving(store: Path) -> MakeServer:
    """Makes a server; keyword arguments are settings."""

    @contextlib.asynccontextmanager
    async def make(**settings: Any) -> AsyncIterator[RunningServer]:
        values = {"models": store, "port": 0, "health_port": 0, "metrics_port": 0, "threads": 1}
        config = ServerConfig.model_validate(values | settings)
        metrics = Metrics()
        registry = Registry.open(config, metrics)
        server = Server(registry, config, metrics)
        ports = await server.start()
        async with RunningServer(server, registry, metrics, ports) as running:
            yield running

    return make
