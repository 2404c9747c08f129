"""The Ray Serve application: each replica is one whole server, engine and media workers included.

Ray places replicas, starts lost ones again and adds or removes some with the load; HAProxy, which Ray starts on each
machine, sends requests straight to them. Replicas read the server's own settings from the environment (`TESSERA_…`).

A replica takes requests once its model is ready, is replaced when its model has failed, and gets longer to leave than
its running answers need to end.

What it does not: share files and limits between replicas; TESSERA_FILES__STORE and TESSERA_STATE_URL do.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from model_executor.engine import EngineState
from server.app import create_app
from server.core.json_log import configure_logging
from server.core.settings import Settings
from server.generation.model_service import ModelService
from server.model_loading import open_model

DRAIN_MARGIN_S = 15
"""A replica's time to leave, beyond that of its running answers: for engine and media workers to end."""
UNREADY_S = 180
"""An engine is restarted by its server within seconds; after this time, Ray replaces the replica."""
MAX_ONGOING = 10_000
"""Requests in one replica. The server's own limits decide, and its 429 tells clients when to come again."""

_services: list[ModelService] = []
"""The service of this replica, once the application is built."""


class Options(BaseModel):
    """What Ray has to know."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    min_replicas: int = Field(default=1, ge=1)
    """Servers there always are."""
    max_replicas: int = Field(default=1, ge=1)
    """Servers there are at most; as many as `min_replicas` where that is more."""
    requests_per_replica: float = Field(default=8, gt=0)
    """Requests running and waiting in one server above which another one is started."""
    upscale_delay_s: float = Field(default=10, ge=0)
    """How long there have to be more."""
    downscale_delay_s: float = Field(default=300, ge=0)
    """How long there have to be fewer before one is stopped."""
    replicas_per_machine: int | None = Field(default=None, ge=1)
    """Servers on one machine; unset: as many as its processors and GPUs allow."""
    num_cpus: float = Field(default=1, ge=0)
    """Processors that Ray sets aside for one server."""
    num_gpus: float = Field(default=0, ge=0)
    """GPUs of one server; its engines see no others (TESSERA_ENGINE__REPLICAS=0 uses all of them)."""


def replica_settings() -> Settings:
    """The settings of this replica: those of the environment, its own name, and a directory of its own."""
    settings = Settings()
    replica = serve.get_replica_context().replica_id.unique_id
    own = {"server_name": f"{settings.server_name or 'tessera'}-{replica}", "data_dir": settings.data_dir / replica}
    return settings.model_copy(update=own)


def build() -> FastAPI:
    """The server's application; its lifespan begins once the model is ready."""
    settings = replica_settings()
    configure_logging(settings.server_name)
    app = create_app(settings, lambda: open_model(settings))
    service: ModelService = app.state.service
    _services.append(service)
    open_app = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def until_ready(_: FastAPI) -> AsyncIterator[None]:
        async with open_app(app):
            while service.state is not EngineState.READY:
                if service.state is EngineState.FAILED:
                    raise RuntimeError(f"the model cannot be served: {service.failure}")
                await asyncio.sleep(0.1)
            yield

    app.router.lifespan_context = until_ready
    return app


class Tessera:
    """One replica."""

    def __init__(self) -> None:
        self._ready_at_s = time.monotonic()

    async def check_health(self) -> None:
        """Called by Ray; raises what is wrong if the replica has to be replaced."""
        (service,) = _services
        if service.state is EngineState.READY:
            self._ready_at_s = time.monotonic()
        elif service.state is EngineState.FAILED:
            raise RuntimeError(f"the model has failed: {service.failure}")
        elif time.monotonic() - self._ready_at_s > UNREADY_S:
            raise RuntimeError(f"the engine has been away for {UNREADY_S} s")


def application(options: Options) -> Application:
    """What Ray Serve runs; `python -m cluster` and KubeRay's `import_path` both come here."""
    max_replicas = max(options.min_replicas, options.max_replicas)
    actor_options = {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus}
    deployment = serve.deployment(
        name="tessera",
        ray_actor_options=actor_options,
        max_ongoing_requests=MAX_ONGOING,
        max_replicas_per_node=options.replicas_per_machine,
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": options.requests_per_replica,
            "upscale_delay_s": options.upscale_delay_s,
            "downscale_delay_s": options.downscale_delay_s,
        },
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=Settings().shutdown_timeout_s + DRAIN_MARGIN_S,
    )
    return deployment(serve.ingress(build)(Tessera)).bind()
