// mkpki writes the keys and certificates of a test cluster: new ones at each start, P-256, valid for a year.
//
//	mkpki DIR ca:NAME... key:NAME... 'cert|NAME|CA|CN|O|server or client|SAN,SAN'...
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func must[T any](value T, err error) T {
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkpki:", err)
		os.Exit(1)
	}
	return value
}

func write(path, kind string, der []byte, mode os.FileMode) {
	must(0, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode))
}

func main() {
	dir := os.Args[1]
	must(0, os.MkdirAll(dir, 0o700))
	authorities := map[string]authority{}
	newKey := func(name string) *ecdsa.PrivateKey {
		key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
		write(filepath.Join(dir, name+".key"), "EC PRIVATE KEY", must(x509.MarshalECPrivateKey(key)), 0o600)
		return key
	}
	template := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: must(rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))),
			Subject:      pkix.Name{CommonName: cn},
			NotBefore:    time.Now().Add(-time.Hour),
			NotAfter:     time.Now().AddDate(1, 0, 0),
			KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		}
	}
	for _, item := range os.Args[2:] {
		if name, ok := strings.CutPrefix(item, "ca:"); ok {
			key, t := newKey(name), template(name)
			t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			der := must(x509.CreateCertificate(rand.Reader, t, t, key.Public(), key))
			write(filepath.Join(dir, name+".crt"), "CERTIFICATE", der, 0o644)
			authorities[name] = authority{must(x509.ParseCertificate(der)), key}
			continue
		}
		if name, ok := strings.CutPrefix(item, "key:"); ok {
			write(filepath.Join(dir, name+".pub"), "PUBLIC KEY", must(x509.MarshalPKIXPublicKey(newKey(name).Public())), 0o644)
			continue
		}
		field := strings.Split(item, "|")
		if len(field) != 7 || field[0] != "cert" {
			must(0, fmt.Errorf("not understood: %q", item))
		}
		ca, ok := authorities[field[2]]
		if !ok {
			must(0, fmt.Errorf("no such authority: %q", field[2]))
		}
		key, t := newKey(field[1]), template(field[3])
		if field[4] != "" {
			t.Subject.Organization = []string{field[4]}
		}
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if field[5] == "server" {
			t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}
		for _, san := range strings.Split(field[6], ",") {
			if ip := net.ParseIP(san); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else if san != "" {
				t.DNSNames = append(t.DNSNames, san)
			}
		}
		der := must(x509.CreateCertificate(rand.Reader, t, ca.certificate, key.Public(), ca.key))
		write(filepath.Join(dir, field[1]+".crt"), "CERTIFICATE", der, 0o644)
	}
}
