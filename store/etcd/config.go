package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// Config says where etcd is and how to be let in.
type Config struct {
	// Endpoints are URLs: http://HOST:PORT, https://HOST:PORT, unix:///PATH or
	// unixs:///PATH (TLS on a Unix socket). Either all use TLS or none.
	Endpoints []string

	CAFile   string // PEM; empty: the system's authorities
	CertFile string // PEM, the client's own; read again for each connection
	KeyFile  string // PEM

	Username string
	Password string

	// DialTimeout bounds Open; default 10 s.
	DialTimeout time.Duration
	// Lazy makes Open return without an answer from etcd: what waits for one later fails
	// with ErrUnavailable until etcd is there. A node starts so, to keep what stands.
	Lazy bool
	// RequestTimeout bounds every Get, Commit and page of a List; default 10 s.
	RequestTimeout time.Duration
}

// DefaultEndpoint is where etcd listens on its own machine.
const DefaultEndpoint = "http://127.0.0.1:2379"

// Defaults returns c with what is not set filled in.
func (c Config) Defaults() Config {
	if len(c.Endpoints) == 0 {
		c.Endpoints = []string{DefaultEndpoint}
	}
	if c.DialTimeout == 0 {
		c.DialTimeout = 10 * time.Second
	}
	if c.RequestTimeout == 0 {
		c.RequestTimeout = 10 * time.Second
	}
	return c
}

// Validate says what is wrong with c; it reads no files.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 {
		return errors.New("etcd: no endpoints; set ETCD_ENDPOINTS, for example to " + DefaultEndpoint)
	}
	secure := 0
	for _, e := range c.Endpoints {
		ep, err := parseEndpoint(e)
		if err != nil {
			return err
		}
		if ep.tls {
			secure++
		}
	}
	files := c.CAFile != "" || c.CertFile != "" || c.KeyFile != ""
	switch {
	case secure != 0 && secure != len(c.Endpoints):
		return fmt.Errorf("etcd: some of the endpoints %s use TLS and some do not", strings.Join(c.Endpoints, ","))
	case secure == 0 && files:
		return fmt.Errorf("etcd: certificates are given, but the endpoint %s would not use them; write https:// (or unixs://)", c.Endpoints[0])
	case (c.CertFile == "") != (c.KeyFile == ""):
		return errors.New("etcd: ETCD_CERT_FILE and ETCD_KEY_FILE go together; only one is given")
	case (c.Username == "") != (c.Password == ""):
		return errors.New("etcd: ETCD_USERNAME and ETCD_PASSWORD go together; only one is given")
	case c.DialTimeout < 0 || c.RequestTimeout < 0:
		return errors.New("etcd: timeouts must not be negative")
	}
	return nil
}

// FromEnviron reads ETCD_ENDPOINTS (separated by commas), ETCD_CA_CERT_FILE,
// ETCD_CERT_FILE, ETCD_KEY_FILE, ETCD_USERNAME and ETCD_PASSWORD from environ, which is
// as os.Environ has it, and fills in the defaults.
func FromEnviron(environ []string) (Config, error) {
	var c Config
	fields := map[string]*string{
		"ETCD_CA_CERT_FILE": &c.CAFile, "ETCD_CERT_FILE": &c.CertFile, "ETCD_KEY_FILE": &c.KeyFile,
		"ETCD_USERNAME": &c.Username, "ETCD_PASSWORD": &c.Password,
	}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		if f := fields[k]; f != nil {
			*f = v
		}
		if k != "ETCD_ENDPOINTS" {
			continue
		}
		c.Endpoints = nil // the last one counts
		for e := range strings.SplitSeq(v, ",") {
			if e = strings.TrimSpace(e); e != "" {
				c.Endpoints = append(c.Endpoints, e)
			}
		}
	}
	c = c.Defaults()
	return c, c.Validate()
}

// endpoint is an endpoint's URL, taken apart.
type endpoint struct {
	network string // tcp or unix
	address string // HOST:PORT or PATH
	host    string // as the server's certificate names it
	tls     bool
}

func parseEndpoint(s string) (endpoint, error) {
	bad := func(why string) (endpoint, error) {
		return endpoint{}, fmt.Errorf("etcd: endpoint %q: %s; want http://HOST:PORT, https://HOST:PORT, unix:///PATH or unixs:///PATH", s, why)
	}
	u, err := url.Parse(s)
	if err != nil {
		return bad("not a URL")
	}
	e := endpoint{network: "tcp", address: u.Host, host: u.Hostname(), tls: u.Scheme == "https" || u.Scheme == "unixs"}
	switch u.Scheme {
	case "http", "https":
		if u.Hostname() == "" || u.Port() == "" {
			return bad("the host or the port is missing")
		}
		if strings.Trim(u.Path, "/") != "" {
			return bad("it has a path")
		}
	case "unix", "unixs":
		e.network, e.address, e.host = "unix", u.Path, u.Path[strings.LastIndexByte(u.Path, '/')+1:]
		if u.Host != "" || e.host == "" {
			return bad("the path must be absolute")
		}
	default:
		return bad(fmt.Sprintf("unknown scheme %q", u.Scheme))
	}
	return e, nil
}

// tlsConfig reads the files of c; nil if the endpoints do not use TLS.
func (c Config) tlsConfig() (*tls.Config, error) {
	if e, err := parseEndpoint(c.Endpoints[0]); err != nil || !e.tls {
		return nil, err
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("etcd: the CA's certificate: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("etcd: %s holds no certificate in PEM form", c.CAFile)
		}
	}
	if c.CertFile == "" {
		return t, nil
	}
	load := func() (*tls.Certificate, error) {
		cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("etcd: the client's certificate %s and key %s: %w", c.CertFile, c.KeyFile, err)
		}
		return &cert, nil
	}
	t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	_, err := load()
	return t, err
}
