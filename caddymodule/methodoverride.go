package caddymodule

import (
	"net/http"
	"strings"
)

// methodOverrides are the headers, folded, with which frameworks let a request
// stand for another method.
var methodOverrides = [...]string{"x-http-method-override", "x-http-method", "x-method-override"}

// overridingMethods returns the methods that a request asks to be taken for,
// in whatever spelling an API behind could find them.
func overridingMethods(header http.Header) (methods []string) {
	for name, values := range header {
		for _, override := range methodOverrides {
			if len(name) != len(override) || !foldedPrefix(name, override) {
				continue
			}
			for _, value := range values {
				methods = append(methods, strings.ToUpper(strings.TrimSpace(value)))
			}
		}
	}
	return methods
}
