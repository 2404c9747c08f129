"""`GET /v1/models` and `GET /v1/models/{id}`."""

from fastapi import APIRouter

from server.api.dependencies import ServerSettings
from server.api.openapi import errors
from server.core.settings import MediaSettings
from server.generation.dependencies import ModelServiceDep
from server.generation.model_service import ServedModel
from server.ops.model_list import MediaSizeLimits, Model, ModelList

router = APIRouter()


@router.get(
    "/v1/models",
    summary="List the served models",
    operation_id="listModels",
    response_model_exclude_none=True,
    responses=errors(401, 500, 503),
)
async def list_models(service: ModelServiceDep, settings: ServerSettings) -> ModelList:
    """The model and, as separate models, its adapters; available once they are ready."""
    model = service.model()
    return ModelList(data=[_model_object(model, name, settings.media) for name in (model.name, *model.adapters)])


@router.get(
    "/v1/models/{model:path}",
    summary="Retrieve a served model",
    operation_id="retrieveModel",
    response_model_exclude_none=True,
    responses=errors(401, 404, 500, 503),
)
async def retrieve_model(service: ModelServiceDep, settings: ServerSettings, model: str) -> Model:
    """The model with that name."""
    served = service.model()
    served.require(model)
    return _model_object(served, model, settings.media)


def _model_object(model: ServedModel, name: str, media: MediaSettings) -> Model:
    parent = None if model.adapter(name) is None else model.name
    return Model(
        id=name,
        created=model.created,
        max_model_len=model.engine.max_model_len,
        parent=parent,
        description=model.description,
        sampling_defaults=dict(model.sampling_defaults) or None,
        limits=MediaSizeLimits(max_image_bytes=media.max_image_bytes, max_video_bytes=media.max_video_bytes),
    )
