#!/bin/sh
# Engines start a worker, or with --worker_pool a pool of them, with flags alone. Anything else is a command.
set -eu
case ${1:-} in
  -*) exec /opt/apache/beam/boot "$@" ;;
  *) exec "$@" ;;
esac
