"""The api's configuration: secrets and identity from the environment, everything else from one JSON document.

Environment: `POIESIS_DSN` (Postgres, role poiesis_api), `POD_NAMESPACE` (where tasks run), `POIESIS_CONFIG`
(path of the document; default /etc/poiesis/config.json), `POIESIS_LOG_LEVEL` (DEBUG, INFO, WARNING or ERROR;
default INFO). The document's keys are camelCase. An unknown key is
an error, and `null` means unset: the default applies. config.example.json is a complete document.

The chart passes `config` of its values to the api as this document and adds only what Kubernetes knows: the
fields that are marked `SET_BY_CHART`. `make schema` writes the descriptions of the fields into the chart's
schema, its values.yaml and docs/reference/values.md.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, Self, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError

from poiesis_api import image_names
from poiesis_api.executor_security import (
    Profile,
    contradiction,
    excluded_volume,
    executor_security_context,
)
from poiesis_models import shared
from poiesis_models.tes import EXECUTORS

_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
DEFAULT_PATH = "/etc/poiesis/config.json"
SET_BY_CHART: dict[str, Any] = {
    "setByChart": True
}  # json_schema_extra of a field that is not among the values

_DECIMAL = r"^[0-9]*\.?[0-9]+$"
_POSITIVE_DECIMAL = r"^[0-9]*\.?[0-9]*[1-9][0-9]*$"
_QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"
_SHOWN = 60  # characters of an invalid value in an error
_MOST_CPU_FACTOR = 1000


def _number(value: object) -> object:
    """Return the number in a text such as "0.5": `helm --set` passes fractions as text."""
    return float(value) if isinstance(value, str) and re.fullmatch(_DECIMAL, value) else value


def _integer(value: object) -> object:
    """Return 5 for 5.0: some YAML tools write integers so."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: object) -> object:
    """Return the text of a number: `cpu: 2` is a number in YAML, and a quantity in Kubernetes."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value}" if number else value


def _cpu_limit(value: object) -> object:
    """Return request, none, or a factor as a number."""
    given = _number(value)
    if given in ("request", "none"):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool) and 1 <= given <= _MOST_CPU_FACTOR:
        return given
    raise PydanticCustomError(
        "cpu_limit", f"must be request, none or a factor between 1 and {_MOST_CPU_FACTOR}"
    )


NonEmpty = Annotated[str, Field(min_length=1)]
Scheme = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*$")]
Count = Annotated[int, Field(gt=0), BeforeValidator(_integer)]
CountOrZero = Annotated[int, Field(ge=0), BeforeValidator(_integer)]
Bytes = Count
WholeSeconds = Count
Positive = Annotated[
    float,
    Field(
        gt=0,
        allow_inf_nan=False,
        json_schema_extra={"type": ["number", "string"], "pattern": _POSITIVE_DECIMAL},
    ),
    BeforeValidator(_number),
]
AtLeastZero = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, json_schema_extra={"type": ["number", "string"], "pattern": _DECIMAL}),
    BeforeValidator(_number),
]
Seconds = Positive
Gigabytes = Positive
Quantity = Annotated[
    str,
    Field(pattern=_QUANTITY, json_schema_extra={"type": ["string", "number"]}),
    BeforeValidator(_text),
]
CpuLimit = Annotated[
    Literal["request", "none"] | float,
    BeforeValidator(_cpu_limit),
    WithJsonSchema(
        {
            "type": ["string", "number"],
            "pattern": r"^(request|none|0*[1-9][0-9]*(\.[0-9]+)?)$",
            "minimum": 1,
            "maximum": _MOST_CPU_FACTOR,
        }
    ),
]
Endpoint = Annotated[str, Field(pattern=r"^https?://.+$")]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
AddressingStyle = Literal["path", "virtual", "auto"]


class ConfigError(Exception):
    """The process cannot start with this configuration; the message names the key or variable."""


class Section(BaseModel):
    """A part of the document: frozen, camelCase, no unknown keys, `null` means unset."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None}


Value = TypeVar("Value", bound=str)


class Choice(Section, Generic[Value]):
    """A value that clients may use: a text, or {value, users, groups} for some of them.

    With neither `users` nor `groups`, all users may use the value.
    """

    value: Value = Field(description="The value")
    users: list[NonEmpty] | None = Field(
        default=None, min_length=1, description="Users who may use it, in addition to `groups`"
    )
    groups: list[NonEmpty] | None = Field(
        default=None, min_length=1, description="Groups whose members may use it"
    )

    @model_validator(mode="before")
    @classmethod
    def _text_is_for_all_users(cls, data: Any) -> Any:
        return {"value": data} if isinstance(data, str) else data

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe a text or an object. What bounds a text does not apply to an object."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        value = schema["properties"]["value"]
        bounds = {key: value[key] for key in ("minLength", "pattern") if key in value}
        if "enum" in value:
            bounds["pattern"] = f"^({'|'.join(value['enum'])})$"
        return {**schema, "type": ["string", "object"], **bounds}


class Images(Section):
    """Images of Poiesis in TaskPods. The chart sets them from its value `images`."""

    trec: NonEmpty = Field(
        description="Task Recorder; also contains /helper",
        examples=["ghcr.io/jaeaeich/poiesis-trec:0.2.0"],
    )
    helper: NonEmpty = Field(
        description="The helper alone: the container `pause`",
        examples=["ghcr.io/jaeaeich/poiesis-helper:0.2.0"],
    )
    tif: NonEmpty = Field(
        default="poiesis-tif",
        description="Default image of a filer's inputs",
        examples=["ghcr.io/jaeaeich/poiesis-tif:0.2.0"],
    )
    tof: NonEmpty = Field(
        default="poiesis-tof",
        description="Default image of a filer's outputs",
        examples=["ghcr.io/jaeaeich/poiesis-tof:0.2.0"],
    )
    rclone: NonEmpty = Field(
        default="poiesis-rclone",
        description="Image of the filer for `storage.rclone`",
        examples=["ghcr.io/jaeaeich/poiesis-rclone:0.2.0"],
    )
    file: NonEmpty = Field(
        default="poiesis-file",
        description="Image of the filer for `storage.sharedVolumes`",
        examples=["ghcr.io/jaeaeich/poiesis-file:0.2.0"],
    )
    pull_policy: PullPolicy = Field(
        default="IfNotPresent", description="Pull policy of trec, helper and filers"
    )
    pull_secrets: list[NonEmpty] = Field(
        default=[],
        description="Names of imagePullSecrets of every TaskPod, unless `executors.imagePullSecrets` is set",
    )


class FilerSide(Section):
    """One direction of a filer."""

    schemes: list[Scheme] = Field(min_length=1, description="URL schemes to serve, in lower case")
    image: NonEmpty | None = Field(
        default=None,
        description="Container image. Default: the release's own tif for inputs, and tof for outputs",
    )
    command: list[NonEmpty] = Field(
        min_length=1, description="Program and arguments. The image's ENTRYPOINT is not used"
    )
    stream_command: list[NonEmpty] | None = Field(
        default=None,
        min_length=1,
        description="Program and arguments that stream inputs into FIFOs, used if `storage.streaming` is "
        "true. Default: none, except for the release's own tif",
    )


