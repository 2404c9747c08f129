"""`GET /v1/models` and `GET /v1/models/{id}`."""

from fastapi import APIRouter, Request

from server.api.openapi import errors
from server.chat.serving import ServedModel
from server.generation.model_service import Service
from server.ops.model_list import Model, ModelList

router = APIRouter()


@router.get(
    "/v1/models",
    summary="List the served models",
    operation_id="listModels",
    response_model_exclude_none=True,
    responses=errors(401, 500, 503),
)
async def list_models(request: Request) -> ModelList:
    """The model and, as separate models, its adapters; available once they are ready."""
    service: Service = request.app.state.service
    model = service.model()
    return ModelList(data=[_model_object(model, name) for name in (model.name, *model.adapters)])


@router.get(
    "/v1/models/{model:path}",
    summary="Retrieve a served model",
    operation_id="retrieveModel",
    response_model_exclude_none=True,
    responses=errors(401, 404, 500, 503),
)
async def retrieve_model(request: Request, model: str) -> Model:
    """The model with that name."""
    service: Service = request.app.state.service
    served = service.model()
    service.require_model(model)
    return _model_object(served, model)


def _model_object(model: ServedModel, name: str) -> Model:
    parent = None if model.adapter(name) is None else model.name
    return Model(id=name, created=model.created, max_model_len=model.engine.max_model_len, parent=parent)
