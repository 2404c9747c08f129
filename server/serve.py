"""Runs the HTTP server: sockets, TLS, progress messages, graceful shutdown on SIGTERM, exit status."""

import asyncio
import ipaddress
import logging
import resource
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from model_executor.client.engine_pool import EnginePool
from model_executor.engine import EngineState
from model_executor.privacy import close_to_others, forget_variable
from server.app import create_app
from server.connection import Connection, Connections
from server.core.json_log import configure_logging
from server.core.settings import Settings
from server.generation.model_service import ModelService, ServedModel
from server.model_loading import open_model

_log = logging.getLogger("tessera.serve")

PROGRESS_INTERVAL_S = 5.0
"""Interval of progress messages while the model loads."""
OTHER_FILES = 512
"""Open files in addition to those of connections: sockets of fetches, media, uploads, processes."""
IDLE_CONNECTION_S = 75
"""How long an idle connection is kept; longer than the minute that most clients and proxies keep theirs."""


class ListenError(Exception):
    """The server cannot listen on the address or use the certificate; the text says why."""


def serve(settings: Settings) -> int:
    """Serve until stopped; returns the process's exit status.

    Raises:
        ListenError: the address or the certificate cannot be used.
        KeyFileError: the key file cannot be used.
    """
    close_to_others()
    for variable in ("TESSERA_API_KEY", "TESSERA_STATE_URL"):
        forget_variable(variable)
    _check_certificate(settings)
    configure_logging(settings.server_name)
    _allow_many_files(settings)
    app = create_app(settings, lambda: _open_restartable(settings))
    listener = _bind(settings.host, settings.port)
    if not app.state.needs_key and not _is_loopback(listener):
        _log.warning(
            "this server listens on %s and needs no key: everybody who reaches it may use it (TESSERA_API_KEY, "
            "TESSERA_API_KEYS_FILE)",
            settings.host,
        )
    config = server_config(app, settings)
    server = Server(config, app.state.service, _url(settings, listener.getsockname()[1]))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets=[listener]))
    return server.exit_status


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """The configuration of uvicorn."""
    service: ModelService = app.state.service
    connections = Connections(settings.max_connections, service.metrics.count_refused_connection)
    return uvicorn.Config(
        app,
        http=partial(Connection, connections),  # type: ignore[arg-type]  # called like the class
        ws="none",
        loop="uvloop",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=_expanded(settings.tls_certificate),
        ssl_keyfile=_expanded(settings.tls_key),
        timeout_keep_alive=IDLE_CONNECTION_S,
        timeout_graceful_shutdown=settings.shutdown_timeout_s,  # type: ignore[arg-type]  # passed on to asyncio as is
    )


class Server(uvicorn.Server):
    """Uvicorn's server, which also prints the model's state and stops when the model cannot be served.

    Args:
        config: from `server_config`.
        service: has the model's state.
        url: the address that the server listens on.
    """

    def __init__(self, config: uvicorn.Config, service: ModelService, url: str) -> None:
        super().__init__(config)
        self.exit_status = 0
        """Exit status of the process, once the server has ended."""
        self._service = service
        self._url = url
        self._state = EngineState.LOADING
        self._since_s = time.monotonic()
        self._printed_at_s = self._since_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, and print the address."""
        await super().startup(sockets)
        _print(f"Tessera listens on {self._url} and loads {self._service.model_name}.")

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second: prints changes of the model's state; returns whether to stop."""
        self._print_state()
        return await super().on_tick(counter)

    @property
    def _page_url(self) -> str:
        """What a browser on this machine opens; an address that stands for all of them is none."""
        return f"{self._url.replace('//0.0.0.0:', '//127.0.0.1:').replace('//[::]:', '//[::1]:')}/"

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """On the first signal, finish running requests; on the second, cancel them. Both shut down in order."""
        if self.should_exit:
            for task in self.server_state.tasks:
                task.cancel()
        self.should_exit = True

    def _print_state(self) -> None:
        state = self._service.state
        now_s = time.monotonic()
        if state is self._state:
            if state is EngineState.LOADING and now_s - self._printed_at_s >= PROGRESS_INTERVAL_S:
                self._printed_at_s = now_s
                _print(f"Still loading, {now_s - self._since_s:.0f} s so far.")
            return
        if state is EngineState.READY and self._state is EngineState.RESTARTING:
            _print(f"Ready again after {now_s - self._since_s:.1f} s.")
        elif state is EngineState.READY:
            _print(
                f"Ready after {now_s - self._since_s:.1f} s: {self._service.model_name}. "
                f"Open {self._page_url} in a browser; the API is at {self._url}/v1."
            )
        elif state is EngineState.RESTARTING:
            _print("The engine was lost and is being restarted.")
        elif state is EngineState.FAILED:
            print(f"tessera: The model cannot be served: {self._service.failure}.", file=sys.stderr, flush=True)
            self.exit_status = 1
            self.should_exit = True
        self._state, self._since_s = state, now_s


@asynccontextmanager
async def _open_restartable(settings: Settings) -> AsyncIterator[ServedModel]:
    """The model, whose engines SIGUSR1 replaces one after another."""
    async with open_model(settings) as model:
        restarts: set[asyncio.Task[None]] = set()

        def restart() -> None:
            assert isinstance(model.engine, EnginePool)
            task = asyncio.create_task(model.engine.restart(settings.shutdown_timeout_s))
            restarts.add(task)
            task.add_done_callback(restarts.discard)

        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, restart)
        try:
            yield model
        finally:
            loop.remove_signal_handler(signal.SIGUSR1)
            for task in restarts:
                task.cancel()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ListenError(f"Cannot listen on {host} port {port}: {error.strerror or error}.") from error
    return listener


def _allow_many_files(settings: Settings) -> None:
    """Raise the limit on open files: each connection is one, and the usual 1024 are for old programs only."""
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    if hard_limit < settings.max_connections + OTHER_FILES:
        _log.warning(
            "the limit of %d open files (ulimit -n) is too low for max_connections (%d)",
            hard_limit,
            settings.max_connections,
        )


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _check_certificate(settings: Settings) -> None:
    """Load certificate and key before anything is started."""
    certificate = _expanded(settings.tls_certificate)
    if certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password is an error; without the empty one, OpenSSL would prompt for it on the terminal.
        context.load_cert_chain(certificate, _expanded(settings.tls_key), password="")
    except OSError as error:  # of the files or, as ssl.SSLError, of their content
        raise ListenError(f"The TLS certificate or its key cannot be used: {error.strerror or error}.") from error


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()


def _url(settings: Settings, port: int) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{settings.host}]:{port}" if ":" in settings.host else f"{scheme}://{settings.host}:{port}"


def _print(text: str) -> None:
    print(text, flush=True)
