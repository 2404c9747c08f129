"""`/v1/files`: upload, list, retrieve, download, delete. A key has access to its own files only."""

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.datastructures import QueryParams

from server.api.openapi import Schemas, errors, form_request
from server.api.openapi import query as query_parameters
from server.api.validation import refusal
from server.core.errors import NotFoundError
from server.files.download import Download
from server.files.interface import Files
from server.files.multipart import UploadForm
from server.files.protocol import FileDeleted, FileFields, FileForm, FileList, FileObject, FileQuery
from server.files.record import Record

router = APIRouter(prefix="/v1/files")
SCHEMAS = Schemas(read=[FileForm])


@router.post(
    "",
    summary="Upload a file",
    operation_id="createFile",
    openapi_extra=form_request(FileForm),
    responses=errors(400, 401, 413, 429, 500, 503, 507),
)
async def create_file(request: Request) -> FileObject:
    """Upload an image or a video; requests can refer to it by its id until it expires."""
    files, tenant = _files(request)
    form = UploadForm(request.headers)
    async with files.receive(tenant) as upload:
        async for data in request.stream():
            for piece in form.feed(data):
                await upload.write(piece)
        values = form.close()
        try:
            fields = FileFields.model_validate_strings(values)
        except ValidationError as error:
            raise refusal(error) from error
        assert form.filename is not None  # a form without a file does not close
        record = await files.keep(
            upload,
            tenant,
            filename=form.filename,
            purpose=fields.purpose,
            lifetime_s=None if fields.expires_after is None else fields.expires_after.seconds,
        )
    return _file_object(record)


@router.get(
    "",
    summary="List this key's files",
    operation_id="listFiles",
    openapi_extra=query_parameters(FileQuery),
    responses=errors(400, 401, 404, 500, 503),
)
async def list_files(request: Request) -> FileList:
    """A page of files, newest first by default."""
    files, tenant = _files(request)
    query = _query(request.query_params)
    records = [record for record in await files.all_of(tenant) if query.purpose in (None, record.purpose)]
    if query.order == "desc":
        records.reverse()
    if query.after is not None:
        ids = [record.id for record in records]
        if query.after not in ids:
            raise NotFoundError(f"No such File object: {query.after[:100]}", param="after", code="file_not_found")
        records = records[ids.index(query.after) + 1 :]
    page = records[: query.limit]
    return FileList(
        data=[_file_object(record) for record in page],
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(records) > len(page),
    )


@router.get("/{file_id}", summary="Retrieve a file", operation_id="retrieveFile", responses=errors(401, 404, 500, 503))
async def retrieve_file(request: Request, file_id: str) -> FileObject:
    """The metadata of a file."""
    files, tenant = _files(request)
    return _file_object(await files.find(file_id, tenant, param="id"))


@router.get(
    "/{file_id}/content",
    summary="Download a file",
    operation_id="downloadFile",
    response_class=Response,
    responses={
        200: {
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
            "description": "The uploaded bytes.",
        },
        **errors(401, 404, 500, 503),
    },
)
async def download_file(request: Request, file_id: str) -> Response:
    """The content of a file."""
    files, tenant = _files(request)
    record = await files.find(file_id, tenant, param="id")
    return Download(await files.content(record, tenant), num_bytes=record.num_bytes, filename=record.filename)


@router.delete(
    "/{file_id}", summary="Delete a file", operation_id="deleteFile", responses=errors(401, 404, 500, 503, 507)
)
async def delete_file(request: Request, file_id: str) -> FileDeleted:
    """Delete a file."""
    files, tenant = _files(request)
    await files.delete(await files.find(file_id, tenant, param="id"), tenant)
    return FileDeleted(id=file_id)


def _files(request: Request) -> tuple[Files, str]:
    files: Files = request.app.state.files
    tenant: str = request.state.tenant
    return files, tenant


def _query(params: QueryParams) -> FileQuery:
    try:
        return FileQuery.model_validate_strings(dict(params))
    except ValidationError as error:
        raise refusal(error) from error


def _file_object(record: Record) -> FileObject:
    return FileObject(
        id=record.id,
        bytes=record.num_bytes,
        created_at=record.created_at,
        expires_at=record.expires_at,
        filename=record.filename,
        purpose=record.purpose,
    )
