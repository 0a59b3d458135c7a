//go:build linux

package main

import (
	"net"
	"net/http"
	"os"
	"strconv"
)

// startAPI starts an API that has nothing to do: this program once more, so
// that its scheduler and that of the load do not wait for each other.
func startAPI(dir string) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start("the API behind", dir, port, clientCore, []string{program, "-serve", strconv.Itoa(port)})
}

func serveAPI(port int) error {
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("hello")) // whoever asked may have gone
	})
	return http.ListenAndServe(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), hello) //nolint:gosec // only this program asks
}
