package worker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLoadConfig(t *testing.T) {
	type asked struct {
		flags, env map[string]string
		file       string
	}
	for name, c := range map[string]struct {
		asked
		want   Config // Home is left out of the comparison
		faults []string
	}{
		"nothing said": {want: Config{Namespace: "default"}},
		"the file": {
			asked: asked{file: "# mine\ntemporal: file:1\ntemporal-api-key: key\nnamespace: file\nredis: redis://file:2\nelasticsearch: https://file\nelasticsearch-api-key: key\nelasticsearch-user: me\nelasticsearch-password: hunter2\nelasticsearch-ca: ca.pem\nkube-context: file\nui-port: 8233\n"},
			want:  Config{Temporal: "file:1", TemporalKey: "key", Namespace: "file", Redis: "redis://file:2", Elasticsearch: "https://file", ElasticsearchKey: "key", ElasticsearchUser: "me", ElasticsearchPassword: "hunter2", ElasticsearchCA: "ca.pem", KubeContext: "file", UIPort: 8233},
		},
		"a variable goes before the file": {
			asked: asked{env: map[string]string{"GROUNDPLAN_TEMPORAL": "env:1", "GROUNDPLAN_KUBE_CONTEXT": "env"}, file: "temporal: file:1\nkube-context: file\nredis: redis://file"},
			want:  Config{Temporal: "env:1", Namespace: "default", KubeContext: "env", Redis: "redis://file"},
		},
		"a flag goes before a variable": {
			asked: asked{flags: map[string]string{"temporal": "flag:1"}, env: map[string]string{"GROUNDPLAN_TEMPORAL": "env:1"}, file: "temporal: file:1"},
			want:  Config{Temporal: "flag:1", Namespace: "default"},
		},
		"an empty flag sets back to the default": {
			asked: asked{flags: map[string]string{"temporal": ""}, env: map[string]string{"GROUNDPLAN_TEMPORAL": "env:1"}, file: "temporal: file:1"},
			want:  Config{Namespace: "default"},
		},
		"an overruled value may be wrong": {
			asked: asked{flags: map[string]string{"ui-port": "1"}, file: "ui-port: many"},
			want:  Config{Namespace: "default", UIPort: 1},
		},
		"an empty file":         {asked: asked{file: "# nothing yet\n"}, want: Config{Namespace: "default"}},
		"an empty value":        {asked: asked{file: "temporal:\n"}, want: Config{Namespace: "default"}},
		"an IPv6 address":       {asked: asked{file: "temporal: '[::1]:7233'\n"}, want: Config{Temporal: "[::1]:7233", Namespace: "default"}},
		"a unix socket's Redis": {asked: asked{file: "redis: unix:///run/redis.sock\n"}, want: Config{Redis: "unix:///run/redis.sock", Namespace: "default"}},
		"every fault at once": {
			asked: asked{
				flags: map[string]string{"temporal": "nowhere", "speed": "9"},
				env:   map[string]string{"GROUNDPLAN_REDIS": "http://x"},
				file:  "ui-port: 70000\nelasticsearch: 'https:///path'\n",
			},
			faults: []string{
				`--speed is not a setting`, `--temporal: "nowhere" is not an address`, `GROUNDPLAN_REDIS: must be a URL that begins with redis://`,
				`config.yaml:1: "70000" is not a port`, `config.yaml:2: the URL names no host`,
			},
		},
		"where on a cluster": {
			asked: asked{flags: map[string]string{"kube-namespace": "mine"}, env: map[string]string{"GROUNDPLAN_REGISTRY": "10.0.0.1:5000"}, file: "kube-node-selector: pool=a\nkube-tolerations: x=y:NoSchedule\nkube-system-namespace: sys\n"},
			want:  Config{Namespace: "default", KubeNamespace: "mine", KubeSystemNamespace: "sys", KubeNodeSelector: "pool=a", KubeTolerations: "x=y:NoSchedule", Registry: "10.0.0.1:5000"},
		},
		"nodes that can't be named so": {
			asked:  asked{file: "kube-node-selector: pool\nkube-tolerations: 'x:Never'\n"},
			faults: []string{`config.yaml:1: "pool" is no node selector`, `config.yaml:2: "x:Never" is no toleration`},
		},
		"a port that is none": {asked: asked{file: "temporal: host:0"}, faults: []string{`config.yaml:1: "host:0" has no port`}},
		"faults of the file": {
			asked: asked{file: "temporal: a:1\nredsi: redis://x\ntemporal: b:1\nhome: /tmp\nredis: [a]\n"},
			faults: []string{
				`config.yaml:2: unknown key "redsi"; known are temporal, temporal-api-key, namespace, redis, elasticsearch, elasticsearch-api-key, elasticsearch-user, elasticsearch-password, elasticsearch-ca, prometheus, otlp, otlp-headers, kube-context, kube-namespace, kube-system-namespace, kube-node-selector, kube-tolerations, registry, ui-port`,
				`config.yaml:3: temporal is said twice`, "config.yaml:4: `home` can't be said", `config.yaml:5: redis must be one plain value`,
			},
		},
		"no mapping":   {asked: asked{file: "- a\n"}, faults: []string{"config.yaml:1: must be lines of `name: value`"}},
		"not YAML":     {asked: asked{file: "a: [\n"}, faults: []string{"config.yaml: yaml: line"}},
		"no host":      {asked: asked{file: "temporal: ':7233'"}, faults: []string{`":7233" is not an address`}},
		"secrets stay": {asked: asked{file: "redis: 'http://:hunter2@x'"}, faults: []string{"config.yaml:1: must be a URL"}},
		"exports": {
			asked: asked{flags: map[string]string{"otlp": "http://c:4318"}, env: map[string]string{"GROUNDPLAN_OTLP_HEADERS": "a=b%20c"}, file: "prometheus: http://p:9091\n"},
			want:  Config{Namespace: "default", OTLP: "http://c:4318", OTLPHeaders: "a=b%20c", Prometheus: "http://p:9091"},
		},
		"headers stay":  {asked: asked{file: "otlp-headers: hunter2"}, faults: []string{"config.yaml:1: must be headers like"}},
		"a broken URL":  {asked: asked{file: "redis: 'redis://%zz'"}, faults: []string{"config.yaml:1: must be a URL"}},
		"negative port": {asked: asked{flags: map[string]string{"ui-port": "-1"}}, faults: []string{`--ui-port: "-1" is not a port`}},
	} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(home, "config.yaml"), []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if c.env == nil {
				c.env = map[string]string{}
			}
			c.env["GROUNDPLAN_HOME"] = home
			got, err := LoadConfig(c.flags, func(name string) string { return c.env[name] })
			for _, want := range c.faults {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("no fault %q in:\n%v", want, err)
				}
			}
			if err != nil {
				if len(c.faults) != strings.Count(err.Error(), "\n")+1 {
					t.Errorf("not %d faults:\n%v", len(c.faults), err)
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Error("a password is repeated")
				}
				return
			}
			if got.Home != "" && string(got.Home) != home {
				t.Errorf("the home is %s", got.Home)
			}
			got.Home = ""
			if got.Register != nil || got.Log != nil {
				t.Error("what no setting says is set")
			}
			if got.Temporal != c.want.Temporal || got.TemporalKey != c.want.TemporalKey || got.Namespace != c.want.Namespace || got.Redis != c.want.Redis ||
				got.Elasticsearch != c.want.Elasticsearch || got.ElasticsearchKey != c.want.ElasticsearchKey || got.ElasticsearchUser != c.want.ElasticsearchUser ||
				got.ElasticsearchPassword != c.want.ElasticsearchPassword || got.ElasticsearchCA != c.want.ElasticsearchCA || got.KubeContext != c.want.KubeContext || got.UIPort != c.want.UIPort {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestHome(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags, env map[string]string
		want       string
	}{
		"flag":                {map[string]string{"home": "/flag"}, map[string]string{"GROUNDPLAN_HOME": "/env"}, "/flag"},
		"relative flag":       {map[string]string{"home": "sub"}, nil, filepath.Join(here, "sub")},
		"variable":            {nil, map[string]string{"GROUNDPLAN_HOME": "/env", "XDG_DATA_HOME": "/xdg"}, "/env"},
		"XDG data":            {nil, map[string]string{"XDG_DATA_HOME": "/xdg", "HOME": "/me"}, "/xdg/groundplan"},
		"XDG data, relative":  {nil, map[string]string{"XDG_DATA_HOME": "xdg", "HOME": "/me"}, "/me/.local/share/groundplan"},
		"the user's home":     {nil, map[string]string{"HOME": "/me"}, "/me/.local/share/groundplan"},
		"an empty flag":       {map[string]string{"home": ""}, map[string]string{"GROUNDPLAN_HOME": "/env", "HOME": "/me"}, "/me/.local/share/groundplan"},
		"no home of any sort": {nil, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := LoadConfig(c.flags, func(name string) string { return c.env[name] })
			if (err != nil) != (c.want == "") || string(config.Home) != c.want {
				t.Errorf("got %q, %v", config.Home, err)
			}
		})
	}
}
