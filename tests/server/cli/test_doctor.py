"""`tessera doctor` where something is wrong; that it finds a well machine well is in `tests/e2e`."""

import http.server
import json
import os
import threading
from pathlib import Path

import pytest

from server.cli.doctor import main
from server.files.directory_lock import take

pytestmark = pytest.mark.slow


def findings(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    status = main(["--json", *arguments])
    return status, {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_a_model_that_is_not_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = findings(capsys, "--no-question", "--model", "/nowhere/at/all")
    assert status == 1 and found["model"]["verdict"] == "FAIL"
    assert found["sandbox"]["verdict"] in ("ok", "note")
    assert found["M-RoPE on cpu"]["verdict"] in ("ok", "note") and "test question" not in found


def test_a_model_without_weights_is_a_failure(
    capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for path in tiny_checkpoint.iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).symlink_to(path)
    status, found = findings(capsys, "--no-question", "--model", str(tmp_path))
    assert status == 1 and "neither *.safetensors" in found["model"]["fact"]
    status, found = findings(capsys, "--no-question", "--model", str(tiny_checkpoint))
    assert status == 0 and found["model"]["verdict"] == "ok"


def test_sampling_defaults_of_the_checkpoint_are_shown(
    capsys: pytest.CaptureFixture[str], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    for path in tiny_checkpoint.iterdir():
        if path.name != "generation_config.json":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.01, "top_k": 1}')
    _, found = findings(capsys, "--no-question", "--model", str(tmp_path))
    assert ", samples by temperature 0.01, top_k 1" in found["model"]["fact"]
    _, found = findings(capsys, "--no-question", "--model", str(tmp_path), "--engine.generation-config", "none")
    assert "samples by" not in found["model"]["fact"]


def test_little_shared_memory_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    status, found = findings(capsys, "--no-question", "--media.max-shared-bytes", str(1 << 50))
    assert status == 0 and found["shared memory"]["verdict"] == "note"


def test_a_setting_that_does_not_exist_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_PROT", "1")
    assert main(["--no-question"]) == 2
    assert "TESSERA_PORT" in capsys.readouterr().err


def test_a_server_that_answers_nothing_sensible_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as other:  # 501 to every POST
        threading.Thread(target=other.serve_forever, daemon=True).start()
        status, found = findings(capsys, "--port", str(other.server_address[1]))
        other.shutdown()
    assert status == 1 and found["test question"]["verdict"] == "FAIL"


def test_uploads_that_another_server_keeps_are_noted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    arguments = ("--no-question", "--port", "1", "--data-dir", str(tmp_path))
    assert findings(capsys, *arguments)[1]["uploads"]["verdict"] == "ok"
    lock = take(folder)
    status, found = findings(capsys, *arguments)
    assert status == 0 and found["uploads"]["verdict"] == "note"
    assert "another server" in found["uploads"]["fact"] and "TESSERA_DATA_DIR" in found["uploads"]["fact"]
    os.close(lock)
    assert findings(capsys, *arguments)[1]["uploads"]["verdict"] == "ok"
