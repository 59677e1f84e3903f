"""Configuration: secrets and identity from the environment, everything else from one JSON document.

Environment: `POIESIS_DSN` (Postgres, role poiesis_api), `POD_NAMESPACE` (where tasks run), `POIESIS_CONFIG`
(path of the document; default /etc/poiesis/config.json). The document's keys are camelCase; an unknown key is
an error. A whole one is config.example.json.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from poiesis_models import shared
from poiesis_models.tes import EXECUTORS

DEFAULT_PATH = "/etc/poiesis/config.json"

NonEmpty = Annotated[str, Field(min_length=1)]
Scheme = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*$")]
Seconds = Annotated[int, Field(gt=0)]


class ConfigError(Exception):
    """The process cannot start with this configuration; the message names the key or variable."""


class Section(BaseModel):
    """A part of the document: frozen, camelCase, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, populate_by_name=True
    )


class Images(Section):
    """Our own images in a TaskPod."""

    trec: NonEmpty = Field(description="Task Recorder; holds /helper too")
    helper: NonEmpty = Field(description="the helper alone: the `pause` container")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="of trec, helper and filers"
    )
    pull_secrets: list[NonEmpty] = Field(
        default=[], description="names of imagePullSecrets of every TaskPod, for executors' images too"
    )


class FilerSide(Section):
    """One direction of a filer."""

    schemes: list[Scheme] = Field(min_length=1, description="URL schemes that it serves, lower case")
    image: NonEmpty
    command: list[NonEmpty] = Field(
        min_length=1, description="argv: the helper runs it, ENTRYPOINT is not used"
    )
    stream_command: list[NonEmpty] | None = Field(
        default=None,
        min_length=1,
        description="argv that streams inputs into FIFOs; none: streamable inputs are staged",
    )


class SharedVolume(Section):
    """A volume of the operator's, mounted into its filer alone."""

    prefix: Annotated[str, Field(pattern=r"^(/[^/]+)+$")] = Field(
        description="file:// URLs and bare paths below it name what lies in the volume"
    )
    volume: dict[str, Any] = Field(min_length=1, description="a volume source of Kubernetes")
    sub_path: NonEmpty | None = Field(default=None, description="of the volume; none: all of it")
    writable: bool = Field(default=False, description="whether outputs may go there")


class Filer(Section):
    """An image that stages inputs, sends outputs, or both; of two that serve a scheme the first one wins."""

    name: NonEmpty
    inputs: FilerSide | None = None
    outputs: FilerSide | None = None
    env: dict[NonEmpty, str] = Field(default={}, description="added to the filer contract's own variables")
    read_only_root_filesystem: bool = True
    object_storage: bool = Field(
        default=True, description="whether it gets what `storage` says, with the credentials"
    )
    secret_name: NonEmpty | None = Field(
        default=None, description="Secret that it finds as files in /poiesis/secret"
    )
    shared_volumes: list[SharedVolume] = Field(default=[], description="below /poiesis/shared")

    @property
    def shared(self) -> tuple[shared.SharedVolume, ...]:
        """As the filer is told of them."""
        return tuple(
            shared.SharedVolume(prefix=one.prefix, writable=one.writable) for one in self.shared_volumes
        )

    @model_validator(mode="after")
    def _shared_volumes_are_apart(self) -> Self:
        for one in self.shared_volumes:
            path = Path(one.prefix)
            if {".", ".."} & set(one.prefix.split("/")):
                raise ValueError(f"sharedVolumes: the prefix {one.prefix} has a segment '.' or '..'")
            others = [Path(other.prefix) for other in self.shared_volumes if other is not one]
            if any(path.is_relative_to(other) for other in others):
                raise ValueError(f"sharedVolumes: {one.prefix} lies in another one")
        return self


class CaSecret(Section):
    """A Secret with a PEM bundle."""

    name: NonEmpty
    key: NonEmpty = "ca.crt"


