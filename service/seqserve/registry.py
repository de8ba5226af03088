"""The served models: found in a store, opened, started, looked up by name, version and task."""

import asyncio
from collections.abc import Callable

import structlog

from seqserve.config import ServerConfig
from seqserve.device import check_device
from seqserve.errors import ModelFolderError, ModelNotFoundError, UnsupportedTaskError
from seqserve.manifest import MANIFEST_FILE
from seqserve.metrics import Metrics
from seqserve.served_model import ServedModel, open_model
from seqserve.task_record import Task

_log = structlog.get_logger(__name__)


class Registry:
    """All served models of a server."""

    def __init__(self, models: list[ServedModel]) -> None:
        self._models: dict[str, dict[str, ServedModel]] = {}
        for model in sorted(models, key=_order):
            self._models.setdefault(model.manifest.name, {})[model.manifest.version] = model

    @classmethod
    def open(cls, config: ServerConfig, metrics: Metrics) -> "Registry":
        """Opens every model of the store.

        Raises:
            ModelFolderError: The store is absent or empty, or one of its models cannot be served.
            ConfigurationError: The device cannot be used, or not for one of the models.
        """
        check_device(config.device)
        store = config.models
        if not store.is_dir():
            raise ModelFolderError(f"{store} is not a folder; export a model into it first")
        folders = sorted(path.parent for path in store.glob(f"*/*/{MANIFEST_FILE}"))
        if not folders:
            raise ModelFolderError(
                f"{store} holds no model: there is no NAME/VERSION/{MANIFEST_FILE} in it; "
                "write one with seqserve-export"
            )
        models = []
        for folder in folders:
            models.append(open_model(folder, config, metrics, num_models=len(folders)))
            budget = models[-1].budget
            cache_bytes = {} if budget is None else {"cache_bytes": budget.max_bytes}
            _log.info("model opened", model=models[-1].label, **cache_bytes)
        return cls(models)

    @property
    def models(self) -> list[ServedModel]:
        """All models, by name, then version."""
        return [model for versions in self._models.values() for model in versions.values()]

    def tasks(self) -> set[Task]:
        """What at least one model can do."""
        return {task for model in self.models for task in model.manifest.tasks}

    def find(self, name: str, version: str, task: Task | None) -> ServedModel:
        """Looks a model up.

        Args:
            name: Empty when there is only one model (for the task).
            version: Empty for the newest.
            task: What it must be able to do; None for anything.

        Raises:
            ModelNotFoundError: No such model or version, or an empty name leaves a choice.
            UnsupportedTaskError: The model cannot do the task.
        """
        if not name:
            name = self._only_name(task)
        if name not in self._models:
            raise ModelNotFoundError(
                f"there is no model {name!r}; there are: {', '.join(self._models)}"
            )
        versions = self._models[name]
        if not version:
            version = next(reversed(versions))
        if version not in versions:
            raise ModelNotFoundError(
                f"model {name!r} has no version {version!r}; it has: {', '.join(versions)}"
            )
        model = versions[version]
        if task is not None and task not in model.manifest.tasks:
            can = ", ".join(model.manifest.tasks)
            raise UnsupportedTaskError(f"model {name!r} cannot {task}; it can: {can}")
        return model

    def _only_name(self, task: Task | None) -> str:
        names = [
            name
            for name, versions in self._models.items()
            if task is None or any(task in model.manifest.tasks for model in versions.values())
        ]
        if len(names) != 1:
            what = f"models that {task}" if task else "models"
            found = ", ".join(names) or "none"
            raise ModelNotFoundError(f"`model_name` is empty, but the {what} are: {found}")
        return names[0]

    def start(self, on_death: Callable[[ServedModel], None]) -> None:
        """Starts the workers, on the running event loop."""
        loop = asyncio.get_running_loop()
        for model in self.models:
            model.lanes.start(loop, lambda model=model: on_death(model))  # type: ignore[misc]

    async def close(self) -> None:
        """Stops the workers once they have answered what they took."""
        for model in self.models:
            model.lanes.close()
        for model in self.models:
            await model.lanes.join()


def _order(model: ServedModel) -> tuple[str, int]:
    return model.manifest.name, int(model.manifest.version)
