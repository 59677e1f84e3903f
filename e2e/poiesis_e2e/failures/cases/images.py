"""Images."""

from collections.abc import Sequence

from poiesis_e2e.failures.case import After, Case
from poiesis_e2e.failures.cases.builders import (
    AT_ONCE,
    CONFIGURATION,
    PULL,
    QUEUED,
    RAN,
    fetched,
    foreign_image,
    image,
)
from poiesis_e2e.failures.sights import explained, logged, printed, stderr_contains
from poiesis_e2e.failures.surroundings import server, without_secret
from poiesis_e2e.install import STORAGE_SECRET

SECTION = "Images"

_REGISTRY = 5080

CASES: Sequence[Case] = (
    Case(
        id="image-missing",
        section=SECTION,
        title="The registry does not have the image",
        document=image("localhost:{port}/no/such:image"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <message of the kubelet>",
        container="executor-0",
        reporter="controller",
        within=PULL,
        after=After.POD,
        states=QUEUED,
        sees=(
            explained("executor-0: ErrImagePull: "),
            logged("not found"),
            explained('executor-0: Pulling: Pulling image "'),
        ),
    ),
    Case(
        id="registry-missing",
        section=SECTION,
        title="The registry does not answer",
        document=image("registry.invalid/no/such:image"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <message of the kubelet and the network>",
        container="executor-0",
        reporter="controller",
        within=PULL,
        after=After.POD,
        states=QUEUED,
    ),
    Case(
        id="image-late",
        section=SECTION,
        title="Only a later executor's image cannot be pulled",
        document=image("registry.invalid/no/such:image", "echo kept"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-1 (<image>) cannot start: <message of the kubelet and the network>",
        container="executor-1",
        exit_codes=(0,),
        reporter="controller",
        within=PULL,
        after=After.EXECUTOR,
        states=RAN,
        sees=(printed("kept\n"), explained("executor-1: ErrImagePull: ")),
    ),
    Case(
        id="image-private",
        section=SECTION,
        title="The registry requires credentials that the server does not have (`images.pullSecrets`)",
        around=server(
            "a registry that responds with 401",
            "printf 'HTTP/1.1 401 Unauthorized\\r\\nWww-Authenticate: Basic realm=r\\r\\n"
            "Content-Length: 0\\r\\n\\r\\n'",
            port=_REGISTRY,
            on_node=True,
        ),
        document=image(f"localhost:{_REGISTRY}/private/tool:1"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <message of the kubelet>",
        container="executor-0",
        reporter="controller",
        within=PULL,
        after=After.POD,
        states=QUEUED,
        sees=(logged("401 Unauthorized"),),
    ),
    Case(
        id="image-foreign",
        section=SECTION,
        title="The image is of another architecture",
        document=foreign_image,
        state="EXECUTOR_ERROR",
        reasons=("Error",),
        message="executor 0 exited with code 126",
        container="executor-0",
        exit_codes=(126,),
        reporter="recorder",
        within=AT_ONCE,
        after=After.EXECUTOR,
        states=RAN,
        sees=(stderr_contains("/tool: Exec format error"),),
    ),
    Case(
        id="configuration",
        section=SECTION,
        title="The configuration of a container does not exist",
        around=without_secret(STORAGE_SECRET),
        document=fetched(lambda world: world.bucket.url("it")),
        state="SYSTEM_ERROR",
        reasons=("CreateContainerConfigError",),
        message=f'tif-0 (<image>) cannot start: secret "{STORAGE_SECRET}" not found',
        container="tif-0",
        reporter="controller",
        within=CONFIGURATION,
        after=After.POD,
        states=QUEUED,
        release="second",
        alone=True,
    ),
)