class SharedVolume(Section):
    """A volume of the site, for file:// URLs and bare absolute paths."""

    prefix: Annotated[str, Field(pattern=r"^(/[^/]+)+$")] = Field(
        description="Path that users write: /nfs/projects. file:// URLs and bare paths below it name files "
        "of the volume"
    )
    volume: dict[str, Any] = Field(
        min_length=1,
        description="Kubernetes volume source: {persistentVolumeClaim: {claimName: projects}}",
    )
    sub_path: NonEmpty | None = Field(
        default=None, description="Directory of the volume. Default: the whole volume"
    )
    writable: bool = Field(default=False, description="Whether tasks may write outputs to it")


class Filer(Section):
    """An image that stages inputs, sends outputs, or both."""

    name: NonEmpty = Field(description="Name, unique among the filers")
    inputs: FilerSide | None = Field(default=None, description="How it stages inputs. Default: it does not")
    outputs: FilerSide | None = Field(default=None, description="How it sends outputs. Default: it does not")
    env: dict[NonEmpty, str] = Field(
        default={}, description="Environment in addition to the filer contract's variables: HTTPS_PROXY, …"
    )
    read_only_root_filesystem: bool = Field(
        default=True, description="Whether its containers have a read-only root filesystem"
    )
    object_storage: bool = Field(
        default=True, description="Whether it gets the settings and credentials of `storage.s3`"
    )
    secret_name: NonEmpty | None = Field(
        default=None, description="Secret that is mounted as files in /poiesis/secret"
    )
    shared_volumes: list[SharedVolume] = Field(
        default=[], description="Volumes that are mounted below /poiesis/shared; see `storage.sharedVolumes`"
    )

    @property
    def shared(self) -> tuple[shared.SharedVolume, ...]:
        """Return the shared volumes as the filer contract describes them."""
        return tuple(
            shared.SharedVolume(prefix=one.prefix, writable=one.writable) for one in self.shared_volumes
        )

    @model_validator(mode="after")
    def _shared_volumes_do_not_overlap(self) -> Self:
        _check_shared_volumes(self.shared_volumes)
        return self


def _check_shared_volumes(volumes: list[SharedVolume]) -> None:
    """Raise ValueError if a prefix has a segment '.' or '..', or lies in another volume's."""
    for one in volumes:
        path = Path(one.prefix)
        if {".", ".."} & set(one.prefix.split("/")):
            raise ValueError(f"sharedVolumes: prefix must have no segment '.' or '..', got {one.prefix!r}")
        other = next(
            (other for other in volumes if other is not one and path.is_relative_to(other.prefix)), None
        )
        if other is not None:
            raise ValueError(
                f"sharedVolumes: prefixes must not overlap, but {one.prefix!r} lies in {other.prefix!r}"
            )


def _check_unique(what: str, names: list[str]) -> None:
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{what}: names must be unique, got {repeated!r} {names.count(repeated)} times")


class SecretKey(Section):
    """A key of a Secret."""

    name: NonEmpty = Field(description="Name of the Secret")
    key: NonEmpty = Field(description="Key in the Secret")


class CaSecret(SecretKey):
    """A Secret with the PEM certificates of a private certificate authority."""

    key: NonEmpty = Field(default="ca.crt", description="Key in the Secret")


class StorageCredentials(Section):
    """Credentials for some S3 URLs: keys in a Secret, anonymous access, or AWS' standard chain."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$",
        description="A DNS label of up to 40 characters, stored with the tasks that may use the entry",
    )
    urls: list[Annotated[str, Field(pattern=r"^s3://[A-Za-z0-9][A-Za-z0-9._-]{0,254}(/.*)?$")]] = Field(
        min_length=1,
        description="s3://bucket or s3://bucket/prefix, compared by whole segments; the longest match is "
        "used",
    )
    secret_name: NonEmpty | None = Field(
        default=None,
        description="Secret in the tasks' namespace with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
        "optionally AWS_SESSION_TOKEN. With neither this nor `anonymous`, the filer uses AWS' standard chain",
    )
    anonymous: bool = Field(default=False, description="Send unsigned requests, for public buckets")
    endpoint: Endpoint | None = Field(
        default=None,
        description="Endpoint. Default: `storage.s3.endpoint`, with its region, addressing style and CA",
    )
    region: NonEmpty | None = Field(default=None, description="AWS_REGION. Default: see `endpoint`")
    addressing_style: AddressingStyle | None = Field(
        default=None, description="See `storage.s3.addressingStyle`. Default: see `endpoint`"
    )
    requester_pays: bool | None = Field(
        default=None, description="Whether the requester pays for transfers. Default: no"
    )
    ca_secret: CaSecret | None = Field(
        default=None, description="CA bundle for an endpoint with a private certificate"
    )
    users: list[NonEmpty] | None = Field(
        default=None,
        min_length=1,
        description="Users whose tasks may use the entry, in addition to `groups`. Default: if `groups` is "
        "also unset, all users",
    )
    groups: list[NonEmpty] | None = Field(
        default=None, min_length=1, description="Groups whose members' tasks may use the entry"
    )

    @model_validator(mode="after")
    def _has_one_identity(self) -> Self:
        if self.anonymous and self.secret_name is not None:
            raise ValueError(
                f"anonymous must be false if secretName is set (got {self.secret_name!r}): remove one of them"
            )
        return self


class WebIdentity(Section):
    """A role instead of keys (IRSA without an annotation on a ServiceAccount)."""

    role_arn: NonEmpty = Field(description="AWS_ROLE_ARN: arn:aws:iam::123456789012:role/tes")
    audience: NonEmpty = Field(default="sts.amazonaws.com", description="Audience of the token")
    sts_endpoint: Endpoint | None = Field(
        default=None, description="AWS_ENDPOINT_URL_STS. Default: Amazon's in the region"
    )


_CREDENTIALS_EXAMPLE = [
    {
        "name": "lab-a",
        "urls": ["s3://lab-a", "s3://shared/lab-a/"],
        "secretName": "lab-a-keys",
        "groups": ["lab-a"],
        "users": ["alice"],
    },
    {
        "name": "public",
        "urls": ["s3://public-data"],
        "anonymous": True,
        "endpoint": "https://s3.eu-central-1.amazonaws.com",
        "region": "eu-central-1",
        "addressingStyle": "virtual",
        "requesterPays": False,
        "caSecret": {"name": "public-ca", "key": "ca.crt"},
    },
]


class S3(Section):
    """S3 object storage."""

    secret_name: NonEmpty | None = Field(
        default=None,
        description="Secret with the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the filers' "
        "environment. Default: the Secret that the chart creates from `storageSecret`, if that "
        "is set",
        examples=["poiesis-storage"],
    )
    endpoint: Endpoint | None = Field(
        default=None, description="https://s3.example.org. Default: Amazon's", examples=["http://minio:9000"]
    )
    region: NonEmpty | None = Field(default=None, description="AWS_REGION", examples=["us-east-1"])
    addressing_style: AddressingStyle = Field(
        default="auto",
        description="How requests name the bucket. MinIO and Ceph usually need path",
        examples=["path"],
    )
    output_keys: Literal["literal", "decoded"] = Field(
        default="literal",
        description="How the key of an output URL is read. literal: s3://b/my%20out/ writes my%20out/. "
        "decoded: it writes my out/, for clients that percent-encode every URL, such as "
        "Sprocket. Inputs are looked up in both forms, literal first",
    )
    ca_secret: CaSecret | None = Field(
        default=None, description="CA bundle for an endpoint with a private certificate (AWS_CA_BUNDLE)"
    )
    web_identity: WebIdentity | None = Field(
        default=None,
        description="A role instead of keys. Filers get a token of their task's ServiceAccount "
        "(system:serviceaccount:NAMESPACE:poiesis-TASK), which STS exchanges for keys of this role. "
        "docs/how-to/operators/storage.md has the trust policy",
    )
    credentials: list[StorageCredentials] = Field(
        default=[],
        description="Other credentials for some buckets or prefixes, for all users or for some. "
        "docs/how-to/operators/storage.md has examples",
        examples=[_CREDENTIALS_EXAMPLE],
    )

    @model_validator(mode="after")
    def _credentials_have_unique_names(self) -> Self:
        _check_unique("credentials", [entry.name for entry in self.credentials])
        return self


class HttpInputs(Section):
    """Sources of http and https inputs."""

    allow: list[NonEmpty] = Field(
        default=[],
        description="Sources in addition to public addresses and the host and port of `storage.s3.endpoint`: "
        "networks (10.20.0.0/16), addresses and host names (files.example.org). Every user who may "
        "create tasks can read all content there",
    )
    deny: list[NonEmpty] = Field(
        default=[],
        description="Public networks, addresses and hosts that inputs must not come from, for example a "
        "site's own networks with public addresses. A more specific entry of `allow` overrides "
        "them",
    )


class Rclone(Section):
    """A filer for all stores that rclone supports: Google, Azure, Swift, SFTP, WebDAV, FTP, a second S3, …"""

    schemes: list[Scheme] = Field(
        default=[],
        description="URL schemes to serve, each with a remote in the Secret: [gs, azblob, sftp]. Empty: no "
        "such filer",
        json_schema_extra={"uniqueItems": True},
    )
    secret_name: NonEmpty | None = Field(
        default=None,
        description="Secret with the key rclone.conf, whose remotes are named after the schemes. Required if "
        "`schemes` is not empty",
    )
    env: dict[NonEmpty, str] = Field(default={}, description="Additional environment of the filer")

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.schemes and self.secret_name is None:
            raise ValueError(
                f"secretName must be set if schemes is not empty (got {', '.join(self.schemes)}): name a "
                "Secret with the key rclone.conf"
            )
        if self.secret_name is not None and not self.schemes:
            raise ValueError(
                f"schemes must not be empty if secretName is set (got {self.secret_name!r}): list the URL "
                "schemes that rclone serves"
            )
        return self


class Storage(Section):
    """Where tasks' inputs come from and their outputs go to."""

    s3: S3 = S3()
    http: HttpInputs = HttpInputs()
    rclone: Rclone = Rclone()
    shared_volumes: list[SharedVolume] = Field(
        default=[],
        description="Volumes of the site, for file:// URLs and bare absolute paths. They are mounted into "
        "their filer and never into executors. Every user who may create tasks can read all "
        "files there that uid 65532 can read",
    )
    streaming: bool = Field(
        default=False,
        description="true: `streamable` inputs are not staged. Their executor reads each input once, from a"
        " FIFO, while the filer downloads it. This applies to tasks with one executor, and only"
        " to paths that no other input, output or volume uses. docs/reference/transfers.md has the exact "
        "rules and what a program must not do with a FIFO",
    )

    @model_validator(mode="after")
    def _shared_volumes_do_not_overlap(self) -> Self:
        _check_shared_volumes(self.shared_volumes)
        return self


