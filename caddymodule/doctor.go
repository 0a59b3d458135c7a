package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/warderhq/warder/keystore"
	"github.com/warderhq/warder/managementapi"
)

// doctor looks over an installation. It changes nothing.
type doctor struct {
	session  *session
	config   *configuration        // nil: it cannot be read
	server   *managementapi.Client // nil: none runs
	findings []finding
}

// doctorTimeout bounds each question to something else than a file.
const doctorTimeout = 5 * time.Second

func newDoctor(s *session) *doctor { return &doctor{session: s} }

func (d *doctor) ok(check, text string, args ...any) {
	d.findings = append(d.findings, finding{check, findingOK, fmt.Sprintf(text, args...), ""})
}

func (d *doctor) hint(check, text, remedy string) {
	d.findings = append(d.findings, finding{check, findingHint, text, remedy})
}

func (d *doctor) wrong(check, text, remedy string) {
	d.findings = append(d.findings, finding{check, findingWrong, text, remedy})
}

func (d *doctor) examine(ctx context.Context) []finding {
	d.examineConfiguration()
	if d.config == nil {
		return d.findings
	}
	d.examineAdmin()
	d.examineServer(ctx)
	d.examineStore(ctx)
	d.examineIssuer(ctx)
	d.examinePolicies()
	return d.findings
}

// examineConfiguration reads it as run would, and provisions all of it, but
// with stand-ins for what provisioning would change.
func (d *doctor) examineConfiguration() {
	const check = "configuration"
	text, file, _, err := caddycmd.LoadConfig(d.session.text("config"), d.session.text("adapter"))
	if err == nil && len(text) == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		d.wrong(check, oneLine(err), "name the file that the server runs with --config, and correct it")
		return
	}
	config, err := readConfiguration(text)
	if err != nil {
		d.wrong(check, oneLine(err), "add the global option warder, see Caddyfile.example")
		return
	}
	d.config = config
	switch err := provisioned(text); {
	case errors.Is(err, errNoRoom):
		d.wrong(check, oneLine(err), "name a directory that may be written to in the environment variable TMPDIR, and look again")
		return
	case err != nil:
		d.wrong(check, oneLine(err), "correct it; nothing of it would be served as it is")
		return
	}
	d.ok(check, "%s would be served", orWord(file, "it"))
}

// examineAdmin says who can reach the admin endpoint.
func (d *doctor) examineAdmin() {
	const check = "admin"
	if d.config.Admin.Disabled {
		d.hint(check, "the admin endpoint is off", "keys are then managed by the directive warder_admin only, and warder health needs --url")
		return
	}
	listen := d.config.adminAddress()
	address, err := caddy.ParseNetworkAddressWithDefaults(listen, "tcp", defaultAdminPort)
	switch {
	case err != nil:
		d.wrong(check, oneLine(err), "correct the global option admin")
	case address.IsUnixNetwork():
		d.examineSocket(check, address.Host)
	case isLocalHost(address.Host):
		d.ok(check, "the admin endpoint %s is reached from this machine only", listen)
	case d.config.App.AdminAPI == adminRemote:
		d.hint(check, "the admin endpoint "+listen+" can be reached from elsewhere, and admin_api remote says so", "whoever reaches it is administrator: keep everybody else away, or use the directive warder_admin")
	default:
		d.wrong(check, "the admin endpoint "+listen+" can be reached from elsewhere", "whoever reaches it can replace the configuration: set the global option admin to localhost:2019 or a unix socket")
	}
}

func (d *doctor) examineSocket(check, host string) {
	file, _, _ := strings.Cut(host, "|") // without the permission bits
	info, err := os.Stat(file)
	if err == nil && info.Mode().Perm()&0o002 != 0 {
		d.wrong(check, "everybody on this machine may use the admin endpoint "+file, "chmod o-w "+file+", or set its permissions in the global option admin: unix/"+file+"|0200")
		return
	}
	d.ok(check, "the admin endpoint is the socket %s", file)
}

// examineServer finds the server that runs, if one does.
func (d *doctor) examineServer(ctx context.Context) {
	const check = "server"
	listen := d.session.text("address")
	if listen == "" && d.config.Admin.Disabled {
		d.hint(check, "not asked", "without an admin endpoint there is nobody to ask")
		return
	}
	endpoint, err := endpointOf(orWord(listen, d.config.adminAddress()))
	if err != nil {
		return // said of the endpoint
	}
	client := managementapi.NewClient(endpoint, adminPrefix+"/v1")
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	raw, err := client.Call(ctx, managementapi.Request{Method: http.MethodGet})
	if errors.Is(err, managementapi.ErrUnreachable) {
		d.hint(check, "none answers at "+endpoint.String(), "start it, or name its admin endpoint with --address; what follows is said without it")
		return
	}
	if err != nil {
		d.wrong(check, oneLine(err), "another program has the admin endpoint of this configuration: give one of them another")
		return
	}
	d.server = client
	who, _ := decode[managementapi.Identity](raw) // the client has read it already
	d.ok(check, "Warder %s answers at %s", orWord(who.Version, "of no version"), endpoint)
}

