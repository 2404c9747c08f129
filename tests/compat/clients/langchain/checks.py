"""The standard integration tests of langchain-tests over ChatOpenAI, with chat completions and with Responses."""

import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


@pytest.fixture(autouse=True)
def images_from_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite fetches its images from the web; any image will do."""
    picture = Path(os.environ["PICTURE"]).read_bytes()
    monkeypatch.setattr(httpx, "get", lambda *_, **__: httpx.Response(200, content=picture))


class _Tessera(ChatModelIntegrationTests):
    # The bundled model comes to no end of a string by itself; penalties help it.
    params: dict[str, Any] = {"model": "tessera-tiny", "temperature": 0, "max_tokens": 400}

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestChatCompletions(_Tessera):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**self.params, "frequency_penalty": 1, "stream_usage": True}


class TestResponses(_Tessera):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**self.params, "extra_body": {"frequency_penalty": 1}, "use_responses_api": True}
