//go:build linux

package keeper

import (
	"encoding/json"
	"errors"
	"net/netip"
	"testing"
)

var (
	testSubnet = netip.MustParsePrefix("10.0.0.0/16")
	testOwn    = netip.MustParsePrefix("10.0.0.2/16")
	testOwn6   = netip.MustParseAddr("fd67:7264:706c::a00:2")
)

func settle(document string) (Config, error) {
	c, err := readConfig([]byte(document))
	if err != nil {
		return Config{}, err
	}
	return c.settle(testSubnet, testOwn6, netip.Prefix{}, testOwn)
}

// TestConfigs translates what Testground's SDKs send.
func TestConfigs(t *testing.T) {
	const own = `"Address":"10.0.0.2/16","Enabled":true}`
	shape := func(s string) string { return `{"enable":true,"network":"default","default":{` + s + `}}` }
	for document, want := range map[string]string{
		`{"network":"default","enable":true,"IPv4":null,"IPv6":null,"default":{"latency":0,"jitter":0,"bandwidth":0,"filter":0,"loss":0},"rules":null,"callback_state":"s","routing_policy":"allow_all"}`: `{"Plan":{"Default":{},"Rules":null},` + own,
		`{"enable":false,"IPv4":"10.0.9.7/8"}`:                  `{"Plan":{"Default":{},"Rules":null},"Address":"10.0.9.7/16","Enabled":false}`,
		`{"enable":true,"IPv6":"` + testOwn6.String() + `/64"}`: `{"Plan":{"Default":{},"Rules":null},` + own,
		shape(`"latency":100000000,"jitter":1.5`):               `{"Plan":{"Default":{"latency":"100ms","jitter":"1ns"},"Rules":null},` + own,
		shape(`"bandwidth":1048576`):                            `{"Plan":{"Default":{"bandwidth":"1048576bit"},"Rules":null},` + own,
		shape(`"bandwidth":0.25`):                               `{"Plan":{"Default":{"bandwidth":"1bit"},"Rules":null},` + own,
		shape(`"filter":2,"loss":0.5`):                          `{"Plan":{"Default":{"loss":"0.5%","policy":"drop"},"Rules":null},` + own,
		shape(`"corrupt":1,"corrupt_corr":2,"reorder":3,"reorder_corr":4,"duplicate":5,"duplicate_corr":100`): `{"Plan":{"Default":{"duplicate":"5%","reorder":"3%","corrupt":"1%","DuplicateCorrelation":"100%","ReorderCorrelation":"4%","CorruptCorrelation":"2%"},"Rules":null},` + own,
		`{"enable":true,"rules":[{"subnet":"10.0.3.7/24","filter":1},{"subnet":"fd67::/96","latency":5}]}`:    `{"Plan":{"Default":{},"Rules":[{"To":"10.0.3.0/24","Shape":{"policy":"reject"}},{"To":"fd67::/96","Shape":{"latency":"5ns"}}]},` + own,
	} {
		config, err := settle(document)
		got, faulty := json.Marshal(config)
		if err := errors.Join(err, faulty); err != nil {
			t.Errorf("%s: %v", document, err)
		} else if want = withNulls(t, want); withNulls(t, string(got)) != want {
			t.Errorf("%s:\ngot  %s\nwant %s", document, withNulls(t, string(got)), want)
		}
	}
}

// withNulls writes a document without what isn't set.
func withNulls(t *testing.T, document string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(document), &value); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(prune(value))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func prune(value any) any {
	switch v := value.(type) {
	case map[string]any:
		for name, field := range v {
			if v[name] = prune(field); v[name] == nil {
				delete(v, name)
			}
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
	}
	return value
}

func TestConfigsThatAreRefused(t *testing.T) {
	shape := func(s string) string { return `{"enable":true,"default":{` + s + `}}` }
	for document, want := range map[string]string{
		`{"network":"second"}`:                        `asked to configure the network "second": there is only one data network, called default`,
		`{"enable":true,"IPv6":"::1/64"}`:             "asked for the IPv6 address ::1 on its data network: that one can't be changed, it is fd67:7264:706c::a00:2",
		`{"enable":true,"IPv6":"x"}`:                  `asked for the IPv6 address "x" on its data network, which is none (write it as fd67::2/96)`,
		`{"enable":true,"IPv4":"16.3.0.7/16"}`:        "asked for the address 16.3.0.7, which is outside the data network 10.0.0.0/16",
		`{"enable":true,"IPv4":"x"}`:                  `asked for the address "x" on its data network, which is none (write it as 10.0.0.7/16)`,
		`[]`:                                          "asked for a configuration of its data network that can't be read: json: cannot unmarshal array into Go value of type keeper.config",
		shape(`"latency":-1`):                         "asked for a latency of -1 nanoseconds on its data network: it is between 0 and 1281023h53m38.427387903s",
		shape(`"jitter":1e300`):                       "asked for a jitter of 1e+300 nanoseconds on its data network: it is between 0 and 1281023h53m38.427387903s",
		shape(`"bandwidth":-5`):                       "asked for a bandwidth of -5 bits per second on its data network, which can't be",
		shape(`"loss":100.1`):                         "asked for a loss of 100.1% on its data network: a share is between 0 and 100",
		shape(`"duplicate_corr":-1`):                  "asked for a duplicate_corr of -1% on its data network: a share is between 0 and 100",
		shape(`"filter":3`):                           "asked for the filter 3 on its data network: there are 0 (accept), 1 (reject) and 2 (drop)",
		`{"enable":true,"rules":[{"subnet":"here"}]}`: `asked for a rule towards "here" on its data network, which is no subnet (write it as 10.0.1.0/24)`,
		`{"enable":true,"rules":[{"subnet":"10.0.0.0/24","filter":-1}]}`: "asked for the filter -1 on its data network: there are 0 (accept), 1 (reject) and 2 (drop)",
	} {
		_, err := settle(document)
		var refused *Refusal
		if !errors.As(err, &refused) || refused.Sentence != want {
			t.Errorf("%s: %v\nwant %s", document, err, want)
		}
	}
}

// FuzzConfig reads anything that a plan may publish: it is refused with a sentence, or becomes something that can be
// asked for.
func FuzzConfig(f *testing.F) {
	f.Add(`{"network":"default","IPv4":"10.0.0.9/16","enable":true,"default":{"latency":1e8,"loss":5},"rules":[{"subnet":"10.0.0.0/24","filter":2}]}`)
	f.Fuzz(func(t *testing.T, document string) {
		config, err := settle(document)
		var refused *Refusal
		if err != nil && (!errors.As(err, &refused) || refused.Sentence == "") {
			t.Errorf("%v is no refusal", err)
		}
		if err == nil && !testSubnet.Contains(config.Address.Addr()) {
			t.Errorf("moved to %s", config.Address)
		}
	})
}
