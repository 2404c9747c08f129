"""Text of many scripts: streamed as unstreamed, and cut before stop strings that straddle tokens and chunks."""

import asyncio
import itertools
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest

from tests.support.serving import RunningServer

pytestmark = [pytest.mark.engine, pytest.mark.slow]

NUM_PROMPTS = 200
NUM_TOGETHER = 12
NUM_TOKENS = 20
PIECES = (
    ("👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪🇯🇵", "🫠"),
    ("漢字", "日本語", "体积", "한국어", "𠮷野"),
    ("é", "ñ̃", "Z͑ͫ̓", "กำ", "नमस्ते"),
    ("שָׁלוֹם", "مرحبًا", "ไทย", "Ελλάς", "ẞ"),
    ("𝔊𝔬", "☃️", "﷽", "½", "\u200bx"),
)
"""Characters of several tokens, and of several code points, kind by kind."""


@dataclass(frozen=True)
class Case:
    """One prompt, and how its answer is steered to the scripts of its pieces."""

    seed: int

    @property
    def pieces(self) -> list[str]:
        kinds = (PIECES[self.seed % 5], PIECES[self.seed // 5 % 5])
        return [piece for kind in kinds for piece in kind]

    @property
    def follows_pattern(self) -> bool:
        """Whether the answer consists of the pieces; else it is what the model makes of their tokens, valid or not."""
        return self.seed % 2 == 0

    def request(self, favored: list[int]) -> dict[str, Any]:
        """What is asked, whole or streamed.

        Args:
            favored: ids of the pieces' tokens.
        """
        pattern = {"structured_outputs": {"regex": f"({'|'.join(self.pieces)}){{9,}}"}}
        return {
            "model": "tessera-test",
            "messages": [{"role": "user", "content": f"{self.seed}: {' '.join(self.pieces)}"}],
            "temperature": 1,
            "seed": self.seed,
            "max_tokens": NUM_TOKENS,
            **({} if self.follows_pattern else {"logit_bias": {str(token): 9 for token in favored}}),
            "extra_body": pattern if self.follows_pattern else {"ignore_eos": True},
        }


@dataclass(frozen=True)
class Answer:
    """An answer's text, its end, and how many chunks brought it."""

    text: str
    finish_reason: str | None
    num_chunks: int = 1


async def whole(client: openai.AsyncOpenAI, request: dict[str, Any]) -> Answer:
    (choice,) = (await client.chat.completions.create(**request)).choices
    return Answer(choice.message.content or "", choice.finish_reason)


async def streamed(client: openai.AsyncOpenAI, request: dict[str, Any]) -> Answer:
    texts: list[str] = []
    finish = None
    async for chunk in await client.chat.completions.create(stream=True, **request):
        (choice,) = chunk.choices
        if choice.delta.content:
            texts.append(choice.delta.content)
        finish = choice.finish_reason or finish
    return Answer("".join(texts), finish, len(texts))


async def borders(client: openai.AsyncOpenAI, request: dict[str, Any]) -> tuple[str, list[int]]:
    """The answer, and the byte positions in it where its tokens end."""
    (choice,) = (await client.chat.completions.create(logprobs=True, **request)).choices
    assert choice.logprobs is not None and choice.logprobs.content is not None
    lengths = [len(token.bytes or ()) for token in choice.logprobs.content]
    return choice.message.content or "", list(itertools.accumulate(lengths))


def straddling(text: str, ends: list[int]) -> str:
    """A few characters of `text` around the middle one of the places where two tokens meet."""
    border = ends[len(ends) // 2]
    middle = len(text.encode()[:border].decode(errors="ignore"))
    return text[max(0, middle - 2) : middle + 2]


async def check(client: openai.AsyncOpenAI, case: Case, favored: list[int]) -> tuple[Answer, bool]:
    """The streamed answer of one case, and whether a stop string that straddles tokens was tried with it."""
    request = case.request(favored)
    text, ends = await borders(client, request)
    answer = await streamed(client, request)
    assert answer.text == text == (await whole(client, request)).text
    if "\ufffd" in text:
        return answer, False  # not valid UTF-8: bytes and characters cannot be compared
    assert 0 <= ends[-1] - len(text.encode()) < 4  # an answer cut within a character is given without its beginning
    stop = straddling(text, ends)
    for stopped in (await streamed(client, {**request, "stop": stop}), await whole(client, {**request, "stop": stop})):
        assert (stopped.text, stopped.finish_reason) == (text[: text.index(stop)], "stop")
    return answer, True


async def test_two_hundred_streams_equal_their_whole_answers_and_keep_to_stop_strings(server: RunningServer) -> None:
    turns = asyncio.Semaphore(NUM_TOGETHER)
    async with (
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=300) as client,
        httpx.AsyncClient(base_url=server.url, timeout=300) as plain,
    ):

        async def run(case: Case) -> tuple[Answer, bool]:
            async with turns:
                body = {"model": "tessera-test", "prompt": "".join(case.pieces)}
                favored = (await plain.post("/tokenize", json=body)).raise_for_status().json()["tokens"]
                return await check(client, case, favored)

        results = await asyncio.gather(*(run(Case(seed)) for seed in range(NUM_PROMPTS)))
    answers = [answer for answer, _ in results]
    assert len({answer.text for answer in answers}) > 0.95 * NUM_PROMPTS  # answers of a few pieces may coincide
    assert sum(answer.num_chunks for answer in answers) > 5 * NUM_PROMPTS
    assert sum(stopped for _, stopped in results) >= NUM_PROMPTS / 3
