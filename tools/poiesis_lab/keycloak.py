"""Keycloak, an OpenID Provider, in a preconfigured image that starts in seconds.

The base is Keycloak's own image where a registry responds, else its distribution and a JRE of Debian.
"""

from poiesis_lab import images

_HOME = "/opt/keycloak"
PORT = 8080
ADMINISTRATOR, PASSWORD = "admin", "lab-password"


def image() -> str:
    """Return Keycloak with an administrator and the master realm only; build it if it is missing.

    The image contains the database, so a start does not create it. It uses plain HTTP and derives its own URL
    from the request, so each of its addresses is an issuer.
    """
    return images.from_dockerfile(
        "keycloak",
        f"""\
FROM {images.source().keycloak()}
ENV KC_DB=dev-file KC_CACHE=local KC_HTTP_ENABLED=true KC_HOSTNAME_STRICT=false \\
    JAVA_OPTS_KC_HEAP="-Xms64m -Xmx384m" JAVA_OPTS_GC=-XX:+UseSerialGC \\
    JAVA_OPTS_APPEND=-XX:TieredStopAtLevel=1
RUN {_HOME}/bin/kc.sh build \\
 && NEW={PASSWORD} {_HOME}/bin/kc.sh bootstrap-admin user --optimized \\
    --username={ADMINISTRATOR} --password:env=NEW
EXPOSE {PORT}
ENTRYPOINT ["{_HOME}/bin/kc.sh"]
CMD ["start", "--optimized"]
""",
    )
