"""Loads and unloads versions while the server runs.

A version is tried in a process of its own, opened beside those that serve, run once in every lane,
and only then found by requests. One that goes is found by no new request, answers those that found
it before, and ends. Whatever fails leaves what serves as it was.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import structlog

from seqserve.config import ServerConfig
from seqserve.errors import (
    ConfigurationError,
    ModelControlError,
    ModelFolderError,
    ModelLoadedError,
    ModelNotFoundError,
    ModelRefusedError,
    UnavailableError,
)
from seqserve.memory import give_back_freed_memory
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve.preflight_process import Preflights
from seqserve.registry import Registry
from seqserve.served_model import ServedModel
from seqserve.store import LABELS_FILE, Key, Labels, read_labels, scan

_log = structlog.get_logger(__name__)

_Result = TypeVar("_Result")


class Loader:
    """Changes what a registry serves, one version at a time. Event loop only."""

    def __init__(
        self,
        registry: Registry,
        config: ServerConfig,
        metrics: Metrics,
        on_change: Callable[[], Awaitable[None]],
    ) -> None:
        """Takes over a registry.

        Args:
            registry: What serves.
            config: The settings.
            metrics: Where loads are counted.
            on_change: Awaited when a version has come or gone.
        """
        self._registry = registry
        self._config = config
        self._metrics = metrics
        self._on_change = on_change
        self._preflights = Preflights(config)
        self._turn = asyncio.Lock()
        self._loads: set[asyncio.Task[Any]] = set()
        self._drains: dict[Key, asyncio.Task[None]] = {}
        self._pending: dict[str, Labels] = {}
        self._label_problems: dict[str, str] = {}
        self._is_closed = False

    def check_is_allowed(self) -> None:
        """Checks that calls may load and unload.

        Raises:
            ModelControlError: They may not.
        """
        if not self._config.allow_model_control:
            raise ModelControlError(
                "calls may not load and unload models here (allow_model_control is off)"
            )

    async def load(self, name: str, version: str) -> ServedModel:
        """Loads a version of the store; it goes on if the caller leaves.

        Raises:
            ModelNotFoundError: The store has no such folder.
            ModelLoadedError: It is served already.
            ModelRefusedError: It cannot be served; what was served before still is.
            UnavailableError: The server is shutting down.
        """
        return await self._finish(self._load(name, version))

    async def withdraw(self, name: str, version: str) -> asyncio.Task[None]:
        """Takes a version out of service.

        Returns:
            What ends once the requests that have found it are answered and its workers have ended.

        Raises:
            ModelNotFoundError: It is not served.
            ModelRefusedError: A label means it.
            UnavailableError: The server is shutting down.
        """
        return await self._finish(self._withdraw(name, version))

    async def relabel(self, name: str) -> None:
        """Reads the labels of a model again; if that fails, they stay as they are."""
        try:
            labels = await asyncio.to_thread(read_labels, self._config.models / name)
        except ModelFolderError as error:
            if self._label_problems.get(name) != str(error):
                _log.warning("labels stay as they are", model=name, reason=str(error))
            self._label_problems[name] = str(error)
            return
        self._label_problems.pop(name, None)
        before = self._registry.labels(name)
        pending = self._registry.set_labels(name, labels)
        if pending != self._pending.get(name, {}):
            for label, awaited in pending.items():
                _log.warning(
                    "label waits for a version that is not served",
                    model=name,
                    label=label,
                    awaited=awaited,
                )
        self._pending[name] = pending
        if (now := self._registry.labels(name)) != before:
            _log.info("labels changed", model=name, labels=now)

    def cancel(self) -> None:
        """Ends what is being loaded, and refuses to load or unload more."""
        self._is_closed = True
        self._preflights.close()
        for task in self._loads:
            task.cancel()

    async def close(self) -> None:
        """Waits until versions that were unloaded have ended; call ``cancel`` first."""
        await asyncio.gather(*self._loads, return_exceptions=True)
        await asyncio.gather(*self._drains.values(), return_exceptions=True)

    async def _finish(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Does something that does not end with its caller."""
        task = asyncio.create_task(work)
        self._loads.add(task)
        task.add_done_callback(self._forget)
        if self._is_closed:
            task.cancel()
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():  # it is the caller who was
                raise
            raise UnavailableError("the server is shutting down; try another replica") from None

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._loads.discard(task)
        _retrieve(task)

    async def _load(self, name: str, version: str) -> ServedModel:
        async with self._turn:
            if (name, version) in self._registry.keys:
                raise ModelLoadedError(f"version {version} of model {name!r} is served already")
            folder = await self._find_folder(name, version)
            if drain := self._drains.get((name, version)):
                await asyncio.wait([drain])  # whatever becomes of it
            started_at = time.monotonic()
            try:
                model = await self._open(folder)
            except ModelRefusedError as error:
                self._metrics.model_loads.labels(result="refused").inc()
                _log.error("model refused", model=f"{name}/{version}", reason=str(error))
                raise
            self._registry.add(model)
            seconds = time.monotonic() - started_at
            self._metrics.model_loads.labels(result="loaded").inc()
            self._metrics.model_load_duration.observe(seconds)
            _log.info("model loaded", model=model.label, seconds=round(seconds, 3))
            await self.relabel(name)
        await self._on_change()
        return model

    async def _find_folder(self, name: str, version: str) -> Path:
        """The folder of a version; names come from callers and are compared, not joined."""
        try:
            folders = await asyncio.to_thread(scan, self._config.models)
        except (ModelFolderError, OSError) as error:
            raise ModelRefusedError(f"the store cannot be read: {error}") from error
        if (name, version) not in folders:
            found = ", ".join("/".join(key) for key in folders) or "nothing"
            raise ModelNotFoundError(
                f"the store has no model {name!r} with version {version!r}; it has: {found}"
            )
        return folders[name, version].path

    async def _open(self, folder: Path) -> ServedModel:
        """Tries a model and opens it, beside those that serve.

        Raises:
            ModelRefusedError: It cannot be served.
        """
        num_models = len(self._registry.models) + 1
        try:
            if self._config.preflight:
                await asyncio.to_thread(self._preflights.check, folder)
            return await asyncio.to_thread(
                open_model,
                folder,
                self._config,
                self._metrics,
                num_models=num_models,
                is_rehearsed=True,
                response_cache=self._registry.response_cache,
            )
        except (ModelFolderError, ConfigurationError) as error:
            raise ModelRefusedError(str(error)) from error
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a library in Rust that panics raises no Exception
            _log.exception("model could not be opened", folder=str(folder))
            raise ModelRefusedError(f"{folder} cannot be opened: {type(error).__name__}") from error

    async def _withdraw(self, name: str, version: str) -> asyncio.Task[None]:
        async with self._turn:
            if (name, version) not in self._registry.keys:
                raise ModelNotFoundError(f"version {version!r} of model {name!r} is not served")
            await self.relabel(name)
            model = self._registry.find(name, version, None)
            if labels := self._registry.labels_of(model):
                raise ModelRefusedError(
                    f"version {version} of model {name!r} is what its label {labels[0]!r} means; "
                    f"let the label mean another version in {name}/{LABELS_FILE} first"
                )
            self._registry.remove(model)
            drain = asyncio.create_task(self._drain(model))
            drain.add_done_callback(_retrieve)
            self._drains[name, version] = drain
        await self._on_change()
        return drain

    async def _drain(self, model: ServedModel) -> None:
        """Lets requests that have found a model end, then its workers."""
        key, label = (model.manifest.name, model.manifest.version), model.label
        try:
            await model.admission.wait_until_idle()
            model.lanes.close()
            await model.lanes.join()
            model.metrics.retire()
            del model
            await asyncio.to_thread(give_back_freed_memory)
        except Exception:
            _log.exception("model was not unloaded in full", model=label)
            raise
        finally:
            del self._drains[key]
        _log.info("model unloaded", model=label)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Takes note of what a task ended with: it was logged, and its caller may be gone."""
    if not task.cancelled():
        task.exception()
