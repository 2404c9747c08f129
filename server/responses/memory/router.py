"""`/v1/responses/{id}` and below it: what was answered, and what it was answered to."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from server.api.dependencies import Tenant
from server.api.openapi import errors
from server.api.openapi import query as query_parameters
from server.core.errors import BadRequestError
from server.responses.memory.dependencies import KeptResponse, MemoryDep, page_of, query_of
from server.responses.memory.wire import ItemList, ItemQuery, ResponseDeleted, RetrieveQuery
from server.responses.response import ResponseObject

router = APIRouter(prefix="/v1/responses/{response_id}")


@router.get(
    "",
    summary="Retrieve a response",
    operation_id="retrieveResponse",
    openapi_extra=query_parameters(RetrieveQuery),
    response_class=Response,
    responses={200: {"model": ResponseObject, "description": "The response."}, **errors(400, 401, 404, 500)},
)
async def retrieve_response(
    _: Annotated[RetrieveQuery, Depends(query_of(RetrieveQuery))], response: KeptResponse
) -> Response:
    """A response as it was answered, as long as it is kept."""
    return Response(response.body, media_type="application/json")


@router.get(
    "/input_items",
    summary="List what a response was given",
    operation_id="listResponseInputItems",
    openapi_extra=query_parameters(ItemQuery),
    responses=errors(400, 401, 404, 500),
)
async def list_input_items(
    query: Annotated[ItemQuery, Depends(query_of(ItemQuery))], response: KeptResponse
) -> ItemList:
    """A page of the items a response was given, earlier responses included; the last first by default."""
    return page_of(response.input, query)


@router.delete("", summary="Delete a response", operation_id="deleteResponse", responses=errors(401, 404, 500))
async def delete_response(response: KeptResponse, memory: MemoryDep, tenant: Tenant) -> ResponseDeleted:
    """Forget a response; later ones that build on it stay."""
    await memory.delete(tenant, response.id)
    return ResponseDeleted(id=response.id)


@router.post(
    "/cancel",
    summary="Cancel a response",
    operation_id="cancelResponse",
    response_class=Response,
    responses={200: {"model": ResponseObject}, **errors(400, 401, 404, 429, 500)},
)
async def cancel_response(response: KeptResponse) -> Response:
    """Refused: what is kept has ended, since no response is made in the background."""
    raise BadRequestError(
        f"The response {response.id!r} has ended; only responses in the background can be canceled.",
        param="response_id",
        code="invalid_value",
    )
