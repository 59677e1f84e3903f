import pytest

from poiesis_api.refusals import is_retryable, log_key
from poiesis_kube.errors import Refused, Unreachable

RETRYABLE = [
    Unreachable("POST /x: refused"),
    Refused(401, "Unauthorized", "Unauthorized"),
    Refused(403, "Forbidden", 'secrets "a" is forbidden: exceeded quota: q, requested: count/secrets=1'),
    Refused(403, "Forbidden", 'secrets "a" is forbidden: status unknown for quota: q'),
    Refused(403, "Forbidden", 'jobs.batch is forbidden: User "sa" cannot create resource "jobs"'),
    Refused(404, "NotFound", 'namespaces "a" not found'),
    Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest version"),
    Refused(429, "TooManyRequests", "storage is (re)initializing"),
    Refused(500, "InternalError", 'failed calling webhook "a": connect: connection refused'),
    Refused(503, "ServiceUnavailable", ""),
    Refused(504, "Timeout", ""),
]
PERMANENT = [
    Refused(400, "BadRequest", "strict decoding error"),
    Refused(400, "BadRequest", 'admission webhook "a" denied the request: no'),
    Refused(403, "Forbidden", 'pods "a" is forbidden: violates PodSecurity "restricted:latest"'),
    Refused(403, "Forbidden", "jobs is forbidden: ValidatingAdmissionPolicy 'a' denied request"),
    Refused(413, "RequestEntityTooLarge", "limit is 3145728"),
    Refused(422, "Invalid", "spec.template.spec: Invalid value"),
    Refused(500, "InternalError", "etcdserver: request is too large"),
    Refused(500, "InternalError", 'admission webhook "a" denied the request'),
]


@pytest.mark.parametrize("error", RETRYABLE, ids=str)
def test_retryable_rejections(error):
    assert is_retryable(error)


@pytest.mark.parametrize("error", PERMANENT, ids=str)
def test_permanent_rejections(error):
    assert not is_retryable(error)


def test_log_key_names_status_and_reason():
    assert log_key(RETRYABLE[0]) == "submit-unreachable"
    assert log_key(RETRYABLE[2]) == log_key(RETRYABLE[3]) == "submit-403-Forbidden"
