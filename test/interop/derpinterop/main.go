// Command derpinterop drives a DERP relay with Tailscale's own client library and says what it saw.
//
//	derpinterop -url http://127.0.0.1:3340/derp [-others URL,...] [-mesh-key HEX] [-keys PRIVKEY,...]
//		[-host-name NAME] [-cert-name NAME] [-derp-map FILE] [-stun IP:PORT,...] CHECK
//	derpinterop -listen 127.0.0.1:0 [-mesh-key HEX] [-keys PRIVKEY] relay
//
// It prints one JSON object a line, {"check": ..., "ok": ..., "detail": ...}, and exits with 1 when one of them is not ok.
// Whom to trust for an https URL SSL_CERT_FILE may say. As a relay it obeys stdin, see serveRelay.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"sort"
	"strings"
	"time"

	"go4.org/mem"
	"tailscale.com/types/key"
)

// relay is what every check knows about the relay under test.
type relay struct {
	url     string
	host    string
	secure  bool // the URL is https
	meshKey key.DERPMesh
	// others are the hosts of the region's other relays.
	others []string
	// hostName and certName are the relay's in a DERP map.
	hostName, certName string
	// mapFile holds a DERP map as the relay printed it.
	mapFile string
	// stun is a comma list of IP:PORT of STUN servers.
	stun string
	// keys are identities to use in this order, so that the caller decides where they live; random ones follow.
	keys []key.NodePrivate
}

// patience bounds every single wait of a check.
const patience = 20 * time.Second

var checks = map[string]func(*relay) error{
	"handshake":   checkHandshake,
	"sizes":       checkSizes,
	"order":       checkOrder,
	"ping":        checkPing,
	"many":        checkMany,
	"toobig":      checkTooBig,
	"duplicate":   checkDuplicate,
	"peergone":    checkPeerGone,
	"forward":     checkForward,
	"forbidden":   checkForwardForbidden,
	"keepalive":   checkKeepAlive,
	"http":        checkHTTPClient,
	"websocket":   checkWebSocket,
	"disconnect":  checkDisconnect,
	"region":      checkRegion,
	"regionsizes": checkRegionSizes,
	"derpmap":     checkDERPMap,
	"printedmap":  checkPrintedMap,
	"netcheck":    checkNetcheck,
	"stun":        checkSTUN,
}

func main() {
	var r relay
	var meshKey, keys, others, listen string
	flag.StringVar(&r.url, "url", "", "URL of the relay's /derp")
	flag.StringVar(&meshKey, "mesh-key", "", "the relay's mesh key, 64 hexadecimal characters")
	flag.StringVar(&keys, "keys", "", "comma list of privkey:HEX identities to use first")
	flag.StringVar(&others, "others", "", "comma list of the URLs of the region's other relays")
	flag.StringVar(&r.hostName, "host-name", "", "HostName of the relay in a DERP map")
	flag.StringVar(&r.certName, "cert-name", "", "CertName of the relay in a DERP map: a name, or sha256-raw: and hexadecimal digits")
	flag.StringVar(&r.mapFile, "derp-map", "", "file with the DERP map that the relay printed: .json for Tailscale, .yaml for headscale")
	flag.StringVar(&r.stun, "stun", "", "comma list of IP:PORT of STUN servers")
	flag.StringVar(&listen, "listen", "127.0.0.1:0", "where the relay listens")
	flag.Parse()
	if flag.Arg(0) == "relay" {
		if err := r.configureKeys(meshKey, keys); err != nil {
			fatal(err)
		}
		if err := serveRelay(listen, r.identity(0), r.meshKey); err != nil {
			fatal(err)
		}
		return
	}
	check, known := checks[flag.Arg(0)]
	if !known {
		fatal(fmt.Errorf("unknown check %q; there are: %s", flag.Arg(0), strings.Join(checkNames(), " ")))
	}
	if err := r.configure(meshKey, keys, others); err != nil {
		fatal(err)
	}
	if err := check(&r); err != nil {
		report(flag.Arg(0), false, err.Error())
		os.Exit(1)
	}
	report(flag.Arg(0), true, "")
}

func (r *relay) configure(meshKey, keys, others string) (err error) {
	if r.host, err = hostOf("-url", r.url); err != nil {
		return err
	}
	r.secure = strings.HasPrefix(r.url, "https:")
	if others != "" {
		for text := range strings.SplitSeq(others, ",") {
			host, err := hostOf("-others", text)
			if err != nil {
				return err
			}
			r.others = append(r.others, host)
		}
	}
	return r.configureKeys(meshKey, keys)
}

func hostOf(flagName, text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", err
	}
	if u.Host == "" {
		return "", errors.New(flagName + ": needs http://HOST:PORT/derp")
	}
	return u.Host, nil
}

func (r *relay) configureKeys(meshKey, keys string) (err error) {
	if meshKey != "" {
		if r.meshKey, err = key.ParseDERPMesh(meshKey); err != nil {
			return fmt.Errorf("-mesh-key: %w", err)
		}
	}
	for text := range strings.SplitSeq(keys, ",") {
		hex, ok := strings.CutPrefix(text, "privkey:")
		if !ok {
			continue
		}
		k, err := key.ParseNodePrivateUntyped(mem.S(hex))
		if err != nil {
			return fmt.Errorf("-keys: %w", err)
		}
		r.keys = append(r.keys, k)
	}
	return nil
}

// identity returns the i-th key.
func (r *relay) identity(i int) key.NodePrivate {
	for len(r.keys) <= i {
		r.keys = append(r.keys, key.NewNode())
	}
	return r.keys[i]
}

func checkNames() []string {
	names := make([]string, 0, len(checks))
	for name := range checks {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func report(check string, ok bool, detail string) {
	line, err := json.Marshal(map[string]any{"check": check, "ok": ok, "detail": detail})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(line))
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "derpinterop:", err)
	os.Exit(2)
}
