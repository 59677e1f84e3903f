"""Who asks: credentials of a request become a `Caller`.

`caller`, `claims`, `credentials`, `htpasswd` and `tokens` decide, and see no connection, clock or file;
`authenticators`, `introspection` and `issuer` ask the outside world, by way of `flights` and `refreshed`.
"""
