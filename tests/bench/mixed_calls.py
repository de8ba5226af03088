"""Calls of every kind to the pronunciation model, drawn by chance: lengths, options, ends.

Each call is made from a number alone, so that two runs send the same calls.
"""

import asyncio
import contextlib
import random
from typing import Any

from seqserve.client import AsyncClient, CallError

MODEL = "g2p-en"
_MAX_INPUTS = 4
_MAX_CHARACTERS = 60
"""The model reads 64 tokens."""
_HASTY_SECONDS = 0.004
"""Until a caller gives up, at most; about as long as the shortest answer takes."""
_EXPECTED = {"hasty": "DEADLINE_EXCEEDED", "wrong": "INVALID_ARGUMENT"}
"""The status codes of calls that are meant to fail; a hasty one may be in time."""


class MixedCalls:
    """Makes calls whose words come from a list."""

    def __init__(self, client: AsyncClient, words: list[str]) -> None:
        self._client = client
        self._words = words
        self._kinds = {
            "greedy": (50, self._generate),
            "beams": (8, self._beams),
            "sampled": (8, self._sampled),
            "constrained": (8, self._constrained),
            "scored": (4, self._score),
            "streamed": (6, self._stream),
            "left": (5, self._leave),
            "cancelled": (5, self._cancel),
            "hasty": (4, self._hurry),
            "wrong": (2, self._err),
        }

    async def make(self, number: int) -> str:
        """Makes a call and waits for its end.

        Returns:
            Its kind, and how it ended where that was not with an answer.

        Raises:
            CallError: It failed, and was not meant to.
        """
        chance = random.Random(number)
        weights = [weight for weight, _ in self._kinds.values()]
        (kind,) = chance.choices(list(self._kinds), weights)
        _, call = self._kinds[kind]
        try:
            await call(chance)
        except CallError as error:
            if error.code != _EXPECTED.get(kind):
                raise
            return f"{kind}: {error.code}"
        return kind

    def _texts(self, chance: random.Random) -> list[str]:
        """One to four sources, mostly words, and some as long as the model reads."""
        return [
            self._text(chance) for _ in range(chance.choices([1, 2, _MAX_INPUTS], [18, 1, 1])[0])
        ]

    def _text(self, chance: random.Random) -> str:
        (num_words,) = chance.choices([1, 2, 6], [36, 3, 1])
        return "".join(chance.choices(self._words, k=num_words))[:_MAX_CHARACTERS]

    async def _generate(self, chance: random.Random, **options: Any) -> None:
        await self._client.generate(self._texts(chance), model=MODEL, **options)

    async def _beams(self, chance: random.Random) -> None:
        num_beams = chance.choice([2, 2, 3, 6])
        await self._generate(
            chance,
            num_beams=num_beams,
            num_return_sequences=chance.randint(1, num_beams),
            length_penalty=chance.choice([0.5, 1.0, 2.0]),
            return_scores=True,
        )

    async def _sampled(self, chance: random.Random) -> None:
        await self._generate(
            chance,
            num_beams=1,
            do_sample=True,
            seed=chance.getrandbits(31),
            temperature=chance.choice([0.5, 1.0, 1.5]),
            top_k=chance.choice([5, 20]),
            num_return_sequences=chance.choice([1, 1, 3]),
        )

    async def _constrained(self, chance: random.Random) -> None:
        choices: list[dict[str, Any]] = [
            {"repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
            {"suppressed_token_ids": [7, 8, 9], "min_new_tokens": 4},
            {"stop_sequences": ["AH0", " T"], "include_stop_sequence": True},
            {"top_log_probability_count": 5, "return_token_log_probabilities": True},
            {"return_alternatives": True, "num_return_sequences": 4, "num_beams": 1},
            {"target_prefix": "K AH0", "max_new_tokens": 20},
            {"max_time": 0.003},
        ]
        await self._generate(chance, **chance.choice(choices))

    async def _score(self, chance: random.Random) -> None:
        targets = ["K AH0 T", "HH AH0 L OW1", "T R AE0 N S F AO1 R M ER0"]
        await self._client.score(
            self._text(chance), targets[: chance.randint(1, len(targets))], model=MODEL
        )

    async def _stream(self, chance: random.Random) -> None:
        num_beams = chance.choice([1, 1, 3])
        text = self._text(chance)
        async with self._client.generate_stream(text, model=MODEL, num_beams=num_beams) as stream:
            async for _ in stream:
                pass

    async def _leave(self, chance: random.Random) -> None:
        """Reads the first piece of a stream."""
        async with self._client.generate_stream(self._text(chance), model=MODEL) as stream:
            async for _ in stream:
                break

    async def _cancel(self, chance: random.Random) -> None:
        """Changes its mind while the call is under way."""
        task = asyncio.create_task(self._beams(chance))
        await asyncio.sleep(chance.uniform(0.0, 2 * _HASTY_SECONDS))
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _hurry(self, chance: random.Random) -> None:
        seconds = chance.uniform(_HASTY_SECONDS / 4, _HASTY_SECONDS)
        await self._client.generate(self._texts(chance), model=MODEL, timeout_seconds=seconds)

    async def _err(self, chance: random.Random) -> None:
        await self._generate(chance, num_beams=0)
