"""The served models: looked up by name, version or label, and task; versions come and go.

All of it happens on the event loop, between two requests: a request finds either what was served
before a change or what is served after it, and keeps what it has found.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from seqserve.call_record import note_model
from seqserve.config import ServerConfig
from seqserve.device import check_device
from seqserve.errors import (
    InvalidRequestError,
    ModelFolderError,
    ModelNotFoundError,
    UnsupportedTaskError,
)
from seqserve.metrics import Metrics
from seqserve.model_opening import open_model
from seqserve.response_cache import ResponseCache
from seqserve.served_model import ServedModel
from seqserve.session import available_cpus
from seqserve.store import LABELS_FILE, STABLE, Key, Labels, find_folders, read_labels
from seqserve.task_record import Task

_log = structlog.get_logger(__name__)


class Registry:
    """All served models of a server. What holds: every label means a version that is served."""

    def __init__(
        self, models: list[ServedModel], response_cache: ResponseCache | None = None
    ) -> None:
        """Serves models.

        Args:
            models: At the beginning.
            response_cache: Where the answers of all models are kept; None: nowhere.
        """
        self.response_cache = response_cache
        self._models: dict[str, dict[str, ServedModel]] = {}
        self._labels: dict[str, Labels] = {}
        self._on_death: Callable[[str], None] | None = None
        for model in models:
            self.add(model)

    @classmethod
    def open(cls, config: ServerConfig, metrics: Metrics) -> "Registry":
        """Opens every model of the store.

        Raises:
            ModelFolderError: The store is absent or empty, one of its models cannot be served, or
                a label means a version that there is not.
            ConfigurationError: The device cannot be used, or not for one of the models.
        """
        check_device(config.device)
        folders = find_folders(config.models)
        models = []
        cache = None
        if config.response_cache_bytes:
            cache = ResponseCache(config.response_cache_bytes, metrics)
        for folder in folders:
            models.append(
                open_model(folder, config, metrics, num_models=len(folders), response_cache=cache)
            )
            budget = models[-1].budget
            cache_bytes = {} if budget is None else {"cache_bytes": budget.max_bytes}
            _log.info(
                "model opened",
                model=models[-1].label,
                threads=config.threads or available_cpus(),
                **cache_bytes,
            )
        registry = cls(models, cache)
        for name, versions in registry._models.items():
            labels = read_labels(config.models / name)
            if pending := registry.set_labels(name, labels):
                label, version = next(iter(pending.items()))
                raise ModelFolderError(
                    f"{config.models / name / LABELS_FILE}: label {label!r} means version "
                    f"{version}, but the store has: {', '.join(versions)}"
                )
        return registry

    @property
    def models(self) -> list[ServedModel]:
        """All models, by name, then version."""
        return [model for versions in self._models.values() for model in versions.values()]

    @property
    def keys(self) -> set[Key]:
        """Names and versions of all models."""
        return {(model.manifest.name, model.manifest.version) for model in self.models}

    def tasks(self) -> set[Task]:
        """What at least one model can do."""
        return {task for model in self.models for task in model.manifest.tasks}

    def find(self, name: str, version: str, task: Task | None) -> ServedModel:
        """Looks a model up.

        Args:
            name: Empty when there is only one model (for the task).
            version: A number or a label; empty for what ``stable`` means, or the newest where
                there is no such label.
            task: What it must be able to do; None for anything.

        Raises:
            InvalidRequestError: An empty name leaves a choice.
            ModelNotFoundError: No such model or version.
            UnsupportedTaskError: The model cannot do the task.
        """
        if not name:
            name = self._only_name(task)
        if name not in self._models:
            found = ", ".join(self._models) or "none"
            raise ModelNotFoundError(f"there is no model {name!r}; there are: {found}")
        versions, labels = self._models[name], self._labels.get(name, {})
        if not version:
            version = labels.get(STABLE) or next(reversed(versions))
        model = versions.get(labels.get(version, version))
        if model is None:
            found = ", ".join(map(self._describe, versions.values()))
            raise ModelNotFoundError(f"model {name!r} has no version {version!r}; it has: {found}")
        if task is not None and task not in model.manifest.tasks:
            can = ", ".join(model.manifest.tasks)
            raise UnsupportedTaskError(f"model {name!r} cannot {task}; it can: {can}")
        note_model(model.metrics)
        return model

    def labels(self, name: str) -> Labels:
        """The labels of a model's versions."""
        return dict(self._labels.get(name, {}))

    def labels_of(self, model: ServedModel) -> list[str]:
        """The labels that mean a version, sorted."""
        labels = self._labels.get(model.manifest.name, {})
        return sorted(
            label for label, version in labels.items() if version == model.manifest.version
        )

    def _describe(self, model: ServedModel) -> str:
        """A version with its labels, as in "3 (stable)"."""
        labels = ", ".join(self.labels_of(model))
        return f"{model.manifest.version} ({labels})" if labels else model.manifest.version

    def _only_name(self, task: Task | None) -> str:
        names = [
            name
            for name, versions in self._models.items()
            if task is None or any(task in model.manifest.tasks for model in versions.values())
        ]
        if len(names) != 1:
            what = f"models that {task}" if task else "models"
            message = f"`model_name` is empty, but the {what} are: {', '.join(names) or 'none'}"
            raise (
                InvalidRequestError("model_name", message) if names else ModelNotFoundError(message)
            )
        return names[0]

    def start(self, on_death: Callable[[str], None]) -> None:
        """Starts the workers, on the running event loop, and those of models that come later.

        Args:
            on_death: Called with the label of a model that has lost a worker.
        """
        self._on_death = on_death
        for model in self.models:
            _start(model, on_death)

    def add(self, model: ServedModel) -> None:
        """Serves a version; the newest answers requests that name none, unless labels say else."""
        manifest = model.manifest
        assert (manifest.name, manifest.version) not in self.keys, f"{model.label} is served twice"
        if self._on_death is not None:
            _start(model, self._on_death)
        versions = {**self._models.get(manifest.name, {}), manifest.version: model}
        ordered = dict(sorted(versions.items(), key=lambda item: int(item[0])))
        self._models = dict(sorted({**self._models, manifest.name: ordered}.items()))

    def remove(self, model: ServedModel) -> None:
        """Has no request find a version any more, and forgets the answers that it has kept.

        Its workers go on with what they have.
        """
        assert not self.labels_of(model), f"{model.label} has a label"
        versions = self._models[model.manifest.name]
        del versions[model.manifest.version]
        if not versions:
            del self._models[model.manifest.name]
        if model.shared_answers is not None:
            model.shared_answers.close()

    def set_labels(self, name: str, labels: Mapping[str, str]) -> Labels:
        """Replaces the labels of a model's versions.

        A label whose new version is not served stays where it was.

        Returns:
            Those labels with the versions they wait for.
        """
        versions, before = self._models.get(name, {}), self._labels.get(name, {})
        pending = {label: version for label, version in labels.items() if version not in versions}
        self._labels[name] = {
            label: before[label] if label in pending else version
            for label, version in labels.items()
            if label not in pending or label in before
        }
        return pending

    async def close(self) -> None:
        """Stops the workers once they have answered what they took."""
        for model in self.models:
            model.lanes.close()
        for model in self.models:
            await model.lanes.join()


def _start(model: ServedModel, on_death: Callable[[str], None]) -> None:
    # The label, since a worker that led back to its model would keep it when it is unloaded.
    model.lanes.start(asyncio.get_running_loop(), partial(on_death, model.label))
