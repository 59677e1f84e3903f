"""What the filers share that move bytes: the contract, files that appear whole, S3 and HTTP.

Import the submodule you need: `web` and `s3` load `http.client`, which takes most of a filer's start; a task
whose inputs are literal contents needs neither.
"""