class StorageCredentials(Section):
    """Who the filers are at some S3 URLs: the Secret's keys, nobody, or whoever AWS' standard chain says."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$", description="stored with the tasks that may use it"
    )
    urls: list[Annotated[str, Field(pattern=r"^s3://[A-Za-z0-9][A-Za-z0-9._-]{0,254}(/.*)?$")]] = Field(
        min_length=1, description="buckets, or prefixes of keys by whole segments; the longest that fits wins"
    )
    secret_name: NonEmpty | None = Field(
        default=None, description="with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and maybe AWS_SESSION_TOKEN"
    )
    anonymous: bool = Field(default=False, description="nothing is signed: public buckets")
    endpoint: Annotated[str, Field(pattern=r"^https?://.+$")] | None = Field(
        default=None, description="none: the deployment's, with its region, addressing style and CA"
    )
    region: NonEmpty | None = None
    addressing_style: Literal["path", "virtual", "auto"] | None = None
    requester_pays: bool | None = None
    ca_secret: CaSecret | None = Field(default=None, description="trusted for the endpoint")
    users: list[NonEmpty] | None = Field(
        default=None, min_length=1, description="whose tasks may use it, besides those of `groups`"
    )
    groups: list[NonEmpty] | None = Field(default=None, min_length=1, description="none of both: everybody")

    @model_validator(mode="after")
    def _is_somebody_or_nobody(self) -> Self:
        if self.anonymous and self.secret_name is not None:
            raise ValueError(f"{self.name}: anonymous and secretName exclude each other")
        return self


class WebIdentity(Section):
    """A token of the task's ServiceAccount, which STS changes for the keys of a role."""

    role_arn: NonEmpty = Field(description="AWS_ROLE_ARN")
    audience: NonEmpty = Field(default="sts.amazonaws.com", description="whom the token is for")
    sts_endpoint: Annotated[str, Field(pattern=r"^https?://.+$")] | None = Field(
        default=None, description="AWS_ENDPOINT_URL_STS; none: Amazon's in the region"
    )


class Storage(Section):
    """Object storage of the filers."""

    secret_name: NonEmpty | None = Field(
        default=None,
        description="Secret that becomes the filers' environment: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY",
    )
    endpoint: NonEmpty | None = Field(default=None, description="AWS_ENDPOINT_URL_S3; none: Amazon's")
    region: NonEmpty | None = Field(default=None, description="AWS_REGION")
    addressing_style: Literal["path", "virtual", "auto"] = "auto"
    ca_secret: CaSecret | None = Field(default=None, description="trusted for the endpoint (AWS_CA_BUNDLE)")
    web_identity: WebIdentity | None = Field(
        default=None, description="who the filers are where neither a Secret nor `credentials` gives keys"
    )
    credentials: list[StorageCredentials] = Field(
        default=[], description="of some buckets, or for some users; what is above is for all else"
    )
    output_keys: Literal["literal", "decoded"] = Field(
        default="literal",
        description="whether filers use the keys of output URLs as they are or decode their percent escapes",
    )
    http_allow: list[NonEmpty] = Field(
        default=[],
        description="where inputs may come from by HTTP besides public addresses: networks, addresses, hosts",
    )
    http_deny: list[NonEmpty] = Field(
        default=[],
        description="public networks, addresses and hosts that inputs must not come from; of this list and "
        "`http_allow` the most specific entry decides, and this one wins a tie",
    )

    @model_validator(mode="after")
    def _credentials_are_told_apart(self) -> Self:
        names = [entry.name for entry in self.credentials]
        if len(names) != len(set(names)):
            raise ValueError(f"credentials: two have the same name: {', '.join(names)}")
        return self


class Volume(Section):
    """The task volume."""

    type: Literal["pvc", "ephemeral", "emptyDir"] = Field(
        default="pvc",
        description="pvc: a claim of the Job; ephemeral: a claim of the Pod; emptyDir: the node's disk",
    )
    storage_class: NonEmpty | None = Field(default=None, description="none: the cluster's default class")
    default_size_gb: float = Field(
        default=10, gt=0, allow_inf_nan=False, description="for tasks without disk_gb; GB = 10**9 bytes"
    )
    access_mode: Literal["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"] = "ReadWriteOnce"


class Quantities(Section):
    """Kubernetes quantities, used as requests and as limits alike."""

    cpu: NonEmpty
    memory: NonEmpty


class MaxResources(Section):
    """What one task may ask for at most: more than the largest node has is never scheduled."""

    cpu_cores: int = Field(default=256, gt=0)
    ram_gb: float = Field(default=4096, gt=0, allow_inf_nan=False, description="GB = 10**9 bytes")
    disk_gb: float = Field(default=102_400, gt=0, allow_inf_nan=False, description="GB = 10**9 bytes")
    gpu_count: int = Field(default=64, ge=0, description="GPUs of one executor")


