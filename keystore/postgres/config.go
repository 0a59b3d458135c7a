package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/warderhq/warder/keystore"
)

// Config says where a store is. Only URL is needed.
type Config struct {
	// URL is a connection string of libpq, as a URL or as keywords, with its
	// TLS modes and with several hosts. What it leaves open comes from the
	// environment (PGHOST, PGPASSFILE, …), as everywhere.
	URL keystore.Secret

	// Schema is whose tables are used: lower-case letters, digits and
	// underscores, at most 48. Empty: DefaultSchema.
	Schema string

	// PoolSize is how many connections are used at the same time, at least
	// MinPoolSize, besides the one that listens. Zero: DefaultPoolSize.
	PoolSize int

	// Ping is how often a listening connection that hears nothing is asked
	// whether it lives. Zero: DefaultPing.
	Ping time.Duration

	timeouts timeouts // zero: usualTimeouts
}

// What a Config leaves open. Requests are answered from memory: connections
// are for look-ups of what a node does not know yet, for the one follower, and
// for management. Ten carry some thousand look-ups a second, and fifty nodes
// then need 550 of a server's connections at most.
const (
	DefaultSchema   = "warder"
	DefaultPoolSize = 10
	MinPoolSize     = 5
	DefaultPing     = 2 * time.Second
)

// timeouts bound whatever is asked of the database.
type timeouts struct {
	lookup time.Duration // a request waits for it
	feed   time.Duration // the lease hangs on it
	write  time.Duration // for each answer within a transaction
	scan   time.Duration // lists, reports, snapshots, and a flush of usage

	// Of the server's own, which end what a node that is cut off or halted
	// has begun. Shorter than write: so an answer tells why.
	lock time.Duration // until it is a transaction's turn
	idle time.Duration // within a transaction: who holds up all writers for it is no more

	connect time.Duration // to one host, if the URL says nothing
}

var usualTimeouts = timeouts{
	lookup: 2 * time.Second, feed: 2 * time.Second, write: 6 * time.Second, scan: 20 * time.Second,
	lock: 5 * time.Second, idle: 5 * time.Second, connect: 3 * time.Second,
}

// statement bounds, on the server, what no client waits for any more.
func (t timeouts) statement() time.Duration { return t.scan * 3 / 4 }

// A schema's name stands in a channel's name too, which has 63 bytes.
var schemaName = regexp.MustCompile(`^[a-z_][a-z0-9_]{0,47}$`)

// completed returns c with what it left open, or why it cannot be used.
func (c Config) completed() (Config, error) {
	if c.Schema == "" {
		c.Schema = DefaultSchema
	}
	if !schemaName.MatchString(c.Schema) || strings.HasPrefix(c.Schema, "pg_") {
		return Config{}, fmt.Errorf("%q is no name for a schema: it has to consist of at most 48 lower-case letters, digits and underscores, and not to begin with pg_", c.Schema)
	}
	if c.PoolSize == 0 {
		c.PoolSize = DefaultPoolSize
	}
	if c.PoolSize < MinPoolSize || c.PoolSize > 1000 {
		return Config{}, fmt.Errorf("a pool of %d connections: it has to have %d to 1000", c.PoolSize, MinPoolSize)
	}
	if c.Ping == 0 {
		c.Ping = DefaultPing
	}
	if c.timeouts == (timeouts{}) {
		c.timeouts = usualTimeouts
	}
	return c, nil
}

// Canonical names the store that c leads to by its hosts, database and schema,
// without user or password: two that are equal are one store.
func Canonical(c Config) (string, error) {
	c, err := c.completed()
	if err != nil {
		return "", err
	}
	parsed, err := parse(c.URL)
	if err != nil {
		return "", err
	}
	return canonical(parsed, c.Schema), nil
}

func canonical(parsed *pgxpool.Config, schema string) string {
	conn := parsed.ConnConfig
	hosts := []string{address(conn.Host, conn.Port)}
	for _, other := range conn.Fallbacks { // the same host again, for another mode of TLS
		hosts = append(hosts, address(other.Host, other.Port))
	}
	slices.Sort(hosts)
	database := conn.Database
	if database == "" { // as the server reads it
		database = conn.User
	}
	return strings.Join(slices.Compact(hosts), ",") + "/" + url.PathEscape(database) + "/" + schema
}

func address(host string, port uint16) string {
	if strings.HasPrefix(host, "/") { // a directory of sockets
		return url.PathEscape(host) + ":" + strconv.Itoa(int(port))
	}
	return net.JoinHostPort(strings.ToLower(host), strconv.Itoa(int(port)))
}

// parse reads a connection string. Its errors show nothing of it: broken as it
// is, nobody can tell where its password begins.
func parse(text keystore.Secret) (*pgxpool.Config, error) {
	if text == "" {
		return nil, errors.New("no connection string is given")
	}
	parsed, err := pgxpool.ParseConfig(text.Reveal())
	if err == nil && !misread(parsed) {
		return parsed, nil
	}
	var file *fs.PathError
	if errors.As(err, &file) { // a certificate or a service
		return nil, fmt.Errorf("reading what the connection string refers to: %w", file)
	}
	return nil, errors.New("the connection string is neither a URL nor a list of keywords that can be understood (it is not shown, for it may hold a password)")
}

// misread reports whether the rest of a password, which should have been
// escaped, has become a host or a database.
func misread(parsed *pgxpool.Config) bool {
	conn := parsed.ConnConfig
	return strings.ContainsAny(conn.Host+conn.Database, "@?#") ||
		slices.ContainsFunc(conn.Fallbacks, func(other *pgconn.FallbackConfig) bool { return strings.ContainsAny(other.Host, "@?#") })
}

// channel is where the nodes of a schema tell each other of changes.
func (c Config) channel() string { return "warder_" + c.Schema }

// migrationLock is the advisory lock under which a schema is migrated.
func (c Config) migrationLock() int64 {
	sum := sha256.Sum256([]byte("warder migration of " + c.Schema))
	return int64(binary.LittleEndian.Uint64(sum[:8]))
}
