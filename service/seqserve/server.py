"""The gRPC server: starts, serves, drains, stops.

Two ports speak gRPC: the main one, and one for health checks alone, which stays reachable for a
kubelet whatever the main one demands of its callers (TLS, tokens). Metrics are on a third, over
HTTP, and the playground, where it is on, on a fourth.
"""

import asyncio
import dataclasses
import signal
import time

import grpc
import prometheus_client
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from seqserve.access import open_access
from seqserve.certificate import open_certificate
from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.exposure import warn_of_exposure
from seqserve.inference_protocol.control import ModelControl
from seqserve.inference_protocol.servicer import InferenceServicer
from seqserve.inference_protocol.v2 import open_inference_pb2, open_inference_pb2_grpc
from seqserve.loader import Loader
from seqserve.metrics import Metrics
from seqserve.playground.opening import open_playground
from seqserve.registry import Registry
from seqserve.servicers.attention import AttentionServicer
from seqserve.servicers.authentication import AuthenticationInterceptor
from seqserve.servicers.calls import Calls
from seqserve.servicers.encoding import EncodingServicer
from seqserve.servicers.generation import GenerationServicer
from seqserve.servicers.health import HealthServicer
from seqserve.servicers.interceptor import CallInterceptor
from seqserve.servicers.model import ModelServicer
from seqserve.servicers.standard_calls import StandardCallInterceptor
from seqserve.signals import StopSignals
from seqserve.store_watch import StoreWatch
from seqserve.task_record import Task
from seqserve.trace import open_tracer
from seqserve.transport import bind, channel_options
from seqserve.v1 import (
    attention_pb2,
    attention_pb2_grpc,
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
ATTENTION_SERVICE = attention_pb2.DESCRIPTOR.services_by_name["AttentionService"].full_name
MODEL_SERVICE = model_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name
INFERENCE_SERVICE = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
SERVICES = (
    GENERATION_SERVICE,
    ENCODING_SERVICE,
    ATTENTION_SERVICE,
    MODEL_SERVICE,
    INFERENCE_SERVICE,
)
"""Those that need models, or tell of them."""
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
"""Given to streams of reflection, which have no end of their own."""
_CALM_SECONDS = 0.1
"""Without a new call, after which nobody is taken to be calling who has heard that nothing serves.
"""
_MAX_CALM_SECONDS = 1.0
"""After which those who do not listen are refused."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ports:
    """The ports in use, after 0 was replaced."""

    grpc: int
    health: int
    metrics: int
    playground: int | None = None
    """None without one."""


class Server:
    """One server over one registry, on the running event loop."""

    def __init__(
        self,
        registry: Registry,
        config: ServerConfig,
        metrics: Metrics,
        *,
        shares_health_port: bool = False,
    ) -> None:
        """Reads certificate and tokens.

        Args:
            registry: What serves.
            config: The settings.
            metrics: Where everything is counted.
            shares_health_port: Whether somebody in this process answers there until this one does.

        Raises:
            ConfigurationError: Their files cannot be used.
        """
        self._registry = registry
        self._config = config
        self._metrics = metrics
        self._health = HealthServicer()
        self._lost: str | None = None
        self._stop_requested = asyncio.Event()
        max_bytes = config.max_outstanding_bytes or 32 * config.max_message_bytes
        self._calls = Calls(max_bytes, metrics)
        self._loader = Loader(registry, config, metrics, self._announce_change)
        self._store_watch = StoreWatch(registry, self._loader, config)
        self._watching: asyncio.Task[None] | None = None
        self._certificate = open_certificate(config)
        self._access = open_access(config)
        self._tracer = open_tracer(config)
        self._watchdog = Watchdog(metrics, config.watchdog_seconds)
        standard_calls = StandardCallInterceptor()
        interceptors: list[grpc.aio.ServerInterceptor] = [
            CallInterceptor(metrics, self._calls, self._tracer),
            standard_calls,
        ]
        if self._access is not None:
            interceptors.append(AuthenticationInterceptor(self._access))
        self._server = grpc.aio.server(interceptors=interceptors, options=channel_options(config))
        self._health_server = grpc.aio.server(
            interceptors=[standard_calls],
            options=(("grpc.so_reuseport", int(shares_health_port)),),
        )
        self._playground = open_playground(
            config, interceptors, has_tokens=self._access is not None
        )
        generation = GenerationServicer(registry, config)
        attention = AttentionServicer(registry, config, generation)
        encoding = EncodingServicer(registry, config, self._calls)
        model = ModelServicer(registry, self._loader, config)
        servers = [self._server]
        if self._playground is not None:
            servers.append(self._playground.server)
        for server in servers:
            generation_pb2_grpc.add_GenerationServiceServicer_to_server(generation, server)
            attention_pb2_grpc.add_AttentionServiceServicer_to_server(attention, server)
            encoding_pb2_grpc.add_EncodingServiceServicer_to_server(encoding, server)
            model_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
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
                ATTENTION_SERVICE,
                MODEL_SERVICE,
                INFERENCE_SERVICE,
                HEALTH_SERVICE,
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
        if self._certificate is not None:
            self._certificate.report()
        warn_of_exposure(
            config, is_encrypted=self._certificate is not None, has_tokens=self._access is not None
        )
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
        playground_port = None if self._playground is None else await self._playground.start()
        self._registry.start(self._on_worker_death)
        self._announce(_SERVING)
        await self._server.start()
        await self._health_server.start()
        if config.watch_seconds:
            self._watching = asyncio.create_task(self._store_watch.run())
        self._watchdog.start(asyncio.get_running_loop())
        return Ports(grpc_port, health_port, http.server_port, playground_port)

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
        """Sends callers elsewhere, finishes calls that began, closes everything."""
        config = self._config
        self._health.stop()
        if self._watching is not None:
            self._watching.cancel()
        self._loader.cancel()
        # Calls are on their way from clients that are being told. gRPC has no other way to lose
        # none: what arrives while it shuts down is cancelled.
        calm_seconds = min(_MAX_CALM_SECONDS, config.drain_seconds)
        began_at = time.monotonic()
        await self._calls.wait_for_calm(_CALM_SECONDS, calm_seconds)
        drain_seconds = config.drain_seconds - (time.monotonic() - began_at)
        if num_left := await self._calls.drain(max(0.0, drain_seconds)):
            _log.warning("drain ran out of time", unanswered=num_left)
            await self._calls.end(_END_SECONDS)
        if self._playground is not None:
            # Its calls are done; what they came to may still be on its way to browsers.
            await self._playground.stop(config.drain_seconds - (time.monotonic() - began_at))
        # An open watch would hold a stop for its whole grace.
        self._health.close()
        await asyncio.gather(
            self._server.stop(_CLOSE_SECONDS), self._health_server.stop(_CLOSE_SECONDS)
        )
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

    def _announce(self, status: int) -> None:
        """Sets the health of the process (empty name) and of each service."""
        tasks = self._registry.tasks()
        self._health.set("", status)
        self._health.set(MODEL_SERVICE, status)
        self._health.set(INFERENCE_SERVICE, status)
        for service, wanted in _SERVICE_TASKS.items():
            self._health.set(service, status if tasks & wanted else _NOT_SERVING)
        is_explained = any(model.explainer is not None for model in self._registry.models)
        self._health.set(ATTENTION_SERVICE, status if is_explained else _NOT_SERVING)

    async def _announce_change(self) -> None:
        """Follows models that came or went; a server that is stopping has said its last word."""
        self._announce(_SERVING)

    def _on_worker_death(self, model: str) -> None:
        _log.error("model lost, shutting down", model=model)
        self._lost = model
        self._stop_requested.set()
