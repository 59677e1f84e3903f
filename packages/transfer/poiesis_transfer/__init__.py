"""Shared parts of the filers: the contract, files that appear only when complete, S3 and HTTP.

Import the submodule you need: `web` and `s3` load `http.client`, which takes most of a filer's start. A task
with only literal inputs needs neither.
"""
