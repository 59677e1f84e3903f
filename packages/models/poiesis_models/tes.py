"""TES 1.1 documents (tesTask and its parts), validated.

A create ignores unknown fields and the read-only ones (id, state, logs, creation_time), which are not stored.
A field that was not sent stays unset and is not returned: dump with `exclude_none=True`. Sizes are in GB
(10**9 bytes).

Descriptions and `json_schema_extra` are for the OpenAPI document.
"""

import math
import posixpath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from typing_extensions import TypeAliasType

from poiesis_models.globs import has_wildcard, literal_directory, unescaped
from poiesis_models.states import TesState
from poiesis_models.urls import names_s3_directory

CONTENT_BYTES = 128 * 1024
# No Pod can have more executors. Only the first invalid item of a list is reported (`fail_fast`): a report on
# each of a million items would take a minute and gigabytes.
EXECUTORS = 1_000
ITEMS = 10_000  # of any other list or map except argv


class InvalidValue(ValueError):
    """A field is invalid. `reason` may be logged; `value` is the client's and may be secret."""

    def __init__(self, reason: str, value: str | None = None) -> None:
        super().__init__(reason if value is None else f"{reason}, got {value!r}")
        self.reason = reason
        self.value = value


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise InvalidValue(f"{what} must be an absolute path in the container", path)
    if "\0" in path:
        raise InvalidValue(f"{what} must not contain NUL")
    segments = path.strip("/").split("/")
    if any(segment in {".", ".."} for segment in segments):
        raise InvalidValue(f"{what} must not contain '.' or '..' segments", path)
    if "//" in path:
        raise InvalidValue(f"{what} must not contain empty segments", path)
    return path


def _container_path(path: str, info: ValidationInfo) -> str:
    return _absolute(path, info.field_name or "path")


def _text(value: str) -> str:
    if "\0" in value:
        raise InvalidValue("must not contain NUL")
    return value


def _set_entries(given: object) -> object:
    """Remove null values, which mean absent, and check the number of entries before their validation."""
    if not isinstance(given, dict):
        return given
    if len(given) > ITEMS:
        raise InvalidValue(f"must have at most {ITEMS} entries, got {len(given)}")
    return {key: value for key, value in given.items() if value is not None}


Text = Annotated[str, AfterValidator(_text)]
NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(_text)]
ContainerPath = Annotated[
    str,
    AfterValidator(_container_path),
    Field(json_schema_extra={"pattern": r"^/$|^(/[^/\u0000]+)+/?$"}),
]
TesFileType = TypeAliasType("TesFileType", Literal["FILE", "DIRECTORY"])
_Bounded = (BeforeValidator(_set_entries), Field(json_schema_extra={"maxProperties": ITEMS}))
Texts = Annotated[dict[Text, Text], *_Bounded]
NamedTexts = Annotated[dict[NonEmpty, Text], *_Bounded]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]  # RFC 3339
Url = Annotated[str, Field(json_schema_extra={"format": "uri"})]
Int32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]
Double = Annotated[float, Field(json_schema_extra={"format": "double"})]


