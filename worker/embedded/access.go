package embedded

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"math/big"
	"time"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
)

// bearer lets in who shows the token, to everything. Loopback is no border: every user of the machine can reach it.
type bearer string

func (b bearer) GetClaims(info *authorization.AuthInfo) (*authorization.Claims, error) {
	if subtle.ConstantTimeCompare([]byte(info.AuthToken), []byte("Bearer "+string(b))) != 1 {
		return nil, errors.New("the token is not this home's")
	}
	return &authorization.Claims{System: authorization.RoleAdmin, Subject: "groundplan", AuthType: "token"}, nil
}

const internalName = "groundplan-internal"

// internalTLS makes the services among themselves speak TLS with a certificate that only this process has and that both
// sides must show: their ports on loopback are closed to everybody else.
func internalTLS() (config.GroupTLS, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return config.GroupTLS{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: internalName},
		DNSNames:              []string{internalName},
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              time.Now().AddDate(10, 0, 0), // it lives as long as the process
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return config.GroupTLS{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return config.GroupTLS{}, err
	}
	cert, secret := encoded("CERTIFICATE", certificate), encoded("PRIVATE KEY", private)
	return config.GroupTLS{
		Server: config.ServerTLS{CertData: cert, KeyData: secret, ClientCAData: []string{cert}, RequireClientAuth: true},
		Client: config.ClientTLS{ServerName: internalName, RootCAData: []string{cert}},
	}, nil
}

func encoded(kind string, der []byte) string {
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
