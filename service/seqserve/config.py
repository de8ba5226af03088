"""The server's settings, defined once: flags, environment and file come from here."""

from pathlib import Path
from typing import Literal, Self

import pydantic

from seqserve.device import Device

_MAX_SECONDS = 86_400
"""A day; gRPC counts milliseconds in 32 bits."""


class ServerConfig(pydantic.BaseModel):
    """Everything an operator may set."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    models: Path = pydantic.Field(
        default=Path("models"), description="Folder of served models: NAME/VERSION/seqserve.json."
    )
    preflight: bool = pydantic.Field(
        default=True,
        description="Whether each model is tried in a process of its own before it is opened: one "
        "that crashes there is refused.",
    )
    preflight_seconds: float = pydantic.Field(
        default=120.0, gt=0, le=_MAX_SECONDS, description="Time to try one model."
    )
    preflight_bytes: int = pydantic.Field(
        default=0,
        ge=0,
        description="Memory to try one model with; 0: 1 GiB and four times its files. Not on cuda.",
    )
    watch_seconds: float = pydantic.Field(
        default=0.0,
        ge=0,
        le=_MAX_SECONDS,
        description="How often to look for versions and labels that came or went; 0: never.",
    )
    allow_model_control: bool = pydantic.Field(
        default=False, description="Whether calls may load and unload models."
    )
    host: str = pydantic.Field(
        default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container."
    )
    port: int = pydantic.Field(default=50051, ge=0, le=65535, description="gRPC; 0 picks one.")
    health_port: int = pydantic.Field(
        default=50052, ge=0, le=65535, description="Health checks alone; 0 picks one."
    )
    metrics_port: int = pydantic.Field(
        default=9090, ge=0, le=65535, description="Prometheus metrics over HTTP; 0 picks one."
    )
    playground: bool = pydantic.Field(
        default=False,
        description="Whether there is a page for people, over HTTP; needs seqserve[playground].",
    )
    playground_port: int = pydantic.Field(
        default=8080,
        ge=0,
        le=65535,
        description="The page and its calls, over HTTPS if TLS is on; 0 picks one.",
    )
    playground_hosts: str = pydantic.Field(
        default="",
        pattern=r"^$|^[\w.-]+(,[\w.-]+)*$",
        description="Names by which browsers may reach the page, joined by commas, besides "
        "localhost and addresses.",
    )
    device: Device = pydantic.Field(
        default="cpu",
        description="Where models are computed; cuda needs seqserve[gpu] and models exported with "
        "--dtype fp16.",
    )
    threads: int = pydantic.Field(
        default=0,
        ge=0,
        le=1024,
        description="Computing threads per model; 0: the CPUs of this process.",
    )
    lanes: int = pydantic.Field(
        default=0,
        ge=0,
        le=64,
        description="Batches of a model that run at the same time and share its threads; "
        "0: one for each thread, at most 4. On cuda there is one.",
    )
    max_batch_size: int = pydantic.Field(
        default=256, ge=1, le=1024, description="Rows of a running batch: live hypotheses."
    )
    preferred_batch_size: int = pydantic.Field(
        default=48,
        ge=1,
        description="Rows of a running batch while fewer than so many wait: the fewer run, the "
        "sooner each is done. Not on cuda.",
    )
    max_batch_tokens: int = pydantic.Field(
        default=384, ge=1, description="Source tokens of an encoder pass, padding included."
    )
    max_stall_tokens: int = pydantic.Field(
        default=512,
        ge=1,
        description="The same while others are decoding, who stand still meanwhile.",
    )
    cache_bytes: int = pydantic.Field(
        default=0,
        ge=0,
        description="Bytes for keys and values of a model's running inputs; 0: its share of a "
        "quarter of the memory, on cuda of 2 GiB of the GPU, and at least what one input of full "
        "length takes.",
    )
    response_cache_bytes: int = pydantic.Field(
        default=0,
        ge=0,
        description="Bytes for answers that are kept for inputs that come again, of all models; "
        "0: none are.",
    )
    deduplicate: bool = pydantic.Field(
        default=False,
        description="Whether equal inputs that come at the same time are computed once.",
    )
    priority_ageing_seconds: float = pydantic.Field(
        default=5.0,
        gt=0,
        le=_MAX_SECONDS,
        description="After so long waiting inputs of a priority count as one class higher.",
    )
    max_outstanding: int = pydantic.Field(
        default=2048, ge=1, description="Inputs a model works on or queues before it refuses."
    )
    max_outstanding_tokens: int = pydantic.Field(
        default=1_048_576,
        ge=1,
        description="Source tokens of these inputs; one request can have no more of them.",
    )
    max_outstanding_bytes: int = pydantic.Field(
        default=0,
        ge=0,
        description="Bytes of the messages that the server works on or queues, of all models; "
        "0: 32 of max_message_bytes.",
    )
    max_inputs_per_request: int = pydantic.Field(
        default=256, ge=1, description="Inputs in one request."
    )
    max_input_bytes: int = pydantic.Field(
        default=262_144, ge=1, description="UTF-8 bytes of one input, checked before tokenizing."
    )
    # Counting is cheap, looking at each token is not: this bounds how long one request keeps
    # the others waiting. 256 inputs of 512 tokens fit.
    max_tokens_per_request: int = pydantic.Field(
        default=131_072, ge=1, description="Token ids in one request, or tokens it asks about."
    )
    max_num_beams: int = pydantic.Field(
        default=16, ge=1, description="Beams a request may ask for; at most max_batch_size."
    )
    max_request_seconds: float = pydantic.Field(
        default=60.0,
        gt=0,
        le=_MAX_SECONDS,
        description="Deadline of requests that set none or a later one.",
    )
    max_message_bytes: int = pydantic.Field(
        default=8_388_608,
        ge=1024,
        le=2**31 - 1,
        description="Largest request message; also the most that token embeddings or weights of "
        "attention in a reply take.",
    )
    max_attention_bytes: int = pydantic.Field(
        default=268_435_456,
        ge=1,
        description="Memory for the weights of attention of one call, before they are reduced.",
    )
    drain_seconds: float = pydantic.Field(
        default=30.0,
        ge=0,
        le=_MAX_SECONDS,
        description="Time to finish calls that began before SIGTERM.",
    )
    tls_certificate: Path | None = pydantic.Field(
        default=None,
        description="PEM chain for TLS on the gRPC port, with tls_key; read again when it changes.",
    )
    tls_key: Path | None = pydantic.Field(
        default=None, description="PEM key of tls_certificate, not encrypted."
    )
    tls_client_ca: Path | None = pydantic.Field(
        default=None,
        description="PEM certificates that must have signed those of callers (mutual TLS).",
    )
    token_file: Path | None = pydantic.Field(
        default=None,
        description="TOML file of bearer tokens, one of which callers must send; read again when "
        "it changes.",
    )
    token: pydantic.SecretStr | None = pydantic.Field(
        default=None,
        description="A bearer token with all rights. Set SEQSERVE_TOKEN rather than the flag, "
        "which other users of the machine can see.",
    )
    handshake_seconds: float = pydantic.Field(
        default=10.0,
        gt=0,
        le=_MAX_SECONDS,
        description="Time to open a connection, TLS included; slower ones are closed.",
    )
    max_connection_age_seconds: float = pydantic.Field(
        default=300.0,
        gt=0,
        le=_MAX_SECONDS,
        description="After so long clients connect again, to spread over replicas and to show "
        "their certificates; calls under way are finished.",
    )
    keepalive_seconds: float = pydantic.Field(
        default=60.0,
        ge=0.1,
        le=_MAX_SECONDS,
        description="After so long without a word of a client it is asked whether it is there.",
    )
    keepalive_timeout_seconds: float = pydantic.Field(
        default=20.0,
        ge=0.1,
        le=_MAX_SECONDS,
        description="Time to answer that; else its connection and its calls are ended.",
    )
    min_ping_seconds: float = pydantic.Field(
        default=30.0,
        ge=0,
        le=_MAX_SECONDS,
        description="Clients, or proxies, that ask more often than this whether the server is "
        "there are sent away.",
    )
    max_connection_streams: int = pydantic.Field(
        default=4096,
        ge=1,
        le=2**31 - 1,
        description="Calls of one connection at the same time; further ones are UNAVAILABLE.",
    )
    reflection: bool = pydantic.Field(
        default=True, description="Whether clients may list the services (grpcurl)."
    )
    watchdog_seconds: float = pydantic.Field(
        default=5.0,
        ge=0,
        le=_MAX_SECONDS,
        description="After so long without an answer of the event loop the stacks of all threads "
        "are logged; 0: never.",
    )
    max_failed_steps: int = pydantic.Field(
        default=10,
        ge=0,
        description="Computations of a model that may fail in a row before the server drains and "
        "ends with a failure, to be started again; 0: any number.",
    )
    tracing_endpoint: str = pydantic.Field(
        default="",
        pattern=r"^$|^https?://[^\s/]+$",
        description="Where spans are sent over OTLP/gRPC, http://localhost:4317 or with https; "
        "needs seqserve[tracing]. Empty: nowhere.",
    )
    tracing_sample_ratio: float = pydantic.Field(
        default=1.0,
        ge=0,
        le=1,
        description="Part of the calls that are traced, of those whose caller has not decided.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = pydantic.Field(
        default="info", description="Least severe messages to log."
    )
    log_format: Literal["auto", "console", "json"] = pydantic.Field(
        default="auto", description="auto: console on a terminal, else JSON lines."
    )

    @pydantic.model_validator(mode="after")
    def _check_limits(self) -> Self:
        if self.max_inputs_per_request > self.max_outstanding:
            # Such a request would be told to try again later, for ever.
            raise ValueError(
                f"max_inputs_per_request ({self.max_inputs_per_request}) exceeds "
                f"max_outstanding ({self.max_outstanding})"
            )
        if 0 < self.max_outstanding_bytes < self.max_message_bytes:
            raise ValueError(
                f"max_message_bytes ({self.max_message_bytes}) exceeds max_outstanding_bytes "
                f"({self.max_outstanding_bytes})"
            )
        if self.max_num_beams > self.max_batch_size:
            raise ValueError(
                f"max_num_beams ({self.max_num_beams}) exceeds max_batch_size "
                f"({self.max_batch_size})"
            )
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key must be set together")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("tls_client_ca has an effect with tls_certificate and tls_key only")
        if self.playground_hosts and not self.playground:
            raise ValueError("playground_hosts has an effect with playground only")
        if self.device == "cuda" and self.lanes > 1:
            raise ValueError(
                f"lanes ({self.lanes}) must be 1 with device cuda: lanes would wait for each other "
                "on the one device"
            )
        return self
