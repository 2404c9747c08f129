"""The HTTP process's life: bind, listen, tell how loading goes, drain on SIGTERM, exit with a meaningful status."""

import asyncio
import ipaddress
import logging
import resource
import socket
import ssl
import sys
import time
from functools import partial
from pathlib import Path
from types import FrameType

import uvicorn
from fastapi import FastAPI

from model_executor.engine import EngineState
from model_executor.privacy import close_to_others, forget_variable
from server.app import create_app
from server.connection import Connection, Connections
from server.core.json_log import configure_logging
from server.core.settings import Settings
from server.generation.model_service import Service
from server.model_loading import open_model

_log = logging.getLogger("tessera.serve")

PROGRESS_INTERVAL_S = 5.0
"""How often loading is reported."""
SPARE_FILES = 512
"""Open files beside those of connections: sockets of fetches, media, uploads, processes."""
IDLE_CONNECTION_S = 75
"""How long an idle connection is kept; above the minute most clients and proxies keep theirs."""


class ListenError(Exception):
    """The address cannot be listened on, or the certificate not be used; the text says why."""


def serve(settings: Settings) -> int:
    """Serve until told to stop; returns the process's exit status.

    Raises:
        ListenError: see the class.
        KeyFileError: the key file cannot be used.
    """
    close_to_others()
    forget_variable("TESSERA_API_KEY")
    _check_certificate(settings)
    configure_logging()
    _allow_many_files(settings)
    app = create_app(settings, lambda: open_model(settings))
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
    """How uvicorn serves the application."""
    service: Service = app.state.service
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
    """Uvicorn's server, which also says where the model is in its life and stops when that life has ended.

    Args:
        config: as `server_config` makes it.
        service: whose state is told.
        url: where the server listens.
    """

    def __init__(self, config: uvicorn.Config, service: Service, url: str) -> None:
        """See the class."""
        super().__init__(config)
        self.exit_status = 0
        """Of the process, once the server has ended."""
        self._service = service
        self._url = url
        self._state = EngineState.LOADING
        self._since_s = time.monotonic()
        self._reported_s = self._since_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        _say(f"Tessera listens on {self._url} and loads {self._service.model_name}.")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: tell what is new; returns whether to stop."""
        self._announce()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second one cuts the answers still running. Both leave by the front door."""
        if self.should_exit:
            for task in self.server_state.tasks:
                task.cancel()
        self.should_exit = True

    def _announce(self) -> None:
        state = self._service.state
        now_s = time.monotonic()
        if state is self._state:
            if state is EngineState.LOADING and now_s - self._reported_s >= PROGRESS_INTERVAL_S:
                self._reported_s = now_s
                _say(f"Still loading, {now_s - self._since_s:.0f} s so far.")
            return
        if state is EngineState.READY and self._state is EngineState.RESTARTING:
            _say(f"Ready again after {now_s - self._since_s:.1f} s.")
        elif state is EngineState.READY:
            _say(f"Ready after {now_s - self._since_s:.1f} s: {self._service.model_name} answers at {self._url}/v1.")
        elif state is EngineState.RESTARTING:
            _say("The engine was lost and is being restarted.")
        elif state is EngineState.FAILED:
            print(f"tessera: The model cannot be served: {self._service.failure}.", file=sys.stderr, flush=True)
            self.exit_status = 1
            self.should_exit = True
        self._state, self._since_s = state, now_s


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
    """Each connection is an open file; the usual limit of 1024 is for old programs only."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if most < settings.max_connections + SPARE_FILES:
        _log.warning(
            "the process may have %d files open (ulimit -n), which is too few for max_connections (%d)",
            most,
            settings.max_connections,
        )


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _check_certificate(settings: Settings) -> None:
    """Try certificate and key before anything is started."""
    certificate = _expanded(settings.tls_certificate)
    if certificate is None:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password is an error; without the empty one, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(certificate, _expanded(settings.tls_key), password="")
    except OSError as error:  # of files and, as ssl.SSLError, of what is in them
        raise ListenError(f"The TLS certificate or its key cannot be used: {error.strerror or error}.") from error


def _expanded(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()


def _url(settings: Settings, port: int) -> str:
    scheme = "http" if settings.tls_certificate is None else "https"
    return f"{scheme}://[{settings.host}]:{port}" if ":" in settings.host else f"{scheme}://{settings.host}:{port}"


def _say(text: str) -> None:
    print(text, flush=True)
