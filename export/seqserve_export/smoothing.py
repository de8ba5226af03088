"""Shares the size of a linear layer's outstanding inputs with its weights.

Some dimensions of the states of a Transformer are many times as large as the others, in every row,
and the 256 steps of a byte must span them. Divided by factors, all dimensions are of like size; the
weights they meet are multiplied by the factors, so that what comes out is the same, and bear it,
having a scale for each output.

Shapes: K inputs.

Source: Xiao et al. 2023, arXiv:2211.10438, equation 4.
"""

from torch import Tensor, nn

STRENGTHS = (0.5, 0.75, 1.0)
"""How much of their size inputs are divided by: 1 makes all equally large."""
_LEAST = 1e-5
"""Weights of nothing but zeros count as this large."""


def make_factors(linear: nn.Linear, sizes: Tensor, strength: float) -> Tensor:
    """What to divide each input by, [K], 1 on average.

    Args:
        linear: The layer.
        sizes: Largest magnitudes of its inputs on samples, [K].
        strength: From 0, which only evens out the weights, to 1.
    """
    # An input that is small on all samples may be as large as most on other texts.
    sizes = sizes.clamp(min=max(float(sizes.median()), _LEAST))
    weight_sizes = linear.weight.abs().amax(dim=0).clamp(min=_LEAST)
    factors = sizes**strength / weight_sizes ** (1 - strength)
    return factors / factors.mean()