class TesModel(BaseModel):
    """Base of all documents: unknown keys are ignored, strict types (no "1" for 1)."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class TesExecutor(TesModel):
    """`command` is argv, no shell; stdin, stdout, stderr are container paths."""

    image: NonEmpty = Field(description="Container image reference", examples=["busybox:1.37"])
    command: list[Text] = Field(
        min_length=1,
        fail_fast=True,
        description="The program and its arguments (argv). No shell is involved, and ENTRYPOINT is not used.",
        examples=[["echo", "hello"]],
    )
    workdir: ContainerPath | None = Field(
        default=None, description="Working directory; by default that of the image"
    )
    stdin: ContainerPath | None = Field(default=None, description="File that is connected to stdin")
    stdout: ContainerPath | None = Field(default=None, description="File to which stdout is written")
    stderr: ContainerPath | None = Field(default=None, description="File to which stderr is written")
    env: NamedTexts | None = Field(
        default=None,
        description="Environment variables, in addition to those of the image. References are not expanded.",
    )
    ignore_error: bool | None = Field(
        default=None, description="Continue with the next executor after a non-zero exit code"
    )

    @field_validator("command")
    @classmethod
    def _program_is_named(cls, command: list[str]) -> list[str]:
        if command[0] == "":
            raise InvalidValue("command[0] names the program and must not be empty")
        return command

    @field_validator("env")
    @classmethod
    def _names_are_env_names(cls, env: dict[str, str] | None) -> dict[str, str] | None:
        for name in env or ():
            if "=" in name:
                raise InvalidValue("a variable name must not contain '='", name)
        return env


class TesInput(TesModel):
    """A file or directory staged before the first executor. `content` takes precedence over `url`."""

    name: Text | None = Field(default=None, description="For users; not interpreted")
    description: Text | None = Field(default=None, description="For users; not interpreted")
    url: Text | None = Field(
        default=None,
        description="Source of the data; required unless content is set. service-info lists URL prefixes.",
        examples=["s3://bucket/reads.fq"],
    )
    path: ContainerPath = Field(
        description="Path of the file or directory in the executors' containers", examples=["/data/reads.fq"]
    )
    type: TesFileType | None = Field(
        default=None,
        description="FILE or DIRECTORY. By default decided by the object at url, and filled in when a filer "
        "has reported it.",
    )
    content: str | None = Field(
        default=None,
        description=f"Content of the file, at most {CONTENT_BYTES} bytes of UTF-8. Unless it is empty, "
        "url is ignored.",
    )
    streamable: bool | None = Field(
        default=None,
        description="The executor reads the file only once, from the beginning. If the operator has enabled "
        "streaming, it may get a FIFO instead of a copy.",
    )

    @field_validator("content")
    @classmethod
    def _bounded(cls, content: str | None) -> str | None:
        if content is not None and len(content.encode()) > CONTENT_BYTES:
            raise InvalidValue(f"content is longer than {CONTENT_BYTES} bytes; use url for larger inputs")
        if content is not None and "\0" in content:
            raise InvalidValue("content must not contain NUL; use url for binary inputs")
        return content

    @model_validator(mode="after")
    def _has_a_source(self) -> "TesInput":
        if self.content is None and not self.url:
            raise InvalidValue("an input must have url or content")
        if self.content and self.type == "DIRECTORY":
            raise InvalidValue("type must not be DIRECTORY if content is set")
        if self.path == "/":
            raise InvalidValue("path must not be '/'")
        if self.path.endswith("/") and (self.content or self.type == "FILE"):
            raise InvalidValue("path must not end in '/' for a file", self.path)
        return self

    @property
    def literal(self) -> str | None:
        """The content to write; None if the input comes from `url`, also if the content is empty."""
        return None if self.content is None or (self.content == "" and self.url) else self.content

    @property
    def certain_type(self) -> TesFileType | None:
        """The type of the staged input, if the document determines it; None if the store decides.

        An S3 URL that names a bucket or ends in `/` is a directory, even if `type` is FILE.
        """
        if self.literal is not None:
            return "FILE"
        if self.path.endswith("/") or names_s3_directory(self.url or ""):
            return "DIRECTORY"
        return self.type


class TesOutput(TesModel):
    """A file or directory sent after the last executor. For a pattern, `url` replaces `path_prefix`."""

    name: Text | None = Field(default=None, description="For users; not interpreted")
    description: Text | None = Field(default=None, description="For users; not interpreted")
    url: NonEmpty = Field(
        description="Destination of the data; for a pattern, the directory that replaces path_prefix",
        examples=["s3://bucket/results"],
    )
    path: ContainerPath = Field(
        description="File, directory or POSIX pattern (`*`, `?`, `[…]`) in the container. A backslash "
        "escapes the next character.",
        examples=["/data/result.bam"],
    )
    path_prefix: Text | None = Field(
        default=None,
        description="Prefix removed from the paths that match a pattern; ignored if `path` is not a pattern",
    )
    type: TesFileType | None = Field(
        default=None,
        description="FILE or DIRECTORY. A directory is sent with its contents even if this is FILE.",
    )

    @model_validator(mode="after")
    def _names_something(self) -> "TesOutput":
        if self.path == "/":
            raise InvalidValue("path must not be '/'")
        _absolute(unescaped(self.path), "path")
        prefix = self.path_prefix
        if prefix and self.wildcard and not unescaped(self.path).startswith((prefix, unescaped(prefix))):
            raise InvalidValue(f"path must start with path_prefix {prefix!r}", self.path)
        return self

    @property
    def wildcard(self) -> bool:
        """Whether `path` is a pattern (POSIX XCU 2.13)."""
        return has_wildcard(self.path)

    @property
    def place(self) -> str:
        """The path in the container, without escapes; a pattern is returned unchanged."""
        return self.path if self.wildcard else unescaped(self.path)

    @property
    def prefix(self) -> str | None:
        """`path_prefix` of a pattern without escapes; None if it was not sent."""
        return unescaped(self.path_prefix) if self.path_prefix is not None and self.wildcard else None

    @property
    def directory(self) -> str:
        """The deepest directory that contains every file of this output."""
        return literal_directory(self.path) if self.wildcard else posixpath.dirname(self.place.rstrip("/"))


class TesResources(TesModel):
    """The resources that a task requests; `ram_gb` and `disk_gb` are in units of 10**9 bytes."""

    cpu_cores: Int32 | None = Field(default=None, gt=0, le=2**31 - 1, description="Number of CPUs")
    preemptible: bool | None = Field(default=None, description="The task may run on preemptible nodes")
    ram_gb: Double | None = Field(
        default=None, gt=0, le=1e9, allow_inf_nan=False, description="Memory in GB (10^9 bytes)"
    )
    disk_gb: Double | None = Field(
        default=None,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="Disk for the task's data in GB (10^9 bytes); 0 means unset",
    )
    zones: list[Text] | None = Field(
        default=None, max_length=ITEMS, fail_fast=True, description="Compute zones"
    )
    backend_parameters: Texts | None = Field(
        default=None,
        description="Keys are case-insensitive; service-info lists the supported ones. Others are neither "
        "stored nor returned; system_logs contains a warning.",
    )
    backend_parameters_strict: bool | None = Field(
        default=None, description="Reject a task with an unsupported backend parameter"
    )

    @field_validator("ram_gb", "disk_gb", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        try:
            return float(value)
        except OverflowError:
            return math.inf  # rejected by allow_inf_nan

    @field_validator("disk_gb")
    @classmethod
    def _zero_is_unset(cls, value: float | None) -> float | None:
        return value or None  # clients that round to whole units send 0


class TesTaskRequest(TesModel):
    """The body of a create."""

    name: Text | None = Field(default=None, description="Name for users and for name_prefix")
    description: Text | None = Field(default=None, description="For users; not interpreted")
    inputs: list[TesInput] | None = Field(
        default=None, max_length=ITEMS, fail_fast=True, description="Staged before the first executor"
    )
    outputs: list[TesOutput] | None = Field(
        default=None,
        max_length=ITEMS,
        fail_fast=True,
        description="Sent after the last executor, even if an executor failed",
    )
    resources: TesResources | None = None
    executors: list[TesExecutor] = Field(
        min_length=1,
        max_length=EXECUTORS,
        fail_fast=True,
        description="Run one after the other, with the same inputs and volumes",
    )
    volumes: list[ContainerPath] | None = Field(
        default=None,
        max_length=ITEMS,
        fail_fast=True,
        description="Directories shared by the executors, initially empty",
    )
    tags: NamedTexts | None = Field(default=None, description="Labels for users and for filters of ListTasks")


class TesExecutorLog(TesModel):
    """An executor that has ended."""

    start_time: Time | None = None
    end_time: Time | None = None
    stdout: str | None = Field(default=None, description="The last part of the output; FULL view only")
    stderr: str | None = Field(default=None, description="The last part of the output; FULL view only")
    exit_code: Int32 = Field(description="Exit code; 128 + n after signal n")


class TesOutputFileLog(TesModel):
    """One file that was sent."""

    url: str = Field(description="URL that the file was sent to")
    path: str = Field(description="Path of the file in the container")
    size_bytes: str = Field(
        description="Size in bytes, as a string because JSON has no 64-bit integers",
        json_schema_extra={"format": "int64"},
    )


class TesTaskLog(TesModel):
    """The log of one attempt."""

    logs: list[TesExecutorLog] = Field(description="Logs of the executors that have ended")
    metadata: dict[str, str] | None = Field(
        default=None,
        description="All values are strings; BASIC and FULL views. `pod`, `node`: where it runs. "
        "`waiting_reason`: the last message about what the task waits for. "
        "`staging.files_done`, `staging.bytes_done`, `sending.files_done`, `sending.bytes_done`: progress of "
        "inputs and outputs; "
        "`staging.bytes_per_second`, `sending.bytes_per_second`: the rate while data is transferred. "
        "`<container>.start_time`, `<container>.end_time`: of executors (`executor-0`) and filers (`tif-0`, "
        "`stream-0`, `tof-0`). `peak_memory_bytes`, `cpu_time_ms`, `user_cpu_time_ms`, `system_cpu_time_ms`, "
        "`read_bytes`, `written_bytes`, `disk_used_bytes`: what the executors that have ended used together; "
        "`executor-<n>.<key>`: what each used. `reason`, `message`, `container`, `reported_by`: the outcome. "
        "`executor-<n>.stdout`, `executor-<n>.stderr`: output of an executor that has not exited (FULL only)",
    )
    start_time: Time | None = None
    end_time: Time | None = None
    outputs: list[TesOutputFileLog] = Field(description="The files that were sent")
    system_logs: list[str] | None = Field(
        default=None, description="Events and errors of the system, each with its time; FULL view only"
    )


_READ_ONLY: dict[str, Any] = {"readOnly": True}


class TesTask(TesTaskRequest):
    """A task as it was sent, with the fields that the server adds."""

    id: str = Field(description="Assigned by the server", json_schema_extra=_READ_ONLY)
    state: TesState = Field(json_schema_extra=_READ_ONLY)
    logs: list[TesTaskLog] | None = Field(
        default=None,
        description="One entry per attempt; absent before the first attempt",
        json_schema_extra=_READ_ONLY,
    )
    creation_time: Time | None = Field(
        default=None, description="Time at which the server accepted the task", json_schema_extra=_READ_ONLY
    )


class TesTaskMinimal(TesModel):
    """A task in the MINIMAL view."""

    id: str
    state: TesState


class TesCreateTaskResponse(TesModel):
    """The response to CreateTask."""

    id: str = Field(description="Assigned by the server")


class TesCancelTaskResponse(TesModel):
    """The response to CancelTask, an empty object."""


class TesListTasksResponse(TesModel):
    """A page of tasks, newest first."""

    tasks: list[TesTask | TesTaskMinimal]
    next_page_token: str | None = Field(
        default=None,
        description="The page_token of the next page, with the same filters; absent on the last page",
    )


class _ServiceModel(TesModel):
    """Base of GA4GH service-info documents, whose keys are in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class TesServiceType(_ServiceModel):
    """GA4GH service-info 1.0.0 `ServiceType`, of a TES."""

    group: str
    artifact: Literal["tes"]
    version: str = Field(description="Version of the specification")


class TesServiceOrganization(_ServiceModel):
    """The organization that provides the service."""

    name: str
    url: Url


class TesServiceInfo(_ServiceModel):
    """GA4GH service-info 1.0.0 `Service` with the fields of TES."""

    id: str
    name: str
    type: TesServiceType
    description: str | None = None
    organization: TesServiceOrganization
    contact_url: Url | None = None
    documentation_url: Url | None = None
    created_at: Time | None = None
    updated_at: Time | None = None
    environment: str | None = None
    version: str = Field(description="Version of this server")
    storage: list[str] | None = Field(
        default=None, description="Some URL prefixes that tasks can read and write; not necessarily all"
    )
    tes_resources_backend_parameters: list[str] | None = Field(
        default=None,
        alias="tesResources_backend_parameters",
        description="Every supported key of resources.backend_parameters",
    )
