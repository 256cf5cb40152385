#!/bin/sh
# Publishes a log file line by line, as it grows, also after it was rotated.
# make serve (in another terminal), then: sh examples/log_tail/ship.sh /var/log/syslog
#
# `tellwire pub` retries each line under an id of its own until it is in the log, so a restart of the server neither
# loses nor doubles one. --text: a line that looks like JSON is a line all the same.
set -eu
file=${1:?"which file? sh ship.sh FILE [CHANNEL]"}
channel=${2:-logs:app}
tellwire=$(dirname "$0")/../../.venv/bin/tellwire
[ -x "$tellwire" ] || tellwire=tellwire

# The positions that it prints are of no use here.
tail -n +1 -F "$file" 2>/dev/null | "$tellwire" pub --text "$channel" - >/dev/null
