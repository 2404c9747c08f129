"""Every setting of the server, declared once.

`TESSERA_*` variables, command-line flags, `.env.example` and `docs/settings.md` all derive from the classes here (and
from `model_executor.engine.EngineSettings`, which the engine process reads too). Loaded once in `server/__main__.py`
and passed down as arguments.
"""

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from model_executor.checkpoint.config import BUNDLED_MODEL
from model_executor.checkpoint.processor_files import DEFAULT_IMAGE_MAX_PIXELS
from model_executor.engine import EngineSettings
from model_executor.processor.geometry import (
    MAX_VIDEO_TOKENS,
    TOKEN_PX,
    VIDEO_FPS,
    VIDEO_FRAME_MAX_PIXELS,
    VIDEO_MAX_FRAMES,
    VIDEO_MIN_FRAMES,
)
from server.core.domains import split_domains

_SECTION = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


_ORIGIN = re.compile(r"\*|https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")


_RENAMED = {
    "TESSERA_DATA_FOLDER": "TESSERA_DATA_DIR",
    "TESSERA_ENGINE__LORA_FOLDER": "TESSERA_ENGINE__LORA_DIR",
    "TESSERA_ENGINE__WARM_SPARE": "TESSERA_ENGINE__WARM_STANDBY",
    "TESSERA_FILES__LIFETIME_S": "TESSERA_FILES__EXPIRES_AFTER_S",
    "TESSERA_MEDIA__FILE_FOLDER": "TESSERA_MEDIA__ALLOWED_LOCAL_PATH",
    "TESSERA_MEDIA__MAX_QUEUE": "TESSERA_MEDIA__MAX_QUEUED_JOBS",
    "TESSERA_MEDIA__TIMEOUT_S": "TESSERA_MEDIA__DECODE_TIMEOUT_S",
}
"""Former names of settings, by which nothing can be set any more, and today's."""


OPENABLE_ROUTES = frozenset(("/metrics", "/tokenize", "/detokenize"))
"""Routes an operator may open to everybody."""


def split_list(value: str | None) -> list[str]:
    """The entries of a setting that takes several, separated by commas; empty where it is unset."""
    return [entry for entry in (part.strip() for part in (value or "").split(",")) if entry]


