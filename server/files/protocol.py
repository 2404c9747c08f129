"""Bodies, queries and answers of `/v1/files`. Numbers come as text, in forms and queries alike."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from server.api.base_models import RequestModel


class ExpiresAfter(RequestModel):
    """When a file is to expire."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(strict=False, ge=3_600, le=2_592_000)]
    """Seconds after the anchor; the server may delete it sooner."""


class FileFields(RequestModel):
    """What a form says of the file it brings."""

    purpose: Literal["vision", "user_data"]
    """Both are the same here: pictures and clips to be named in requests."""
    expires_after: ExpiresAfter | None = None


class FileForm(FileFields):
    """The form of an upload; nested fields are written `expires_after[seconds]`."""

    file: Annotated[bytes, Field(json_schema_extra={"format": "binary"})]
    """A picture or a clip."""


class FileQuery(RequestModel):
    """Which files to list."""

    after: str | None = None
    """Id of the file the page begins after."""
    limit: Annotated[int, Field(strict=False, ge=1, le=10_000)] = 10_000
    """Most files of a page."""
    order: Literal["asc", "desc"] = "desc"
    """By the time of the upload."""
    purpose: str | None = None
    """Only files of this purpose."""


class FileObject(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    """Its size."""
    created_at: int
    """Seconds since 1970."""
    expires_at: int
    """Seconds since 1970."""
    filename: str
    purpose: Literal["vision", "user_data"]
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file that is no more."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