class Executors(Section):
    """Clients' own containers."""

    default_resources: Quantities = Field(
        default=Quantities(cpu="1", memory="2Gi"), description="where a task has no cpu_cores or no ram_gb"
    )
    max_resources: MaxResources = Field(
        default=MaxResources(), description="a task that asks for more is refused with 400"
    )
    root_disk_gb: float = Field(
        default=0,
        ge=0,
        allow_inf_nan=False,
        description="what a task's executors may write outside its volumes, GB = 10**9 bytes; 0: no limit",
    )
    extended_resources: dict[NonEmpty, NonEmpty] = Field(
        default={}, description="of every executor, by name: devices of the node, as in {nvidia.com/gpu: 1}"
    )
    security_context: dict[str, Any] = Field(
        default={},
        description="securityContext of executors; NET_RAW is dropped in addition to what it drops",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="none: Kubernetes' rule (Always for :latest)"
    )
    log_bytes: int = Field(default=65536, ge=0, le=2**26, description="kept of each stream of each executor")
    on_error: Literal["upload", "skip"] = Field(
        default="upload", description="whether outputs are sent after a failed executor"
    )
    outputs_after_kill_seconds: int = Field(
        default=60,
        ge=0,
        le=3600,
        description="for sending outputs after an executor was killed with its container, as when it ran out "
        "of memory; 0: they are not sent, and tasks with outputs have a sidecar less",
    )

    @field_validator("security_context")
    @classmethod
    def _net_raw_is_not_added(cls, context: dict[str, Any]) -> dict[str, Any]:
        """Containers of a Pod share its network: a raw socket reads and forges the recorder's packets."""
        added = (context.get("capabilities") or {}).get("add") or []
        if {str(name).upper().removeprefix("CAP_") for name in added} & {"NET_RAW"}:
            raise ValueError("capabilities.add must not contain NET_RAW: executors never have it")
        if context.get("privileged"):
            raise ValueError("privileged must be false: it includes NET_RAW, which executors never have")
        return context


class Requests(Section):
    """`requests` and `limits` of one of our own containers."""

    requests: Quantities
    limits: Quantities


class Resources(Section):
    """Of our own containers; a quota may demand them, so every container has both."""

    trec: Requests = Requests(
        requests=Quantities(cpu="10m", memory="64Mi"), limits=Quantities(cpu="1", memory="128Mi")
    )
    filer: Requests = Requests(
        requests=Quantities(cpu="100m", memory="128Mi"), limits=Quantities(cpu="1", memory="512Mi")
    )
    rescue: Requests = Requests(
        requests=Quantities(cpu="10m", memory="8Mi"), limits=Quantities(cpu="1", memory="512Mi")
    )
    pause: Requests = Requests(
        requests=Quantities(cpu="10m", memory="8Mi"), limits=Quantities(cpu="100m", memory="16Mi")
    )


class PodSettings(Section):
    """Passed through to every TaskPod."""

    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    affinity: dict[str, Any] = {}
    priority_class_name: NonEmpty | None = None
    runtime_class_name: NonEmpty | None = None
    active_deadline_seconds: Seconds | None = Field(
        default=None, description="wall-time limit of a task's Pod"
    )


class Queue(Section):
    """How tasks become Jobs."""

    max_active_tasks: int = Field(
        default=1000, gt=0, description="Jobs that exist and have not ended, at most"
    )
    max_submissions: int = Field(default=8, gt=0, description="made at once by one replica")
    poll_seconds: float = Field(default=5, gt=0, description="looks for work that no event announced")
    claim_seconds: Seconds = Field(default=60, description="after which another replica may take a task over")
    stalled_seconds: float = Field(
        default=60,
        gt=0,
        description="a Pod without a node for so long stalls; such tasks fill at most half of maxActiveTasks",
    )
    give_up_seconds: Seconds | None = Field(
        default=None, description="age at which a task that Kubernetes still refuses ends; none: never"
    )
    kueue_queue_name: NonEmpty | None = Field(
        default=None, description="LocalQueue; Jobs are then unsuspended by Kueue alone"
    )
    kueue_priority_class: NonEmpty | None = Field(
        default=None, description="WorkloadPriorityClass of tasks in a LocalQueue"
    )


