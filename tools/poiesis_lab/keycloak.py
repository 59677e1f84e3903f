"""Keycloak, an OpenID Provider, in an image that is configured already: it starts in seconds.

Where an image registry answers, Keycloak's own image is what it is made from, else its distribution and a JRE
of Debian.
"""

from poiesis_lab import images

_HOME = "/opt/keycloak"
PORT = 8080
ADMINISTRATOR, PASSWORD = "admin", "lab-password"


def image() -> str:
    """Keycloak with an administrator and no realm but its own; made now if docker does not have it.

    Its database is in the image, so that it need not be made at every start. It speaks plain HTTP and calls
    itself as it is called, so that each of its addresses is an issuer.
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
