"""Admission webhooks of tests: change, reject or delay writes to Kubernetes.

The server runs in the process of the tests; the API server reaches it by the address of this machine in
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

from poiesis_e2e.kube import Kube, Node, Object
from poiesis_e2e.serving import port_of, serving
from poiesis_e2e.waiting import eventually

PROBE = "poiesis-e2e-probe"  # name of the object that detects whether the API server calls the webhook
SECONDS = 10  # timeout of a response; after that the write is rejected

Review = Callable[[Object], Awaitable[Sequence[Object]]]
"""AdmissionReview's `request` to a JSON patch, most often empty. It may raise Refusal."""


class Refusal(Exception):
    """Reject the write; the client gets this text."""


@asynccontextmanager
async def admission(
    kube: Kube, node: Node, review: Review, *, rules: Sequence[Object], probe: Object, condition: str = "true"
) -> AsyncIterator[None]:
    """Register a mutating webhook for writes in kube's namespace; enter when the API server calls it.

    `rules` as in a MutatingWebhookConfiguration; `condition`: CEL that must hold; `probe`: an object named
    PROBE that matches the rules and the condition; it is never stored.
    """
    server = _Server(review)
    name = f"poiesis-e2e-{uuid.uuid4().hex[:8]}.example.org"

    async def asked() -> bool:
        server.probed = False
        await kube.run("create", "--dry-run=server", "-f", "-", input_text=json.dumps(probe))
        return server.probed

    async def not_asked() -> bool:
        return not await asked()

    async with server.at(await node.host_address()) as where:
        made = configuration(
            "Mutating",
            name,
            where=where,
            namespace=kube.namespace,
            rules=rules,
            condition=condition,
            seconds=SECONDS,
        )
        try:
            await kube.create(made)
            await eventually(asked, "a webhook that is called")
            yield
        finally:
            await kube.run("delete", "mutatingwebhookconfiguration", name, "--ignore-not-found")
            # The API server must have no pending call of the webhook either.
            await eventually(not_asked, "an API server that no longer calls the webhook")


def rule(operation: str, group: str, *plurals: str) -> Object:
    """Return a rule of a webhook."""
    return {"apiGroups": [group], "apiVersions": ["v1"], "operations": [operation], "resources": [*plurals]}


def pod_spec(manifest: Object) -> tuple[str, Object]:
    """Return the JSON pointer and the content of the Pod's spec in a Job or a Pod."""
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
    """Return a webhook configuration. `where`: its clientConfig; `seconds`: timeout."""
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
    def __init__(self, review: Review) -> None:
        self._review = review
        self.probed = False

    @asynccontextmanager
    async def at(self, address: str) -> AsyncIterator[Mapping[str, str]]:
        """Serve at `address` and yield the `clientConfig` of a webhook configuration."""
        application = web.Application()
        application.router.add_post("/", self._answer)
        authority = trustme.CA()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(address).configure_cert(context)
        bundle = base64.b64encode(authority.cert_pem.bytes()).decode()
        async with serving(application, address, tls=context) as runner:
            yield {"url": f"https://{address}:{port_of(runner)}/", "caBundle": bundle}

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