class BackendParameters(Section):
    """What clients may ask for in resources.backend_parameters, each off until there are values for it.

    The keys of clients are these names in snake case, whatever their case.
    """

    queue: list[NonEmpty] = Field(default=[], description="LocalQueues of Kueue")
    queue_priority: list[NonEmpty] = Field(default=[], description="WorkloadPriorityClasses of Kueue")
    priority_class: list[NonEmpty] = Field(default=[], description="PriorityClasses")
    node_selector: list[Annotated[str, Field(pattern=r"^[^=,]+=[^=,]*$")]] = Field(
        default=[], description="label=value; a client may name several, with commas between"
    )
    tolerations: list[
        Annotated[str, Field(pattern=r"^[^=:,]+(=[^:,]*)?(:(NoSchedule|PreferNoSchedule|NoExecute))?$")]
    ] = Field(default=[], description="key[=value][:effect]; a client may name several, with commas between")
    runtime_class: list[NonEmpty] = Field(default=[], description="RuntimeClasses")
    gpu_resource: list[NonEmpty] = Field(
        default=[], description="extended resources; the first one is meant where only gpu_count is given"
    )
    gpu_count: int = Field(default=0, ge=0, description="of one executor at most; needs gpuResource")
    image_pull_secret: list[NonEmpty] = Field(default=[], description="Secrets in the tasks' namespace")
    wall_time_seconds: int = Field(default=0, ge=0, description="at most, of a task's Pod")
    volume_type: list[Literal["pvc", "ephemeral", "emptyDir"]] = Field(default=[], description="task volumes")
    storage_class: list[NonEmpty] = Field(default=[], description="StorageClasses of task volumes")

    @model_validator(mode="after")
    def _gpus_have_a_kind(self) -> Self:
        if self.gpu_count and not self.gpu_resource:
            raise ValueError("gpuCount needs gpuResource: which extended resources are GPUs?")
        return self


class TaskPodConfig(Section):
    """What the objects of a task are made from, besides the task."""

    images: Images
    filers: list[Filer] = Field(min_length=1, description="literal inputs go to the first that has inputs")
    storage: Storage = Storage()
    recorder_secret: NonEmpty = Field(description="Secret whose key `recorder-dsn` trec connects with")
    postgres_ca_secret: CaSecret | None = Field(
        default=None, description="certificate authority that trec trusts for Postgres (PGSSLROOTCERT)"
    )
    volume: Volume = Volume()
    executors: Executors = Executors()
    resources: Resources = Resources()
    pod: PodSettings = PodSettings()
    filer_retry_attempts: int = Field(
        default=5, ge=0, le=1000, description="of a filer that exits with 75, in place and with back-off"
    )
    ttl_seconds_after_finished: int = Field(
        default=600, ge=0, description="how long a finished task's objects, and its disk, stay"
    )
    termination_grace_period_seconds: Seconds = 30
    queue: Queue = Queue()
    backend_parameters: BackendParameters = BackendParameters()

    @property
    def input_filers(self) -> dict[str, Filer]:
        """By URL scheme."""
        return {
            scheme: filer
            for filer in reversed(self.filers)
            if filer.inputs
            for scheme in filer.inputs.schemes
        }

    @property
    def output_filers(self) -> dict[str, Filer]:
        """By URL scheme."""
        return {
            scheme: filer
            for filer in reversed(self.filers)
            if filer.outputs
            for scheme in filer.outputs.schemes
        }

    @property
    def literal_filer(self) -> Filer | None:
        """Writes the inputs that carry their content."""
        return next((filer for filer in self.filers if filer.inputs), None)

    @model_validator(mode="after")
    def _filers_are_told_apart(self) -> Self:
        names = [filer.name for filer in self.filers]
        if len(names) != len(set(names)):
            raise ValueError(f"filers: two have the same name: {', '.join(names)}")
        return self


class Organization(Section):
    """GA4GH service-info."""

    name: NonEmpty
    url: NonEmpty


class ServiceInfo(Section):
    """What GET /service-info says."""

    id: NonEmpty = "org.example.poiesis"
    name: NonEmpty = "Poiesis"
    description: str | None = None
    organization: Organization = Organization(name="Poiesis", url="https://github.com/JaeAeich/poiesis")
    contact_url: str | None = Field(default=None, description="an https URL: some clients refuse mailto:")
    documentation_url: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    environment: str | None = None
    version: NonEmpty = Field(default="unknown", description="of Poiesis; the chart sets its appVersion")
    storage: list[NonEmpty] = Field(default=[], description="URL prefixes that tasks can read and write")


