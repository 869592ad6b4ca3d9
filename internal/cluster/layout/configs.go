package layout

import (
	"bytes"
	"embed"
	"fmt"
	"strings"
	"text/template"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.New("").Option("missingkey=error").ParseFS(templateFiles, "templates/*"))

// values are what templates are filled with.
type values struct {
	Cluster Cluster
	Machine Machine
	MaxPods int
	// Keys is the folder of certificates and keys.
	Keys string
	// Password is that of Redis.
	Password string
	// Data is the folder that the configured program keeps its files in.
	Data string
}

func fill(name string, v values) []byte {
	var b bytes.Buffer
	if err := templates.ExecuteTemplate(&b, name, v); err != nil {
		panic(fmt.Sprintf("the template %s doesn't fit what it is filled with: %v", name, err)) // a test fills every one
	}
	return b.Bytes()
}

// NodeFiles are the files that a node has in /etc and its neighbours, by their path there. keys is the folder of
// certificates and keys.
func (c Cluster) NodeFiles(m Machine, keys string) map[string][]byte {
	v := values{Cluster: c, Machine: m, MaxPods: MaxPods, Keys: keys}
	return map[string][]byte{
		"/etc/containerd/config.toml":                                      fill("containerd.toml", v),
		"/etc/containerd/certs.d/" + c.Registry().String() + "/hosts.toml": fill("registry.toml", v),
		"/etc/cni/net.d/10-pods.conflist":                                  fill("pods.conflist", v),
		"/etc/kubernetes/kubelet.yaml":                                     fill("kubelet.yaml", v),
		"/etc/hostname":                                                    []byte(m.Name + "\n"),
		"/etc/hosts":                                                       []byte("127.0.0.1 localhost\n" + m.Address.Addr().String() + " " + m.Name + "\n"),
		"/etc/machine-id":                                                  []byte(c.machineID(m) + "\n"),
		"/etc/resolv.conf":                                                 []byte("# Nothing answers here: no way leads outside.\n"),
	}
}

// machineID is 32 hexadecimal digits that differ from machine to machine.
func (c Cluster) machineID(m Machine) string {
	digits := fmt.Sprintf("%x", c.Name+m.Name)
	return (strings.Repeat("0", 32) + digits)[len(digits):]
}

// RedisConfig is the configuration of Redis, which keeps what it has acknowledged in the folder data, also when it is
// killed.
func (c Cluster) RedisConfig(password, data string) []byte {
	return fill("redis.conf", values{Cluster: c, Password: password, Data: data})
}

// KwokConfig is the configuration of kwok, and the lives of the nodes and pods that it plays. Its templates are kwok's own.
//
//go:embed kwok.yaml
var KwokConfig []byte
