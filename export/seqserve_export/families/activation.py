"""Names of activation functions: those of Hugging Face to ours."""

from typing import Literal

from seqserve_export.errors import UnsupportedError

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]

_ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


def to_activation(name: str) -> Activation:
    """Translates a name.

    Raises:
        UnsupportedError: We have no such function.
    """
    activation = _ACTIVATIONS.get(name)
    if activation is None:
        raise UnsupportedError(
            f"activation {name!r} is not supported; supported are: {', '.join(_ACTIVATIONS)}"
        )
    return activation
