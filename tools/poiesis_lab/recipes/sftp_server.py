"""An SFTP server of the directory /data: `sftp_server.py PORT USER PASSWORD`."""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):  # type: ignore[misc]
    """One user, by password."""

    def __init__(self, user: str, password: str) -> None:
        self._known = (user, password)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        return (username, password) == self._known


class Files(asyncssh.SFTPServer):  # type: ignore[misc]
    """Nothing above /data."""

    def __init__(self, channel: asyncssh.SSHServerChannel) -> None:
        super().__init__(channel, chroot=b"/data")


async def serve(port: int, user: str, password: str) -> None:
    listener = await asyncssh.listen(
        "",
        port,
        server_factory=lambda: Server(user, password),
        server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        sftp_factory=Files,
    )
    await listener.wait_closed()


if __name__ == "__main__":
    _, port, user, password = sys.argv
    asyncio.run(serve(int(port), user, password))
