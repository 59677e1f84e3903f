"""Log in at Keycloak as a person does in a browser: submit each form until none is left."""

from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import urljoin

import aiohttp

_PAGES = 5  # limit
_REFUSES = "cancel"  # the button next to `accept`


async def confirm(url: str, *, user: str, password: str) -> str:
    """Open `url` (of a device login), log in and consent; return the text of the last page."""
    typed = {"username": user, "password": password}
    # Keycloak's cookies are for an address, not for a host name.
    async with aiohttp.ClientSession(
        cookie_jar=aiohttp.CookieJar(unsafe=True), raise_for_status=True
    ) as browser:
        page = await _shown(await browser.get(url))
        for _ in range(_PAGES):
            if page.action is None:
                break
            filled = {name: typed.get(name, value) for name, value in page.fields.items()}
            page = await _shown(await browser.post(urljoin(page.url, page.action), data=filled))
    assert page.action is None, f"{page.url} asks again: {page.text}"
    return page.text


async def _shown(answer: aiohttp.ClientResponse) -> "_Page":
    page = _Page(str(answer.url))
    page.feed(await answer.text())
    return page


class _Page(HTMLParser):
    """The form of a page: its target (None without a form) and its fields. `text`: the page's text."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.action: str | None = None
        self.fields: dict[str, str] = {}
        self._text: list[str] = []

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes: Mapping[str, str | None] = dict(attrs)
        if tag == "form":
            self.action = attributes.get("action")
        name = attributes.get("name")
        if tag in ("input", "button") and name and name != _REFUSES:
            self.fields[name] = attributes.get("value") or ""

    def handle_data(self, data: str) -> None:
        self._text.append(data)
