"""Follows a store: loads versions that appear, unloads those that went, moves labels.

It looks again and again rather than be told: notifications do not cross network file systems, and
Kubernetes swaps links.
"""

import asyncio
import contextlib
import dataclasses

import structlog

from seqserve.config import ServerConfig
from seqserve.errors import (
    ModelFolderError,
    ModelLoadedError,
    ModelNotFoundError,
    ModelRefusedError,
)
from seqserve.loader import Loader
from seqserve.registry import Registry
from seqserve.store import Fingerprint, Key, ModelFolder, scan

_log = structlog.get_logger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What to do after a look at the store."""

    loads: list[Key]
    """By name, then version."""
    unloads: list[Key]


class StorePlan:
    """Decides what to do from what the store has held so far: pure policy.

    * A version is loaded once all files of its manifest are there, and tried again only after one
      of them or the manifest has changed. One that was unloaded by a call stays so until then, too.
    * A version is unloaded once it is missing at two looks in a row, since a folder may be replaced
      by way of removing it.
    * Nothing is unloaded for a store that holds nothing at all: a lost volume looks like that.
    """

    def __init__(self) -> None:
        self._settled: dict[Key, Fingerprint] = {}
        """The state in which each version was served or refused."""
        self._unfinished: dict[Key, Fingerprint] = {}
        self._missing: set[Key] = set()

    def decide(self, folders: dict[Key, ModelFolder], served: set[Key]) -> Plan:
        """Compares the store with what is served."""
        self._forget(folders)
        loads = []
        for key, folder in folders.items():
            if key in served:
                self._keep(key, folder)
            elif folder.missing:
                self._wait(key, folder)
            elif self._settled.get(key) != folder.fingerprint:
                self._settled[key] = folder.fingerprint
                loads.append(key)
        missing = served - folders.keys() if folders else set()
        unloads = sorted(missing & self._missing)
        self._missing = missing
        return Plan(sorted(loads, key=_order), unloads)

    def _forget(self, folders: dict[Key, ModelFolder]) -> None:
        for key in self._settled.keys() - folders.keys():
            del self._settled[key]

    def _keep(self, key: Key, folder: ModelFolder) -> None:
        """A version that is served stays what it is, whatever becomes of its folder."""
        before = self._settled.get(key)
        self._settled[key] = folder.fingerprint
        if before is not None and before.manifest != folder.fingerprint.manifest:
            _log.warning(
                "the folder of a version that is served was changed, which has no effect; give "
                "what is new a version of its own",
                model="/".join(key),
            )

    def _wait(self, key: Key, folder: ModelFolder) -> None:
        if self._unfinished.get(key) != folder.fingerprint:
            _log.info(
                "model folder is not complete", model="/".join(key), waiting_for=folder.missing
            )
        self._unfinished[key] = folder.fingerprint


class StoreWatch:
    """Looks at the store and has a loader do what follows. Event loop only."""

    def __init__(self, registry: Registry, loader: Loader, config: ServerConfig) -> None:
        self._registry = registry
        self._loader = loader
        self._config = config
        self._plan = StorePlan()
        self._problems: list[str] = []

    async def run(self) -> None:
        """Looks every ``watch_seconds`` until it is cancelled."""
        while True:
            await asyncio.sleep(self._config.watch_seconds)
            try:
                await self.look()
            except Exception:
                _log.exception("the store was not followed")

    async def look(self) -> None:
        """Looks once, and does all that follows.

        New versions come before labels move to them, and both before old versions go, so that
        there is an answer to every request at any moment.
        """
        problems: list[str] = []
        try:
            folders = await asyncio.to_thread(scan, self._config.models)
        except (ModelFolderError, OSError) as error:
            problems.append(str(error))
        else:
            await self._follow(folders, problems)
        for problem in problems:
            if problem not in self._problems:
                _log.warning("the store is not followed in full", reason=problem)
        self._problems = problems

    async def _follow(self, folders: dict[Key, ModelFolder], problems: list[str]) -> None:
        served = self._registry.keys
        if served and not folders:
            problems.append(f"{self._config.models} is empty; what is served stays")
        plan = self._plan.decide(folders, served)
        for key in plan.loads:
            # What is refused is logged by the loader; a call may have been faster.
            with contextlib.suppress(ModelRefusedError, ModelLoadedError, ModelNotFoundError):
                await self._loader.load(*key)
        if folders:
            for name in sorted({name for name, _ in self._registry.keys}):
                await self._loader.relabel(name)
        for key in plan.unloads:
            try:
                await self._loader.withdraw(*key)
            except ModelRefusedError as error:
                problems.append(f"the folder of {'/'.join(key)} is gone, but {error}")


def _order(key: Key) -> tuple[str, int, str]:
    name, version = key
    return name, int(version) if version.isdecimal() else 0, version
