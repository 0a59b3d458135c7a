//go:build !linux

package caddymodule

// sharedAddress cannot be told here: an admin endpoint shared with another
// Caddy stays unnoticed.
func sharedAddress() string { return "" }