class Volume(Section):
    """The task's disk, which holds its inputs, outputs and volumes."""

    type: Literal["pvc", "ephemeral", "emptyDir"] = Field(
        default="pvc",
        description="pvc: a PVC owned by the Job. ephemeral: a PVC owned by the Pod, new for each attempt. "
        "emptyDir: the node's disk",
    )
    storage_class: NonEmpty | None = Field(
        default=None, description="StorageClass. Default: the cluster's default class"
    )
    default_size_gb: Gigabytes = Field(
        default=10, description="Size for tasks without disk_gb; 1 GB = 10^9 bytes"
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = Field(
        default="ReadWriteOnce", description="Access mode of the PVC"
    )


class Quantities(Section):
    """Kubernetes quantities."""

    model_config = ConfigDict(json_schema_extra={"flow": True})

    cpu: Quantity = Field(description="Processors, as a Kubernetes quantity: 500m, 2")
    memory: Quantity = Field(description="Memory, as a Kubernetes quantity: 512Mi, 2Gi")


class MaxResources(Section):
    """The most that a task may request; a task that requests more is rejected with 400.

    Set these to the size of your largest node: a task that fits on no node waits, and occupies a place in the
    queue.
    """

    cpu_cores: Count = Field(default=256, description="Largest cpu_cores")
    ram_gb: Gigabytes = Field(default=4096, description="Largest ram_gb; 1 GB = 10^9 bytes")
    disk_gb: Gigabytes = Field(default=102_400, description="Largest disk_gb; 1 GB = 10^9 bytes")
    gpu_count: CountOrZero = Field(default=64, description="Most GPUs per executor")


def _image_prefix(text: str) -> str:
    """Return a prefix of image names in its complete form."""
    problem = image_names.prefix_problem(text)
    if problem is not None:
        raise ValueError(f"{text!r} is not a prefix of image names: {problem}")
    return image_names.full_prefix(text)


ImagePrefix = Annotated[str, Field(min_length=1), AfterValidator(_image_prefix)]


class Executors(Section):
    """The containers of the clients' images."""

    default_resources: Quantities = Field(
        default=Quantities(cpu="1", memory="2Gi"),
        description="Requests for tasks without cpu_cores or ram_gb; memory is also the limit",
    )
    cpu_limit: CpuLimit = Field(
        default="none",
        description="Most CPU time that an executor may use. none: what no other container of the node needs;"
        " under contention, containers share the CPUs in proportion to their requests. request: its request."
        " A number from 1 to 1000: that many times its request. A ResourceQuota on limits.cpu requires a"
        " limit. docs/how-to/operators/cpu-limits.md compares them",
    )
    max_resources: MaxResources = MaxResources()
    root_disk_gb: AtLeastZero | None = Field(
        default=None,
        description="Gigabytes (10^9 bytes) that a task's executors may write outside its volumes, for "
        "example to /tmp, which is on the node's disk. A task that writes more ends with SYSTEM_ERROR, "
        "reason Evicted. The scheduler reserves no disk for it. 0: no limit. Default: 20, and no limit for "
        "tasks that enter a queue of Kueue, whose ClusterQueue must cover ephemeral-storage if there is one.",
    )
    extended_resources: dict[NonEmpty, Quantity] = Field(
        default={},
        description="Extended resources of every executor, such as devices of the node: "
        "{smarter-devices/fuse: 1}",
    )
    profile: Profile = Field(
        default="baseline",
        description="baseline: each image runs as the user that it specifies. restricted: executors do not"
        " run as root and have no capabilities (runAsNonRoot, drop ALL, seccomp RuntimeDefault), and TaskPods"
        ' pass the Pod Security level "restricted". Images that name no user by number also need `runAsUser`'
        " in `securityContext`",
    )
    security_context: dict[str, Any] = Field(
        default={},
        description="Container securityContext of executors, in addition to the profile: {runAsUser: 1000}."
        " The capabilities NET_RAW, MKNOD and AUDIT_WRITE are dropped. MKNOD and AUDIT_WRITE can be added"
        " with {capabilities: {add: [MKNOD]}}, NET_RAW cannot: with it, a task could read and forge other"
        " Pods' network packets",
    )
    images: list[Choice[ImagePrefix]] | None = Field(
        default=None,
        min_length=1,
        description="Images that tasks may use, as prefixes of complete names: [docker.io/library/,"
        " quay.io/biocontainers/]. A prefix ends at a `/`, `:` or `@`. An entry may be {value, users,"
        " groups}. Other images are rejected with 403. Default: all images",
    )
    image_pull_secrets: list[NonEmpty] | None = Field(
        default=None,
        description="Names of imagePullSecrets of every TaskPod, instead of `images.pullSecrets`. Containers"
        " of a Pod share its pull secrets, so every task can run the images that these open. Default:"
        " `images.pullSecrets`",
    )
    image_pull_policy: PullPolicy | None = Field(
        default=None,
        description="Pull policy of executors. Default: Always for TaskPods with pull secrets, so that an"
        " image that is on the node still needs credentials; otherwise Kubernetes' rule (Always for"
        " :latest)",
    )
    log_bytes: Annotated[int, Field(ge=0, le=2**26), BeforeValidator(_integer)] = Field(
        default=65536, description="How much of each executor's stdout and stderr is kept (the last bytes)"
    )
    on_error: Literal["upload", "skip"] = Field(
        default="upload",
        description="After a failed executor, upload: outputs are sent. skip: no output is sent",
    )
    outputs_after_kill_seconds: Annotated[int, Field(ge=0, le=3600), BeforeValidator(_integer)] = Field(
        default=60,
        description="Seconds for sending outputs after an executor was killed with its container, for "
        "example because it ran out of memory. A task with outputs has a sidecar for it, which starts in "
        "about a second. 0: no such sidecar, and no output is sent after a kill",
    )

    @model_validator(mode="after")
    def _security_context_fits_the_profile(self) -> Self:
        problem = contradiction(self.profile, self.security_context)
        if problem is not None:
            raise ValueError(f"securityContext.{problem}")
        return self

    @property
    def effective_security_context(self) -> dict[str, Any]:
        """Return the securityContext of executors."""
        return executor_security_context(self.profile, self.security_context)


Reserved = Annotated[Quantities, Field(description="What the scheduler reserves")]
Limited = Annotated[Quantities, Field(description="The most that the container may use")]


class Requests(Section):
    """`requests` and `limits` of a container."""

    requests: Reserved
    limits: Limited


class TrecResources(Requests):
    """The recorder."""

    requests: Reserved = Quantities(cpu="10m", memory="64Mi")
    limits: Limited = Quantities(cpu="1", memory="128Mi")


class FilerResources(Requests):
    """Each filer."""

    requests: Reserved = Quantities(cpu="100m", memory="128Mi")
    limits: Limited = Quantities(cpu="1", memory="512Mi")


class RescueResources(Requests):
    """The sidecar that sends outputs after an executor was killed: idle, or a filer."""

    requests: Reserved = Quantities(cpu="10m", memory="8Mi")
    limits: Limited = Quantities(cpu="1", memory="512Mi")


class PauseResources(Requests):
    """The container `pause`, which keeps the Pod until the recorder has finished."""

    requests: Reserved = Quantities(cpu="10m", memory="8Mi")
    limits: Limited = Quantities(cpu="100m", memory="16Mi")


class Resources(Section):
    """Resources of the containers that Poiesis adds to a TaskPod."""

    trec: TrecResources = TrecResources()
    filer: FilerResources = FilerResources()
    rescue: RescueResources = RescueResources()
    pause: PauseResources = PauseResources()


class PodSettings(Section):
    """Settings of every TaskPod."""

    labels: dict[str, str] = Field(default={}, description="Additional labels")
    annotations: dict[str, str] = Field(
        default={},
        description="Annotations. They override the defaults, which keep autoscalers from evicting a "
        "working task",
    )
    node_selector: dict[str, str] = Field(default={}, description="Labels that a node must have")
    tolerations: list[dict[str, Any]] = Field(default=[], description="Kubernetes tolerations")
    affinity: dict[str, Any] = Field(default={}, description="Kubernetes affinity")
    priority_class_name: NonEmpty | None = Field(default=None, description="PriorityClass")
    runtime_class_name: NonEmpty | None = Field(default=None, description="RuntimeClass")
    active_deadline_seconds: CountOrZero = Field(
        default=7 * 24 * 3600,
        description="Wall-time limit of a task, from the start of its Pod on a node. A task that takes longer"
        " ends with SYSTEM_ERROR, reason DeadlineExceeded. 0: no limit",
    )
    host_users: bool | None = Field(
        default=None,
        description="false: TaskPods run in a user namespace, where root is an unprivileged user of the node."
        " Needs Kubernetes 1.33, containerd 2.0 or CRI-O, and volumes that support ID-mapped mounts on"
        " every node; elsewhere TaskPods do not start. Default: Kubernetes' default (true)",
    )


Transport = Literal["gateway", "postgres"]


class Recorder(Section):
    """How recorders report what happens in their TaskPods."""

    transport: Transport = Field(
        default="gateway",
        description="gateway: over HTTPS to the release's gateway, so TaskPods have neither a DSN nor a "
        "connection to Postgres. postgres: directly to Postgres, without a service in between. A change "
        "applies to tasks that are submitted afterwards. docs/how-to/operators/gateway.md compares them",
    )
    files_only: bool = Field(
        default=False,
        description="true: recorders work from the files of their Pod and have no access to the Kubernetes"
        " API. A task has no ServiceAccount, Role and RoleBinding, and no connection to the API server. The"
        " controller reports what only Kubernetes knows. docs/how-to/operators/files-only.md has the"
        " differences",
    )


class Gateway(Section):
    """The release's gateway, as TaskPods and the api reach it."""

    url: Annotated[str, Field(pattern=r"^https://[^/]+$")] = Field(
        description="URL that recorders report to, without a path"
    )
    ca_file: NonEmpty = Field(
        description="File with the PEM certificates of the authorities that recorders trust. It is read at "
        "each submission"
    )


class Queue(Section):
    """How tasks become Jobs."""

    max_active_tasks: Count = Field(
        default=1000,
        description="Limit of Jobs that have not ended. Further tasks wait in Postgres, in fair order per "
        "owner",
    )
    min_submissions: Count = Field(
        default=1, description="Tasks that one replica of the api submits concurrently at least"
    )
    max_submissions: Count = Field(
        default=32,
        description="Tasks that one replica of the api submits concurrently at most. In between, the number "
        "grows while Kubernetes answers quickly. It shrinks at responses 429 and 5xx and at slow ones",
    )
    slow_answer_seconds: Seconds = Field(
        default=1, description="A request to Kubernetes that takes this long counts as a sign of overload"
    )
    poll_seconds: Seconds = Field(
        default=5, description="Interval of the search for tasks that no event announced"
    )
    lease_seconds: WholeSeconds = Field(
        default=60,
        description="Lease on a task that is being submitted; after that another replica may take it over",
    )
    stalled_seconds: Seconds = Field(
        default=60,
        description="A task whose Pod has had no node for this long stalls: perhaps no node is large enough. "
        "Stalled tasks fill at most half of `maxActiveTasks`, and an owner with that many of them gets "
        "no further Jobs, so that other users' tasks start",
    )
    give_up_seconds: WholeSeconds | None = Field(
        default=None,
        description="Age at which a task that Kubernetes still rejects ends with SYSTEM_ERROR. Default: "
        "never",
    )
    kueue_queue_name: NonEmpty | None = Field(
        default=None,
        description="LocalQueue of Kueue, which then decides when Jobs start. Requires `volume.type` "
        "ephemeral or emptyDir",
    )
    kueue_priority_class: NonEmpty | None = Field(default=None, description="WorkloadPriorityClass of Kueue")

    @model_validator(mode="after")
    def _submissions_have_a_range(self) -> Self:
        if self.min_submissions > self.max_submissions:
            raise ValueError(
                f"minSubmissions must be at most maxSubmissions ({self.max_submissions}), "
                f"got {self.min_submissions}"
            )
        return self


NodeLabel = Annotated[str, Field(pattern=r"^[^=,]+=[^=,]*$")]
Taint = Annotated[str, Field(pattern=r"^[^=:,]+(=[^:,]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?$")]
VolumeType = Literal["pvc", "ephemeral", "emptyDir"]


class BackendParameters(Section):
    """Values that clients may request in resources.backend_parameters. Clients cannot use an empty or 0 key.

    They write the keys in snake case (node_selector), in upper or lower case. An entry of a list is a text,
    or {value, users, groups} for a value that only some users may request.
    docs/reference/backend-parameters.md has details.
    """

    queue: list[Choice[NonEmpty]] = Field(
        default=[], description="LocalQueues of Kueue, instead of `queue.kueueQueueName`"
    )
    queue_priority: list[Choice[NonEmpty]] = Field(default=[], description="WorkloadPriorityClasses of Kueue")
    priority_class: list[Choice[NonEmpty]] = Field(default=[], description="PriorityClasses")
    node_selector: list[Choice[NodeLabel]] = Field(default=[], description="Node labels, as label=value")
    tolerations: list[Choice[Taint]] = Field(
        default=[], description="Tolerations, as key, key:effect, key=value or key=value:effect"
    )
    runtime_class: list[Choice[NonEmpty]] = Field(default=[], description="RuntimeClasses")
    gpu_resource: list[Choice[NonEmpty]] = Field(
        default=[],
        description="Extended resources: [nvidia.com/gpu]. The first one is used if a task sets only "
        "gpu_count",
    )
    gpu_count: CountOrZero = Field(default=0, description="Most GPUs per executor; requires `gpuResource`")
    image_pull_secret: list[Choice[NonEmpty]] = Field(
        default=[], description="Secrets in the tasks' namespace"
    )
    wall_time_seconds: CountOrZero = Field(
        default=0,
        description="Longest wall time that a client may set; `pod.activeDeadlineSeconds` also applies",
    )
    volume_type: list[Choice[VolumeType]] = Field(
        default=[], description="Types of the task's disk: pvc, ephemeral, emptyDir"
    )
    storage_class: list[Choice[NonEmpty]] = Field(default=[], description="StorageClasses of the task's disk")

    @model_validator(mode="after")
    def _gpus_have_a_kind(self) -> Self:
        if self.gpu_count and not self.gpu_resource:
            raise ValueError(
                f"gpuResource must not be empty if gpuCount is set (got {self.gpu_count}): list the extended "
                "resources that are GPUs"
            )
        return self


_STREAM_COMMAND = ["python3", "-m", "poiesis_tif.stream"]


class RecorderFiles(Section):
    """Where the recorder's DSN and the authority of Postgres' certificate are mounted in the api's Pod."""

    dsn_file: NonEmpty = Field(
        default="/etc/poiesis-recorder/recorder-dsn",
        description="File with the DSN that trec connects with. The api reads it at each submission",
    )
    ca_file: NonEmpty | None = Field(
        default=None,
        description="File with the certificate authority that trec trusts for Postgres (PGSSLROOTCERT)",
    )


class GroupsNamespace(Section):
    """A namespace for the tasks of some groups."""

    name: NonEmpty = Field(description="Name of the namespace")
    groups: list[NonEmpty] = Field(
        default=[], description="Groups whose tasks run in it. Empty: it gets no new tasks"
    )


class TasksNamespaces(Section):
    """The namespaces of the tasks. A task stays in the namespace that it got when it was created."""

    namespace: NonEmpty | None = Field(
        default=None, description="For users in none of the groups below. Default: the api's own namespace"
    )
    namespaces: list[GroupsNamespace] = Field(
        default=[], description="The first entry with one of the creator's groups is used"
    )


class TaskPodConfig(Section):
    """What the objects of a task are made from, in addition to the task."""

    images: Images = Field(description="Images in TaskPods", json_schema_extra=SET_BY_CHART)
    recorder: Recorder = Recorder()
    gateway: Gateway | None = Field(
        default=None,
        description="Gateway that trec reports to; required with `recorder.transport` gateway",
        json_schema_extra=SET_BY_CHART,
        examples=[
            {"url": "https://poiesis-gateway.tes.svc:8443", "caFile": "/etc/poiesis-gateway/ca.crt"},
        ],
    )
    recorder_postgres: RecorderFiles = Field(
        default=RecorderFiles(),
        description="Files that the api copies to each task's Secret with `recorder.transport` postgres",
        json_schema_extra=SET_BY_CHART,
    )
    tasks: TasksNamespaces = Field(
        default=TasksNamespaces(),
        description="Namespaces of the tasks; docs/how-to/operators/namespaces.md",
        json_schema_extra=SET_BY_CHART,
    )
    storage: Storage = Storage()
    configured_filers: list[Filer] = Field(
        alias="filers",
        default=[
            Filer(
                name="default",
                inputs=FilerSide(schemes=["s3", "http", "https"], command=["python3", "-m", "poiesis_tif"]),
                outputs=FilerSide(schemes=["s3"], command=["python3", "-m", "poiesis_tof"]),
            )
        ],
        min_length=1,
        description="Images that stage inputs and send outputs, by URL scheme. If several serve the same "
        "scheme, the first one is used. Literal inputs go to the first filer with `inputs`. "
        "docs/reference/filers.md describes the contract. Helm replaces the list as a whole: repeat "
        "`default` when you add to it",
    )
    filer_retry_attempts: Annotated[int, Field(ge=0, le=1000), BeforeValidator(_integer)] = Field(
        default=5,
        description="Retries, in place and with back-off, of a filer that crashed or reported a retryable "
        "failure",
    )
    volume: Volume = Volume()
    executors: Executors = Executors()
    resources: Resources = Resources()
    pod: PodSettings = PodSettings()
    ttl_seconds_after_finished: CountOrZero = Field(
        default=600, description="How long a finished task's objects and its disk are kept"
    )
    termination_grace_period_seconds: WholeSeconds = Field(
        default=30,
        description="Time between SIGTERM and SIGKILL, for executors and for trec's last report",
    )
    queue: Queue = Queue()
    backend_parameters: BackendParameters = BackendParameters()

    @model_validator(mode="after")
    def _transport_has_its_fields(self) -> Self:
        if self.recorder.transport == "gateway" and self.gateway is None:
            raise ValueError("gateway is required with recorder.transport gateway")
        return self

    @cached_property
    def filers(self) -> list[Filer]:
        """Return `configured_filers` with their images, then those for rclone and for shared volumes."""
        return [
            *(self._with_images(filer) for filer in self.configured_filers),
            *_rclone_filers(self.storage.rclone, self.images.rclone),
            *_shared_filers(self.storage.shared_volumes, self.images.file),
        ]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy without `filers`, which is computed again."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("filers", None)
        return copied

    @property
    def input_filers(self) -> dict[str, Filer]:
        """Return the filer of each URL scheme of inputs."""
        return {
            scheme: filer
            for filer in reversed(self.filers)
            if filer.inputs
            for scheme in filer.inputs.schemes
        }

    @property
    def output_filers(self) -> dict[str, Filer]:
        """Return the filer of each URL scheme of outputs."""
        return {
            scheme: filer
            for filer in reversed(self.filers)
            if filer.outputs
            for scheme in filer.outputs.schemes
        }

    @property
    def literal_filer(self) -> Filer | None:
        """Return the filer that writes the inputs that carry their content."""
        return next((filer for filer in self.filers if filer.inputs), None)

    def _with_images(self, filer: Filer) -> Filer:
        inputs, outputs = filer.inputs, filer.outputs
        if inputs is not None:
            own_stream = None if inputs.image else _STREAM_COMMAND
            inputs = inputs.model_copy(
                update={
                    "image": inputs.image or self.images.tif,
                    "stream_command": (inputs.stream_command or own_stream)
                    if self.storage.streaming
                    else None,
                }
            )
        if outputs is not None:
            outputs = outputs.model_copy(update={"image": outputs.image or self.images.tof})
        return filer.model_copy(update={"inputs": inputs, "outputs": outputs})

    @model_validator(mode="after")
    def _filers_have_unique_names(self) -> Self:
        _check_unique("filers", [filer.name for filer in self.filers])
        return self

    @property
    def pull_secrets(self) -> list[str]:
        """Return the names of every TaskPod's imagePullSecrets."""
        own = self.executors.image_pull_secrets
        return self.images.pull_secrets if own is None else own

    @model_validator(mode="after")
    def _clients_may_not_ask_for_more_time_than_there_is(self) -> Self:
        most, asked = self.pod.active_deadline_seconds, self.backend_parameters.wall_time_seconds
        if most and asked > most:
            raise ValueError(
                f"backendParameters.wallTimeSeconds must be at most pod.activeDeadlineSeconds ({most}), got "
                f"{asked}: increase pod.activeDeadlineSeconds, or set it to 0"
            )
        return self

    @model_validator(mode="after")
    def _volumes_fit_the_profile(self) -> Self:
        for filer in self.filers if self.executors.profile == "restricted" else ():
            for one in filer.shared_volumes:
                kind = excluded_volume(one.volume)
                if kind is not None:
                    raise ValueError(
                        f"executors.profile must be baseline for a shared volume of type {kind} (prefix "
                        f'{one.prefix!r}), which Pod Security "restricted" excludes: use a '
                        "persistentVolumeClaim"
                    )
        return self

    @model_validator(mode="after")
    def _kueue_gets_new_volumes(self) -> Self:
        if self.queue.kueue_queue_name is not None and self.volume.type == "pvc":
            raise ValueError(
                "volume.type must be ephemeral or emptyDir if queue.kueueQueueName is set, got pvc: Kueue "
                "restarts evicted tasks, and a PVC of the Job would still hold what the first attempt wrote"
            )
        return self


def _rclone_filers(rclone: Rclone, image: str) -> list[Filer]:
    if not rclone.schemes:
        return []
    side = FilerSide(schemes=rclone.schemes, image=image, command=["python3", "-m", "poiesis_rclone"])
    return [
        Filer(
            name="rclone",
            inputs=side,
            outputs=side,
            env=rclone.env,
            object_storage=False,
            secret_name=rclone.secret_name,
        )
    ]


def _shared_filers(volumes: list[SharedVolume], image: str) -> list[Filer]:
    if not volumes:
        return []
    side = FilerSide(schemes=["file"], image=image, command=["python3", "-m", "poiesis_file"])
    return [Filer(name="file", inputs=side, outputs=side, object_storage=False, shared_volumes=volumes)]


class Organization(Section):
    """The organization that runs the service."""

    name: NonEmpty = Field(default="Poiesis", description="Name", examples=["Example organization"])
    url: NonEmpty = Field(
        default="https://github.com/JaeAeich/poiesis",
        description="Web page",
        examples=["https://example.org"],
    )


class ServiceInfo(Section):
    """Response to GET /ga4gh/tes/v1/service-info."""

    id: NonEmpty = Field(
        default="org.example.poiesis", description="Unique id, in reverse domain name notation"
    )
    name: NonEmpty = Field(default="Poiesis", description="Name of the service")
    description: str | None = Field(
        default="Runs GA4GH TES tasks as Kubernetes Pods", description="Description of the service"
    )
    organization: Organization = Organization()
    contact_url: Endpoint | None = Field(
        default=None,
        description="Contact, as an https URL, because some clients reject mailto:",
        examples=["https://example.org/contact"],
    )
    documentation_url: NonEmpty | None = Field(
        default="https://github.com/JaeAeich/poiesis", description="Documentation"
    )
    created_at: NonEmpty | None = Field(
        default=None, description="When the service was first deployed (RFC 3339)"
    )
    updated_at: NonEmpty | None = Field(
        default=None, description="When the service was last updated (RFC 3339)"
    )
    environment: NonEmpty | None = Field(
        default=None, description="test, production, …", examples=["production"]
    )
    version: NonEmpty = Field(
        default="unknown",
        description="Version of Poiesis",
        json_schema_extra=SET_BY_CHART,
        examples=["0.2.0"],
    )
    storage: list[NonEmpty] = Field(
        default=["s3://"], description="URL prefixes that tasks can read and write"
    )


class Limits(Section):
    """Limits of requests and of the tasks that they create.

    The memory limit of the api's Pod must hold `incomingBytes`, `outgoingBytes` and about 250 MiB.
    """

    executors: Annotated[int, Field(gt=0, le=EXECUTORS), BeforeValidator(_integer)] = Field(
        default=100, description="Executors per task; a task with more is rejected with 400"
    )
    task_object_bytes: Annotated[int, Field(ge=64 * 1024, le=1536 * 1024), BeforeValidator(_integer)] = Field(
        default=1024 * 1024,
        description="Bytes of the task's Pod, including what Kubernetes adds. The whole Pod is written to "
        "etcd whenever one of its containers starts or ends; etcd accepts 1.5 MiB at once",
    )
    body_bytes: Bytes = Field(
        default=8 * 1024 * 1024, description="A larger request body is rejected with 413"
    )
    body_seconds: Seconds = Field(
        default=60, description="A request body that is not complete after this time is rejected with 408"
    )
    incoming_bytes: Bytes = Field(
        default=64 * 1024 * 1024,
        description="Large request bodies (more than 64 KiB) that one replica holds at a time; then 503 with "
        "Retry-After",
    )
    outgoing_bytes: Bytes = Field(
        default=64 * 1024 * 1024,
        description="Responses that one replica holds for their readers; then readers that stall are cut off",
    )
    page_bytes: Bytes = Field(
        default=8 * 1024 * 1024,
        description="A page of a list ends after this many bytes, too; next_page_token continues",
    )
    send_seconds: Seconds = Field(
        default=30,
        description="A client that does not read 64 KiB of its response in this time is cut off",
    )


Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
]
ScopeToken = Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")]  # RFC 6749, appendix A.4
Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]


