"""TES 1.1 documents (tesTask and what it holds), validated.

Unknown fields are ignored and not stored; so are the read-only ones (id, state, logs, creation_time) in a
create. A field that was not sent stays unset and is not returned: dump with `exclude_none=True`.
Sizes are GB = 10**9 bytes.

Descriptions, and what `json_schema_extra` adds, are for the OpenAPI document.
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
# More of them no Pod can hold, and no list can be checked in passing. Of a list the first wrong item is told:
# to tell of each of a million costs a minute, and gigabytes.
EXECUTORS = 1_000
ITEMS = 10_000  # of any other list or map but argv


def _absolute(path: str, what: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"{what} must be an absolute path in the container, not {path!r}")
    if "\0" in path:
        raise ValueError(f"{what} must not contain NUL")
    segments = path.strip("/").split("/")
    if any(segment in {".", ".."} for segment in segments):
        raise ValueError(f"{what} must not contain '.' or '..' segments: {path!r}")
    if "//" in path:
        raise ValueError(f"{what} must not contain empty segments: {path!r}")
    return path


def _container_path(path: str, info: ValidationInfo) -> str:
    return _absolute(path, info.field_name or "path")


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain NUL")
    return value


def _set_entries(given: object) -> object:
    """Leave out null, which is as if not sent. Before the items are looked at: each could be wrong."""
    if not isinstance(given, dict):
        return given
    if len(given) > ITEMS:
        raise ValueError(f"has {len(given)} entries; at most {ITEMS} are possible")
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

    image: NonEmpty = Field(description="Container image, as Kubernetes pulls it", examples=["busybox:1.37"])
    command: list[Text] = Field(
        min_length=1,
        fail_fast=True,
        description="argv: the program and its arguments; no shell, and ENTRYPOINT is not used",
        examples=[["echo", "hello"]],
    )
    workdir: ContainerPath | None = Field(default=None, description="Working directory; absent: the image's")
    stdin: ContainerPath | None = Field(default=None, description="File that the program reads as its stdin")
    stdout: ContainerPath | None = Field(default=None, description="File that gets the program's stdout")
    stderr: ContainerPath | None = Field(default=None, description="File that gets the program's stderr")
    env: NamedTexts | None = Field(
        default=None,
        description="Variables of the environment, over the image's; nothing is expanded",
    )
    ignore_error: bool | None = Field(
        default=None, description="Record a non-zero exit code and go on with the next executor"
    )

    @field_validator("command")
    @classmethod
    def _program_is_named(cls, command: list[str]) -> list[str]:
        if command[0] == "":
            raise ValueError("command[0] names the program and must not be empty")
        return command

    @field_validator("env")
    @classmethod
    def _names_are_env_names(cls, env: dict[str, str] | None) -> dict[str, str] | None:
        for name in env or ():
            if "=" in name:
                raise ValueError(f"a variable name must not contain '=': {name!r}")
        return env


class TesInput(TesModel):
    """Staged before the first executor. `content`, if there is one, wins over `url`."""

    name: Text | None = Field(default=None, description="For people")
    description: Text | None = Field(default=None, description="For people")
    url: Text | None = Field(
        default=None,
        description="Where the data are; required unless content is set. service-info names the schemes.",
        examples=["s3://bucket/reads.fq"],
    )
    path: ContainerPath = Field(
        description="Where executors find the file or directory", examples=["/data/reads.fq"]
    )
    type: TesFileType | None = Field(
        default=None,
        description="Absent: what lies at url decides; it is filled in once a filer has reported it",
    )
    content: str | None = Field(
        default=None,
        description=f"What the file holds, at most {CONTENT_BYTES} bytes of UTF-8. If it is not empty, "
        "url is ignored.",
    )
    streamable: bool | None = Field(
        default=None,
        description="The executor reads the file once: where the operator has switched streaming on, it may "
        "get a FIFO instead of a copy",
    )

    @field_validator("content")
    @classmethod
    def _bounded(cls, content: str | None) -> str | None:
        if content is not None and len(content.encode()) > CONTENT_BYTES:
            raise ValueError(f"content is longer than {CONTENT_BYTES} bytes; use url for larger inputs")
        if content is not None and "\0" in content:
            raise ValueError("content must not contain NUL; use url for binary inputs")
        return content

    @model_validator(mode="after")
    def _has_a_source(self) -> "TesInput":
        if self.content is None and not self.url:
            raise ValueError("an input needs url or content")
        if self.content and self.type == "DIRECTORY":
            raise ValueError("content makes a file: type must not be DIRECTORY")
        if self.path == "/":
            raise ValueError("path must not be '/'")
        if self.path.endswith("/") and (self.content or self.type == "FILE"):
            raise ValueError(f"path must not end in '/' for a file, got {self.path!r}")
        return self

    @property
    def literal(self) -> str | None:
        """The content to write; None if the input comes from `url` (as it does if the content is empty)."""
        return None if self.content is None or (self.content == "" and self.url) else self.content

    @property
    def certain_type(self) -> TesFileType | None:
        """What lies at `path` once it is staged, as far as the document shows; None: the store decides.

        An S3 URL that names a bucket or ends in `/` is a directory, also where `type` is FILE.
        """
        if self.literal is not None:
            return "FILE"
        if self.path.endswith("/") or names_s3_directory(self.url or ""):
            return "DIRECTORY"
        return self.type


class TesOutput(TesModel):
    """Sent after the last executor. `path` may be a POSIX pattern; `url` then stands for `path_prefix`."""

    name: Text | None = Field(default=None, description="For people")
    description: Text | None = Field(default=None, description="For people")
    url: NonEmpty = Field(
        description="Where the data go; for a pattern, the directory that path_prefix stands for",
        examples=["s3://bucket/results"],
    )
    path: ContainerPath = Field(
        description="File, directory or POSIX pattern (`*`, `?`, `[…]`) in the container; a backslash "
        "escapes the next character",
        examples=["/data/result.bam"],
    )
    path_prefix: Text | None = Field(
        default=None, description="Taken off the paths that match a pattern; ignored if path is none"
    )
    type: TesFileType | None = Field(
        default=None,
        description="A directory is sent with all it holds, also where this says FILE",
    )

    @model_validator(mode="after")
    def _names_something(self) -> "TesOutput":
        if self.path == "/":
            raise ValueError("path must not be '/'")
        _absolute(unescaped(self.path), "path")
        prefix = self.path_prefix
        if prefix and self.wildcard and not unescaped(self.path).startswith((prefix, unescaped(prefix))):
            raise ValueError(f"path {self.path!r} does not start with path_prefix {self.path_prefix!r}")
        return self

    @property
    def wildcard(self) -> bool:
        """Whether `path` is a pattern (POSIX XCU 2.13)."""
        return has_wildcard(self.path)

    @property
    def place(self) -> str:
        """What `path` names in the container, without escapes; a pattern stays as it is."""
        return self.path if self.wildcard else unescaped(self.path)

    @property
    def prefix(self) -> str | None:
        """`path_prefix` of a pattern as matches begin, without escapes; None if it was not sent."""
        return unescaped(self.path_prefix) if self.path_prefix is not None and self.wildcard else None

    @property
    def directory(self) -> str:
        """The deepest directory that certainly holds whatever this output names."""
        return literal_directory(self.path) if self.wildcard else posixpath.dirname(self.place.rstrip("/"))


class TesResources(TesModel):
    """What the task asks for; `ram_gb` and `disk_gb` in units of 10**9 bytes."""

    cpu_cores: Int32 | None = Field(default=None, gt=0, le=2**31 - 1, description="CPUs")
    preemptible: bool | None = Field(
        default=None, description="Whether the task may run where it can be preempted"
    )
    ram_gb: Double | None = Field(
        default=None, gt=0, le=1e9, allow_inf_nan=False, description="Memory; GB = 10^9 bytes"
    )
    disk_gb: Double | None = Field(
        default=None,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="Disk for the task's data; GB = 10^9 bytes; 0 is as if not given",
    )
    zones: list[Text] | None = Field(
        default=None, max_length=ITEMS, fail_fast=True, description="Compute zones"
    )
    backend_parameters: Texts | None = Field(
        default=None,
        description="Keys are case-insensitive; service-info lists those that are supported. Others are "
        "neither stored nor returned, and warned of in system_logs.",
    )
    backend_parameters_strict: bool | None = Field(
        default=None, description="Refuse a task with a backend parameter that is not supported"
    )

    @field_validator("ram_gb", "disk_gb", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            return value
        try:
            return float(value)
        except OverflowError:
            return math.inf  # which is refused

    @field_validator("disk_gb")
    @classmethod
    def _none_is_not_said(cls, value: float | None) -> float | None:
        return value or None  # clients that count in whole units round to it


class TesTaskRequest(TesModel):
    """The body of a create."""

    name: Text | None = Field(default=None, description="For people, and for name_prefix")
    description: Text | None = Field(default=None, description="For people")
    inputs: list[TesInput] | None = Field(
        default=None, max_length=ITEMS, fail_fast=True, description="Staged before the first executor"
    )
    outputs: list[TesOutput] | None = Field(
        default=None,
        max_length=ITEMS,
        fail_fast=True,
        description="Sent after the last executor, also after one that failed",
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
        description="Directories, empty at first, that executors share",
    )
    tags: NamedTexts | None = Field(default=None, description="For people, and for filters of the list")


class TesExecutorLog(TesModel):
    """One executor that has exited."""

    start_time: Time | None = None
    end_time: Time | None = None
    stdout: str | None = Field(default=None, description="The end of what it printed; FULL view only")
    stderr: str | None = Field(default=None, description="The end of what it printed; FULL view only")
    exit_code: Int32 = Field(description="128 + n after signal n")


class TesOutputFileLog(TesModel):
    """One sent file; `size_bytes` is a string (TES)."""

    url: str = Field(description="Where it was sent")
    path: str = Field(description="Its path in the container")
    size_bytes: str = Field(
        description="A string, because JSON has no 64-bit integers", json_schema_extra={"format": "int64"}
    )


class TesTaskLog(TesModel):
    """One attempt."""

    logs: list[TesExecutorLog] = Field(description="Of each executor that has ended")
    metadata: dict[str, str] | None = Field(
        default=None,
        description="All values are strings; BASIC and FULL views. `pod`, `node`: where it runs. "
        "`waiting_reason`: the last message about what the task waits for. "
        "`staging.files_done`, `staging.bytes_done`, `sending.files_done`, `sending.bytes_done`: progress of "
        "inputs and outputs; "
        "`staging.bytes_per_second`, `sending.bytes_per_second`: the rate while data is transferred. "
        "`<container>.start_time`, `<container>.end_time`: of executors (`executor-0`) and filers (`tif-0`, "
        "`stream-0`, `tof-0`). `reason`, `message`, `container`, `reported_by`: the outcome. "
        "`executor-<n>.stdout`, `executor-<n>.stderr`: output of an executor that has not exited (FULL only)",
    )
    start_time: Time | None = None
    end_time: Time | None = None
    outputs: list[TesOutputFileLog] = Field(description="Every file that was sent, one by one")
    system_logs: list[str] | None = Field(
        default=None, description="What the system did and met, with its time; FULL view only"
    )


_READ_ONLY: dict[str, Any] = {"readOnly": True}


class TesTask(TesTaskRequest):
    """A task as it was sent, with what the server adds."""

    id: str = Field(description="Given by the server", json_schema_extra=_READ_ONLY)
    state: TesState = Field(json_schema_extra=_READ_ONLY)
    logs: list[TesTaskLog] | None = Field(
        default=None,
        description="One entry an attempt; absent until there is one",
        json_schema_extra=_READ_ONLY,
    )
    creation_time: Time | None = Field(
        default=None, description="When the server accepted it", json_schema_extra=_READ_ONLY
    )


class TesTaskMinimal(TesModel):
    """A task in the MINIMAL view: these two fields and no others."""

    id: str
    state: TesState


class TesCreateTaskResponse(TesModel):
    """What a create answers."""

    id: str = Field(description="Given by the server")


class TesCancelTaskResponse(TesModel):
    """What a cancel answers: nothing."""


class TesListTasksResponse(TesModel):
    """A page of tasks, newest first."""

    tasks: list[TesTask | TesTaskMinimal]
    next_page_token: str | None = Field(
        default=None, description="Absent on the last page; for page_token, with the same filters"
    )


class _ServiceModel(TesModel):
    """GA4GH service-info is written in camelCase."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class TesServiceType(_ServiceModel):
    """GA4GH service-info 1.0.0 `ServiceType`, of a TES."""

    group: str
    artifact: Literal["tes"]
    version: str = Field(description="Of the specification")


class TesServiceOrganization(_ServiceModel):
    """Who provides the service."""

    name: str
    url: Url


class TesServiceInfo(_ServiceModel):
    """GA4GH service-info 1.0.0 `Service`, with what TES adds."""

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
    version: str = Field(description="Of this server")
    storage: list[str] | None = Field(
        default=None, description="URL prefixes that tasks can read and write; some, not necessarily all"
    )
    tes_resources_backend_parameters: list[str] | None = Field(
        default=None,
        alias="tesResources_backend_parameters",
        description="Every supported key of resources.backend_parameters",
    )