class MediaSettings(BaseModel):
    """The `media` section: what a request may bring, and what preparing it may cost."""

    model_config = _SECTION

    allow_private_networks: bool = False
    """Let media URLs lead to addresses that are not globally routable (loopback, private, link-local)."""
    allowed_domains: str = ""
    """Domains media URLs may lead to, subdomains included, separated by commas. Empty: all that are not denied."""
    denied_domains: str = ""
    """Domains media URLs may not lead to, subdomains included, separated by commas."""
    allowed_local_path: Path | None = None
    """Directory that `file:` URLs may read from; links in it are not followed. Unset: `file:` URLs are rejected."""
    max_parts: int = Field(default=32, ge=0)
    """Media parts in one request."""
    max_request_bytes: int = Field(default=1 << 30, ge=1)
    """Encoded size of all media of one request together."""
    max_request_pixels: int = Field(default=2_000_000_000, ge=1)
    """Pixels before resizing of all images of one request together; a video counts one frame."""
    max_request_frames: int = Field(default=6144, ge=2)
    """Frames sampled from all videos of one request together."""
    max_request_s: float = Field(default=8 * 3600, gt=0)
    """Presentation time of all videos of one request together, in seconds."""
    max_request_tokens: int = Field(default=131_072, ge=1)
    """Tokens of all media of one request together; the context's length limits them, too."""
    max_image_bytes: int = Field(default=32 << 20, ge=1)
    """Encoded size of one image."""
    max_video_bytes: int = Field(default=512 << 20, ge=1)
    """Encoded size of one video."""
    max_source_pixels: int = Field(default=200_000_000, ge=1)
    """Pixels of one decoded image or frame before resizing (a decompression-bomb guard)."""
    max_image_pixels: int = Field(default=DEFAULT_IMAGE_MAX_PIXELS, ge=TOKEN_PX)
    """Pixels of one image after resizing; the checkpoint's own limit applies too."""
    max_video_pixels: int = Field(default=VIDEO_FRAME_MAX_PIXELS, ge=TOKEN_PX)
    """Pixels of one frame of a video after resizing; the checkpoint's own limit applies too."""
    max_video_tokens: int = Field(default=MAX_VIDEO_TOKENS, ge=1, le=MAX_VIDEO_TOKENS)
    """Tokens of one video."""
    max_video_frames: int = Field(default=VIDEO_MAX_FRAMES, ge=2, le=VIDEO_MAX_FRAMES)
    """Frames sampled from one video."""
    video_fps: float = Field(default=VIDEO_FPS, gt=0, le=1000)
    """Frames sampled per second where a request does not say; of a list of frames, the rate they count as taken at."""
    video_min_frames: int = Field(default=VIDEO_MIN_FRAMES, ge=2, le=VIDEO_MAX_FRAMES)
    """Least frames sampled from one video where a request does not say."""
    max_video_s: float = Field(default=4 * 3600, gt=0)
    """Presentation time of one video, in seconds."""
    fetch_timeout_s: float = Field(default=30, gt=0)
    """Time to fetch one URL, from start to last byte."""
    max_redirects: int = Field(default=3, ge=0)
    """Redirects followed for one URL; each target is checked again."""
    num_workers: int | None = Field(default=None, ge=1)
    """Processes that decode media. Unset: half as many as there are processor cores, at least 2 and at most 16."""
    max_queued_jobs: int = Field(default=64, ge=0)
    """Images and videos that may wait for a worker; further ones are answered 429."""
    decode_timeout_s: float = Field(default=120, gt=0)
    """Time a worker has to decode one image or video; the worker is killed at the deadline."""
    max_worker_bytes: int = Field(default=4 << 30, ge=1 << 28)
    """Address space of one worker process."""
    max_shared_bytes: int = Field(default=4 << 30, ge=1 << 20)
    """Prepared patches held in shared memory at any time: those of all requests, and those kept for later ones."""
    max_cache_bytes: int = Field(default=1 << 30, ge=0)
    """Prepared patches kept in shared memory for later requests that bring the same media, at most half of what
    `/dev/shm` has; 0 keeps none."""
    max_cache_s: float = Field(default=3600, gt=0)
    """Time after which prepared patches that no request has used are given up. Those of an uploaded file go with it."""

    @field_validator("allowed_domains", "denied_domains")
    @classmethod
    def _domains_are_domains(cls, value: str) -> str:
        try:
            split_domains(value)
        except ValueError as error:
            raise PydanticCustomError("invalid_value", "is invalid: {fact}", {"fact": str(error)}) from error
        return value


class FilesSettings(BaseModel):
    """The `files` section: what clients may upload, and for how long it is kept."""

    model_config = _SECTION

    max_file_bytes: int = Field(default=512 << 20, ge=1)
    """Size of one uploaded file; larger ones are answered 413."""
    max_key_bytes: int = Field(default=8 << 30, ge=0)
    """Size of all files of one API key together."""
    max_key_files: int = Field(default=1000, ge=0)
    """Number of files of one API key."""
    max_total_bytes: int = Field(default=32 << 30, ge=0)
    """Size of all files of all keys together."""
    store: str | None = None
    """Where several servers keep the content of uploaded files together: `s3://BUCKET/PREFIX`, or a directory that all
    have mounted; needs `state_url`. Unset: each server keeps its own, in `data_dir`."""
    max_cached_bytes: int = Field(default=8 << 30, ge=0)
    """Copies that this server keeps in `data_dir` of files in `files.store`."""
    expires_after_s: int = Field(default=30 * 86_400, ge=1)
    """Time after which an uploaded file is deleted; an upload may set a shorter one."""


