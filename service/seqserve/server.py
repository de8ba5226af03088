"""The gRPC server: starts, serves, drains, stops.

Two ports speak gRPC: the main one, and one for health checks alone, which stays reachable for a
kubelet whatever the main one demands of its callers (TLS, tokens). Metrics are on a third, over
HTTP.
"""

import asyncio
import dataclasses
import signal

import grpc
import prometheus_client
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from seqserve.access import open_access
from seqserve.certificate import open_certificate
from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.inference_protocol.control import ModelControl
from seqserve.inference_protocol.servicer import InferenceServicer
from seqserve.inference_protocol.v2 import open_inference_pb2, open_inference_pb2_grpc
from seqserve.loader import Loader
from seqserve.loopback import is_loopback
from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.servicers.authentication import AuthenticationInterceptor
from seqserve.servicers.calls import Calls
from seqserve.servicers.encoding import EncodingServicer
from seqserve.servicers.generation import GenerationServicer
from seqserve.servicers.interceptor import CallInterceptor
from seqserve.servicers.model import ModelServicer
from seqserve.signals import StopSignals
from seqserve.store_watch import StoreWatch
from seqserve.task_record import Task
from seqserve.trace import open_tracer
from seqserve.transport import bind, channel_options
from seqserve.v1 import (
    encoding_pb2,
    encoding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from seqserve.watchdog import Watchdog

_log = structlog.get_logger(__name__)

GENERATION_SERVICE = generation_pb2.DESCRIPTOR.services_by_name["GenerationService"].full_name
ENCODING_SERVICE = encoding_pb2.DESCRIPTOR.services_by_name["EncodingService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_SERVICE_TASKS = {
    GENERATION_SERVICE: {Task.GENERATE},
    ENCODING_SERVICE: set(Task) - {Task.GENERATE},
}
"""A service serves if there is a model for one of its tasks."""
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_END_SECONDS = 2.0
"""Given to calls that are ended, to send their status; more than a caller that does not read gets.
"""
_CLOSE_SECONDS = 0.25
"""Given to health watchers, which never end."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """The ports in use, after 0 was replaced."""

    grpc: int
    health: int
    metrics: int


class Server:
    """One server over one registry, on the running event loop."""

    def __init__(self, registry: Registry, config: ServerConfig, metrics: Metrics) -> None:
        """Reads certificate and tokens.

        Raises:
            ConfigurationError: Their files cannot be used.
        """
        self._registry = registry
        self._config = config
        self._metrics = metrics
        self._health = health.aio.HealthServicer()
        self._lost: str | None = None
        self._stop_requested = asyncio.Event()
        self._calls = Calls()
        self._loader = Loader(registry, config, metrics, self._announce_change)
        self._store_watch = StoreWatch(registry, self._loader, config)
        self._watching: asyncio.Task[None] | None = None
        self._certificate = open_certificate(config)
        self._access = open_access(config)
        self._tracer = open_tracer(config)
        self._watchdog = Watchdog(metrics, config.watchdog_seconds)
        interceptors: list[grpc.aio.ServerInterceptor] = [
            CallInterceptor(metrics, self._calls, self._tracer)
        ]
        if self._access is not None:
            interceptors.append(AuthenticationInterceptor(self._access))
        self._server = grpc.aio.server(interceptors=interceptors, options=channel_options(config))
        self._health_server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationServicer(registry, config), self._server
        )
        encoding_pb2_grpc.add_EncodingServiceServicer_to_server(
            EncodingServicer(registry, config, self._calls), self._server
        )
        model_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(registry, self._loader, config), self._server
        )
        open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            InferenceServicer(
                registry,
                config,
                metrics,
                self._calls,
                self._health,
                ModelControl(self._loader, registry, config),
            ),
            self._server,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._health_server)
        if config.reflection:
            names = (
                GENERATION_SERVICE,
                ENCODING_SERVICE,
                MODEL_SERVICE,
                INFERENCE_SERVICE,
                health.SERVICE_NAME,
                reflection.SERVICE_NAME,
            )
            reflection.enable_server_reflection(names, self._server)

    @property
    def exit_code(self) -> int:
        """0 after an orderly end, 1 after a model was lost."""
        return 0 if self._lost is None else 1

    async def start(self) -> Ports:
        """Starts the workers and listens.

        Raises:
            ConfigurationError: A port is taken.
        """
        config = self._config
        self._warn()
        credentials = None if self._certificate is None else self._certificate.credentials()
        grpc_port = bind(self._server, config.host, config.port, "port", credentials)
        health_port = bind(self._health_server, config.host, config.health_port, "health_port")
        try:
            http, thread = prometheus_client.start_http_server(
                config.metrics_port, config.host, self._metrics.registry
            )
        except OSError as error:
            raise ConfigurationError(
                f"metrics_port {config.metrics_port} cannot be bound: {error.strerror}"
            ) from error
        self._metrics_server, self._metrics_thread = http, thread
        self._registry.start(self._on_worker_death)
        await self._server.start()
        await self._health_server.start()
        await self._announce(_SERVING)
        if config.watch_seconds:
            self._watching = asyncio.create_task(self._store_watch.run())
        self._watchdog.start(asyncio.get_running_loop())
        return Ports(grpc_port, health_port, http.server_port)

    async def run(self, signals: StopSignals) -> int:
        """Serves until a signal comes or a model is lost; returns the exit code."""
        loop = asyncio.get_running_loop()

        def on_signal(number: int) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self.request_stop, number)

        signals.listen(on_signal)
        await self._stop_requested.wait()
        await self.stop()
        return self.exit_code

    def request_stop(self, number: int = signal.SIGTERM) -> None:
        """Asks ``run`` to drain and end."""
        _log.info("stopping", signal=signal.Signals(number).name)
        self._stop_requested.set()

    async def stop(self) -> None:
        """Refuses new calls, finishes those that began, closes everything."""
        config = self._config
        await self._announce(_NOT_SERVING)
        await self._health.enter_graceful_shutdown()
        if self._watching is not None:
            self._watching.cancel()
        self._loader.cancel()
        if num_left := await self._calls.drain(config.drain_seconds):
            _log.warning("drain ran out of time", unanswered=num_left)
            await self._calls.end(_END_SECONDS)
        # An open health watch would hold a stop for its whole grace, so the grace is short: no
        # call of ours is left by now.
        await self._server.stop(_CLOSE_SECONDS)
        await self._health_server.stop(_CLOSE_SECONDS)
        if self._watching is not None:
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._loader.close()
        await self._registry.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        await asyncio.to_thread(self._watchdog.close)
        self._metrics_server.shutdown()
        self._metrics_server.server_close()
        self._metrics_thread.join()
        _log.info("stopped")

    def _warn(self) -> None:
        """Logs what an operator may not have meant."""
        host, client_ca = self._config.host, self._config.tls_client_ca
        if self._certificate is not None:
            self._certificate.report()
        elif not is_loopback(host):
            carried = "texts" if self._access is None else "texts and tokens"
            _log.warning(
                f"serving in the clear: the network can read and alter {carried}; set "
                "tls_certificate and tls_key, or let a proxy or a mesh do it",
                host=host,
            )
        if self._access is None and client_ca is None and not is_loopback(host):
            _log.warning(
                "serving whoever can connect; set token_file or tls_client_ca, or let a proxy or "
                "a mesh decide who may",
                host=host,
            )

    async def _announce(self, status: int) -> None:
        """Sets the health of the process (empty name) and of each service."""
        tasks = self._registry.tasks()
        await self._health.set("", status)
        await self._health.set(MODEL_SERVICE, status)
        await self._health.set(INFERENCE_SERVICE, status)
        for service, wanted in _SERVICE_TASKS.items():
            await self._health.set(service, status if tasks & wanted else _NOT_SERVING)

    async def _announce_change(self) -> None:
        """Follows models that came or went; a server that is stopping has said its last word."""
        await self._announce(_SERVING)

    def _on_worker_death(self, model: str) -> None:
        _log.error("model lost, shutting down", model=model)
        self._lost = model
        self._stop_requested.set()
