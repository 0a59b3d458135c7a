package caddymodule

import (
	"strconv"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/warderhq/warder/managementapi"
)

func nodesCommand() caddycmd.Command {
	return topCommand(leaf{"nodes", "Shows the nodes that follow the store", nil, listNodes}, `Shows the nodes that follow the store: how far each is behind what the store
holds, and how long it may go on deciding without another sign of life.

  fresh   has applied all there is
  behind  lives, but has not applied all yet
  silent  gives no sign of life, and may still decide on what it knew
  gone    has been silent for so long that it decides nothing any more`)
}

func listNodes(s *session) error {
	raw, err := s.get(nil, "nodes")
	if err != nil {
		return err
	}
	rows, _, err := page("nodes", raw)
	if err != nil {
		return err
	}
	return printAll(s, rows, nodeHead, nodeRow)
}

var nodeHead = []string{"ID", "ADDRESS", "VERSION", "STATE", "APPLIED", "LAG", "LEASE LEFT", "HEARTBEAT AT", "ASKED"}

func nodeRow(n *managementapi.Node) []string {
	lag, lease, asked := "-", "endless", "-"
	if n.LagRevisions > 0 {
		lag = strconv.FormatInt(n.LagRevisions, 10) + " (" + milliseconds(n.LagMilliseconds) + ")"
	}
	if n.LeaseMilliseconds != nil {
		lease = milliseconds(*n.LeaseMilliseconds)
	}
	if n.Self {
		asked = "this one"
	}
	return []string{
		string(n.ID), dash(n.Address), dash(n.Version), n.State, strconv.FormatInt(int64(n.AppliedRevision), 10),
		lag, lease, instant(&n.HeartbeatAt), asked,
	}
}

func milliseconds(n int64) string { return (time.Duration(n) * time.Millisecond).String() }