class ResponsesSettings(BaseModel):
    """The `responses` section: what the Responses API remembers, for requests that build on it."""

    model_config = _SECTION

    max_key_entries: int = Field(default=1000, ge=0)
    """Responses and conversations kept of one API key; the oldest make room. 0 keeps none."""
    max_key_bytes: int = Field(default=64 << 20, ge=0)
    """Size of what is kept of one API key, `data:` URLs included."""
    max_total_bytes: int = Field(default=256 << 20, ge=0)
    """Size of what is kept of all keys together; without `state_url`."""
    expires_after_s: int = Field(default=86_400, ge=1)
    """Time after which a response, or a conversation that nothing was added to, is forgotten."""


class Settings(BaseSettings):
    """All settings. Environment: `TESSERA_` and the name, sections joined by `__`; flags: `--section.name-in-words`."""

    model_config = SettingsConfigDict(
        env_prefix="TESSERA_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        cli_prog_name="tessera serve",
        cli_kebab_case="all",
        cli_avoid_json=True,
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
    )

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one and prints it."""
    model: str = BUNDLED_MODEL
    """Checkpoint directory, hub id such as `Qwen/Qwen2-VL-2B-Instruct`, or the name of the bundled model."""
    served_model_name: str | None = None
    """Name clients use for the model. Unset: the last part of `model`."""
    api_key: SecretStr | None = None
    """Key clients must send, or several separated by commas; an empty one ends the start. Unset: no key needed, unless
    there is a key file."""
    metrics_key: SecretStr | None = None
    """Key for `/metrics` and for nothing else. Unset: any key reads `/metrics`, without what other keys do."""
    open_routes: str | None = None
    """Routes that need no key, out of `/metrics`, `/tokenize` and `/detokenize`, separated by commas. Unset: none."""
    api_keys_file: Path | None = None
    """TOML file of further keys as hashes, with names and limits; read again when it changes."""
    cors_origins: str | None = None
    """Origins whose web pages may ask, such as `https://example.org`, separated by commas; `*` for all. Unset: none."""
    tls_certificate: Path | None = None
    """File of the certificate chain (PEM) to serve HTTPS with. Unset: plain HTTP."""
    tls_key: Path | None = None
    """File of the certificate's key (PEM, without a password). Unset: it is in the certificate's file."""
    access_log: bool = True
    """Log one JSON line per request on stderr: id, client, key name, path, status, time; never contents or keys."""
    strict_requests: bool = False
    """Refuse requests with fields the server does not know, instead of leaving these out and naming them in the header
    `x-tessera-ignored`."""
    max_body_bytes: int = Field(default=64 << 20, ge=1024)
    """Size of one request body; larger ones are answered 413."""
    max_connections: int = Field(default=4096, ge=1)
    """Connections of clients; one more takes the place of the one that has been silent for longest."""
    data_dir: Path = Path("~/.local/share/tessera")
    """Directory of what must outlive the process: uploaded files. Created by the first upload."""
    state_url: SecretStr | None = None
    """Redis or Valkey (`redis://`, `rediss://`, `unix://`) in which several servers keep the counts behind the limits
    of keys, remembered responses, and records of files in `files.store`. Unset: each server keeps its own."""
    state_fail_open: bool = False
    """While `state_url` does not answer, let requests of keys with limits pass uncounted instead of answering 503."""
    server_name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """Name of this server among several: in its log, its metrics and the header `x-tessera-server`. Unset: none."""
    default_max_tokens: int | None = Field(default=None, ge=1)
    """Answer length when a request names none. Unset: what the context leaves."""
    keep_alive_s: float = Field(default=10, gt=0)
    """Silence on a stream after which a comment is sent to keep proxies from closing it."""
    shutdown_timeout_s: float = Field(default=30, ge=0)
    """Time running answers get to finish after SIGTERM."""
    engine: EngineSettings = EngineSettings()
    media: MediaSettings = MediaSettings()
    files: FilesSettings = FilesSettings()
    responses: ResponsesSettings = ResponsesSettings()

    @field_validator("api_key", "metrics_key")
    @classmethod
    def _key_is_no_blank(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not split_list(value.get_secret_value()):
            raise PydanticCustomError("invalid_value", "is set but holds no key; leave it unset for none")
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: str | None) -> str | None:
        for origin in split_list(value):
            if not _ORIGIN.fullmatch(origin):
                raise PydanticCustomError(
                    "invalid_value",
                    "must be * or a list of lowercase origins without a path, such as https://example.org",
                )
        return value

    @field_validator("open_routes")
    @classmethod
    def _routes_may_be_open(cls, value: str | None, info: ValidationInfo) -> str | None:
        routes = split_list(value)
        if not OPENABLE_ROUTES.issuperset(routes):
            raise PydanticCustomError("invalid_value", f"must list routes out of {', '.join(sorted(OPENABLE_ROUTES))}")
        if "/metrics" in routes and info.data.get("metrics_key") is not None:
            raise PydanticCustomError("invalid_value", "opens /metrics, and metrics_key is a key for it; unset one")
        return value

    @field_validator("tls_key")
    @classmethod
    def _key_has_a_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("tls_certificate") is None:
            raise PydanticCustomError("invalid_value", "needs tls_certificate to be set as well")
        return value

    @property
    def model_name(self) -> str:
        """What clients call the model."""
        return self.served_model_name or Path(self.model).name


class SettingsError(Exception):
    """A setting that does not exist, or whose value cannot be; the text names variable and flag."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting, as declared: what command line, documentation and checks derive from."""

    path: tuple[str, ...]
    """Section, if any, and name."""
    default: Any
    description: str

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return ("TESSERA_" + "__".join(self.path)).upper()

    @property
    def flag(self) -> str:
        """Name of the command-line flag."""
        return "--" + ".".join(self.path).replace("_", "-")


