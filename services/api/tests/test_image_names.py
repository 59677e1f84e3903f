import pytest

from poiesis_api.image_names import full_name, full_prefix, has_prefix, prefix_problem, problem

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


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("biocontainers/samtools:1", "docker.io/biocontainers/samtools:1"),
        ("quay.io/a", "quay.io/a:latest"),
        ("QUAY.IO/a", "quay.io/a:latest"),
        ("DOCKER.IO/busybox", "docker.io/busybox:latest"),
        ("docker.io:443/busybox", "docker.io:443/busybox:latest"),
        ("localhost/a", "localhost/a:latest"),
        ("REGISTRY/a", "REGISTRY/a:latest"),
        ("10.0.0.1:22/x", "10.0.0.1:22/x:latest"),
        ("[2001:DB8::1]:5000/a:b", "[2001:db8::1]:5000/a:b"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
        (f"busybox:1.37@{DIGEST}", f"docker.io/library/busybox@{DIGEST}"),
    ],
)
def test_full_name_is_what_the_runtime_pulls(reference, name):
    assert full_name(reference) == name


@pytest.mark.parametrize(
    ("prefix", "full"),
    [
        ("docker.io/", "docker.io/"),
        ("docker.io/library/", "docker.io/library/"),
        ("library/", "docker.io/library/"),
        ("biocontainers", "docker.io/library/biocontainers"),
        ("biocontainers/", "docker.io/biocontainers/"),
        ("QUAY.io/a", "quay.io/a"),
        ("registry:5000/", "registry:5000/"),
        ("REGISTRY/", "REGISTRY/"),
        ("localhost/", "localhost/"),
        ("busybox:1.37", "docker.io/library/busybox:1.37"),
        (f"quay.io/a:1@{DIGEST}", f"quay.io/a@{DIGEST}"),
    ],
)
def test_full_prefix_is_complete_and_stays_the_same(prefix, full):
    assert prefix_problem(prefix) is None
    assert full_prefix(prefix) == full
    assert full_prefix(full) == full


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("quay.io", "a registry must end with '/'"),
        ("localhost", "a registry must end with '/'"),
        ("localhost:5000", "a registry must end with '/'"),
        ("quay.io//", "is not a valid"),
        ("/", "it contains spaces"),
        ("", "printable ASCII"),
        ("a b/", "it contains spaces"),
        ("-x.example/", "is not a valid registry host"),
        ("https://quay.io/", "must not have a scheme"),
        ("quay.io/a:1/", "a tag or digest must not be followed by '/'"),
        (f"quay.io/a@{DIGEST}/", "a tag or digest must not be followed by '/'"),
        ("quay.io/*", "is not a valid repository name"),
    ],
)
def test_invalid_prefix_has_a_reason(prefix, words):
    assert words in (prefix_problem(prefix) or "")


@pytest.mark.parametrize(
    ("prefix", "reference", "fits"),
    [
        ("docker.io/library/", "busybox", True),
        ("docker.io/library/", "docker.io/library-evil/x", False),
        ("docker.io/library/", "biocontainers/samtools", False),
        ("docker.io/library", "library-evil/x", False),
        ("docker.io/", "biocontainers/samtools", True),
        ("docker.io/", "docker.io.evil.example/library/busybox", False),
        ("docker.io/", "docker.io:443/library/busybox", False),
        ("docker.io/", "10.0.0.1:22/docker.io/x", False),
        ("quay.io/bio", "quay.io/bio/samtools:1", True),
        ("quay.io/bio", "quay.io/bio:1", True),
        ("quay.io/bio", f"quay.io/bio@{DIGEST}", True),
        ("quay.io/bio", "quay.io/biocontainers/samtools", False),
        ("quay.io/bio", "quay.io:22/bio", False),
        ("busybox:1.3", "busybox:1.37", False),
        ("busybox:1.37", "busybox:1.37", True),
        ("busybox:1.37", f"busybox:1.37@{DIGEST}", False),
        ("busybox:latest", "busybox", True),
        (f"busybox@{DIGEST}", f"busybox:other@{DIGEST}", True),
    ],
)
def test_prefix_ends_at_a_boundary(prefix, reference, fits):
    assert has_prefix(full_name(reference), full_prefix(prefix)) is fits
