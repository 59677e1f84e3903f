"""The gateway of a release: its Pods, its address, and the certificate that it presents."""

import json
from base64 import b64decode, b64encode

import trustme

from poiesis_e2e.kube import CommandError, Kube, Object

PORT = 8443
_PRESENTED = f"import ssl; print(ssl.get_server_certificate(('127.0.0.1', {PORT})))"
_SYNCED = "poiesis.io/e2e-synced"  # a changed annotation makes the kubelet read the Secret again, at once


async def host(services: Kube) -> str:
    """Return the name by which TaskPods reach the gateway."""
    return f"{await _name(services)}.{services.namespace}.svc"


async def delete_pods(services: Kube) -> None:
    """Delete all replicas without a grace period. Unlike killed containers, new Pods start at once."""
    names = [pod["metadata"]["name"] for pod in await services.of_component("pods", "gateway")]
    await services.run("delete", "pod", *names, "--grace-period=0", "--force", "--ignore-not-found")


async def ready(services: Kube) -> None:
    """Wait until all replicas are ready."""
    await services.run("rollout", "status", f"deployment/{await _name(services)}", "--timeout=120s")


async def certificate(services: Kube) -> dict[str, str]:
    """Return the Secret's data: ca.crt, tls.crt and tls.key, base64."""
    return await _data(services, await _secret(services))


async def replace_certificate(services: Kube, authority: trustme.CA) -> dict[str, str]:
    """Store a new certificate of `authority` for the gateway's names. Return the Secret's new data."""
    name = await _name(services)
    names = (name, f"{name}.{services.namespace}", f"{name}.{services.namespace}.svc")
    issued = authority.issue_cert(*names)
    key = issued.private_key_pem.bytes()
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    made = {"tls.crt": b64encode(chain).decode(), "tls.key": b64encode(key).decode()}
    await store_certificate(services, made)
    return made


async def store_certificate(services: Kube, data: dict[str, str]) -> None:
    """Write these keys of the gateway's Secret, and have the kubelet update its files."""
    patch = json.dumps({"data": {key: data[key] for key in ("tls.crt", "tls.key")}})
    await services.run("patch", "secret", await _secret(services), "--patch", patch)
    version = (await _object(services, "secret", await _secret(services)))["metadata"]["resourceVersion"]
    for pod in await services.of_component("pods", "gateway"):
        await services.run("annotate", "pod", pod["metadata"]["name"], "--overwrite", f"{_SYNCED}={version}")


async def presents(services: Kube, data: dict[str, str]) -> bool:
    """Return whether every replica presents the first certificate in `tls.crt`."""
    expected = _first_certificate(b64decode(data["tls.crt"]).decode())
    found = []
    for pod in await services.of_component("pods", "gateway"):
        try:
            text = await services.run("exec", pod["metadata"]["name"], "--", "python3", "-c", _PRESENTED)
        except CommandError:
            return False
        found.append(_first_certificate(text))
    return bool(found) and set(found) == {expected}


async def authority(services: Kube) -> trustme.CA:
    """Return the release's own certificate authority, which signs all its certificates."""
    name = (await _name(services)).removesuffix("-gateway")
    data = await _data(services, f"{name}-ca")
    return trustme.CA.from_pem(b64decode(data["ca.crt"]), b64decode(data["ca.key"]))


def _first_certificate(chain: str) -> str:
    return chain.partition("-----END CERTIFICATE-----")[0].strip()


async def _name(services: Kube) -> str:
    (service,) = await services.of_component("services", "gateway")
    name: str = service["metadata"]["name"]
    return name


async def _secret(services: Kube) -> str:
    return f"{await _name(services)}-tls"


async def _data(services: Kube, secret: str) -> dict[str, str]:
    data: dict[str, str] = (await _object(services, "secret", secret))["data"]
    return data


async def _object(services: Kube, kind: str, name: str) -> Object:
    found = await services.get(kind, name)
    assert found is not None, f"no {kind} {name}"
    return found
