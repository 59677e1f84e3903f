"""TES 1.1 documents (tesTask and what it holds), validated.

Unknown fields are ignored and not stored; so are the read-only ones (id, state, logs, creation_time) in a
create. A field that was not sent stays unset and is not returned: dump with `exclude_none=True`.
Sizes are GB = 10**9 bytes.
"""

import posixpath
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from poiesis_models.globs import has_wildcard, literal_directory
from poiesis_models.states import TesState

CONTENT_BYTES = 128 * 1024


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


Text = Annotated[str, AfterValidator(_text)]
NonEmpty = Annotated[str, Field(min_length=1), AfterValidator(_text)]
ContainerPath = Annotated[str, AfterValidator(_container_path)]


class TesModel(BaseModel):
    """Base of all documents: unknown keys are ignored, strict types (no "1" for 1)."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class TesExecutor(TesModel):
    """`command` is argv, no shell; stdin, stdout, stderr are container paths."""

    image: NonEmpty
    command: list[Text] = Field(min_length=1)
    workdir: ContainerPath | None = None
    stdin: ContainerPath | None = None
    stdout: ContainerPath | None = None
    stderr: ContainerPath | None = None
    env: dict[NonEmpty, Text] | None = None
    ignore_error: bool | None = None

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

    name: Text | None = None
    description: Text | None = None
    url: Text | None = None
    path: ContainerPath
    type: str | None = None
    content: str | None = None
    streamable: bool | None = None

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str | None) -> str | None:
        return _file_type(value)

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
        if self.path == "/" or (self.path.endswith("/") and self.type != "DIRECTORY"):
            raise ValueError(f"path must name a file, not {self.path!r}")
        return self

    @property
    def literal(self) -> str | None:
        """The content to write; None if the input comes from `url` (as it does if the content is empty)."""
        return None if self.content is None or (self.content == "" and self.url) else self.content


class TesOutput(TesModel):
    """Sent after the last executor. `path` may be a POSIX pattern; `url` then stands for `path_prefix`."""

    name: Text | None = None
    description: Text | None = None
    url: NonEmpty
    path: ContainerPath
    path_prefix: ContainerPath | None = None
    type: str | None = None

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str | None) -> str | None:
        return _file_type(value)

    @model_validator(mode="after")
    def _names_something(self) -> "TesOutput":
        if self.path == "/":
            raise ValueError("path must not be '/'")
        if self.path_prefix is not None and self.wildcard and not self.path.startswith(self.path_prefix):
            raise ValueError(f"path {self.path!r} does not start with path_prefix {self.path_prefix!r}")
        return self

    @property
    def wildcard(self) -> bool:
        """Whether `path` is a pattern (POSIX XCU 2.13)."""
        return has_wildcard(self.path)

    @property
    def prefix(self) -> str | None:
        """What `url` stands for if `path` is a pattern: `path_prefix`, or else the directory before it."""
        if not self.wildcard:
            return None
        return self.path_prefix if self.path_prefix is not None else self.directory

    @property
    def directory(self) -> str:
        """The deepest directory that certainly holds whatever this output names."""
        return literal_directory(self.path) if self.wildcard else posixpath.dirname(self.path.rstrip("/"))


class TesResources(TesModel):
    """What the task asks for; `ram_gb` and `disk_gb` in units of 10**9 bytes."""

    cpu_cores: int | None = Field(default=None, gt=0, le=2**31 - 1)
    preemptible: bool | None = None
    ram_gb: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    disk_gb: float | None = Field(default=None, gt=0, le=1e9, allow_inf_nan=False)
    zones: list[Text] | None = None
    backend_parameters: dict[Text, Text] | None = None
    backend_parameters_strict: bool | None = None

    @field_validator("ram_gb", "disk_gb", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class TesTaskRequest(TesModel):
    """The body of a create."""

    name: Text | None = None
    description: Text | None = None
    inputs: list[TesInput] | None = None
    outputs: list[TesOutput] | None = None
    resources: TesResources | None = None
    executors: list[TesExecutor] = Field(min_length=1)
    volumes: list[ContainerPath] | None = None
    tags: dict[NonEmpty, Text] | None = None


class TesExecutorLog(TesModel):
    """One executor that has exited."""

    start_time: str | None = None
    end_time: str | None = None
    stdout: str | None = None
    stderr: str | None = None
    exit_code: int


class TesOutputFileLog(TesModel):
    """One sent file; `size_bytes` is a string (TES)."""

    url: str
    path: str
    size_bytes: str


class TesTaskLog(TesModel):
    """One attempt."""

    logs: list[TesExecutorLog]
    metadata: dict[str, str] | None = None
    start_time: str | None = None
    end_time: str | None = None
    outputs: list[TesOutputFileLog]
    system_logs: list[str] | None = None


class TesTask(TesModel):
    """A task as it is returned. `executors` is left out of MINIMAL."""

    id: str
    state: TesState
    name: str | None = None
    description: str | None = None
    inputs: list[TesInput] | None = None
    outputs: list[TesOutput] | None = None
    resources: TesResources | None = None
    executors: list[TesExecutor] | None = None
    volumes: list[str] | None = None
    tags: dict[str, str] | None = None
    logs: list[TesTaskLog] | None = None
    creation_time: str | None = None


def _file_type(value: str | None) -> str | None:
    if value not in {None, "FILE", "DIRECTORY"}:
        raise ValueError(f"type must be FILE or DIRECTORY, not {value!r}")
    return value
