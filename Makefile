.PHONY: build test lint bench

build:
	CGO_ENABLED=0 go build ./cmd/warder

test:
	./test.sh

lint:
	golangci-lint run

# Medians of several runs; compare with the Floor benchmarks of the same run.
bench:
	go test -run '^$$' -bench . -benchmem -count 7 ./keystore ./keystore/sqlite ./tokenissuer ./caddymodule
