import pytest

from poiesis_api.image_names import problem

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "reference",
    [
        "busybox",
        "busybox:1.37",
        "library/busybox:latest",
        "quay.io/biocontainers/samtools:1.19--h50ea8bc_0",
        "ghcr.io/a/b/c_d/e__f/g--h.i:T_a-g.1",
        f"busybox@{DIGEST}",
        f"registry.example.org:5000/a/b:1@{DIGEST}",
        "localhost/a",
        "localhost:5000/a",
        "[2001:db8::1]:5000/a:b",
        "10.0.0.1:22/x",
        "REGISTRY/a",
        "my_registry.local/a",
        "a" * 255,
        "busybox@sha512:" + "0" * 128,
    ],
)
def test_a_reference_that_runtimes_parse_is_accepted(reference):
    assert problem(reference) is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("a b", "spaces"),
        (" busybox", "spaces"),
        ("busybox\n", "spaces"),
        ("büsybox", "printable ASCII"),
        ("docker://busybox", "must not have a scheme"),
        ("https://quay.io/a/b", "must not have a scheme"),
        ("Busybox", "must be lower case"),
        ("quay.io/Bio/samtools", "must be lower case"),
        ("busybox:", "'' is not a valid tag"),
        ("busybox:-1", "is not a valid tag"),
        ("busybox:1:2", "is not a valid tag"),
        ("busybox:" + "1" * 129, "is not a valid tag"),
        (":latest", "'' is not a valid repository name"),
        ("quay.io/", "'' is not a valid repository name"),
        ("/busybox", "is not a valid repository name"),
        ("a//b", "is not a valid repository name"),
        ("-busybox", "is not a valid repository name"),
        ("a..b", "is not a valid repository name"),
        ("a/b-", "is not a valid repository name"),
        ("$(image)", "is not a valid repository name"),
        ("-x.example/a", "is not a valid registry host"),
        ("host:port/a", "is not a valid registry host"),
        ("my_registry:5000/a", "is not a valid registry host"),
        ("busybox@sha256:abc", "must have the form sha256:"),
        (f"busybox@{DIGEST.upper()}", "must have the form sha256:"),
        ("busybox@latest", "must have the form sha256:"),
        (f"busybox@{DIGEST.replace('sha256', 'blake3')}", "must have the form sha256:"),
        ("busybox@", "must have the form sha256:"),
        (f"a@{DIGEST}@{DIGEST}", "must have the form sha256:"),
        ("a" * 256, "256 characters"),
        ("0123456789abcdef" * 4, "an image identifier"),
    ],
)
def test_invalid_image_reference_has_a_reason(reference, words):
    assert words in (problem(reference) or "")
