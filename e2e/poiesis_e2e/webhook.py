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

from poiesis_e2e.kube import Kube, Node, Object
from poiesis_e2e.serving import port_of, serving
from poiesis_e2e.waiting import eventually

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
            await eventually(not_asked, "an API server that calls the webhook no more")  # nor is about to


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
    def __init__(self, review: Review) -> None:
        self._review = review
        self.probed = False

    @asynccontextmanager
    async def at(self, address: str) -> AsyncIterator[Mapping[str, str]]:
        """Where it answers, as a webhook configuration's `clientConfig` has it."""
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
