package managementapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
)

// openapi describes the routes (OpenAPI 3.1). A test holds it and the table to
// each other in both directions, and every answer of every test to it.
//
//go:embed openapi.json
var openapi []byte

// documentServer is the mount in the document as it is kept.
const documentServer = `{"url": "/v1"`

// documentAt returns the document of a mount.
func documentAt(prefix string) json.RawMessage {
	url, err := json.Marshal(prefix)
	if err != nil {
		panic(err) // a string always encodes
	}
	return bytes.Replace(openapi, []byte(documentServer), append([]byte(`{"url": `), url...), 1)
}

func (a *API) describe(c *call) (answer, error) {
	return answer{body: a.document}, c.body.into(nil)
}