class ClientSecret(SecretKey):
    """The client's secret at the issuer. A changed Secret applies without a restart."""

    key: NonEmpty = Field(default="client-secret", description="Key in the Secret")


class Introspection(Section):
    """How opaque access tokens are looked up (RFC 7662)."""

    client_id: NonEmpty = Field(description="This server's client at the issuer")
    client_secret: ClientSecret
    audience_required: bool = Field(
        default=True, description="false: accept introspection responses without `aud`"
    )
    cache_seconds: AtLeastZero = Field(
        default=60,
        description="How long a response is cached, and so how long a revoked token is still accepted",
    )
    refused_seconds: AtLeastZero = Field(
        default=10, description="How long the rejection of a token is cached"
    )
    max_requests: Count = Field(default=8, description="Concurrent requests of one replica")
    max_cached: Count = Field(default=10_000, description="Responses cached by one replica")


class Oidc(Section):
    """Access tokens of an OpenID Provider."""

    issuer: Url = Field(
        description="Exactly as in the tokens' `iss`: https://sso.example.org/realms/science. Discovery "
        "starts there"
    )
    audiences: list[NonEmpty] = Field(
        min_length=1, description="Accepted audiences; a token must be for one of them"
    )
    algorithms: list[Algorithm] = Field(
        default=list(get_args(Algorithm)),
        min_length=1,
        description="Accepted signature algorithms. Symmetric algorithms are never accepted",
    )
    scopes: list[ScopeToken] = Field(default=[], description="Required scopes; a token must have all of them")
    user_claim: NonEmpty = Field(
        default="sub",
        description="Claim with the user's name; use one whose values are never reassigned to another person",
    )
    groups_claim: NonEmpty = Field(
        default="groups",
        description="Claim with the user's groups. a.b reads b in the object a: realm_access.roles",
    )
    leeway_seconds: Annotated[int, Field(ge=0, le=600), BeforeValidator(_integer)] = Field(
        default=30, description="Tolerated clock difference"
    )
    timeout_seconds: Seconds = Field(default=5, description="Timeout of a request to the issuer")
    refresh_seconds: Seconds = Field(
        default=600, description="Interval at which the issuer's keys are fetched"
    )
    min_refresh_seconds: Seconds = Field(
        default=10, description="Minimum between two fetches when tokens have unknown keys"
    )
    stale_seconds: Seconds = Field(
        default=86400, description="How long the last keys are used while the issuer does not answer"
    )
    ca_secret: CaSecret | None = Field(
        default=None, description="CA bundle for an issuer with a private certificate"
    )
    introspection: Introspection | None = Field(
        default=None,
        description="How opaque access tokens are looked up (RFC 7662). Default: they are rejected",
    )


