package main

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"tailscale.com/net/stun"
)

// checkSTUN asks each STUN server at -stun as Tailscale's clients do: the answer comes from the address that was asked,
// and tells the address that the request came from.
func checkSTUN(r *relay) error {
	servers, err := r.stunServers()
	if err != nil {
		return err
	}
	for _, server := range servers {
		if err := askSTUN(server); err != nil {
			return fmt.Errorf("%v: %w", server, err)
		}
	}
	return nil
}

func askSTUN(server netip.AddrPort) error {
	conn, err := net.ListenUDP("udp", nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	transaction := stun.NewTxID()
	if _, err := conn.WriteToUDPAddrPort(stun.Request(transaction), server); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	n, from, err := conn.ReadFromUDPAddrPort(buffer)
	if err != nil {
		return err
	}
	if got := netip.AddrPortFrom(from.Addr().Unmap(), from.Port()); got != server {
		return fmt.Errorf("answered by %v", got)
	}
	answered, told, err := stun.ParseResponse(buffer[:n])
	if err != nil {
		return err
	}
	if answered != transaction {
		return fmt.Errorf("answer to transaction %v, want %v", answered, transaction)
	}
	source, err := sourceTo(server)
	if err != nil {
		return err
	}
	want := netip.AddrPortFrom(source, conn.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	if told != want {
		return fmt.Errorf("told %v, want %v", told, want)
	}
	return nil
}

// sourceTo is the address that the kernel sends from to a server.
func sourceTo(server netip.AddrPort) (netip.Addr, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
