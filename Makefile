.PHONY: build release test lint bench

build:
	CGO_ENABLED=0 go build ./cmd/warder

# dist/out/warder as an image has it, beside the directory that one needs, too.
release:
	mkdir -p dist/out/data
	CGO_ENABLED=0 go build -trimpath -pgo=deploy/warder.pgo \
		-ldflags "-s -w -X github.com/caddyserver/caddy/v2.CustomVersion=$(VERSION)" -o dist/out/warder ./cmd/warder

test:
	./test.sh

lint:
	golangci-lint run

# Medians of several runs; compare with the Floor benchmarks of the same run.
bench:
	go test -run '^$$' -bench . -benchmem -count 7 ./keystore ./keystore/sqlite ./tokenissuer ./caddymodule
