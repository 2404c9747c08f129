"""`GET /v1/models` and `GET /v1/models/{id}`."""

from fastapi import APIRouter

from server.api.openapi import errors
from server.generation.dependencies import ModelServiceDep
from server.generation.model_service import ServedModel
from server.ops.model_list import Model, ModelList

router = APIRouter()


@router.get(
    "/v1/models",
    summary="The served models",
    operation_id="listModels",
    response_model_exclude_none=True,
    responses=errors(401, 500, 503),
)
async def list_models(service: ModelServiceDep) -> ModelList:
    """The model and, as models of their own, its adapters; answered once they are ready."""
    model = service.model()
    return ModelList(data=[_served(model, name) for name in (model.name, *model.adapters)])


@router.get(
    "/v1/models/{model:path}",
    summary="One served model",
    operation_id="retrieveModel",
    response_model_exclude_none=True,
    responses=errors(401, 404, 500, 503),
)
async def retrieve_model(service: ModelServiceDep, model: str) -> Model:
    """The model of that name."""
    served = service.model()
    served.require(model)
    return _served(served, model)


def _served(model: ServedModel, name: str) -> Model:
    parent = None if model.adapter(name) is None else model.name
    return Model(id=name, created=model.created, max_model_len=model.engine.max_model_len, parent=parent)