class UsersSecret(SecretKey):
    """Users and bcrypt hashes, as `htpasswd -B` writes them. A changed Secret applies without a restart."""

    key: NonEmpty = Field(default="htpasswd", description="Key in the Secret")


@dataclass(frozen=True, kw_only=True)
class IdentityFiles:
    """Where the Secrets of `auth` are mounted; the chart has the same paths."""

    users: Path = Path("/etc/poiesis-identity/users/htpasswd")  # auth.basic.usersSecret
    ca: Path = Path("/etc/poiesis-identity/ca/ca.crt")  # auth.oidc.caSecret
    client_secret: Path = Path("/etc/poiesis-identity/introspection/client-secret")


class Basic(Section):
    """User names and passwords (RFC 7617)."""

    users_secret: UsersSecret


class Administrators(Section):
    """Users and groups who may see and cancel all tasks."""

    users: list[NonEmpty] = Field(default=[], description="User names", examples=[["root"]])
    groups: list[NonEmpty] = Field(default=[], description="Groups", examples=[["tes-administrators"]])


class Sharing(Section):
    """How users share tasks with a group."""

    tag: NonEmpty | None = Field(
        default=None,
        description="Key of the tag that names a group with access to the task. Default: no sharing",
        examples=["group"],
    )
    groups: list[NonEmpty] = Field(
        default=[], description="Groups that may be named. Empty: any group that the creator is a member of"
    )