// examineStore asks the server that has it open; if none runs, it looks itself.
func (d *doctor) examineStore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	if d.server != nil {
		d.askForStore(ctx)
	}
	examined, ok := d.config.Store.(examinedStore)
	if !ok {
		d.wrong("store", fmt.Sprintf("the driver %q is not known", d.config.Driver), "correct the option store: sqlite or postgres")
		return
	}
	examined.examine(ctx, d)
}

func (d *doctor) askForStore(ctx context.Context) {
	const check = "store"
	raw, err := d.server.Call(ctx, managementapi.Request{Method: http.MethodGet, Path: []string{"health"}})
	if err != nil {
		d.wrong(check, "this node may not decide: "+oneLine(err), "see the log of the server")
		return
	}
	if health, _ := decode[managementapi.Health](raw); health.Status == managementapi.HealthStale {
		d.wrong(check, "this node decides without its store, by on_stale serve", "keys that were revoked elsewhere pass here: bring the store back")
		return
	}
	d.ok(check, "it answers, and this node may decide")
	raw, err = d.server.Call(ctx, managementapi.Request{Method: http.MethodGet, Path: []string{"nodes"}})
	if err != nil {
		d.wrong("nodes", oneLine(err), "see the log of the server")
		return
	}
	list, _ := decode[managementapi.NodeList](raw)
	var behind []string
	for _, n := range list.Nodes {
		if n.State != "fresh" && n.State != "gone" {
			behind = append(behind, string(n.ID)+" ("+n.State+")")
		}
	}
	if len(behind) > 0 {
		d.hint("nodes", "not all have applied everything: "+strings.Join(behind, ", "), "look again; if it stays so, see warder nodes and their logs")
		return
	}
	d.ok("nodes", "%d follow the store, at revision %d", len(list.Nodes), list.Head)
}

// examinePolicies names what was configured and should be meant.
func (d *doctor) examinePolicies() {
	c := d.config
	if c.App.ServeStale > 0 && c.Driver != "sqlite" {
		d.hint("on_stale", fmt.Sprintf("serve %s: cut off from its store, a node goes on accepting keys that were revoked elsewhere", time.Duration(c.App.ServeStale)), "on_stale deny, unless this is meant")
	}
	if c.logsCredentials() {
		d.wrong("logs", "log_credentials shows Authorization in the logs", "remove the option log_credentials of servers")
	} else {
		d.ok("logs", "no log shows a credential header")
	}
	if c.App.Issuer != nil && strings.HasPrefix(c.issuerURL(), "https://") && !c.terminatesTLS() && !c.trustsProxies() {
		d.hint("proxies", "the issuer is https, and no site here is: something stands before Warder", "name it in the option trusted_proxies of servers, or every request seems to come from it")
	}
}

// examinedStore is a store that can be looked over without being opened.
type examinedStore interface {
	examine(ctx context.Context, d *doctor)
}

// examined says what an examination has found.
func (d *doctor) examined(name string, e keystore.Examination) {
	const check = "store"
	switch {
	case !e.Exists:
		d.ok(check, "%s does not exist yet: the first start makes it", name)
	case e.Unclean:
		d.hint(check, name+" was not closed the last time", "nothing has to be done: the next start recovers it; then look again")
	case e.Version < e.Known:
		d.ok(check, "%s opens; its schema is of version %d, and the next start brings it to %d", name, e.Version, e.Known)
	default:
		d.ok(check, "%s opens; its schema is of version %d, its head is revision %d", name, e.Version, e.Head.Revision)
	}
}

// unlocks says whether the configured master key, or the previous one, opens
// the store.
func (d *doctor) unlocks(e keystore.Examination, master, previous keystore.MasterKey) {
	const check = "master key"
	if !e.Exists || e.Unclean {
		return
	}
	_, err := keystore.OpenStoreSecret(master, e.Sealed)
	if errors.Is(err, keystore.ErrWrongMasterKey) && !previous.IsZero() {
		if _, old := keystore.OpenStoreSecret(previous, e.Sealed); old == nil {
			d.hint(check, "previous_master_key opens the store, master_key does not yet", "start the server: it seals the store under master_key; then remove previous_master_key")
			return
		}
	}
	if err != nil {
		d.wrong(check, oneLine(err), "configure the key that this store was made with; a backup of it is the only other one")
		return
	}
	d.ok(check, "it opens the store; keep a copy of it apart from the backups of the store")
}

// masterKeys are those of the configuration, which was provisioned with them.
func (d *doctor) masterKeys() (master, previous keystore.MasterKey) {
	master, _ = masterKey("master_key", d.config.App.MasterKey)
	previous, _ = masterKey("previous_master_key", d.config.App.PreviousMasterKey)
	return master, previous
}

// oneLine is an error as a finding shows it.
func oneLine(err error) string {
	return strings.TrimSuffix(strings.ReplaceAll(err.Error(), "\n", " "), ".")
}
