package daemon

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// DistinctAddresses refuses two listeners of one daemon on the same port and host, where one is empty or unspecified (all
// addresses of the machine) too. addresses are host:port by config key; those that are empty, or have port 0, are let be. The
// error is a KeyError for the later of the two in alphabetical order.
func DistinctAddresses(addresses map[string]string) error {
	taken := make(map[string][]string) // keys by port
	for _, key := range slices.Sorted(maps.Keys(addresses)) {
		host, port, err := net.SplitHostPort(addresses[key])
		if err != nil || port == "0" {
			continue
		}
		for _, other := range taken[port] {
			otherHost, _, _ := net.SplitHostPort(addresses[other])
			if sameHost(host, otherHost) || everyAddress(host) || everyAddress(otherHost) {
				return Keyf(key, "%s is the address of %s too: give each a port of its own", addresses[key], other)
			}
		}
		taken[port] = append(taken[port], key)
	}
	return nil
}

// sameHost compares addresses as addresses, and names without regard to case. Names are not looked up.
func sameHost(a, b string) bool {
	addressA, errA := netip.ParseAddr(a)
	addressB, errB := netip.ParseAddr(b)
	if errA == nil && errB == nil {
		return addressA == addressB
	}
	return strings.EqualFold(a, b)
}

// everyAddress reports whether a listener on host takes the port at all addresses of the machine.
func everyAddress(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "" || err == nil && address.IsUnspecified()
}

// validateAddress judges how host:port is written. It asks nobody: whether a name resolves, and to this machine, is seen when
// the daemon listens.
func validateAddress(key, address string) error {
	if address == "" {
		return Keyf(key, "no address: write host:port, 127.0.0.1:8080 for instance")
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return Keyf(key, "%w: write host:port", err)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return Keyf(key, "%q is no port: write a number, 0 to 65535", port)
	}
	if err := checkHost(host); err != nil {
		return Keyf(key, "%w", err)
	}
	return nil
}

// checkHost takes an IP address, a host name (RFC 1123 §2.1), or nothing: all addresses of the machine.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return nil
	}
	labels := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(host) > 253 || strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return fmt.Errorf("%q is neither an IP address nor a host name", host)
	}
	for _, label := range labels {
		if err := checkLabel(label); err != nil {
			return fmt.Errorf("%q is neither an IP address nor a host name: %w", host, err)
		}
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 63 {
		return errors.New("between its dots stand 1 to 63 characters")
	}
	if strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
		return errors.New("a part of it begins or ends with a hyphen")
	}
	for _, c := range strings.ToLower(label) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("it has %q in it", c)
		}
	}
	return nil
}
