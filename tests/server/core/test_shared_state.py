"""What several servers share: settings that cannot be used are told before anything starts, passwords never."""

import builtins
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from server.app import create_app
from server.core.json_log import JsonFormatter
from server.core.settings import Settings
from server.core.shared_state import SharedState, SharedStateError
from server.generation.model_service import OpenModel
from tests.support.world import OpenWorld


def never() -> Any:
    raise AssertionError("the model is not opened")


NEVER: OpenModel = never


def test_shared_files_need_a_place_for_their_records(tmp_path: Path) -> None:
    with pytest.raises(SharedStateError, match=r"files\.store needs state_url"):
        create_app(Settings(files={"store": str(tmp_path)}), NEVER)  # type: ignore[arg-type]  # pydantic reads it


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1", "secret", "redis://127.0.0.1:secret"])
def test_a_url_that_is_none_is_told_without_its_text(url: str) -> None:
    with pytest.raises(SharedStateError, match="is no URL of Redis or Valkey") as refused:
        SharedState(SecretStr(url))
    assert "secret" not in str(refused.value)


def test_a_missing_library_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_redis(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("redis"):
            raise ImportError(name)
        return imported(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_redis)
    with pytest.raises(SharedStateError, match=r"pip install 'tessera-serve\[shared\]'"):
        SharedState(SecretStr("redis://127.0.0.1"))


def test_settings_do_not_show_a_password() -> None:
    settings = Settings(state_url=SecretStr("redis://:secret@127.0.0.1"))
    assert "secret" not in repr(settings) + settings.model_dump_json()


async def test_a_named_server_tells_its_name(open_world: OpenWorld) -> None:
    async with open_world(server_name="one") as world:
        assert (await world.ask()).headers["x-tessera-server"] == "one"
        assert 'tessera_server_info{server="one"} 1.0' in (await world.client.get("/metrics")).text
    async with open_world() as world:
        assert "x-tessera-server" not in (await world.ask()).headers


def test_every_line_of_the_log_has_the_servers_name_and_the_engines_number() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "the engine process has ended", (), None)
    record.fields = {"replica": 1}
    line = json.loads(JsonFormatter("one").format(record))
    assert (line["server"], line["replica"], line["message"]) == ("one", 1, "the engine process has ended")
    assert "server" not in json.loads(JsonFormatter().format(record))
