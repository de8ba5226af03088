"""How well a key suits a query, other than by their dot product.

Scores are handed to the fused operator as its bias, with queries of zeros: so the softmax over
ragged rows, and the bits that come of it, stay its business. Each score is a sum over the size of a
head, so that it depends on one query and one key alone, whatever else is in the batch.

Shapes: B rows, T queries, P keys, H heads, D head size.
"""

import math

import torch
from torch import Tensor, nn


class AdditiveScore(nn.Module):
    """``v . tanh(q + k)``, where query and key are projected already.

    Source: Bahdanau et al. 2015, arXiv:1409.0473, section 3.1 and appendix A.1.2.
    """

    def __init__(self, num_heads: int, head_size: int) -> None:
        super().__init__()
        bound = math.sqrt(3 / head_size)
        self.weight = nn.Parameter(torch.empty(num_heads, 1, 1, head_size).uniform_(-bound, bound))

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores of queries [B, H, T, D] for keys [B, H, P, D]: [B, H, T, P]."""
        joined = torch.tanh(queries[:, :, :, None] + keys[:, :, None])  # [B, H, T, P, D]
        return (joined * self.weight).sum(-1)


class SingleHeadScore(nn.Module):
    """One dot product over all heads, scaled: values have heads, and one weight serves them all.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """

    def __init__(self, num_heads: int, head_size: int) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(num_heads * head_size)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores of queries [B, H, T, D] for keys [B, H, P, D]: [B, 1, T, P]."""
        products = (queries * self.scale)[:, :, :, None] * keys[:, :, None]  # [B, H, T, P, D]
        return products.sum(-1).sum(1, keepdim=True)


class LocationScore(nn.Module):
    """A learned score for each place of the source, given the query alone.

    Source: Luong et al. 2015, arXiv:1508.04025, eq. 8.
    """

    def __init__(self, num_heads: int, head_size: int, max_length: int) -> None:
        super().__init__()
        self.max_length = max_length
        self.weight = nn.Parameter(torch.empty(num_heads, head_size, max_length))
        nn.init.normal_(self.weight, std=head_size**-0.5)

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores of queries [B, H, T, D] for the places of keys [B, H, P, D]: [B, H, T, P]."""
        places = torch.arange(keys.shape[2], device=keys.device).clamp(max=self.max_length - 1)
        return (queries @ self.weight).index_select(3, places)
