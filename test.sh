#!/usr/bin/env bash
# Runs everything there is to test. It installs what it needs (a C compiler
# for the race detector, PostgreSQL, buildah), leaves nothing running, and
# compiles Caddy twice: once plain, once with the race detector.
#
#   ./test.sh                 everything
#   FUZZTIME=60s              how long each fuzz target runs (default 5s)
#   FAULTS=30m                how long faults happen to several nodes (default 3m)
#   CYCLES=1000               revocations of each operation and kind of credential,
#                             while several nodes are under load (default 6)
#   WARDER_TEST_POSTGRES=URL  a superuser's, of the server to test on instead of
#                             one that runs for the tests alone
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

if ! command -v go >/dev/null; then
	echo "Go is missing: https://go.dev/doc/install" >&2
	exit 1
fi
missing=()
command -v "${CC:-gcc}" >/dev/null || missing+=(gcc libc6-dev)
command -v buildah >/dev/null || missing+=(buildah)
command -v strip >/dev/null || missing+=(binutils)
command -v wrk >/dev/null || missing+=(wrk)
command -v initdb /usr/lib/postgresql/*/bin/initdb >/dev/null || missing+=(postgresql)
if [ ${#missing[@]} -gt 0 ]; then
	step "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
		mkdir -p /etc/postgresql-common # the programs, without a server that runs
		echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
	fi
	apt-get update -qq && apt-get install -qq -y --no-install-recommends "${missing[@]}"
fi

work=$(mktemp -d)
trap '[ -z "${aside:-}" ] || kill -- "-$aside" 2>/dev/null || true; rm -rf "$work"' EXIT

step "format"
unformatted=$(gofmt -l $(git ls-files '*.go'))
if [ -n "$unformatted" ]; then
	echo "not formatted: $unformatted" >&2
	exit 1
fi

# Without cgo, so that this is the one plain build that everything shares.
step "build"
CGO_ENABLED=0 go build -trimpath=false -o "$work/warder" ./cmd/warder
export WARDER_BINARY=$work/warder

# It ends with this script, however that ends, and takes its directory along.
if [ -z "${WARDER_TEST_POSTGRES:-}" ]; then
	step "PostgreSQL"
	CGO_ENABLED=0 go build -o "$work/postgresonce" ./keystore/postgres/postgrestest/postgresonce
	coproc "$work/postgresonce"
	read -r WARDER_TEST_POSTGRES <&"${COPROC[0]}"
	export WARDER_TEST_POSTGRES
fi
export WARDER_REQUIRE_POSTGRES=1 # to fail without it, not to skip

step "vet"
CGO_ENABLED=0 go vet ./...

# Beside the next step, of which much is compiling and then waiting: they assert
# no time. The dashboard, the alerts and the manifests are a module of their
# own, for the sake of the programs that read them. Cloudflare's client is not
# under the race detector, which would compile this SDK a second time. Of the
# bench it is tried that everything can be measured, not how fast it is.
step "several nodes: ${CYCLES:=6} revocations of each kind, faults for ${FAULTS:=3m}; dashboard, alerts and manifests; Cloudflare's own client; bench; all told below"
set -m # a process group of its own, which can be ended as one
{
	CGO_ENABLED=0 go test -count=1 -timeout 24h -v ./clustertest -cycles "$CYCLES" -faults "$FAULTS" &&
		(cd deploy && CGO_ENABLED=0 go vet . && CGO_ENABLED=0 go test -count=1 .) &&
		CGO_ENABLED=0 go test -count=1 ./managementapi/dialect/dialecttest &&
		bench/run.sh -smoke >/dev/null && SECONDS_EACH=1 deploy/pgo.sh "$work/warder.pgo"
} >"$work/aside" 2>&1 &
aside=$!
set +m

step "test"
CGO_ENABLED=1 go test -race -timeout 15m $(go list ./... | grep -v /clustertest)

step "several nodes, dashboard, alerts and manifests, Cloudflare's own client, bench"
wait "$aside" || failed=$?
grep -v '^=== ' "$work/aside"
[ -z "${failed:-}" ] || exit "$failed"

# The race detector is too slow for the million of made-up keys, the hundred
# thousand imported ones and the thousand callers of one, which are fewer there,
# and makes pools forget, so that allocations are counted without it. It is also
# linked dynamically, unlike what is released.
step "flood, allocations, pages"
CGO_ENABLED=0 go test -count=1 -run 'Flood|Alloc|OneLookupForMany' ./keystore ./tokenissuer ./caddymodule
CGO_ENABLED=0 go test -count=1 -run DropFilePages ./cmd/warder

step "fuzz, ${FUZZTIME:=5s} each"
./fuzz.sh "$FUZZTIME" blind

# go test does not show what it skips.
for program in node npm npx; do
	if ! command -v "$program" >/dev/null; then
		printf '\nSKIPPED: %s is missing, so that openid-client, oauth4webapi and jose were NOT tried, and the OpenAPI document was NOT linted\n' "$program" >&2
	fi
done
CGO_ENABLED=1 go test -race -count=1 -v -run '^TestDocumentIsLinted$' ./managementapi | grep SKIPPED >&2 || true
command -v systemd-analyze >/dev/null || printf '\nSKIPPED: systemd-analyze is missing, so that warder.service was NOT analysed\n' >&2
[ "$(id -u)" = 0 ] || printf '\nSKIPPED: this is not root, so that the image was NOT built and run\n' >&2

step "done"
