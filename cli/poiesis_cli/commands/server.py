"""Commands about the server and the credentials: info, login, logout, token, use-server, completion."""

from collections.abc import Mapping
from typing import Any

import click
from click.shell_completion import get_completion_class

from poiesis_cli import oidc, terminal
from poiesis_cli.address import unencrypted, web_url
from poiesis_cli.client import TesClient
from poiesis_cli.commands.completion import servers
from poiesis_cli.config import Config, set_default_server
from poiesis_cli.credentials import StaticCredentials
from poiesis_cli.errors import AuthFailed, BadUsage, CliError, Exit
from poiesis_cli.invocation import Invocation, OneOf, common_options, config_option, server_option
from poiesis_cli.terminal import message
from poiesis_cli.web import open_session


@click.command()
@common_options
@click.pass_obj
def info(call: Invocation) -> int:
    """Show information about the server.

    \b
    poiesis info --server https://tes.example.org
    """

    async def work() -> tuple[Mapping[str, Any], str]:
        async with call.client() as client:
            return await client.service_info(), str(client.base)

    document, base = call.run(work())
    if call.as_json:
        terminal.write_json(document)
    else:
        terminal.write_service(document, base)
    return Exit.OK


@click.command()
@server_option
@config_option
@click.option("--issuer", metavar="URL", help="OpenID issuer [POIESIS_ISSUER].")
@click.option("--client-id", metavar="ID", help="Id of a public client at the issuer [POIESIS_CLIENT_ID].")
@click.option("--scope", metavar="SCOPES", help="Scopes to request [POIESIS_SCOPE].")
@click.pass_obj
def login(call: Invocation, /, issuer: str | None, client_id: str | None, scope: str | None) -> int:
    """Log in with a browser.

    The browser may run on another device. The token is stored for this server only, and renewed as long as
    the issuer allows it.

    \b
    poiesis login --server https://tes.example.org \\
        --issuer https://login.example.org/realms/lab --client-id poiesis-cli
    """
    config = call.settings()
    issuer = issuer or config.identity.issuer
    client_id = client_id or config.identity.client_id
    if issuer is None or client_id is None:
        missing = "--issuer" if issuer is None else "--client-id"
        raise BadUsage(f"{missing} is required", "ask the server's operators, or set it in the configuration")
    if unencrypted(web_url(issuer, "issuer")):
        message("poiesis: warning: the connection to the issuer is not encrypted")
    call.run(_login(call, config, issuer, client_id, scope or config.identity.scope))
    message(f"logged in to {config.base}")
    return Exit.OK


@click.command()
@server_option
@config_option
@click.pass_obj
def logout(call: Invocation) -> int:
    """Delete the stored token for this server. At the issuer it stays valid until it expires.

    \b
    poiesis logout --server https://tes.example.org
    """
    base, logins = call.settings().base, call.logins()

    async def work() -> bool:
        async with logins.locked():
            found = logins.read(str(base)) is not None
            logins.write(str(base), None)
            return found

    found = call.run(work())
    message(f"logged out of {base}" if found else f"poiesis: you were not logged in to {base}")
    return Exit.OK


@click.command()
@server_option
@config_option
@click.pass_obj
def token(call: Invocation) -> int:
    """Print the current access token, for other programs.

    A token of a login is renewed first if it is about to expire.

    \b
    curl -H "Authorization: Bearer $(poiesis token)" https://tes.example.org/ga4gh/tes/v1/tasks
    """

    async def work() -> str | None:
        async with call.client() as client:
            return await client.credentials.header()

    kind, _, value = (call.run(work()) or "").partition(" ")
    if kind != "Bearer":
        raise AuthFailed(
            f"no access token for {call.settings().base}",
            "run poiesis login, or set POIESIS_TOKEN_FILE",
        )
    terminal.write(f"{value}\n")
    return Exit.OK


@click.command(name="use-server")
@config_option
@click.argument("name", metavar="NAME|URL", shell_complete=servers)
@click.pass_obj
def use_server(call: Invocation, /, name: str) -> int:
    """Set the default server in the configuration file: a name from it, or a URL.

    \b
    poiesis use-server lab
    poiesis use-server https://tes.example.org
    """
    file = set_default_server(call.environ, name, call.config)
    message(f"{file}: the default server is {name}")
    return Exit.OK


@click.command()
@click.argument("shell", metavar="SHELL", type=OneOf(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print a completion script for SHELL: bash, zsh or fish.

    \b
    bash: poiesis completion bash > ~/.local/share/bash-completion/completions/poiesis
    zsh:  poiesis completion zsh > "${fpath[1]}/_poiesis"
    fish: poiesis completion fish > ~/.config/fish/completions/poiesis.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise BadUsage(f"no completion for {shell}")
    command = click.get_current_context().find_root().command
    terminal.write(kind(command, {}, "poiesis", "_POIESIS_COMPLETE").source())
    return Exit.OK


async def _login(call: Invocation, config: Config, issuer: str, client_id: str, scope: str) -> None:
    logins = call.logins()
    async with open_session(call.timing) as session:
        found = await oidc.discover(session, issuer)
        code = await oidc.request_code(session, found, client_id, scope, call.timing)
        message(f"Open {code.verification_uri} and enter the code {code.user_code}")
        if code.verification_uri_complete:
            message(f"or open {code.verification_uri_complete}")
        token = await oidc.poll_for_login(
            session, found, code, client_id=client_id, scope=scope, timing=call.timing
        )
        client = call.client_with(session, config.base, StaticCredentials(f"Bearer {token.access_token}"))
        await _check_token(client)
    async with logins.locked():
        logins.write(str(config.base), token)


async def _check_token(client: TesClient) -> None:
    """Raise AuthFailed if the server rejects the token of a new login."""
    try:
        async for _ in client.list_tasks([("view", "MINIMAL")], 1):
            break
    except AuthFailed as error:
        raise AuthFailed(
            f"the issuer returned a token, but {client.base} does not accept it: {error}",
            "check --client-id and --scope, or ask the server's operators",
        ) from error
    except CliError as error:
        message(f"poiesis: warning: cannot check the token with the server: {error}")
