#!/bin/sh
# Installs the Debian packages that the tests need: a browser, curl, node with npm, Redis, NATS, a TURN server, proxies and ip.
# Without the right to install them it says so; under CI=true it fails then.
set -u

missing=""
command -v chromium >/dev/null || missing="$missing chromium"
command -v curl >/dev/null || missing="$missing curl"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
command -v redis-server >/dev/null || missing="$missing redis-server"
[ -x /usr/sbin/nats-server ] || command -v nats-server >/dev/null || missing="$missing nats-server"
command -v turnserver >/dev/null || missing="$missing coturn"
command -v caddy >/dev/null || missing="$missing caddy"
command -v ip >/dev/null || [ -x /usr/sbin/ip ] || missing="$missing iproute2"
[ -x /usr/sbin/haproxy ] || command -v haproxy >/dev/null || missing="$missing haproxy"
[ -x /usr/sbin/nginx ] || command -v nginx >/dev/null || missing="$missing nginx-light"
[ -z "$missing" ] && exit 0

give_up() {
    echo "$1" >&2
    [ "${CI:-}" = true ] && exit 1
    echo "The tests that need them are skipped." >&2
    exit 0
}

command -v apt-get >/dev/null || give_up "The tests need these programs, and there is no apt-get here to install them:$missing"
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    give_up "The tests need Debian packages that only root can install. Run: sudo apt-get install$missing"
fi

echo "installing Debian packages:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086  # both are lists of words
if ! { $as_root apt-get update && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    give_up "apt-get could not install:$missing"
fi
# The tests start servers of their own; the packages' are not needed.
for service in redis-server nats-server coturn caddy haproxy nginx; do
    case "$missing" in
    *"$service"*) $as_root systemctl disable --now "$service" >/dev/null 2>&1 || : ;;
    esac
done
