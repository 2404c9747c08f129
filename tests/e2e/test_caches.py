"""What comes again costs nothing again, counted by a whole server."""

import itertools
import time

import httpx
import openai
import pytest

from tests.support.images import asked, clip_part, made_clip, text_part
from tests.support.serving import RunningServer

pytestmark = pytest.mark.engine

DECODED, SPARED = "tessera_media_cache_misses_total", "tessera_media_cache_hits_total"
ENCODER_ASKED, ENCODER_SPARED = "tessera_encoder_cache_queries_total", "tessera_encoder_cache_hits_total"


def test_a_second_turn_on_the_same_clip_decodes_and_encodes_nothing(
    server: RunningServer, client: openai.OpenAI
) -> None:
    question = asked(clip_part(made_clip(90, width=72)), text_part("What moves?"))
    turns = [*question, {"role": "assistant", "content": "A square."}, {"role": "user", "content": "Where to?"}]
    readings = [server.metrics()]
    cached = []
    for messages in (question, turns):
        answer = client.chat.completions.create(model="tessera-test", messages=messages, max_tokens=4)
        assert answer.usage is not None and answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens or 0)
        readings.append(after_the_engine_let_go(server, readings[-1][ENCODER_ASKED] + 1))
    changes = [
        {name: after[name] - before[name] for name in (DECODED, SPARED, ENCODER_SPARED)}
        for before, after in itertools.pairwise(readings)
    ]
    assert changes == [
        {DECODED: 1, SPARED: 0, ENCODER_SPARED: 0},
        {DECODED: 0, SPARED: 1, ENCODER_SPARED: 1},
    ]
    assert cached[0] == 0 and cached[1] >= 128, "whole blocks of the first prompt"


def after_the_engine_let_go(server: RunningServer, num_media: float) -> dict[str, float]:
    """The metrics once the engine has counted so many media, which it does after the answer."""
    deadline_s = time.monotonic() + 60
    while (reading := server.metrics())[ENCODER_ASKED] < num_media:
        assert time.monotonic() < deadline_s, "the engine did not count a medium"
        time.sleep(0.05)
    return reading


def test_an_answer_finds_what_its_preview_prepared(server: RunningServer, client: openai.OpenAI) -> None:
    body = {"model": "tessera-test", "messages": asked(clip_part(made_clip(60, width=80)), text_part("And here?"))}
    before = server.metrics()
    told = httpx.post(f"{server.url}/v1/chat/completions/preview", json=body, timeout=120).raise_for_status().json()
    answer = client.chat.completions.create(**body, max_tokens=1, extra_body={"include": ["media"]})
    after = server.metrics()
    assert (after[DECODED] - before[DECODED], after[SPARED] - before[SPARED]) == (1, 1)
    assert answer.usage is not None and answer.usage.prompt_tokens == told["prompt_tokens"]
    assert answer.model_extra is not None and answer.model_extra["tessera"]["media"] == told["media"]
    assert (told["media"][0]["frames"], told["media"][0]["fps"]) == (4, 2.0)
