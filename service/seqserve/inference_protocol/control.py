"""Loading and unloading models on request: what RepositoryModelLoad and -Unload call."""

import asyncio

from seqserve.config import ServerConfig
from seqserve.errors import ModelFolderError, ModelNotFoundError, ModelRefusedError
from seqserve.loader import Loader
from seqserve.registry import Registry
from seqserve.store import scan


class ModelControl:
    """Loads and unloads models by their names alone, as the protocol has it."""

    def __init__(self, loader: Loader, registry: Registry, config: ServerConfig) -> None:
        self._loader = loader
        self._registry = registry
        self._config = config

    async def load(self, name: str) -> None:
        """Serves the newest version of a model in the store; nothing is done if it is served.

        Raises:
            ModelControlError: The server does not allow it.
            ModelNotFoundError: The store has no such model.
            ModelRefusedError: It cannot be served.
            UnavailableError: The server is shutting down.
        """
        self._loader.check_is_allowed()
        try:
            folders = await asyncio.to_thread(scan, self._config.models)
        except (ModelFolderError, OSError) as error:
            raise ModelRefusedError(f"the store cannot be read: {error}") from error
        versions = [version for found, version in folders if found == name]
        if not versions:
            names = ", ".join(sorted({found for found, _ in folders})) or "nothing"
            raise ModelNotFoundError(f"the store has no model {name!r}; it has: {names}")
        newest = max(versions, key=int)
        if (name, newest) not in self._registry.keys:
            await self._loader.load(name, newest)

    async def unload(self, name: str) -> None:
        """Ends all versions of a model, once they have answered what they took.

        Raises:
            ModelControlError: The server does not allow it.
            ModelNotFoundError: It is not served.
            ModelRefusedError: A label means one of its versions.
            UnavailableError: The server is shutting down.
        """
        self._loader.check_is_allowed()
        versions = [version for found, version in self._registry.keys if found == name]
        if not versions:
            raise ModelNotFoundError(f"model {name!r} is not served")
        drains = [await self._loader.withdraw(name, version) for version in versions]
        await asyncio.shield(asyncio.gather(*drains))
