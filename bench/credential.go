//go:build linux

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// authorize makes a key on a running Warder and, if it is to be asked with
// tokens, buys one for it.
func (r *running) authorize() error {
	var made struct {
		APIKey    string `json:"api_key"`
		AccessKey string `json:"access_key"`
		SecretKey string `json:"secret_key"`
	}
	if err := r.awaitAdmin(); err != nil {
		return err
	}
	call, err := http.NewRequest(http.MethodPost, r.management()+"/keys", strings.NewReader(`{"name":"bench"}`))
	if err != nil {
		return err
	}
	call.Header.Set("Content-Type", "application/json")
	if err := fetch(call, &made); err != nil {
		return err
	}
	r.header = "Token " + made.APIKey
	if r.kind == key {
		return nil
	}
	buy := func() (string, error) { return r.mint(made.AccessKey, made.SecretKey) }
	token, err := buy()
	r.header, r.buy = "Bearer "+token, buy
	return err
}

func (r *running) management() string { return fmt.Sprintf("http://127.0.0.1:%d/warder/v1", r.Admin) }

// awaitAdmin waits until the admin endpoint knows the configuration whose sites
// listen already.
func (r *running) awaitAdmin() error {
	for {
		resp, err := http.Get(r.management() + "/organizations")
		if err != nil {
			return err
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// mint buys an access token.
func (r *running) mint(accessKey, secretKey string) (string, error) {
	var answer struct {
		Token string `json:"access_token"`
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	call, err := http.NewRequest(http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/token", r.Issuer), strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	call.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	call.SetBasicAuth(accessKey, secretKey)
	err = fetch(call, &answer)
	return answer.Token, err
}

// buyMany buys n access tokens, each another.
func (r *running) buyMany(n int) ([]string, error) {
	const buyers = 4
	var (
		buying sync.WaitGroup
		tokens = make([]string, n)
		errs   = make([]error, buyers)
	)
	for b := range buyers {
		buying.Go(func() {
			for i := b; i < n && errs[b] == nil; i += buyers {
				tokens[i], errs[b] = r.buy()
			}
		})
	}
	buying.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return tokens, nil
}

func fetch(call *http.Request, into any) error {
	resp, err := http.DefaultClient.Do(call)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", call.Method, call.URL, resp.Status, body)
	}
	return json.NewDecoder(bytes.NewReader(body)).Decode(into)
}

// signedToken returns a JWT as others mint them, and the public key for it.
func signedToken() (token string, public []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", nil, err
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"ES256","typ":"at+jwt","kid":"bench"}`)) + "." + encode(fmt.Appendf(nil,
		`{"iss":"http://127.0.0.1","sub":"key-1","aud":"http://127.0.0.1","iat":%d,"exp":%d}`, time.Now().Unix(), time.Now().Add(24*time.Hour).Unix()))
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
	if err != nil {
		return "", nil, err
	}
	var signature [64]byte
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	der, err := x509.MarshalPKIXPublicKey(&private.PublicKey)
	if err != nil {
		return "", nil, err
	}
	return signed + "." + encode(signature[:]), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

const base62 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// madeUpKey returns the n-th of the keys that nobody made: spelled as they have
// to be, checksum included, so that only its MAC gives it away.
func madeUpKey(n uint64) string {
	text := append(make([]byte, 0, 76), "wdr_"...)
	state := n
	digit := func() {
		state = state*6364136223846793005 + 1442695040888963407
		text = append(text, base62[(state>>33)%62])
	}
	for range 22 {
		digit()
	}
	text = append(text, '_')
	for range 43 {
		digit()
	}
	sum := crc32.ChecksumIEEE(text)
	checksum := make([]byte, 6)
	for i := range checksum {
		checksum[len(checksum)-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(append(text, checksum...))
}
