//go:build unix

// Command postgresonce runs a PostgreSQL of its own for as long as its standard
// input is open. It prints the URL of the superuser as soon as it serves, which
// is what WARDER_TEST_POSTGRES wants:
//
//	coproc go run ./keystore/postgres/postgrestest/postgresonce
//	read -r WARDER_TEST_POSTGRES <&"${COPROC[0]}"
package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

func main() {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // the end of it is all there is to know
		cancel()
	}()
	err := postgrestest.Serve(ctx, func(url string) { fmt.Println(url) })
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
