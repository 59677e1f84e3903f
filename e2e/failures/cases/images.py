"""Images."""

from collections.abc import Sequence

from failures.case import After, Case
from failures.cases.builders import PULL, QUEUED, RAN, START, image
from failures.sights import printed

SECTION = "Images"

CASES: Sequence[Case] = (
    Case(
        id="image-missing",
        section=SECTION,
        title="The registry does not have the image",
        document=image("localhost:{port}/no/such:image"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <the words of kubelet and registry> not found",
        container="executor-0",
        reporter="controller",
        within=PULL,
        after=After.POD,
        states=QUEUED,
    ),
    Case(
        id="registry-missing",
        section=SECTION,
        title="The registry does not answer",
        document=image("registry.invalid/no/such:image"),
        state="SYSTEM_ERROR",
        reasons=("ImagePullBackOff", "ErrImagePull"),
        message="executor-0 (<image>) cannot start: <the words of kubelet and network>",
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
        message="executor-1 (<image>) cannot start: <the words of kubelet and network>",
        container="executor-1",
        exit_codes=(0,),
        reporter="controller",
        within=PULL,
        after=After.EXECUTOR,
        states=RAN,
        sees=(printed("kept\n"),),
    ),
    Case(
        id="image-malformed",
        section=SECTION,
        title="The image's name is not one that can exist",
        document=image("Not/An/IMAGE:name"),
        state="SYSTEM_ERROR",
        reasons=("InvalidImageName",),
        message="executor-0 (<image>) cannot start: Failed to apply default image tag <the words of kubelet>",
        container="executor-0",
        reporter="controller",
        within=START,
        after=After.POD,
        states=QUEUED,
    ),
)
