#!/usr/bin/env bash
# Every check of the project: .ci/checks.sh.
exec bash "$(dirname "$0")/../.ci/checks.sh"
