#!/bin/sh
printf 'app '
cat /app/config.json
