// Package pki makes the certificates and keys of a development cluster: elliptic curves, so that all of them take a
// moment.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"time"
)

// validity is how long certificates are good for. A cluster is not meant to live that long.
const validity = 365 * 24 * time.Hour

// Subject is whom a certificate is for: a user of the API by name and groups, a server by its names and addresses.
type Subject struct {
	Name      string
	Groups    []string
	Hosts     []string
	Addresses []netip.Addr
}

// Folder is a folder of certificates and keys in PEM.
type Folder string

// Authority signs certificates.
type Authority struct {
	folder      Folder
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Authority makes an authority: its certificate is <name>.crt, its key <name>.key.
func (f Folder) Authority(name string) (*Authority, error) {
	template, err := f.template(Subject{Name: name})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	key, err := f.key(name)
	if err != nil {
		return nil, err
	}
	a := &Authority{folder: f, certificate: template, key: key}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate of %s: %w", name, err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("reading the certificate of %s back: %w", name, err)
	}
	return a, f.write(name+".crt", "CERTIFICATE", der, 0o644)
}

// Issue makes a certificate, <file>.crt, with its key, <file>.key. It serves clients and servers.
func (a *Authority) Issue(file string, s Subject) error {
	template, err := a.folder.template(s)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	template.DNSNames = s.Hosts
	for _, address := range s.Addresses {
		template.IPAddresses = append(template.IPAddresses, address.AsSlice())
	}
	key, err := a.folder.key(file)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return fmt.Errorf("signing the certificate of %s: %w", s.Name, err)
	}
	return a.folder.write(file+".crt", "CERTIFICATE", der, 0o644)
}

// KeyPair makes a key, <file>.key, with its public half, <file>.pub.
func (f Folder) KeyPair(file string) error {
	key, err := f.key(file)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return fmt.Errorf("writing the public key %s: %w", file, err)
	}
	return f.write(file+".pub", "PUBLIC KEY", der, 0o644)
}

// Kubeconfig makes <user>.kubeconfig, which leads that user to the API server at a URL and holds all it needs, so that it
// can be carried elsewhere.
func (f Folder) Kubeconfig(user, cluster, url, authority string) error {
	held := map[string]string{}
	for _, file := range []string{authority + ".crt", user + ".crt", user + ".key"} {
		content, err := os.ReadFile(filepath.Join(string(f), file))
		if err != nil {
			return fmt.Errorf("writing the kubeconfig of %s: %w", user, err)
		}
		held[file] = base64.StdEncoding.EncodeToString(content)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters:
- name: %[1]s
  cluster:
    server: %[2]s
    certificate-authority-data: %[3]s
users:
- name: %[4]s
  user:
    client-certificate-data: %[5]s
    client-key-data: %[6]s
contexts:
- name: %[1]s
  context:
    cluster: %[1]s
    user: %[4]s
`, cluster, url, held[authority+".crt"], user, held[user+".crt"], held[user+".key"])
	return os.WriteFile(filepath.Join(string(f), user+".kubeconfig"), []byte(text), 0o600)
}

func (f Folder) template(s Subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("drawing a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.Name, Organization: s.Groups},
		NotBefore:    now.Add(-time.Hour), // a clock may be set back
		NotAfter:     now.Add(validity),
	}, nil
}

func (f Folder) key(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key %s: %w", file, err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing the key %s: %w", file, err)
	}
	return key, f.write(file+".key", "EC PRIVATE KEY", der, 0o600)
}

func (f Folder) write(file, kind string, der []byte, mode os.FileMode) error {
	block := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(string(f), file), block, mode); err != nil {
		return fmt.Errorf("writing %s: %w", file, err)
	}
	return nil
}
