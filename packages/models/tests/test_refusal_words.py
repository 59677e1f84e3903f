import pytest

from poiesis_models.refusals import OLD_WEBHOOK, explained, is_permanent, is_quota_or_permission

POD = 'pods "poiesis-a-bcdef" is forbidden'
FINAL = [
    f'Error creating: {POD}: violates PodSecurity "restricted:latest": runAsNonRoot != true',
    f"Error creating: {POD}: maximum memory usage per Container is 1Gi, but limit is 2Gi",
    f"Error creating: {POD}: [maximum cpu usage per Pod is 1, but limit is 2, maximum memory …]",
    f"Error creating: {POD}: minimum cpu usage per Container is 1, but request is 100m",
    f"Error creating: {POD}: memory max limit to request ratio per Container is 2, but provided ratio is 4.0",
    f"Error creating: {POD}: ValidatingAdmissionPolicy 'a' with binding 'b' denied request: no",
    'Error creating: admission webhook "a.example" denied the request: exceeded quota of patience',
    'Error creating: Pod "poiesis-a-bcdef" is invalid: spec.x: Invalid value: "exceeded quota"',
    "etcdserver: request is too large",
]
RETRYABLE = [
    f"Error creating: {POD}: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1",
    f"Error creating: {POD}: status unknown for quota: q",
    f"Error creating: {POD}: failed quota: q: must specify limits.cpu for: executor-0",
    f'Error creating: {POD}: User "sa" cannot create resource "pods"',
]
OTHER = [
    'Error creating: Internal error occurred: failed calling webhook "a": x509: it is invalid: expired',
    f'Error creating: {POD}: error looking up service account tes/a: serviceaccount "a" not found',
    "Error creating: the server has received too many requests and has asked us to try again later",
    "",
]


@pytest.mark.parametrize("message", FINAL)
def test_permanent_rejections(message):
    assert is_permanent(message)


@pytest.mark.parametrize("message", RETRYABLE)
def test_retryable_rejections(message):
    assert is_quota_or_permission(message)
    assert not is_permanent(message)


@pytest.mark.parametrize("message", OTHER)
def test_other_messages_are_neither(message):
    assert not is_permanent(message)
    assert not is_quota_or_permission(message)


def test_quota_that_requires_a_cpu_limit_names_the_setting():
    words = f"{POD}: failed quota: q: must specify limits.cpu for: executor-0"
    assert explained(words).startswith(f"{words} (the cause: ")
    assert "config.executors.cpuLimit is none" in explained(words)


def test_old_webhook_error_is_explained():
    words = 'Job.batch "a" is invalid: …: may not be set for init containers without restartPolicy=Always'
    assert explained(words) == f"{words} (the cause: {OLD_WEBHOOK})"
    assert explained("exceeded quota") == "exceeded quota"
