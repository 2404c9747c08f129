"""What routes ask FastAPI for: the settings, the tenant, a JSON body as a model."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from server.api.request_body import read_json
from server.core.settings import Settings

Body = TypeVar("Body", bound=BaseModel)


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _tenant(request: Request) -> str:
    tenant: str = request.state.tenant
    return tenant


def json_body(model: type[Body]) -> Callable[[Request], Awaitable[Body]]:
    """A dependency: the request's body, read as `model`; uploaded files it names are looked up.

    Unknown fields are left out and their paths noted in `request.state.ignored`, or refused where the settings say so.

    FastAPI would answer a wrong body with 422 and a body of its own.
    """

    async def read(request: Request) -> Body:
        loop = asyncio.get_running_loop()
        find_file = partial(request.app.state.find_file, tenant=request.state.tenant, loop=loop)
        ignored: list[str] | None = None if request.app.state.settings.strict_requests else request.state.ignored
        blocks = request.app.state.finding_blocks
        return await read_json(request, model, context={"find_file": find_file}, blocks=blocks, ignored=ignored)

    return read


ServerSettings = Annotated[Settings, Depends(_settings)]
Tenant = Annotated[str, Depends(_tenant)]
"""Whose caches and files a request may use; the empty string where no key is needed."""