class Limits(Section):
    """Of requests and of the tasks that they create."""

    executors: int = Field(
        default=100, gt=0, le=EXECUTORS, description="of one task; a task with more is refused with 400"
    )
    task_object_bytes: int = Field(
        default=1024 * 1024,
        ge=64 * 1024,
        le=1536 * 1024,
        description="of a task's Pod, with what Kubernetes adds to it; etcd accepts 1.5 MiB",
    )
    body_bytes: int = Field(default=8 * 1024 * 1024, gt=0, description="a larger body is refused with 413")
    body_seconds: float = Field(
        default=60, gt=0, description="a body that has not come whole by then is refused with 408"
    )
    incoming_bytes: int = Field(
        default=64 * 1024 * 1024, gt=0, description="of large bodies in one replica at a time; then 503"
    )
    page_bytes: int = Field(
        default=8 * 1024 * 1024, gt=0, description="after which a page of a list ends, as after page_size"
    )
    outgoing_bytes: int = Field(
        default=64 * 1024 * 1024, gt=0, description="of responses that one replica holds for their readers"
    )
    send_seconds: float = Field(
        default=30, gt=0, description="for each 64 KiB of a response; then the connection is closed"
    )


Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"
]
ScopeToken = Annotated[str, Field(pattern=r"^[!#-\[\]-~]+$")]  # RFC 6749, appendix A.4
Url = Annotated[str, Field(pattern=r"^https?://[^\s?#]+$")]


class Introspection(Section):
    """How opaque access tokens are looked up (RFC 7662)."""

    client_id: NonEmpty = Field(description="of this server at the issuer")
    client_secret_file: NonEmpty = Field(
        description="read for every request: a changed Secret counts at once"
    )
    audience_required: bool = Field(
        default=True, description="false: an answer without `aud` counts; RFC 7662 leaves it to the issuer"
    )
    cache_seconds: float = Field(
        default=60, ge=0, description="how long a token that the issuer revokes goes on to be accepted"
    )
    refused_seconds: float = Field(default=10, ge=0, description="a refused token is not asked for again")
    max_requests: int = Field(default=8, gt=0, description="at once, of one replica")
    max_cached: int = Field(default=10_000, gt=0, description="answers kept by one replica")


class Oidc(Section):
    """Access tokens of an OpenID Provider."""

    issuer: Url = Field(description="exactly as the tokens' `iss`; discovery begins there")
    audiences: list[NonEmpty] = Field(min_length=1, description="a token must be for one of them")
    algorithms: list[Algorithm] = Field(
        default=list(get_args(Algorithm)), min_length=1, description="of signatures; symmetric ones never are"
    )
    scopes: list[ScopeToken] = Field(default=[], description="a token must have all of them")
    user_claim: NonEmpty = Field(
        default="sub",
        description="who the caller is; a value that is given to another person gives the tasks away",
    )
    groups_claim: NonEmpty = Field(
        default="groups", description="a.b looks into the object a, as in Keycloak"
    )
    leeway_seconds: int = Field(default=30, ge=0, le=600, description="clocks may differ by so much")
    timeout_seconds: float = Field(default=5, gt=0, description="of one request to the issuer")
    refresh_seconds: float = Field(default=600, gt=0, description="keys are fetched anew so often")
    min_refresh_seconds: float = Field(
        default=10, gt=0, description="between two fetches, however many tokens have an unknown key"
    )
    stale_seconds: float = Field(
        default=86400, gt=0, description="how long keys go on to serve while the issuer does not answer"
    )
    ca_file: NonEmpty | None = Field(
        default=None, description="PEM bundle, trusted for the issuer besides the system's"
    )
    introspection: Introspection | None = None


class Basic(Section):
    """User names and passwords (RFC 7617)."""

    users_file: NonEmpty = Field(description="htpasswd with bcrypt hashes; a changed file counts at once")


class Administrators(Section):
    """Who sees and cancels all tasks."""

    users: list[NonEmpty] = []
    groups: list[NonEmpty] = []


