"""From the labels of tokens to labelled parts of a text.

A label may say "B-" where an entity begins and "I-" where it goes on. Scores are probabilities; V
is the number of labels.

Source: ``TokenClassificationPipeline`` of ``transformers``, whose results these are.
"""

import dataclasses
import enum
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from seqserve.passage import Passage
from seqserve.tokenizer import Tokenizer


class Strategy(enum.StrEnum):
    """How tokens are joined to entities."""

    NONE = "none"
    """Not at all."""
    SIMPLE = "simple"
    """Neighbours with the same label."""
    FIRST = "first"
    """Words with the label of their first token, then neighbours with the same label."""
    AVERAGE = "average"
    """Words with the label of the largest mean score, then neighbours."""
    MAX = "max"
    """Words with the label of the largest score, then neighbours."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """A labelled part of a text."""

    label: str
    score: float
    word: str
    """As the tokenizer writes it."""
    start: int
    """First character, in code points."""
    end: int
    token_index: int | None = None
    """Of a single token, special tokens counted."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    word: str
    start: int
    end: int
    index: int
    scores: NDArray[np.float64]
    """[V]"""
    is_subword: bool
    """Whether it goes on with the word of the token before."""


class EntityFinder:
    """Finds the entities of texts, for one model and one strategy."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        labels: tuple[str, ...],
        unknown_token: int | None,
        strategy: Strategy,
    ) -> None:
        self._tokenizer = tokenizer
        self._labels = labels
        self._unknown_token = unknown_token
        self._strategy = strategy

    def find(self, text: str, passage: Passage, scores: NDArray[np.float64]) -> list[Entity]:
        """The entities of a passage, those without a meaning ("O") included.

        Args:
            text: What the places of the passage are in.
            passage: Its tokens, S.
            scores: [S, V].
        """
        tokens = self._read(text, passage, scores)
        if self._strategy in (Strategy.NONE, Strategy.SIMPLE):
            entities = [self._to_entity([token], token.scores) for token in tokens]
        else:
            entities = [self._to_entity(word, self._score(word)) for word in _group_words(tokens)]
        if self._strategy is Strategy.NONE:
            return entities
        return [self._join(group) for group in _group_entities(entities)]

    def _read(self, text: str, passage: Passage, scores: NDArray[np.float64]) -> Iterator[_Token]:
        marks_subwords = self._tokenizer.marks_subwords
        for index, (token, place) in enumerate(zip(passage.tokens, passage.offsets, strict=True)):
            if place is None:
                continue
            start, end = place
            word, part = self._tokenizer.entry(token), text[start:end]
            if token == self._unknown_token:
                word, is_subword = part, False
            elif marks_subwords:
                is_subword = len(word) != len(part)
            else:
                is_subword = start > 0 and " " not in text[start - 1 : start + 1]
            yield _Token(word, start, end, index, scores[index], is_subword)

    def _score(self, word: list[_Token]) -> NDArray[np.float64]:
        """The scores of a word, [V]."""
        match self._strategy:
            case Strategy.AVERAGE:
                mean: NDArray[np.float64] = np.mean([token.scores for token in word], axis=0)
                return mean
            case Strategy.MAX:
                return max(word, key=lambda token: float(token.scores.max())).scores
        return word[0].scores

    def _to_entity(self, tokens: list[_Token], scores: NDArray[np.float64]) -> Entity:
        """A token, or the tokens of a word."""
        best = int(scores.argmax())
        is_token = self._strategy in (Strategy.NONE, Strategy.SIMPLE)
        words = [token.word for token in tokens]
        return Entity(
            label=self._labels[best],
            score=float(scores[best]),
            word=words[0] if is_token else self._tokenizer.join(words),
            start=tokens[0].start,
            end=tokens[-1].end,
            token_index=tokens[0].index if self._strategy is Strategy.NONE else None,
        )

    def _join(self, group: list[Entity]) -> Entity:
        return Entity(
            label=to_group(group[0].label),
            score=float(np.mean([entity.score for entity in group])),
            word=self._tokenizer.join([entity.word for entity in group]),
            start=group[0].start,
            end=group[-1].end,
        )


def to_group(label: str) -> str:
    """The label of an entity of several tokens: what stands behind the first hyphen, if any."""
    return label.split("-", 1)[-1]


def keep_longest(entities: Iterable[Entity]) -> list[Entity]:
    """Of the entities of overlapping windows: where several overlap the longest, then the best."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda entity: entity.start):
        if not kept or not kept[-1].start <= entity.start < kept[-1].end:
            kept.append(entity)
        elif _rank(entity) > _rank(kept[-1]):
            kept[-1] = entity
    return kept


def _rank(entity: Entity) -> tuple[int, float]:
    return entity.end - entity.start, entity.score


def _group_words(tokens: Iterable[_Token]) -> Iterator[list[_Token]]:
    word: list[_Token] = []
    for token in tokens:
        if word and not token.is_subword:
            yield word
            word = []
        word.append(token)
    if word:
        yield word


def _group_entities(entities: Iterable[Entity]) -> Iterator[list[Entity]]:
    group: list[Entity] = []
    for entity in entities:
        begins, tag = _split(entity.label)
        if group and (begins or tag != _split(group[-1].label)[1]):
            yield group
            group = []
        group.append(entity)
    if group:
        yield group


def _split(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and of what kind the entity is."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label
