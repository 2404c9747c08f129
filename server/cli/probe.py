"""Asks a test question with an image, of a running server or of one that is started for it."""

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

QUESTION = "Describe this image."
ANSWER_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
_NOT_INHERITED = {"host", "port", "tls_certificate", "tls_key", "api_key", "api_keys_file"}
"""Settings that a server started for the question does not take over."""
_LISTENING = re.compile(r"listens on http://[^ ]*:(\d+) ")


class ProbeError(Exception):
    """The question was not answered; the text says why."""


def is_listening(settings: Settings) -> bool:
    """Whether a program listens at the configured address."""
    try:
        socket.create_connection((_host(settings), settings.port), timeout=2).close()
    except OSError:
        return False
    return settings.port != 0


def probe_running_server(settings: Settings) -> str:
    """Ask the server at the configured address; returns its answer and how long it took, as text.

    Raises:
        ProbeError: the question was not answered.
    """
    scheme = "http" if settings.tls_certificate is None else "https"
    host = f"[{_host(settings)}]" if ":" in settings.host else _host(settings)
    answer = _ask(f"{scheme}://{host}:{settings.port}", settings.model_name, _first_key(settings))
    return f"the server at port {settings.port} answered {answer}"


def probe_new_server(settings: Settings) -> str:
    """Start a server with the same settings on a free port, ask it, and stop it; returns its answer as text.

    Raises:
        ProbeError: the question was not answered.
    """
    variables = _variables(settings)
    with _start_server(variables) as (url, process, log):
        started_at_s = time.monotonic()
        while httpx.get(f"{url}/health").status_code != 200:
            if process.poll() is not None:
                raise ProbeError("the server ended: " + " ".join(log[-3:]))
            if time.monotonic() - started_at_s > settings.engine.start_timeout_s:
                raise ProbeError("the model was not ready in time")
            time.sleep(0.2)
        loading_s = time.monotonic() - started_at_s
        answer = _ask(url, settings.model_name, variables["TESSERA_API_KEY"])
        return f"a server started for it (ready after {loading_s:.0f} s) answered {answer}"


def _ask(url: str, model: str, key: str | None) -> str:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    parts = [{"type": "image_url", "image_url": {"url": _image_url()}}, {"type": "text", "text": QUESTION}]
    body = {"model": model, "temperature": 0, "max_tokens": 40, "messages": [{"role": "user", "content": parts}]}
    started_at_s = time.monotonic()
    try:
        # The certificate is not verified: it need not be valid for the local address used here.
        reply = httpx.post(
            f"{url}/v1/chat/completions",
            json=body,
            headers=headers,
            timeout=ANSWER_TIMEOUT_S,
            verify=False,  # noqa: S501
        )
        answer = reply.json()
    except (httpx.HTTPError, ValueError) as error:
        raise ProbeError(f"no answer from {url}: {error or type(error).__name__}") from error
    if reply.status_code != 200:
        raise ProbeError(f"{url} answers {reply.status_code}: {answer.get('error', {}).get('message', '')}")
    text = answer["choices"][0]["message"]["content"]
    return f"{text!r} to {QUESTION!r} about a red circle, after {time.monotonic() - started_at_s:.1f} s"


def _image_url() -> str:
    """A red circle as a `data:` URL."""
    image = Image.new("RGB", (112, 112), "white")
    ImageDraw.Draw(image).ellipse((28, 28, 84, 84), "red")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


@contextmanager
def _start_server(variables: Mapping[str, str]) -> Iterator[tuple[str, "subprocess.Popen[str]", list[str]]]:
    """A new server: URL, process, and its output so far; stopped on exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "server", "serve"],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    log: list[str] = []
    has_port_or_ended = threading.Event()
    ports: list[str] = []

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.append(line.strip())
            if match := _LISTENING.search(line):
                ports.append(match[1])
                has_port_or_ended.set()
        has_port_or_ended.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        has_port_or_ended.wait()
        if not ports:
            raise ProbeError("no server could be started: " + " ".join(log[-3:]))
        yield f"http://127.0.0.1:{ports[0]}", process, log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(5)


def _variables(settings: Settings) -> dict[str, str]:
    """The settings as environment variables, but with a free local port, without TLS and without a standby."""
    values = {}
    for declared in declarations():
        value: Any = functools.reduce(getattr, declared.path, settings)
        if value != declared.default and declared.path[0] not in _NOT_INHERITED:
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
    """The address to connect to, also for a server that listens on all addresses."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)


def _first_key(settings: Settings) -> str | None:
    keys = split_list(settings.api_key.get_secret_value()) if settings.api_key else []
    return keys[0] if keys else None