_OIDC_EXAMPLE = {
    "issuer": "https://sso.example.org/realms/science",
    "audiences": ["https://tes.example.org"],
    "algorithms": ["RS256", "ES256", "PS256", "EdDSA"],
    "scopes": ["tes"],
    "introspection": {"clientId": "tes-server", "clientSecret": {"name": "tes-client"}},
}


def _mode_requires_its_section(schema: dict[str, Any]) -> None:
    """Let the chart's schema express what `Auth` checks."""
    schema["allOf"] = [
        {
            "if": {"properties": {"mode": {"const": mode}}, "required": ["mode"]},
            "then": {"required": [mode], "properties": {mode: {"type": "object"}}},
        }
        for mode in ("basic", "oidc")
    ]


class Auth(Section):
    """Who may use the API, and who sees which tasks. docs/how-to/operators/identity.md explains it."""

    model_config = ConfigDict(json_schema_extra=_mode_requires_its_section)

    mode: Literal["none", "basic", "oidc"] = Field(
        default="none",
        description="none: all clients share one account (development). basic: user names and passwords. "
        "oidc: access tokens",
    )
    allow_anonymous: bool = Field(
        default=False,
        description="Required to publish the service with mode none by an Ingress, a NodePort or a "
        "LoadBalancer: anyone who reaches it can run any image in your cluster and read all tasks",
    )
    administrators: Administrators = Administrators()
    sharing: Sharing = Sharing()
    basic: Basic | None = Field(
        default=None,
        description="User names and passwords (RFC 7617). Required with mode basic",
        examples=[{"usersSecret": {"name": "tes-users"}}],
    )
    oidc: Oidc | None = Field(
        default=None,
        description="Access tokens of an OpenID Provider. Required with mode oidc",
        examples=[_OIDC_EXAMPLE],
    )

    @model_validator(mode="after")
    def _mode_has_its_section(self) -> Self:
        if self.mode == "basic" and self.basic is None:
            raise ValueError("basic must be set with mode basic: name the Secret with the users")
        if self.mode == "oidc" and self.oidc is None:
            raise ValueError("oidc must be set with mode oidc: name the issuer and the audiences")
        return self


