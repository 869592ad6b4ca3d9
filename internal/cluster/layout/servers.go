package layout

import (
	"fmt"
	"path/filepath"
)

// Names of the servers. A node's are prefixed with the node's name: node-1.kubelet.
const (
	Etcd       = "etcd"
	APIServer  = "apiserver"
	Controller = "controller-manager"
	Scheduler  = "scheduler"
	Registry   = "registry"
	Redis      = "redis"
	Kwok       = "kwok"
	Kubelet    = "kubelet"
	Containerd = "containerd"
)

// On is the name of a server of a node.
func (m Machine) On(server string) string { return m.Name + "." + server }

// Server is how one server is started.
type Server struct {
	Name string `json:"name"`
	// Machine is the name of the machine that it runs on.
	Machine string `json:"machine"`
	// Command is the program and its arguments.
	Command []string `json:"command"`
}

// Places are the folders that servers find things in.
type Places struct {
	// Kubernetes, EtcdBuild and KwokBuild hold the programs built from the modules of these names.
	Kubernetes, EtcdBuild, KwokBuild string
	// Program is this program: it serves the registry.
	Program string
	// Keys, Configs and Data hold certificates, configurations, and what servers keep.
	Keys, Configs, Data string
}

func (p Places) kubeconfig(user string) string {
	return filepath.Join(p.Keys, user+".kubeconfig")
}

// ControlPlaneServers are the servers of the control plane, in the order in which they are started: those that wait for
// nobody, then those that need the API server.
func (c Cluster) ControlPlaneServers(p Places) (first, second []Server) {
	on := func(name string, command ...string) Server {
		return Server{Name: name, Machine: c.Control().Name, Command: command}
	}
	first = []Server{
		on(Etcd, p.etcd()...),
		on(APIServer, c.apiServer(p)...),
		on(Registry, p.Program, "registry", "--listen", c.Registry().String(), "--folder", filepath.Join(p.Data, Registry)),
	}
	if c.Nodes > 0 {
		first = append(first, on(Redis, "/usr/bin/redis-server", filepath.Join(p.Configs, "redis.conf")))
	}
	second = []Server{
		on(Controller, p.client("kube-controller-manager", "controller-manager",
			"--use-service-account-credentials=true",
			"--service-account-private-key-file="+filepath.Join(p.Keys, "service-accounts.key"),
			"--root-ca-file="+filepath.Join(p.Keys, "ca.crt"),
			"--cluster-signing-cert-file="+filepath.Join(p.Keys, "ca.crt"),
			"--cluster-signing-key-file="+filepath.Join(p.Keys, "ca.key"),
			"--kube-api-qps=500", "--kube-api-burst=500")...),
		on(Scheduler, p.client("kube-scheduler", "scheduler", "--kube-api-qps=1000", "--kube-api-burst=1000")...),
	}
	if c.Fake > 0 {
		second = append(second, on(Kwok, filepath.Join(p.KwokBuild, "kwok"),
			"--kubeconfig="+p.kubeconfig("admin"),
			"--config="+filepath.Join(p.Configs, "kwok.yaml"),
			"--v=WARN", // or it says each pod
			"--node-ip="+c.ControlPlane().Addr().String()))
	}
	return first, second
}

// client is the command of a controller: one of its kind runs, so it needs to lead nobody.
func (p Places) client(program, user string, more ...string) []string {
	kubeconfig := p.kubeconfig(user)
	return append([]string{
		filepath.Join(p.Kubernetes, program),
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
	}, more...)
}

func (p Places) etcd() []string {
	return []string{
		filepath.Join(p.EtcdBuild, "etcd"),
		"--data-dir=" + filepath.Join(p.Data, Etcd),
		"--listen-client-urls=http://127.0.0.1:2379",
		"--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--quota-backend-bytes=4294967296",
		"--unsafe-no-fsync", // what a machine's crash would cost is a cluster that takes a minute to make
		"--log-level=warn",
	}
}

func (c Cluster) apiServer(p Places) []string {
	key := func(name string) string { return filepath.Join(p.Keys, name) }
	return []string{
		filepath.Join(p.Kubernetes, "kube-apiserver"),
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0",
		"--advertise-address=" + c.ControlPlane().Addr().String(),
		// The Service `kubernetes` has port 443 and an address that this machine has itself.
		"--secure-port=443",
		"--service-cluster-ip-range=" + c.Services().String(),
		"--client-ca-file=" + key("ca.crt"),
		"--tls-cert-file=" + key("apiserver.crt"),
		"--tls-private-key-file=" + key("apiserver.key"),
		"--kubelet-client-certificate=" + key("kubelet-client.crt"),
		"--kubelet-client-key=" + key("kubelet-client.key"),
		"--kubelet-certificate-authority=" + key("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		// Controllers complain when nothing stands in front of extensions, though there are none.
		"--requestheader-client-ca-file=" + key("front-proxy-ca.crt"),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + key("service-accounts.pub"),
		"--service-account-signing-key-file=" + key("service-accounts.key"),
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--allow-privileged=true",
		"--anonymous-auth=false",
		"--profiling=false",
		"--event-ttl=1h",
		"--max-requests-inflight=1600",
		"--max-mutating-requests-inflight=800",
	}
}

// NodeServers are the servers of a node, in the order in which they are started.
func (c Cluster) NodeServers(m Machine, p Places) []Server {
	return []Server{
		{Name: m.On(Containerd), Machine: m.Name, Command: []string{"/usr/bin/containerd", "--config", "/etc/containerd/config.toml"}},
		{Name: m.On(Kubelet), Machine: m.Name, Command: []string{
			filepath.Join(p.Kubernetes, "kubelet"),
			"--config=/etc/kubernetes/kubelet.yaml",
			"--kubeconfig=" + p.kubeconfig(m.Name),
			"--hostname-override=" + m.Name,
			"--node-ip=" + m.Address.Addr().String(),
			"--node-labels=topology.kubernetes.io/region=development,topology.kubernetes.io/zone=" + m.Name,
		}},
	}
}

// FakeNode is the name of the fake node of that index.
func FakeNode(index int) string { return fmt.Sprintf("fake-%d", index) }
