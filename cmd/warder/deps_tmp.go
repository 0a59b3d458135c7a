package main

import (
	_ "github.com/dgraph-io/ristretto/v2"
	_ "github.com/lestrrat-go/jwx/v2/jwk"
	_ "github.com/lestrrat-go/jwx/v2/jws"
	_ "golang.org/x/sys/unix"
	_ "github.com/spf13/cobra"
	_ "go.uber.org/zap"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "golang.org/x/net/http2"
)
