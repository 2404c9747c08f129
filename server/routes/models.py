"""`GET /v1/models` and `GET /v1/models/{id}`."""

from fastapi import APIRouter, Request

from server.openapi import errors
from server.protocol.models import Model, ModelList
from server.service import Service

router = APIRouter()


@router.get("/v1/models", summary="The served models", operation_id="listModels", responses=errors(401, 500, 503))
async def list_models(request: Request) -> ModelList:
    """The one model there is; answered once it is ready."""
    return ModelList(data=[_served(request.app.state.service)])


@router.get(
    "/v1/models/{model:path}",
    summary="One served model",
    operation_id="retrieveModel",
    responses=errors(401, 404, 500, 503),
)
async def retrieve_model(request: Request, model: str) -> Model:
    """The model of that name."""
    service: Service = request.app.state.service
    service.require_model(model)
    return _served(service)


def _served(service: Service) -> Model:
    model = service.model()
    return Model(id=model.name, created=model.created, max_model_len=model.engine.max_model_len)
