"""Images and videos in what functions returned: prepared as others, and shown inside of the result."""

from typing import Any

from tests.support.world import ServerFixture

URL = "data:image/png;base64,AA=="
CALLS = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
HI = {"role": "user", "content": "Look."}


def prompt(world: ServerFixture, number: int) -> str:
    text: str = world.app.state.service.model().tokenizer.decode(
        world.engine.prompts[number].token_ids, skip_special_tokens=False
    )
    return text


async def test_both_apis_render_them_inside_of_the_result(world: ServerFixture) -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": URL}}]
    chat = await world.ask(
        messages=[
            HI,
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "c1", "content": parts},
        ]
    )
    assert chat.status_code == 200, chat.text
    responses = await world.respond(
        input=[
            HI,
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {
                "type": "function_call_output",
                "call_id": "c1",
                "output": [{"type": "input_text", "text": "See:"}, {"type": "input_image", "image_url": URL}],
            },
        ]
    )
    assert responses.status_code == 200, responses.text
    assert world.engine.prompts[0].token_ids == world.engine.prompts[1].token_ids
    before, _, result = prompt(world, 0).partition("<tool_response>\nSee:<|vision_start|><|image_pad|>")
    assert before.endswith("<|im_start|>user\n")
    assert result.partition("<|vision_end|>\n</tool_response><|im_end|>")[1]
    assert not world.media.held
