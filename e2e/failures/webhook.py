"""A mutating admission webhook as they were before native sidecars: it drops what it does not know.

It stands for those that decode a Pod into the types of Kubernetes 1.27 and encode it again. It runs in the
process of the tests; the API server finds it by the address of this machine in docker's network.
"""

import base64
import json
import ssl

import trustme
from aiohttp import web


class StrippingWebhook:
    """Removes restartPolicy from the init containers of a Job or a Pod."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._authority = trustme.CA()
        self._runner: web.AppRunner | None = None

    @property
    def ca_bundle(self) -> str:
        """Base64, as a webhook configuration wants it."""
        return base64.b64encode(self._authority.cert_pem.bytes()).decode()

    async def start(self) -> str:
        """Where it answers."""
        application = web.Application()
        application.router.add_post("/", _review)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(self._address).configure_cert(context)
        await web.TCPSite(self._runner, self._address, 0, ssl_context=context).start()
        port: int = self._runner.addresses[0][1]
        return f"https://{self._address}:{port}/"

    async def stop(self) -> None:
        """It may be called again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def _review(request: web.Request) -> web.Response:
    """AdmissionReview in, AdmissionReview out."""
    review = await request.json()
    asked = review["request"]
    path = "/spec/template/spec" if asked["kind"]["kind"] == "Job" else "/spec"
    spec = asked["object"]
    for step in path.split("/")[1:]:
        spec = spec[step]
    containers = spec.get("initContainers") or []
    patch = [
        {"op": "remove", "path": f"{path}/initContainers/{number}/restartPolicy"}
        for number, container in enumerate(containers)
        if "restartPolicy" in container
    ]
    encoded = base64.b64encode(json.dumps(patch).encode()).decode()
    response = {
        "uid": asked["uid"],
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": encoded,
    }
    return web.json_response(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    )