class ActiveLimit(Section):
    """Limit of tasks that have a Job."""

    tasks: CountOrZero | None = Field(
        default=None, description="Tasks that have a Job. Default with users: half of `queue.maxActiveTasks`"
    )
    when_reached: Literal["queue", "refuse"] = Field(
        default="queue",
        description="queue: further tasks wait in Postgres. refuse: 429, and waiting tasks count as active",
    )


class RateLimit(Section):
    """Limit of requests to each replica of the api; then 429."""

    per_second: AtLeastZero | None = Field(
        default=None, description="Requests per second. Default with users: 200"
    )
    burst: Count = Field(default=2000, description="Requests that may arrive at once")


class UserLimits(Section):
    """Limits per user. 0: no limit.

    Unset limits have a default with `auth.mode` basic or oidc where the description names one ("with users").
    With mode none, where all clients share one account, and in all other cases, unset means no limit.
    """

    active: ActiveLimit = ActiveLimit()
    queued_tasks: CountOrZero | None = Field(
        default=None, description="Tasks that wait for a Job; then 429. Default with users: 10000"
    )
    requests: RateLimit = RateLimit()
    cpu_cores: AtLeastZero | None = Field(
        default=None, description="Total of the user's tasks that have not ended; then 429"
    )
    ram_gb: AtLeastZero | None = Field(default=None, description="Likewise, 1 GB = 10^9 bytes")
    disk_gb: AtLeastZero | None = Field(default=None, description="Likewise, 1 GB = 10^9 bytes")
    gpus: AtLeastZero | None = Field(
        default=None,
        description="Likewise, of the extended resources in `backendParameters.gpuResource`",
    )

    def with_defaults(self, *, active: int, queued: int, per_second: float) -> "UserLimits":
        """Return the limits with these defaults where one is unset."""
        return UserLimits(
            **{name: getattr(self, name) for name in ("cpu_cores", "ram_gb", "disk_gb", "gpus")},
            active=ActiveLimit(
                tasks=active if self.active.tasks is None else self.active.tasks,
                when_reached=self.active.when_reached,
            ),
            queued_tasks=queued if self.queued_tasks is None else self.queued_tasks,
            requests=RateLimit(
                per_second=per_second if self.requests.per_second is None else self.requests.per_second,
                burst=self.requests.burst,
            ),
        )


