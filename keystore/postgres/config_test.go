//go:build unix

package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/keystore/postgres/postgrestest"
)

func TestCanonical(t *testing.T) {
	for name, want := range map[string]string{
		"postgres://u:secret@DB.example:6000/keys":                                      "db.example:6000/keys/warder",
		"postgresql://other:word@db.example:6000/keys?sslmode=disable":                  "db.example:6000/keys/warder",
		"host=db.example port=6000 dbname=keys user=u password=secret":                  "db.example:6000/keys/warder",
		"host=db.example dbname='a/b c'":                                                "db.example:5432/a%2Fb%20c/warder",
		"postgres://u@b:1,a:2/keys?sslmode=prefer":                                      "a:2,b:1/keys/warder",
		"host=a,b port=2,1 dbname=keys sslmode=require":                                 "a:2,b:1/keys/warder",
		"host=/run/postgresql dbname=keys":                                              "%2Frun%2Fpostgresql:5432/keys/warder",
		"postgres://u@[::1]:7/keys":                                                     "[::1]:7/keys/warder",
		"host=a user=named":                                                             "a:5432/named/warder",
		"host=a dbname=keys options='-c search_path=x' target_session_attrs=read-write": "a:5432/keys/warder",
	} {
		if got, err := Canonical(Config{URL: keystore.Secret(name)}); err != nil || got != want {
			t.Errorf("%s: %s %v, want %s", name, got, err, want)
		}
	}
	if got, err := Canonical(Config{URL: "host=a dbname=keys", Schema: "w2"}); err != nil || got != "a:5432/keys/w2" {
		t.Errorf("another schema: %s %v", got, err)
	}
}

func TestUnusableConfigs(t *testing.T) {
	for name, c := range map[string]Config{
		"nothing":         {},
		"no port":         {URL: "postgres://u@h:port/d"},
		"a quoted schema": {URL: "host=h", Schema: `w"; DROP`},
		"a large letter":  {URL: "host=h", Schema: "Warder"},
		"a dot":           {URL: "host=h", Schema: "a.b"},
		"a long schema":   {URL: "host=h", Schema: strings.Repeat("s", 49)},
		"the server's":    {URL: "host=h", Schema: "pg_warder"},
		"a small pool":    {URL: "host=h", PoolSize: MinPoolSize - 1},
		"a negative one":  {URL: "host=h", PoolSize: -1},
		"a huge one":      {URL: "host=h", PoolSize: 1001},
	} {
		if got, err := Canonical(c); err == nil {
			t.Errorf("%s is %s", name, got)
		}
		if s, err := Open(t.Context(), c, testGenesis); err == nil {
			s.Close()
			t.Errorf("%s was opened", name)
		}
	}
	longest := Config{URL: "host=h", Schema: strings.Repeat("s", 48)}
	if c, err := longest.completed(); err != nil || len(c.channel()) > 63 {
		t.Errorf("the longest schema: %v, channel of %d bytes", err, len(c.channel()))
	}
}

// No way to be refused shows the password, however it is written.
func TestErrorsHideThePassword(t *testing.T) {
	const password = "hunter2xyzzy"
	for _, name := range []string{
		"postgres://u:" + password + "@127.0.0.1:1/d",
		"postgres://u:" + password + "@127.0.0.1:1,127.0.0.1:2/d",
		"postgres://u:" + password + "@127.0.0.1:port/d",
		"postgres://u:a:" + password + "@127.0.0.1:1/d",
		"postgres://u:a@" + password + "@127.0.0.1:1/d",
		"postgres://u:1/" + password + "@127.0.0.1:1/d",
		"postgres://u:1?" + password + "@127.0.0.1:1/d",
		"postgres://u:1#" + password + "@127.0.0.1:1/d",
		"postgres://u:%zz" + password + "@127.0.0.1:1/d",
		"postgres://127.0.0.1:1/d?password=" + password + "&sslmode=nonsense",
		"postgres://127.0.0.1:1/d?password=" + password + "&target_session_attrs=nonsense",
		"host=127.0.0.1 port=1 password=" + password,
		"host=127.0.0.1 port=1 password='" + password,
		"host=127.0.0.1 port=x password=" + password,
		"host=127.0.0.1 port=1 password=a " + password,
		"host=127.0.0.1 port=1 connect_timeout=x password='" + password + "'",
		"host=127.0.0.1 port=1 sslmode=verify-full sslrootcert=/no/such/file password=" + password,
		"://" + password,
		password,
	} {
		c := Config{URL: keystore.Secret(name)}
		s, err := Open(t.Context(), c, testGenesis)
		if err == nil {
			s.Close()
			t.Fatalf("%s was opened", name)
		}
		for _, out := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), fmt.Sprintf("%v %+v %#v", c, c, c)} {
			if strings.Contains(out, password) || strings.Contains(out, "xyzzy") {
				t.Errorf("%s: %s", name, out)
			}
		}
	}
}

// A store that is open, and one that a server refuses, hide it too.
func TestStoresHideThePassword(t *testing.T) {
	c := newDatabase(t)
	_, rest, _ := strings.Cut(c.URL.Reveal(), "://")
	user, rest, _ := strings.Cut(rest, ":")
	password, place, _ := strings.Cut(rest, "@")
	s := openAt(t, c)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d", "%x"} {
		if out := fmt.Sprintf(verb, s); strings.Contains(out, password) {
			t.Errorf("%s shows it: %s", verb, out)
		}
	}
	c.URL = keystore.Secret("postgres://" + user + ":wrong" + password + "@" + place)
	if _, err := Open(t.Context(), c, testGenesis); err == nil || errors.Is(err, keystore.ErrUnavailable) || strings.Contains(err.Error(), password) {
		t.Errorf("a wrong password: %v", err)
	} else {
		t.Log(err)
	}
}

// A server without TLS is not spoken to where TLS is demanded, and the error
// says so. Should it be only preferred, it is.
func TestTLSModes(t *testing.T) {
	plain, _, _ := strings.Cut(postgrestest.Database(t), "?")
	for _, mode := range []string{"require", "verify-ca", "verify-full"} {
		_, err := Open(t.Context(), Config{URL: keystore.Secret(plain + "?sslmode=" + mode)}, testGenesis)
		if err == nil || !strings.Contains(err.Error(), "TLS") && !strings.Contains(err.Error(), "tls") {
			t.Errorf("%s: %v", mode, err)
		} else {
			t.Log(err)
		}
	}
	openAt(t, Config{URL: keystore.Secret(plain + "?sslmode=prefer")})
}
