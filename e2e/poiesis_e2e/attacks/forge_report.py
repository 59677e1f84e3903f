"""Report the own task as COMPLETE, with tokens that an executor can make up.

Arguments: host and port of the gateway. Print the status of each response, or the name of the error.
"""

import http.client
import json
import secrets
import socket
import ssl
import sys

_SECONDS = 10.0
_REPORT = {
    "pod_uid": "11111111-1111-1111-1111-111111111111",
    "pod_name": "forged",
    "node": "forged",
    "state": "RUNNING",
    "executors": [{"index": 0, "start_ns": 1, "end_ns": 2, "exit_code": 0, "stdout": "forged"}],
    "system_logs": [{"key": "forged", "at_ns": 1, "message": "forged"}],
    "ending": {"state": "COMPLETE", "at_ns": 2},
}


def main(host: str, port: str) -> None:
    """Try no token, an empty one and a random one."""
    task = socket.gethostname().removeprefix("poiesis-").rpartition("-")[0]
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # an attacker does not care
    for headers in (
        {},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {secrets.token_urlsafe(32)}"},
    ):
        connection = http.client.HTTPSConnection(host, int(port), timeout=_SECONDS, context=context)
        try:
            body = json.dumps(_REPORT)
            content = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/tasks/{task}/report", body, {**content, **headers})
            print(connection.getresponse().status, flush=True)
        except OSError as error:
            print(type(error).__name__, flush=True)
        finally:
            connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.exit(3)
