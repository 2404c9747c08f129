"""A test question with a picture, asked of a server that runs or of one that is started for it."""

import base64
import functools
import io
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from PIL import Image, ImageDraw
from pydantic import SecretStr

from server.core.settings import Settings, declarations, split_list

QUESTION = "What is in this picture?"
ANSWER_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
_OWN = {"host", "port", "tls_certificate", "tls_key", "api_key", "api_keys_file"}
"""Settings of a server that serves; one that is started for a question has its own."""
_TOLD = re.compile(r"listens on http://[^ ]*:(\d+) ")


class QuestionError(Exception):
    """The question was not answered; the text says why."""


def listens(settings: Settings) -> bool:
    """Whether somebody listens where the settings say."""
    try:
        socket.create_connection((_host(settings), settings.port), timeout=2).close()
    except OSError:
        return False
    return settings.port != 0


def ask_running(settings: Settings) -> str:
    """Ask the server that listens where the settings say; what it answered, and how fast.

    Raises:
        QuestionError: see the class.
    """
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{_host(settings)}]" if ":" in settings.host else _host(settings)
    told = _asked(f"{scheme}://{host}:{settings.port}", settings.model_name, _first_key(settings))
    return f"the server at port {settings.port} says {told}"


def ask_started(settings: Settings) -> str:
    """Start a server with the same settings on a free port, ask it, and stop it; what it answered, and how fast.

    Raises:
        QuestionError: see the class.
    """
    variables = _variables(settings)
    with _started(variables) as (url, process, log):
        began_s = time.monotonic()
        while httpx.get(f"{url}/health").status_code != 200:
            if process.poll() is not None:
                raise QuestionError("the server ended: " + " ".join(log[-3:]))
            if time.monotonic() - began_s > settings.engine.start_timeout_s:
                raise QuestionError("the model was not ready in time")
            time.sleep(0.2)
        loaded_s = time.monotonic() - began_s
        told = _asked(url, settings.model_name, variables["TESSERA_API_KEY"])
        return f"a server started for it (ready after {loaded_s:.0f} s) says {told}"


def _asked(url: str, model: str, key: str | None) -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    parts = [{"type": "image_url", "image_url": {"url": _picture()}}, {"type": "text", "text": QUESTION}]
    body = {"model": model, "temperature": 0, "max_tokens": 40, "messages": [{"role": "user", "content": parts}]}
    began_s = time.monotonic()
    try:
        # The certificate is this machine's own business: it need not name the address it is asked at here.
        reply = httpx.post(
            f"{url}/v1/chat/completions", json=body, headers=headers, timeout=ANSWER_TIMEOUT_S, verify=False
        )
        answer = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise QuestionError(f"no answer came from {url}: {error or type(error).__name__}") from error
    if reply.status_code != 200:
        raise QuestionError(f"{url} answers {reply.status_code}: {answer.get('error', {}).get('message', '')}")
    text = answer["choices"][0]["message"]["content"]
    return f"{text!r} to {QUESTION!r} about a red circle, after {time.monotonic() - began_s:.1f} s"


def _picture() -> str:
    """A red circle as a `data:` URL."""
    picture = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(picture).ellipse((28, 28, 84, 84), "red")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@contextmanager
def _started(variables: Mapping[str, str]) -> Iterator[tuple[str, "subprocess.Popen[str]", list[str]]]:
    """A server of its own: URL, process, and what it has said so far."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve"],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log: list[str] = []
    port = threading.Event()
    found: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line.strip())
            if match := _TOLD.search(line):
                found.append(match[1])
                port.set()
        port.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        port.wait()
        if not found:
            raise QuestionError("no server could be started: " + " ".join(log[-3:]))
        yield f"http://127.0.0.1:{found[0]}", process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(5)


def _variables(settings: Settings) -> dict[str, str]:
    """The settings as variables, but on a free local port, without TLS, and without a spare engine."""
    values = {}
    for declared in declarations():
        value: Any = functools.reduce(getattr, declared.path, settings)
        if value != declared.default and declared.path[0] not in _OWN:
            text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            values[declared.variable] = text.lower() if isinstance(value, bool) else text
    return {
        **values,
        "TESSERA_HOST": "127.0.0.1",
        "TESSERA_PORT": "0",
        "TESSERA_API_KEY": secrets.token_hex(),
        "TESSERA_ENGINE__WARM_STANDBY": "false",
    }


def _host(settings: Settings) -> str:
    """Where to reach a server that may listen on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)


def _first_key(settings: Settings) -> str | None:
    keys = split_list(settings.api_key.get_secret_value()) if settings.api_key else []
    return keys[0] if keys else None
