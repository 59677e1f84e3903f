"""Admission webhooks that tests answer themselves: to change, refuse or delay what is written to Kubernetes.

The server runs in the process of the tests; the API server finds it by the address of this machine in
docker's network.
"""

import base64
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import trustme
from aiohttp import web

from kube import Kube, Node, Object
from waiting import eventually

PROBE = "poiesis-e2e-probe"  # the name of what only finds out whether the API server asks yet
SECONDS = 10  # an answer may take so long; after that what was asked for is refused

Review = Callable[[Object], Awaitable[Sequence[Object]]]
"""AdmissionReview's `request` to a JSON patch, most often empty. It may raise Refusal."""


class Refusal(Exception):
    """What was asked for is not admitted; the text is what the client is told."""


@asynccontextmanager
async def admission(
    kube: Kube, node: Node, review: Review, *, rules: Sequence[Object], probe: Object, condition: str = "true"
) -> AsyncIterator[None]:
    """A mutating webhook for writes in kube's namespace, from when the API server asks it.

    `rules` as in a MutatingWebhookConfiguration; `condition`: CEL that must hold; `probe`: an object that is
    named PROBE and that the rules and the condition are about; it is never stored.
    """
    server = _Server(await node.host_address(), review)
    name = f"poiesis-e2e-{uuid.uuid4().hex[:8]}.example.org"

    async def asked() -> bool:
        server.probed = False
        await kube.run("create", "--dry-run=server", "-f", "-", input_text=json.dumps(probe))
        return server.probed

    async def not_asked() -> bool:
        return not await asked()

    try:
        made = configuration(
            "Mutating",
            name,
            where=await server.start(),
            namespace=kube.namespace,
            rules=rules,
            condition=condition,
            seconds=SECONDS,
        )
        await kube.create(made)

        await eventually(asked, "a webhook that is called")
        yield
    finally:
        await kube.run("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")
        await eventually(not_asked, "an API server that calls the webhook no more")  # nor is about to
        await server.stop()


def rule(operation: str, group: str, *plurals: str) -> Object:
    """One of a webhook's rules."""
    return {"apiGroups": [group], "apiVersions": ["v1"], "operations": [operation], "resources": [*plurals]}


def pod_spec(manifest: Object) -> tuple[str, Object]:
    """Where the Pod's spec is in a Job or a Pod (a JSON pointer), and what it is."""
    if manifest["kind"] == "Job":
        return "/spec/template/spec", manifest["spec"]["template"]["spec"]
    return "/spec", manifest["spec"]


def configuration(
    kind: Literal["Mutating", "Validating"],
    name: str,
    *,
    where: Mapping[str, str],
    namespace: str,
    rules: Sequence[Object],
    condition: str,
    seconds: int,
) -> Object:
    """A webhook configuration's manifest. `where`: its clientConfig; `seconds`: for an answer."""
    hook = {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "timeoutSeconds": seconds,
        "clientConfig": where,
        "rules": rules,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "matchConditions": [{"name": "meant", "expression": condition}],
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": f"{kind}WebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook],
    }


class _Server:
    def __init__(self, address: str, review: Review) -> None:
        self._address = address
        self._review = review
        self._authority = trustme.CA()
        application = web.Application()
        application.router.add_post("/", self._answer)
        self._runner = web.AppRunner(application)
        self.probed = False

    async def start(self) -> Mapping[str, str]:
        """Where it answers, as a webhook configuration's `clientConfig` has it."""
        await self._runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(self._address).configure_cert(context)
        await web.TCPSite(self._runner, self._address, 0, ssl_context=context).start()
        port: int = self._runner.addresses[0][1]
        bundle = base64.b64encode(self._authority.cert_pem.bytes()).decode()
        return {"url": f"https://{self._address}:{port}/", "caBundle": bundle}

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        asked: Object = (await request.json())["request"]
        if asked.get("name") == PROBE:
            self.probed = True
            return _response(asked, {"allowed": True})
        try:
            patch = await self._review(asked)
        except Refusal as refusal:
            return _response(asked, {"allowed": False, "status": {"message": str(refusal), "code": 403}})
        encoded = base64.b64encode(json.dumps(list(patch)).encode()).decode()
        return _response(asked, {"allowed": True, "patchType": "JSONPatch", "patch": encoded})


def _response(asked: Object, verdict: Mapping[str, Any]) -> web.Response:
    response = {"uid": asked["uid"], **verdict}
    return web.json_response(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
    )
