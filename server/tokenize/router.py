"""`POST /tokenize` and `POST /detokenize`; answered while the engine is away, too."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from server.api.openapi import Schemas, errors, json_request
from server.generation.dependencies import LoadedModel, model_body
from server.prompt.plain import check_token_ids
from server.tokenize.protocol import DetokenizeRequest, DetokenizeResponse, TokenizeRequest, TokenizeResponse
from server.tokenize.serving import token_ids

router = APIRouter()
SCHEMAS = Schemas(read=[TokenizeRequest, DetokenizeRequest])


@router.post(
    "/tokenize",
    summary="Text to token ids",
    operation_id="tokenize",
    response_class=Response,
    openapi_extra=json_request(TokenizeRequest),
    responses={200: {"model": TokenizeResponse}, **errors(400, 401, 404, 413, 429, 500, 503)},
)
async def tokenize(
    model: LoadedModel, body: Annotated[TokenizeRequest, Depends(model_body(TokenizeRequest))]
) -> Response:
    """The ids a text, or a conversation without media, has in a prompt."""
    ids = await asyncio.to_thread(token_ids, body, model)
    answer = TokenizeResponse(count=len(ids), max_model_len=model.engine.max_model_len, tokens=ids)
    return Response(answer.encode(), media_type="application/json")


@router.post(
    "/detokenize",
    summary="Token ids to text",
    operation_id="detokenize",
    response_class=Response,
    openapi_extra=json_request(DetokenizeRequest),
    responses={200: {"model": DetokenizeResponse}, **errors(400, 401, 404, 413, 429, 500, 503)},
)
async def detokenize(
    model: LoadedModel, body: Annotated[DetokenizeRequest, Depends(model_body(DetokenizeRequest))]
) -> Response:
    """The text token ids stand for, control tokens by their names."""
    numbered = ((f"tokens[{index}]", token_id) for index, token_id in enumerate(body.tokens))
    check_token_ids(numbered, model.tokenizer.num_tokens)
    text = await asyncio.to_thread(model.tokenizer.decode, body.tokens, skip_special_tokens=False)
    return Response(DetokenizeResponse(prompt=text).encode(), media_type="application/json")
