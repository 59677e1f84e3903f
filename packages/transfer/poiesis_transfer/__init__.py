"""What the filers `tif` and `tof` share.

Import the submodule you need: `web` loads aiohttp and `s3` loads botocore, which take most of a filer's
start; a task whose inputs are literal contents needs neither.
"""
