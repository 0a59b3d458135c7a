#!/usr/bin/env bash
# Runs every fuzz target of the repository, one after the other.
#
#   ./fuzz.sh [time]          how long each of them runs (default 5s)
#   ./fuzz.sh [time] blind    all of them without guidance, see below
#
# A finding is left below the package's testdata/fuzz, where go test repeats it.
set -euo pipefail
cd "$(dirname "$0")"
fuzztime=${1:-5s}
all=${2:-guided}
export CGO_ENABLED=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# go test -fuzz compiles a package and all below it once more, with counters
# that guide the search. For a package above Caddy that would be all of Caddy,
# minutes for nothing that is ours: its targets run in the plain test binary,
# which says that it lacks guidance and tries mutations of the corpus blindly.
# A run of seconds, as in test.sh, is not worth to compile SQLite again either.
guided() {
	go test -run='^$' -fuzz="^$2\$" -fuzztime="$fuzztime" "./$1"
}

blind() {
	local binary=$work/${1//\//_}.test
	[ -e "$binary" ] || go test -c -o "$binary" "./$1"
	(cd "$1" && "$binary" -test.run='^$' -test.fuzz="^$2\$" -test.fuzztime="$fuzztime" -test.fuzzcachedir="$work/corpus")
}

aboveCaddy() { grep -qx 'github.com/caddyserver/caddy/v2' <<<"$(go list -deps -test "./$1")"; }

# fuzz package target
fuzz() {
	local way=guided log=$work/log
	if [ "$all" = blind ] || aboveCaddy "$1"; then way=blind; fi
	# Without an input in hand it was the end of the time that failed, not the
	# target: once more.
	if ! $way "$1" "$2" >"$log" 2>&1 &&
		{ grep -q 'Failing input written' "$log" || ! $way "$1" "$2" >"$log" 2>&1; }; then
		cat "$log" >&2
		echo "FAIL $1 $2" >&2
		return 1
	fi
	printf '%-16s %-24s %-7s %s\n' "$1" "$2" "$way" "$(grep -o 'execs: [0-9]*' "$log" | tail -1)"
}

targets=$(grep -rl '^func Fuzz' --include='*_test.go' . | sort)
if [ -z "$targets" ]; then
	echo "no fuzz target was found" >&2
	exit 1
fi
failed=0
for file in $targets; do
	package=$(dirname "${file#./}")
	for target in $(sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file"); do
		fuzz "$package" "$target" || failed=1
	done
done
exit $failed
