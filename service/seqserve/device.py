"""Where graphs are computed: on the processor, or on a GPU by CUDA; and what is refused there."""

from typing import Any, Literal

import onnxruntime
import structlog

from seqserve.errors import ConfigurationError, ModelFolderError
from seqserve.manifest import Manifest

Device = Literal["cpu", "cuda"]

_log = structlog.get_logger(__name__)

_CUDA_PROVIDER = "CUDAExecutionProvider"
_CUDA_OPTIONS = {
    "device_id": "0",
    # Memory grows by what is asked for rather than by doubling: caches take what they are granted.
    "arena_extend_strategy": "kSameAsRequested",
    # TF32 has ten bits behind the point: what stays in fp32 does so for its range and precision.
    "use_tf32": "0",
}


def providers_for(device: Device) -> list[str | tuple[str, dict[str, Any]]]:
    """The execution providers of a session, the preferred one first."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    return [(_CUDA_PROVIDER, _CUDA_OPTIONS), "CPUExecutionProvider"]


def check_device(device: Device) -> None:
    """Checks that onnxruntime can use a device.

    Raises:
        ConfigurationError: The package that is installed has no provider for it.
    """
    if device == "cpu":
        return
    available = onnxruntime.get_available_providers()
    if _CUDA_PROVIDER not in available:
        raise ConfigurationError(
            f"device is cuda, but onnxruntime {onnxruntime.__version__} has no {_CUDA_PROVIDER}; "
            f"it has: {', '.join(available)}. Install seqserve[gpu]; onnxruntime and "
            "onnxruntime-gpu share a folder, so uninstall both first and then install "
            "onnxruntime-gpu alone. Or set device to cpu"
        )
    # Finds the libraries of CUDA where pip has installed them.
    onnxruntime.preload_dlls()


def check_session(session: onnxruntime.InferenceSession, device: Device) -> None:
    """Checks that a session runs where it should: onnxruntime falls back without an error.

    Raises:
        ConfigurationError: It does not.
    """
    providers = session.get_providers()
    if device == "cuda" and _CUDA_PROVIDER not in providers:
        raise ConfigurationError(
            f"device is cuda, but {_CUDA_PROVIDER} could not be started, and onnxruntime would "
            f"compute with {', '.join(providers)}; check that there is a GPU (nvidia-smi), and "
            "that CUDA and cuDNN are installed in the versions that onnxruntime-gpu was built for"
        )


def check_format(manifest: Manifest, device: Device) -> None:
    """Checks that a device can compute in the number format of a model.

    Raises:
        ConfigurationError: It cannot.
        ModelFolderError: The format is right, but a graph that the device needs is absent.
    """
    if device == "cpu":
        return
    model = f"{manifest.name}/{manifest.version}"
    is_generating = manifest.generation is not None
    if manifest.dtype == "int8" or (manifest.dtype == "fp32" and is_generating):
        raise ConfigurationError(
            f"device is cuda, but model {model} is {manifest.dtype}, and attention on CUDA takes "
            "half precision only; export it with --dtype fp16, or set device to cpu"
        )
    if manifest.generation is not None and manifest.generation.move_rows_graph is None:
        raise ModelFolderError(
            f"model {model} lacks the graphs that move rows of its cache and find the best tokens, "
            "which device cuda needs; export it again with --dtype fp16"
        )
    if manifest.dtype == "fp32":
        _log.warning(
            "attention on CUDA takes half precision only, so that it is computed by the processor; "
            "exported with --dtype fp16 all of the model runs on the GPU",
            model=model,
        )
