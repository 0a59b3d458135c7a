#!/usr/bin/env bash
# Measures Warder beside Caddy, nginx and HAProxy, and beside itself. It needs
# Linux, two cores, Go, taskset, and wrk to compare; nginx and HAProxy are
# measured if they are there (Debian: apt-get install wrk nginx haproxy).
#
#   bench/run.sh                      everything, about half an hour
#   bench/run.sh compare              CPU for each request, side by side
#   bench/run.sh limits               a quarter of a CPU and 64 MiB
#   bench/run.sh flood                made-up keys beside an owner
#   bench/run.sh -keys 1000000 restart    a restart under load
#   bench/run.sh -write ...           the figures into README.md and plot.svg
#   bench/run.sh -smoke               all of it, too short to mean anything
#
# Other flags are those of the program: bench/run.sh -h
#
#   WARDER_BINARY=FILE   measure this one, instead of building one as it is released
#   GOGC=200             for every server that is written in Go
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

flags=() modes=() smoke=
while [ $# -gt 0 ]; do
	case $1 in
	-write) flags+=(-readme bench/README.md -plot bench/plot.svg) ;;
	-smoke) smoke=yes flags+=(-awake=false -rounds 1 -seconds 1 -keys 2000 -flood 8000 -pairs 2) ;;
	-h | -help | --help) flags+=(-h) ;;
	-*) flags+=("$1" "${2:?a value for $1}") && shift ;;
	*) modes+=("$1") ;;
	esac
	shift
done
[ ${#modes[@]} -gt 0 ] || modes=(compare limits flood restart)

go build -o "$work/bench" ./bench
go build -o "$work/caddy" ./bench/caddy
if [ -z "${WARDER_BINARY:-}" ]; then
	go build -trimpath -pgo=deploy/warder.pgo -o "$work/linked" ./cmd/warder
	WARDER_BINARY=$work/linked
	if [ -z "$smoke" ]; then
		go build -trimpath -o "$work/unprofiled" ./cmd/warder
		flags+=(-unprofiled "$work/unprofiled")
	fi
fi
cp "$WARDER_BINARY" "$work/warder" # as it is installed: of a file that was written through memory, the kernel maps more at once
taskset -c 1 "$work/bench" -warder "$work/warder" -caddy "$work/caddy" ${flags[@]+"${flags[@]}"} "${modes[@]}"
