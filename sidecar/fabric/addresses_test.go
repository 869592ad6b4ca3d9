package fabric

import (
	"net/netip"
	"strings"
	"testing"
)

func TestAddressesFollowFromTheSlot(t *testing.T) {
	f := &Fabric{subnet: DefaultSubnet}
	for slot, want := range map[int][2]string{
		0:     {"100.96.0.2", "10.0.0.2"},
		1:     {"100.96.0.3", "10.0.0.3"},
		252:   {"100.96.0.254", "10.0.0.254"},
		253:   {"100.96.1.1", "10.0.1.1"},
		1000:  {"100.96.3.240", "10.0.3.240"},
		65022: {"100.96.255.254", "10.0.255.254"},
	} {
		control, data := f.Addresses(slot)
		if control.String() != want[0] || data.String() != want[1] {
			t.Errorf("slot %d has %s and %s, want %v", slot, control, data, want)
		}
	}
	for _, slot := range []int{-1, 65023, 1 << 40} {
		if control, data := f.Addresses(slot); control.IsValid() || data.IsValid() {
			t.Errorf("slot %d has %s and %s, want none", slot, control, data)
		}
	}
}

func TestSlotIsTheInverse(t *testing.T) {
	f := &Fabric{subnet: DefaultSubnet}
	seen := make(map[netip.Addr]bool)
	for slot := range slots(controlSubnet) {
		control, data := f.Addresses(slot)
		if seen[control] || control == f.Gateway() || !controlSubnet.Contains(control) || !f.Subnet().Contains(data) {
			t.Fatalf("slot %d has %s and %s", slot, control, data)
		}
		seen[control] = true
		if got, ok := f.Slot(control); !ok || got != slot {
			t.Fatalf("%s is slot %d, %v, want %d", control, got, ok, slot)
		}
		if got, ok := f.Slot(netip.AddrFrom16(control.As16())); !ok || got != slot {
			t.Fatalf("%s, as an IPv6 socket shows it, is slot %d, %v, want %d", control, got, ok, slot)
		}
	}
	for _, other := range []string{"100.96.0.0", "100.96.0.1", "100.96.7.0", "100.96.7.255", "100.97.0.2", "10.0.0.2", "::1"} {
		if got, ok := f.Slot(netip.MustParseAddr(other)); ok {
			t.Errorf("%s is slot %d", other, got)
		}
	}
	if _, ok := f.Slot(netip.Addr{}); ok {
		t.Error("no address is a slot")
	}
}

func TestSubnetsOfAllSizes(t *testing.T) {
	for prefix, want := range map[string]int{"10.0.0.0/24": 253, "10.4.0.0/16": 65023, "11.0.0.0/8": 254*65536 - 1} {
		subnet := netip.MustParsePrefix(prefix)
		if err := checkSubnet(subnet); err != nil {
			t.Error(err)
		}
		if slots(subnet) != want {
			t.Errorf("%s holds %d, want %d", prefix, slots(subnet), want)
		}
		last := address(subnet, want-1)
		if got, ok := slotOf(subnet, last); !subnet.Contains(last) || !ok || got != want-1 {
			t.Errorf("the last address of %s is %s, slot %d, %v", prefix, last, got, ok)
		}
	}
}

func TestSubnetsThatAreRefused(t *testing.T) {
	for prefix, says := range map[string]string{
		"fd00::/64":      "IPv4",
		"10.0.3.0/16":    "did you mean 10.0.0.0/16",
		"10.0.0.0/25":    "between /8 and /24",
		"0.0.0.0/0":      "between /8 and /24",
		"100.0.0.0/8":    "overlaps the control network",
		"169.254.0.0/16": "meaning of their own",
		"127.0.0.0/8":    "meaning of their own",
	} {
		if err := checkSubnet(netip.MustParsePrefix(prefix)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want something with %q", prefix, err, says)
		}
	}
	if _, err := New(Options{Subnet: netip.MustParsePrefix("10.0.0.0/30")}); err == nil {
		t.Error("a fabric for a /30")
	}
}

func TestHardwareAddressesDiffer(t *testing.T) {
	seen := make(map[string]int)
	for slot := range 3000 {
		for _, n := range []network{controlNetwork, dataNetwork} {
			for _, a := range []string{n.near(slot).String(), n.far(slot).String()} {
				if other, taken := seen[a]; taken {
					t.Fatalf("%s belongs to slots %d and %d", a, other, slot)
				}
				seen[a] = slot
			}
		}
	}
}
