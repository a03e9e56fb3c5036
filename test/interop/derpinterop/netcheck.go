package main

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"tailscale.com/net/netcheck"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
)

// checkNetcheck lets the library behind `tailscale netcheck` ask the STUN servers at -stun, an IPv4 and an IPv6 address
// with one port: it must have heard of both.
func checkNetcheck(r *relay) error {
	node, err := r.stunNode()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	monitor := netmon.NewStatic()
	client := &netcheck.Client{NetMon: monitor, Logf: func(string, ...any) {}}
	if err := client.Standalone(ctx, ":0"); err != nil {
		return err
	}
	region := &tailcfg.DERPRegion{RegionID: 900, RegionCode: "interop", Nodes: []*tailcfg.DERPNode{node}}
	derpMap := &tailcfg.DERPMap{Regions: map[int]*tailcfg.DERPRegion{900: region}}
	report, err := client.GetReport(ctx, derpMap, nil)
	if err != nil {
		return err
	}
	if !report.UDP || !report.IPv4 || !report.IPv6 {
		return fmt.Errorf("UDP %v, IPv4 %v, IPv6 %v", report.UDP, report.IPv4, report.IPv6)
	}
	if len(report.RegionV4Latency) != 1 || len(report.RegionV6Latency) != 1 {
		return fmt.Errorf("latencies: IPv4 %v, IPv6 %v", report.RegionV4Latency, report.RegionV6Latency)
	}
	if !report.GlobalV4.IsValid() || !report.GlobalV6.IsValid() {
		return fmt.Errorf("addresses: IPv4 %v, IPv6 %v", report.GlobalV4, report.GlobalV6)
	}
	return nil
}

// stunNode is a DERP map's node that only serves STUN, at the addresses of -stun.
func (r *relay) stunNode() (*tailcfg.DERPNode, error) {
	node := &tailcfg.DERPNode{Name: "900a", RegionID: 900, HostName: "stun.test", STUNOnly: true}
	servers, err := r.stunServers()
	if err != nil {
		return nil, err
	}
	for _, server := range servers {
		node.STUNPort = int(server.Port())
		if server.Addr().Is4() {
			node.IPv4 = server.Addr().String()
		} else {
			node.IPv6 = server.Addr().String()
		}
	}
	return node, nil
}

// stunServers are the addresses of -stun.
func (r *relay) stunServers() (servers []netip.AddrPort, err error) {
	for _, text := range strings.Split(r.stun, ",") {
		server, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("-stun: %w", err)
		}
		servers = append(servers, server)
	}
	return servers, nil
}
