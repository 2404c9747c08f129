"""What routes that use the model ask FastAPI for: the model, a generator, a body that names the model."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from server.api.base_models import ModelRequest
from server.api.dependencies import json_body
from server.auth.rate_limits import key_usage_of
from server.generation.generate import Generator
from server.generation.model_service import ModelService, ServedModel

Body = TypeVar("Body", bound=ModelRequest)


async def _model_service(request: Request) -> ModelService:
    service: ModelService = request.app.state.service
    return service


ModelServiceDep = Annotated[ModelService, Depends(_model_service)]


async def _loaded_model(service: ModelServiceDep) -> ServedModel:
    return service.opened_model()


async def _ready_generator(request: Request, service: ModelServiceDep) -> Generator:
    return Generator(service.model(), service.metrics, key_usage_of(request))


LoadedModel = Annotated[ServedModel, Depends(_loaded_model)]
"""The model, whether its engine answers at the moment or not; 503 while it is not open."""
ReadyGenerator = Annotated[Generator, Depends(_ready_generator)]
"""Generates for this client; 503 while the engine is away. Declared before the body, which is then not read."""


def model_body(model: type[Body]) -> Callable[..., Awaitable[Body]]:
    """A dependency: as `json_body`; the served model, or one of its adapters, must be named."""
    read = json_body(model)

    async def named(request: Request, served: LoadedModel) -> Body:
        body = await read(request)
        served.require(body.model)
        return body

    return named
