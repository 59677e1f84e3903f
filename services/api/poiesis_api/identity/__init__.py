"""Authentication: the credentials of a request become a `Caller`.

`caller`, `claims`, `credentials`, `htpasswd` and `tokens` decide without connection, clock or file.
`authenticators`, `introspection` and `issuer` do I/O, by means of `single_flight` and `refreshing_cache`.
"""
