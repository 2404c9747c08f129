"""The key by which proxies keep a conversation at one server."""

import asyncio
from collections.abc import Mapping

import openai

from tessera_client import image, session_headers, stream, text
from tests.support.images import png
from tests.support.world import ServerFixture

A, B = (image(png(size)) for size in (500, 501))


def key(*messages: Mapping[str, object]) -> str:
    (value,) = session_headers(messages).values()
    return value


def user(*parts: dict[str, object]) -> dict[str, object]:
    return {"role": "user", "content": list(parts)}


def test_all_turns_and_other_questions_about_the_same_image_have_one_key() -> None:
    first = user(A, text("What is it?"))
    later = {"role": "assistant", "content": "A cat."}, user(B, text("And this?"))
    assert key(first) == key(first, *later) == key(user(text("Well?"), A)) == key({"role": "system"}, first)
    assert key(first) != key(user(B, text("What is it?")))


def test_without_media_the_first_question_decides() -> None:
    system, question = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
    answer = {"role": "assistant", "content": "Hello"}
    assert key(system, question) == key(system, question, answer, {"role": "user", "content": "More"})
    assert key(system, question) != key(system, {"role": "user", "content": "Ho"})
    assert key() and key(system)


async def test_a_server_reads_it_as_any_other_header(live: ServerFixture, sdk: openai.OpenAI) -> None:
    chunks = await asyncio.to_thread(lambda: list(stream(sdk, model="tessera-test", messages=[user(A, text("Hi"))])))
    assert chunks