def declarations(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[Declaration]:
    """Every setting in declared order, sections after the settings of their own level."""
    for name, field in model.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from declarations(type(field.default), (*path, name))
        else:
            yield Declaration((*path, name), field.default, " ".join((field.description or "").split()))


def load_settings(arguments: Sequence[str]) -> Settings:
    """The settings from flags, then the environment, then defaults.

    Args:
        arguments: the command line after `tessera serve`.

    Raises:
        SettingsError: see the class.
    """
    _reject_unknown_variables(os.environ)
    _reject_renamed_flags(arguments)
    _refuse_empty_keys(os.environ)
    try:
        return CliApp.run(Settings, cli_args=list(arguments))
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(detail) for detail in error.errors())) from error


def _reject_unknown_variables(names: Iterable[str]) -> None:
    known = [declared.variable for declared in declarations()]
    for name in names:
        variable = name.upper()
        if not variable.startswith("TESSERA_") or variable in known:
            continue
        if variable in _RENAMED:
            raise SettingsError(f"The setting {name} is now called {_RENAMED[variable]}.")
        close = difflib.get_close_matches(variable, known, n=1)
        hint = f" Did you mean {close[0]}?" if close else " `tessera serve --help` lists all settings."
        raise SettingsError(f"There is no setting {name}.{hint}")


def _reject_renamed_flags(arguments: Iterable[str]) -> None:
    flags = {_flag(old): _flag(new) for old, new in _RENAMED.items()}
    for argument in arguments:
        if new := flags.get(argument.partition("=")[0]):
            raise SettingsError(f"The flag {argument.partition('=')[0]} is now called {new}.")


def _flag(variable: str) -> str:
    """The command-line flag that sets the same as an environment variable."""
    return "--" + variable.removeprefix("TESSERA_").lower().replace("__", ".").replace("_", "-")


def _refuse_empty_keys(environment: Mapping[str, str]) -> None:
    """An empty variable counts as unset, which for these two would open the server to everybody."""
    for name, value in environment.items():
        if name.upper() in ("TESSERA_API_KEY", "TESSERA_API_KEYS_FILE") and not value.strip():
            raise SettingsError(f"{name} is set but empty; remove it for a server that needs no key.")


def _sentence(detail: ErrorDetails) -> str:
    path = tuple(str(step) for step in detail["loc"])
    for declared in declarations():
        if declared.path == path:
            fact = detail["msg"].removeprefix("Input ")
            return f"{declared.variable} ({declared.flag}) {fact}; it is {detail['input']!r}. {declared.description}"
    return f"There is no setting {'.'.join(path)}."
