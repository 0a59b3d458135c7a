package caddymodule

import (
	"bufio"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// sharedAddress returns an address at which both this process and another one
// listen, or nothing. The admin endpoint is open before any module is asked,
// so only the system can still tell.
func sharedAddress() string {
	own := ownSockets()
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		for address, sockets := range listening(table) {
			mine := 0
			for _, socket := range sockets {
				if own[socket] {
					mine++
				}
			}
			if mine > 0 && mine < len(sockets) {
				return address
			}
		}
	}
	return ""
}

// ownSockets returns the inodes of this process's sockets.
func ownSockets() map[string]bool {
	own := map[string]bool{}
	links, _ := filepath.Glob("/proc/self/fd/*") // without /proc nothing is found, and nothing refused
	for _, link := range links {
		target, _ := os.Readlink(link)
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return own
}

// Columns of /proc/net/tcp, and the state of a listening socket in it.
const (
	columnLocal = 1
	columnState = 3
	columnInode = 9
	stateListen = "0A"
)

// listening returns the inodes of listening sockets by their local address.
func listening(table string) map[string][]string {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	found := map[string][]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		columns := strings.Fields(lines.Text())
		if len(columns) > columnInode && columns[columnState] == stateListen {
			address := localAddress(columns[columnLocal])
			found[address] = append(found[address], columns[columnInode])
		}
	}
	return found
}

// localAddress decodes "0100007F:1F90": the address in words of 32 bits, each
// a number in the order of this machine, and the port.
func localAddress(text string) string {
	host, port, _ := strings.Cut(text, ":")
	var ip net.IP
	for ; len(host) >= 8; host = host[8:] {
		word, _ := strconv.ParseUint(host[:8], 16, 32)
		ip = binary.NativeEndian.AppendUint32(ip, uint32(word))
	}
	n, _ := strconv.ParseUint(port, 16, 16)
	return net.JoinHostPort(ip.String(), strconv.FormatUint(n, 10))
}