class Sharing(Section):
    """How a task becomes visible to others than its creator."""

    tag: str = Field(
        default="",
        description="key of the tag with which a creator names a group of theirs; empty: no sharing",
    )
    groups: list[NonEmpty] = Field(default=[], description="that may be named; empty: any of the creator's")


class Auth(Section):
    """Who may ask, and who sees what."""

    mode: Literal["none", "basic", "oidc"] = Field(
        default="none", description="none: everybody is one user, and an Authorization header is ignored"
    )
    administrators: Administrators = Administrators()
    sharing: Sharing = Sharing()
    basic: Basic | None = None
    oidc: Oidc | None = None

    @model_validator(mode="after")
    def _mode_has_its_section(self) -> Self:
        if self.mode == "basic" and self.basic is None:
            raise ValueError("basic is missing, which mode basic needs")
        if self.mode == "oidc" and self.oidc is None:
            raise ValueError("oidc is missing, which mode oidc needs")
        return self


class ActiveLimit(Section):
    """Of tasks that Kubernetes has."""

    tasks: int = Field(gt=0)
    when_reached: Literal["queue", "refuse"] = Field(
        default="queue",
        description="queue: further tasks wait in Postgres; refuse: 429, and tasks that wait count too",
    )


class RateLimit(Section):
    """Of requests, in each replica."""

    per_second: float = Field(gt=0, allow_inf_nan=False)
    burst: int = Field(gt=0, description="requests that may come at once")


class UserLimits(Section):
    """What one user may have; none: no limit."""

    active: ActiveLimit | None = None
    queued_tasks: int | None = Field(default=None, gt=0, description="tasks that wait for a Job; then 429")
    requests: RateLimit | None = None
    cpu_cores: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="in sum of tasks that have not ended; then 429"
    )
    ram_gb: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="likewise, 10**9 bytes")
    disk_gb: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="likewise, 10**9 bytes"
    )
    gpus: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="likewise, of the extended resources in backendParameters.gpuResource",
    )


# As browsers write it (RFC 6454, 6.2): lower case, no path, and no port that is the scheme's own.
Origin = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://[a-z0-9.\-_:\[\]]+$")]


class Http(Section):
    """Where to listen, and to whom."""

    host: str = "0.0.0.0"  # noqa: S104
    port: int = Field(default=8000, gt=0, lt=65536)
    drain_seconds: float = Field(
        default=5, ge=0, description="after SIGTERM: unready, but serving, until endpoints have been updated"
    )
    head_seconds: float = Field(
        default=15, gt=0, description="a connection without a complete request head by then is closed"
    )
    keep_alive_seconds: float = Field(
        default=75, gt=0, description="an idle connection is closed after this time"
    )
    max_connections: int = Field(
        default=2000, gt=0, description="of clients; then idle ones are closed and new ones refused"
    )
    allowed_origins: list[Origin] = Field(
        default=[], description="of web pages that may create and cancel tasks, besides our own"
    )


class Database(Section):
    """The connection pool of one replica."""

    min_connections: int = Field(default=2, gt=0)
    max_connections: int = Field(default=10, gt=0)
    timeout_seconds: float = Field(
        default=10, gt=0, description="of one statement, and of getting a connection"
    )


class Document(TaskPodConfig):
    """The whole configuration document."""

    service_info: ServiceInfo = ServiceInfo()
    limits: Limits = Limits()
    user_limits: UserLimits = UserLimits()
    auth: Auth = Auth()
    http: Http = Http()
    database: Database = Database()

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raise ConfigError naming the key that is missing or wrong."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, problem['loc'])) or 'document'}: {problem['msg']}"
                for problem in error.errors()
            )
            raise ConfigError(f"{path}: {problems}") from error


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that the process is told from outside."""

    namespace: str
    document: Document
    dsn: str = field(repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Raise ConfigError naming the variable or key that is missing or wrong."""
        dsn = _required(env, "POIESIS_DSN")
        if urlsplit(dsn).scheme not in {"postgresql", "postgres"}:
            raise ConfigError("POIESIS_DSN must be a postgresql:// URL")
        return cls(
            dsn=dsn,
            namespace=_required(env, "POD_NAMESPACE"),
            document=Document.load(Path(env.get("POIESIS_CONFIG") or DEFAULT_PATH)),
        )


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        raise ConfigError(f"{name} is not set")
    return value
