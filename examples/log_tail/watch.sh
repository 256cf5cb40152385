#!/bin/sh
# Prints the errors of a log as they come, from any machine that reaches the server; what is piped is up to you.
# make serve (in another terminal), then: sh examples/log_tail/watch.sh
#
# `tellwire sub` goes on from its cursor after a drop: no line is missing, and none comes twice.
set -eu
channel=${1:-logs:app}
pattern=${2:-ERROR}
tellwire=$(dirname "$0")/../../.venv/bin/tellwire
[ -x "$tellwire" ] || tellwire=tellwire

"$tellwire" sub --since "${SINCE:-now}" "$channel" | grep --line-buffered -e "$pattern"
