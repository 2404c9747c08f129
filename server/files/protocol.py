"""Forms, queries and responses of `/v1/files`. In forms and queries, numbers are text."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from server.api.base_models import RequestModel


class ExpiresAfter(RequestModel):
    """When a file expires."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(strict=False, ge=3_600, le=2_592_000)]
    """Seconds after the anchor; the server may delete the file sooner."""


class FileFields(RequestModel):
    """The fields of an upload's form other than the file."""

    purpose: Literal["vision", "user_data"]
    """Both mean the same here: an image or a video for use in requests."""
    expires_after: ExpiresAfter | None = None


class FileForm(FileFields):
    """The form of an upload; nested fields are written `expires_after[seconds]`."""

    file: Annotated[bytes, Field(json_schema_extra={"format": "binary"})]
    """An image or a video."""


class FileQuery(RequestModel):
    """Query of the list of files."""

    after: str | None = None
    """Id of the file after which the page begins."""
    limit: Annotated[int, Field(strict=False, ge=1, le=10_000)] = 10_000
    """Maximum number of files in the page."""
    order: Literal["asc", "desc"] = "desc"
    """By upload time."""
    purpose: str | None = None
    """Only files of this purpose."""


class FileObject(BaseModel):
    """An uploaded file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    """Size of the file."""
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
    """Confirms that a file was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True
