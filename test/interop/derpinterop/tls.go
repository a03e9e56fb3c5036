package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
	"tailscale.com/derp"
	"tailscale.com/derp/derpconst"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// checkDERPMap lets two clients that know the relay from a DERP map, as nodes do, exchange packets over TLS.
func checkDERPMap(r *relay) error {
	region, err := r.region()
	if err != nil {
		return err
	}
	return exchangeInRegion(r, region)
}

// checkPrintedMap does the same with the map that the relay printed, read as the control servers read it.
func checkPrintedMap(r *relay) error {
	text, err := os.ReadFile(r.mapFile)
	if err != nil {
		return err
	}
	var policy struct{ DERPMap tailcfg.DERPMap }
	if strings.HasSuffix(r.mapFile, ".yaml") {
		err = yaml.Unmarshal(text, &policy.DERPMap)
	} else {
		err = json.Unmarshal(text, &policy)
	}
	if err != nil {
		return err
	}
	if n := len(policy.DERPMap.Regions); n != 1 {
		return fmt.Errorf("the map has %d regions, want 1", n)
	}
	for id, region := range policy.DERPMap.Regions {
		if region.RegionID != id || len(region.Nodes) != 1 || region.Nodes[0].RegionID != id {
			return fmt.Errorf("region %d: %+v", id, region)
		}
		if port := region.Nodes[0].STUNPort; port != -1 {
			return fmt.Errorf("STUNPort is %d, where nothing answers", port)
		}
		return exchangeInRegion(r, region)
	}
	return nil
}

// exchangeInRegion lets two clients exchange packets through the region's relay.
func exchangeInRegion(r *relay, region *tailcfg.DERPRegion) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	from, err := dialRegion(ctx, r.identity(0), region)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := dialRegion(ctx, r.identity(1), region)
	if err != nil {
		return err
	}
	defer to.Close()
	if err := expectMetaCertificate(from); err != nil {
		return err
	}
	for _, size := range []int{0, 1, 1280, 16384, derp.MaxPacketSize} {
		for _, pair := range [][2]*derphttp.Client{{from, to}, {to, from}} {
			if err := exchangeOverTLS(ctx, pair[0], pair[1], size); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
	}
	return nil
}

// region is a DERP map's region with the relay in it.
func (r *relay) region() (*tailcfg.DERPRegion, error) {
	address, portText, err := net.SplitHostPort(r.host)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	node := &tailcfg.DERPNode{Name: "900a", RegionID: 900, HostName: r.hostName, CertName: r.certName, IPv4: address, IPv6: "none",
		DERPPort: port, STUNPort: -1}
	return &tailcfg.DERPRegion{RegionID: 900, RegionCode: "interop", Nodes: []*tailcfg.DERPNode{node}}, nil
}

// dialRegion connects and waits until the relay knows the client.
func dialRegion(ctx context.Context, private key.NodePrivate, region *tailcfg.DERPRegion) (*derphttp.Client, error) {
	c := derphttp.NewRegionClient(private, func(string, ...any) {}, netmon.NewStatic(), func() *tailcfg.DERPRegion { return region })
	if err := c.Connect(ctx); err != nil {
		c.Close()
		return nil, err
	}
	if _, err := receive[derp.ServerInfoMessage](ctx, c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// expectMetaCertificate checks that the chain tells the relay's key, which saves the client a round trip.
func expectMetaCertificate(c *derphttp.Client) error {
	state, ok := c.TLSConnectionState()
	if !ok {
		return errors.New("no TLS state")
	}
	if state.Version != tls.VersionTLS13 {
		return fmt.Errorf("spoke %s", tls.VersionName(state.Version))
	}
	for _, certificate := range state.PeerCertificates {
		hex, ok := strings.CutPrefix(certificate.Subject.CommonName, derpconst.MetaCertCommonNamePrefix)
		if !ok {
			continue
		}
		if want := c.ServerPublicKey().UntypedHexString(); hex != want {
			return fmt.Errorf("the meta certificate has the key %s, want %s", hex, want)
		}
		if serial := certificate.SerialNumber.Int64(); serial != derp.ProtocolVersion {
			return fmt.Errorf("the meta certificate has the version %d, want %d", serial, derp.ProtocolVersion)
		}
		return nil
	}
	return errors.New("no meta certificate in the chain")
}

func exchangeOverTLS(ctx context.Context, from, to *derphttp.Client, size int) error {
	data := bytes.Repeat([]byte{byte(size), byte(size >> 8), 0xa5}, size/3+1)[:size]
	if err := from.Send(to.SelfPublicKey(), data); err != nil {
		return err
	}
	got, err := receive[derp.ReceivedPacket](ctx, to)
	if err != nil {
		return err
	}
	if got.Source != from.SelfPublicKey() || !bytes.Equal(got.Data, data) {
		return fmt.Errorf("got %d other bytes from %v", len(got.Data), got.Source)
	}
	return nil
}

// receive waits for one message of type T and passes over others.
func receive[T derp.ReceivedMessage](ctx context.Context, c *derphttp.Client) (T, error) {
	var zero T
	deadline, _ := ctx.Deadline()
	late := time.AfterFunc(time.Until(deadline), func() { c.Close() })
	defer late.Stop()
	for {
		m, err := c.Recv()
		if err != nil {
			return zero, fmt.Errorf("waiting for %T: %w", zero, err)
		}
		if m, ok := m.(T); ok {
			return m, nil
		}
	}
}
