#!/bin/sh
# Installs what the tests use beside Python; where it may not, says in one line what to install.
missing=""
need() { PATH="$PATH:/usr/sbin:$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -1)" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need mosquitto mosquitto
need mosquitto_sub mosquitto-clients
need mbpoll mbpoll
need chromium chromium
need influxd influxdb
need victoria-metrics victoria-metrics
need initdb postgresql
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then run=""; elif sudo -n true 2>/dev/null; then run="sudo -n"; else run="no"; fi
if [ "$run" != no ] && command -v apt-get >/dev/null 2>&1; then
  echo "Installing for the tests:$missing ..."
  $run apt-get update -qq >/dev/null && \
    DEBIAN_FRONTEND=noninteractive $run apt-get install -y -qq --no-install-recommends $missing fonts-dejavu-core >/dev/null 2>&1 && exit 0
fi
echo "Some tests will be skipped. For all of them: sudo apt-get install$missing"
