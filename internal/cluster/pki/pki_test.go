package pki

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// made is a folder with an authority, a server and a client.
func made(t *testing.T) Folder {
	f := Folder(t.TempDir())
	a, err := f.Authority("ca")
	if err != nil {
		t.Fatal(err)
	}
	server := Subject{Name: "server", Hosts: []string{"api"}, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
	client := Subject{Name: "someone", Groups: []string{"system:masters"}}
	for file, subject := range map[string]Subject{"server": server, "client": client} {
		if err := a.Issue(file, subject); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f Folder) pair(t *testing.T, name string) tls.Certificate {
	pair, err := tls.LoadX509KeyPair(filepath.Join(string(f), name+".crt"), filepath.Join(string(f), name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func (f Folder) read(t *testing.T, name string) []byte {
	content, err := os.ReadFile(filepath.Join(string(f), name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func (f Folder) pool(t *testing.T, authority string) *x509.CertPool {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(f.read(t, authority+".crt")) {
		t.Fatal("the authority has no certificate")
	}
	return pool
}

// TestHandshake has a client and a server meet: each must know the other by the authority.
func TestHandshake(t *testing.T) {
	f := made(t)
	other := Folder(t.TempDir())
	if _, err := other.Authority("ca"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, asked string
		trusted     *x509.CertPool
		good        bool
	}{
		{"by address", "127.0.0.1", f.pool(t, "ca"), true},
		{"by name", "api", f.pool(t, "ca"), true},
		{"another name", "elsewhere", f.pool(t, "ca"), false},
		{"another authority", "api", other.pool(t, "ca"), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{f.pair(t, "server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: f.pool(t, "ca")})
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			served := make(chan *tls.Conn, 1)
			go func() {
				connection, err := listener.Accept()
				if err == nil {
					_ = connection.(*tls.Conn).Handshake() // its state says how that went
					served <- connection.(*tls.Conn)
				}
			}()
			client, err := tls.Dial("tcp", listener.Addr().String(), &tls.Config{Certificates: []tls.Certificate{f.pair(t, "client")}, RootCAs: test.trusted, ServerName: test.asked})
			server := <-served
			defer server.Close()
			if (err == nil) != test.good {
				t.Fatalf("the client says %v", err)
			}
			if !test.good {
				return
			}
			defer client.Close()
			if !server.ConnectionState().HandshakeComplete {
				t.Fatal("the server doesn't take the client")
			}
			subject := server.ConnectionState().PeerCertificates[0].Subject
			if subject.CommonName != "someone" || !slices.Equal(subject.Organization, []string{"system:masters"}) {
				t.Errorf("the server sees %v", subject)
			}
		})
	}
}

func TestKeysAreTheOwnersOnly(t *testing.T) {
	f := made(t)
	if err := f.KeyPair("accounts"); err != nil {
		t.Fatal(err)
	}
	keys, err := filepath.Glob(filepath.Join(string(f), "*.key"))
	if err != nil || len(keys) != 4 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		info, err := os.Stat(key)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has the mode %v", key, info.Mode())
		}
	}
}

func TestKeyPair(t *testing.T) {
	f := Folder(t.TempDir())
	if err := f.KeyPair("accounts"); err != nil {
		t.Fatal(err)
	}
	private, _ := pem.Decode(f.read(t, "accounts.key"))
	public, _ := pem.Decode(f.read(t, "accounts.pub"))
	key, err := x509.ParseECPrivateKey(private.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	half, err := x509.ParsePKIXPublicKey(public.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !key.PublicKey.Equal(half.(*ecdsa.PublicKey)) {
		t.Error("the two halves don't belong together")
	}
}

func TestKubeconfig(t *testing.T) {
	f := made(t)
	if err := f.Kubeconfig("client", "groundplan-x", "https://172.20.255.2", "ca"); err != nil {
		t.Fatal(err)
	}
	var config struct {
		CurrentContext string `yaml:"current-context"`
		Clusters       []struct {
			Cluster map[string]string
		}
		Users    []struct{ User map[string]string }
		Contexts []struct {
			Name    string
			Context map[string]string
		}
	}
	if err := yaml.Unmarshal(f.read(t, "client.kubeconfig"), &config); err != nil {
		t.Fatal(err)
	}
	if config.CurrentContext != "groundplan-x" || config.Contexts[0].Name != "groundplan-x" || config.Contexts[0].Context["user"] != "client" {
		t.Errorf("the context is wrong: %+v", config)
	}
	if config.Clusters[0].Cluster["server"] != "https://172.20.255.2" {
		t.Errorf("it leads to %v", config.Clusters[0].Cluster)
	}
	for file, got := range map[string]string{
		"ca.crt":     config.Clusters[0].Cluster["certificate-authority-data"],
		"client.crt": config.Users[0].User["client-certificate-data"],
		"client.key": config.Users[0].User["client-key-data"],
	} {
		if want := base64.StdEncoding.EncodeToString(f.read(t, file)); got != want {
			t.Errorf("%s is not what it holds", file)
		}
	}
	if err := f.Kubeconfig("nobody", "x", "https://x", "ca"); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("a user without a certificate: %v", err)
	}
}
