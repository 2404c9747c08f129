"""`POST /tokenize` and `POST /detokenize`; answered while the engine is away, too."""

import asyncio

from fastapi import APIRouter, Request, Response

from server.api.openapi import errors, json_body
from server.api.request_body import read_json
from server.generation.model_service import Service
from server.tokenize.protocol import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse
from server.tokenize.serving import request_ids, require_known

router = APIRouter()


@router.post(
    "/tokenize",
    summary="Text to token ids",
    operation_id="tokenize",
    response_class=Response,
    openapi_extra=json_body(TokenizeRequest),
    responses={200: {"model": TokenizeResponse}, **errors(400, 401, 404, 413, 429, 500, 503)},
)
async def tokenize(request: Request) -> Response:
    """The ids a text, or a conversation without media, has in a prompt."""
    service: Service = request.app.state.service
    model = service.opened_model()
    body = await read_json(request, TokenizeRequest)
    service.require_model(body.model)
    ids = await asyncio.to_thread(request_ids, body, model)
    answer = TokenizeResponse(count=len(ids), max_model_len=model.engine.max_model_len, tokens=ids)
    return Response(answer.encode(), media_type="application/json")


@router.post(
    "/detokenize",
    summary="Token ids to text",
    operation_id="detokenize",
    response_class=Response,
    openapi_extra=json_body(DetokenizeRequest),
    responses={200: {"model": DetokenizeResponse}, **errors(400, 401, 404, 413, 429, 500, 503)},
)
async def detokenize(request: Request) -> Response:
    """The text token ids stand for, control tokens by their names."""
    service: Service = request.app.state.service
    tokenizer = service.opened_model().tokenizer
    body = await read_json(request, DetokenizeRequest)
    service.require_model(body.model)
    require_known(body.tokens, tokenizer, param="tokens")
    text = await asyncio.to_thread(tokenizer.decode, body.tokens, skip_special_tokens=False)
    return Response(DetokenizeResponse(prompt=text).encode(), media_type="application/json")