# As browsers write it (RFC 6454, 6.2): lower case, no path, and no port that is the scheme's own.
Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[a-z0-9.\-_:\[\]]+$")]


# Without port: a Host header has any port through which the server is reached.
HostName = Annotated[str, Field(pattern=r"^(\*|(\*\.)?[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?)$")]


class Http(Section):
    """The HTTP server."""

    host: str = Field(
        default="0.0.0.0",  # noqa: S104
        description="Address to listen on",
        json_schema_extra=SET_BY_CHART,
    )
    port: Annotated[int, Field(gt=0, lt=65536), BeforeValidator(_integer)] = Field(
        default=8000, description="Port to listen on", json_schema_extra=SET_BY_CHART
    )
    metrics_port: Annotated[int, Field(gt=0, lt=65536), BeforeValidator(_integer)] = Field(
        default=8001, description="Port that serves /metrics", json_schema_extra=SET_BY_CHART
    )
    drain_seconds: AtLeastZero = Field(
        default=5,
        description="After SIGTERM the Pod is unready but still serves for this long, until all proxies have "
        "updated their endpoints",
    )
    head_seconds: Seconds = Field(
        default=15, description="A connection that sends no complete request head in this time is closed"
    )
    keep_alive_seconds: Seconds = Field(
        default=75,
        description="An idle connection is closed after this time; proxies must reuse connections for less",
    )
    max_connections: Count = Field(
        default=2000,
        description="Connections of clients to one replica. When they are in use, idle ones are closed and "
        "further ones refused",
    )
    hosts: list[HostName] = Field(
        default=[],
        description="Host names by which clients reach the api, in addition to IP addresses, localhost, the "
        "names of the Service and the host of the Ingress: tes.example.org, or *.example.org for every "
        "first label. Requests to any other name are rejected with 421. '*' accepts all names",
    )
    allowed_origins: list[Origin] = Field(
        default=[],
        description="Origins of web pages that may create and cancel tasks from their visitors' browsers, in "
        "addition to the api's own page: https://portal.example.org (lower case, no path). Clients "
        "other than browsers need no entry",
    )


class Database(Section):
    """Connections of each replica of the api to Postgres."""

    min_connections: Count = Field(default=2, description="Connections that are kept open")
    max_connections: Count = Field(default=10, description="Most connections")
    timeout_seconds: Seconds = Field(
        default=10, description="Timeout of a statement, and of getting a connection"
    )


class Prices(Section):
    """Prices for the cost in reports of usage (`GET /poiesis/v1/usage`). Without any there is no cost."""

    currency: NonEmpty | None = Field(default=None, description="Currency, shown as is", examples=["EUR"])
    cpu_hour: AtLeastZero | None = Field(default=None, description="One CPU core for an hour")
    ram_gb_hour: AtLeastZero | None = Field(
        default=None, description="1 GB (10^9 bytes) of memory for an hour"
    )
    disk_gb_hour: AtLeastZero | None = Field(default=None, description="1 GB of disk for an hour")
    gpu_hour: AtLeastZero | None = Field(default=None, description="One GPU for an hour")


class Document(TaskPodConfig):
    """The api's configuration document."""

    service_info: ServiceInfo = ServiceInfo()
    limits: Limits = Limits()
    user_limits: UserLimits = UserLimits()
    prices: Prices = Prices()
    auth: Auth = Auth()
    http: Http = Http()
    database: Database = Database()

    @property
    def effective_user_limits(self) -> UserLimits:
        """Return the limits per user, with the defaults that apply if users have accounts of their own."""
        if self.auth.mode == "none":
            return self.user_limits
        half = max(1, self.queue.max_active_tasks // 2)
        return self.user_limits.with_defaults(active=half, queued=10_000, per_second=200)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the document. Raise ConfigError, which names each invalid key and its value."""
        try:
            return cls.model_validate_json(path.read_bytes(), by_alias=True, by_name=False)
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        except ValidationError as error:
            problems = "; ".join(map(_problem, error.errors()))
            raise ConfigError(f"{path}: {problems}") from error


def _problem(error: ErrorDetails) -> str:
    """Return one error: the key, what is wrong, and the value.

    Messages of validators begin with a key, relative to the section that they check.
    """
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{key} is required"
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    if error["type"] == "value_error":
        return f"{key}.{error['msg'].removeprefix('Value error, ')}".removeprefix(".")
    message = error["msg"].replace("Input should", "must").replace("should", "must")
    given = error["input"]
    shown = f", got {str(given)[:_SHOWN]!r}" if isinstance(given, str | int | float) else ""
    return f"{key or 'the document'}{'' if message.startswith('must') else ':'} {message}{shown}"


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration of the process."""

    namespace: str
    document: Document
    dsn: str = field(repr=False)
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the environment and the document. Raise ConfigError, which names the variable or key."""
        dsn = _required(env, "POIESIS_DSN")
        if urlsplit(dsn).scheme not in {"postgresql", "postgres"}:
            raise ConfigError("POIESIS_DSN must be a postgresql:// URL")
        return cls(
            dsn=dsn,
            namespace=_required(env, "POD_NAMESPACE"),
            document=Document.load(Path(env.get("POIESIS_CONFIG") or DEFAULT_PATH)),
            log_level=_log_level(env),
        )


def _log_level(env: Mapping[str, str]) -> str:
    level = (env.get("POIESIS_LOG_LEVEL") or "INFO").upper()
    if level not in _LOG_LEVELS:
        raise ConfigError(f"POIESIS_LOG_LEVEL must be one of {', '.join(_LOG_LEVELS)}, got {level!r}")
    return level


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise ConfigError(f"{name} is not set")
    return value
