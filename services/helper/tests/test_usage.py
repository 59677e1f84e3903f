"""The command line is parsed strictly, and the binaries are what they should be."""

import subprocess

import pytest

RUN = ["run", "--run", "/tmp"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "''"),
        (["frobnicate"], "'frobnicate'"),
        (["--verbose"], "'--verbose'"),
        (["run", "--", "true"], "--run: is required"),
        (RUN, "-- ARGV...: is required"),
        ([*RUN, "--"], "-- ARGV...: is required"),
        ([*RUN, "true"], "true: unknown option"),
        ([*RUN, "--frobnicate", "--", "true"], "--frobnicate: unknown option"),
        ([*RUN, "--frobnicate=1", "--", "true"], "--frobnicate=1: unknown option"),
        ([*RUN, "--std", "x", "--", "true"], "--std: unknown option"),
        ([*RUN, "--run", "/x", "--", "true"], "--run: given twice"),
        ([*RUN, "--stdout"], "--stdout: its value is missing"),
        ([*RUN, "--stdout=", "--", "true"], "--stdout: its value is empty"),
        ([*RUN, "--stdin", "", "--", "true"], "--stdin: its value is empty"),
        ([*RUN, "--log-bytes", "1k", "--", "true"], "--log-bytes: '1k' is not a number from 0 to 1073741824"),
        ([*RUN, "--log-bytes", "-1", "--", "true"], "--log-bytes: '-1' is not a number"),
        ([*RUN, "--log-bytes", " 1", "--", "true"], "--log-bytes: ' 1' is not a number"),
        ([*RUN, "--grace", "0", "--", "true"], "--grace: '0' is not a number from 1 to"),
        ([*RUN, "--grace", "9" * 30, "--", "true"], "--grace: '999"),
        ([*RUN, "--on-failure", "retry", "--", "true"], "--on-failure: must be exit or continue"),
        ([*RUN, "--paths", "/x", "--", "true"], "--paths: requires --volume"),
        ([*RUN, "--volume", "/x", "--", "true"], "--paths: requires --volume"),
        ([*RUN, "--retry-exit-code", "75", "--", "true"], "--retry-exit-code: requires --retry-attempts"),
        ([*RUN, "--retry-attempts", "3", "--", "true"], "--retry-exit-code: requires --retry-attempts"),
        ([*RUN, "--retry-killed", "--", "true"], "--retry-killed: requires --retry-attempts"),
        ([*RUN, "--retry-exit-code", "256", "--", "true"], "--retry-exit-code: '256' is not"),
        ([*RUN, "--ignore-error=yes", "--", "true"], "--ignore-error: takes no value"),
        (["wait"], "--ack: is required"),
        (["wait", "--ack", "/x", "--timeout", "soon"], "--timeout: 'soon' is not a number"),
        (["wait", "--ack", "/x", "--", "true"], "--: unexpected argument"),
        (["install", "--paths", "/tmp"], "--bin: is required"),
        (["install", "--bin", "/tmp"], "--paths: is required"),
        (["install", "--bin", "/tmp", "--paths", "/tmp", "/x"], "/x: unknown option"),
        (["fill", "--paths", "/x", "--to", "/tmp"], "--record: is required"),
        (["rescue", "--run", "/x", "--runs", "/x", "--ask", "/x", "--", "true"], "--killed: is required"),
        (
            ["rescue", "--run", "/x", "--runs", "/x", "--ask", "/x", "--killed", "a-"],
            "-- ARGV...: is required",
        ),
    ],
)
def test_invalid_arguments_are_named(helper, words, named):
    ended = subprocess.run([helper, *words], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (64, "")
    message, usage = ended.stderr.splitlines()
    assert named in message
    assert usage.startswith("usage: helper ")


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        ([], {"fill", "install", "rescue", "run", "wait"}),
        (["install"], {"--bin DIR", "--paths DIR"}),
        (["fill"], {"--paths FILE", "--to DIR", "--record DIR", "--progress FILE"}),
        (
            ["rescue"],
            {"--run DIR", "--runs DIR", "--killed PREFIX", "--unless PREFIX", "--ask FILE"},
        ),
        (["wait"], {"--ack FILE", "--timeout SECONDS"}),
        (
            ["run"],
            {
                "--run DIR", "--after DIR", "--stdin FILE", "--stdout FILE", "--stderr FILE",
                "--paths FILE", "--volume DIR", "--keep-modes", "--log-bytes N", "--grace SECONDS",
                "--time-limit SECONDS",
                "--on-failure exit|continue", "--ignore-error", "--retry-exit-code CODE",
                "--retry-attempts N", "--retry-killed", "--rerun",
                "--termination-log FILE", "--cgroup-root DIR",
            },
        ),
    ],
)  # fmt: skip
def test_help_names_every_option(helper, verb, options):
    ended = subprocess.run([helper, *verb, "--help"], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: helper ")
    assert {option for option in options if option not in ended.stdout} == set()


@pytest.mark.parametrize(("architecture", "machine"), [("amd64", 0x3E), ("arm64", 0xB7)])
def test_binaries_are_small_and_static(build, architecture, machine):
    binary = build(architecture).read_bytes()
    program_headers, size, count = (
        int.from_bytes(binary[32:40], "little"),
        int.from_bytes(binary[54:56], "little"),
        int.from_bytes(binary[56:58], "little"),
    )
    types = [int.from_bytes(binary[program_headers + i * size :][:4], "little") for i in range(count)]
    interpreter = 3
    assert binary[:6] == b"\x7fELF\x02\x01"
    assert int.from_bytes(binary[18:20], "little") == machine
    assert interpreter not in types
    assert len(binary) < 200_000
