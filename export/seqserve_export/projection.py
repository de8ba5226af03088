"""What may follow pooling in a folder of sentence-transformers: linear layers, and norms.

Shapes: B rows, M model width.

Source: ``Dense`` and ``LayerNorm`` of ``sentence-transformers``.
"""

from pathlib import Path

from torch import Tensor, nn

from seqserve_export.errors import CheckpointError, UnsupportedError
from seqserve_export.json_file import read_json_object
from seqserve_export.layers import activate
from seqserve_export.transformer_config import Activation
from seqserve_export.weights import assign_weights, read_weights

_ACTIVATIONS: dict[str, Activation | None] = {
    "Identity": None,
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}


class Projection(nn.Module):
    """A linear layer with an activation."""

    def __init__(
        self, size: int, num_outputs: int, *, has_bias: bool, activation: Activation | None
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(size, num_outputs, bias=has_bias)
        self.activation = activation

    def forward(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings [B, M] to [B, number of outputs]."""
        projected: Tensor = self.linear(embeddings)
        return projected if self.activation is None else activate(projected, self.activation)


class ProjectionNorm(nn.Module):
    """A layer norm on embeddings."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Maps embeddings [B, M] to [B, M]."""
        normed: Tensor = self.norm(embeddings)
        return normed


def read_dense(folder: Path, size: int, *, is_pickle_allowed: bool) -> Projection:
    """Reads the folder of a module Dense that takes embeddings of ``size``.

    Raises:
        UnsupportedError: It does more than a linear layer with an activation we have.
        CheckpointError: A file is absent or malformed, or does not fit what comes before.
    """
    path = folder / "config.json"
    config = read_json_object(path)
    check_plain("Dense", path)
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    kind = name.rsplit(".", 1)[-1]
    if not name.startswith("torch.nn.") or kind not in _ACTIVATIONS:
        raise UnsupportedError(
            f"module Dense with activation {name!r} ({path}) is not supported; supported are "
            f"those of torch.nn: {', '.join(_ACTIVATIONS)}"
        )
    if config.get("in_features") != size:
        raise CheckpointError(
            f'{path} has "in_features" {config.get("in_features")!r}, but the module before it '
            f"gives {size}"
        )
    num_outputs = config.get("out_features")
    if not isinstance(num_outputs, int) or num_outputs < 1:
        raise CheckpointError(f'{path} must have "out_features" of at least 1: {num_outputs!r}')
    projection = Projection(
        size, num_outputs, has_bias=bool(config.get("bias", True)), activation=_ACTIVATIONS[kind]
    )
    weights = read_weights(folder, is_pickle_allowed=is_pickle_allowed)
    assign_weights(projection.state_dict(), weights, f"module Dense in {folder}")
    return projection


def read_layer_norm(folder: Path, size: int, *, is_pickle_allowed: bool) -> ProjectionNorm:
    """Reads the folder of a module LayerNorm over embeddings of ``size``.

    Raises:
        CheckpointError: A file is absent or malformed, or does not fit what comes before.
    """
    norm = ProjectionNorm(size)
    weights = read_weights(folder, is_pickle_allowed=is_pickle_allowed)
    assign_weights(norm.state_dict(), weights, f"module LayerNorm in {folder}")
    return norm


def check_plain(kind: str, path: Path) -> None:
    """Checks that a module takes the embedding, gives the embedding, and does nothing besides.

    Args:
        kind: Of the module, to begin the message with.
        path: Its configuration; not all modules have one.

    Raises:
        UnsupportedError: It does something else.
    """
    config = read_json_object(path) if path.is_file() else {}
    plain = {
        "module_input_name": "sentence_embedding",
        "module_output_name": "sentence_embedding",
        "use_residual": False,
    }
    for field, supported in plain.items():
        value = config.get(field)
        if value not in (None, supported):
            raise UnsupportedError(
                f'module {kind} with "{field}" {value!r} ({path}) is not supported; supported is '
                f"{supported!r}"
            )
