"""Loading and unloading models on request: what RepositoryModelLoad and -Unload call."""

from typing import Protocol

from seqserve.errors import PreconditionError


class ModelControl(Protocol):
    """Loads and unloads models while the server runs."""

    async def load(self, name: str) -> None:
        """Serves the newest version of a model in the store."""

    async def unload(self, name: str) -> None:
        """Ends all versions of a model, once they have answered what they took."""


class NoModelControl:
    """Of servers whose models are those they were started with."""

    async def load(self, name: str) -> None:
        """Refuses.

        Raises:
            PreconditionError: Always.
        """
        raise _refuse("load", name)

    async def unload(self, name: str) -> None:
        """Refuses.

        Raises:
            PreconditionError: Always.
        """
        raise _refuse("unload", name)


def _refuse(verb: str, name: str) -> PreconditionError:
    return PreconditionError(
        f"model {name!r} cannot be {verb}ed: this server serves what its store (models) held when "
        "it started; change the store, and restart the server"
    )
