"""What models with heads return, as the server describes them."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClassificationSettings:
    """What a model that classifies texts returns."""

    labels: tuple[str, ...]
    problem_type: str
    """"single_label", "multi_label" or "regression"."""
    has_token_types: bool
    """Whether it was made to tell the texts of a pair apart."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TokenClassificationSettings:
    """What a model that classifies tokens returns."""

    labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RerankingSettings:
    """What a model that reranks returns."""

    activation: str
    """"sigmoid" or "identity"."""
    prompts: dict[str, str] = dataclasses.field(default_factory=dict)
    """Texts that can be put before queries, by name."""
    default_prompt_name: str = ""
    """The prompt of requests that name none; empty for none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MaskFillingSettings:
    """How the masks of a model that fills them are written."""

    mask_token: str
    mask_token_id: int
