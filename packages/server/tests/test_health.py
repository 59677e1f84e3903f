import aiohttp

from poiesis_server import health


async def test_health_follows_its_state(free_port):
    port = free_port()
    state = {"healthy": True, "ready": False}
    async with (
        health.serve(
            port, healthy=lambda: state["healthy"], ready=lambda: state["ready"], metrics=lambda: b"x 1\n"
        ),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path, expected in (("/healthz", 200), ("/readyz", 503), ("/", 404)):
            async with session.get(path) as response:
                assert response.status == expected
        state["ready"] = True
        async with session.get("/readyz") as response:
            assert response.status == 200
        async with session.get("/metrics") as response:
            assert response.content_type == "text/plain"
            assert await response.text() == "x 1\n"


async def test_without_functions_there_are_only_metrics(free_port):
    port = free_port()
    async with (
        health.serve(port, metrics=lambda: b"x 1\n"),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):
        for path, expected in (("/healthz", 404), ("/readyz", 404), ("/metrics", 200)):
            async with session.get(path) as response:
                assert response.status == expected
