#!/usr/bin/env bash
# Renews deploy/warder.pgo, by which releases and images are compiled: has a
# Warder that was built without it decide on keys and access tokens, and records
# where its time goes. Run it on a quiet machine, after Go or Caddy are upgraded
# or the way of a request has changed. It needs what bench/run.sh needs.
#
#   deploy/pgo.sh [FILE]
#   WARDER_BINARY=FILE   profile this one, instead of building one
#   SECONDS_EACH=20      for a key, a seen and an unseen token
#
# The profile is not called default.pgo, and does not lie beside the program, so
# that a plain `go run ./cmd/warder` need not compile everything once more.
set -euo pipefail
cd "$(dirname "$0")/.."
export CGO_ENABLED=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

go build -o "$work/bench" ./bench
if [ -n "${WARDER_BINARY:-}" ]; then
	cp "$WARDER_BINARY" "$work/warder"
else
	go build -trimpath -o "$work/warder" ./cmd/warder
fi
cd "$work" # the profile names the program as it was called
taskset -c 1 ./bench -warder "$work/warder" -profile "$work/warder.pgo" -seconds "${SECONDS_EACH:-20}" profile
cd - >/dev/null
mv "$work/warder.pgo" "${1:-deploy/warder.pgo}"
