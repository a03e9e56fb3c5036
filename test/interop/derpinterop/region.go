package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// serveRelay runs Tailscale's own relay over plain HTTP until stdin ends. Its first line on stdout is {"url": ..., "publicKey": ...};
// then it obeys lines on stdin, each answered by one line:
//
//	mesh URL  keep a link to the relay at URL, as cmd/derper does for -mesh-with: "ok"
//	check     the relay's own consistency check: "ok" or what is wrong
//	vars      the relay's figures as JSON
func serveRelay(listen string, private key.NodePrivate, meshKey key.DERPMesh) error {
	s := derpserver.New(private, log.Printf)
	if !meshKey.IsZero() {
		if err := s.SetMeshKey(meshKey.String()); err != nil {
			return err
		}
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("/derp", derpserver.Handler(s))
	go http.Serve(ln, mux)
	hello, err := json.Marshal(map[string]string{
		"url":       "http://" + ln.Addr().String() + "/derp",
		"publicKey": s.PublicKey().String(),
	})
	if err != nil {
		return err
	}
	fmt.Println(string(hello))
	commands := bufio.NewScanner(os.Stdin)
	for commands.Scan() {
		fmt.Println(obey(s, commands.Text()))
	}
	return commands.Err()
}

func obey(s *derpserver.Server, command string) string {
	verb, argument, _ := strings.Cut(command, " ")
	var err error
	switch verb {
	case "mesh":
		err = keepLink(s, argument)
	case "check":
		err = s.ConsistencyCheck()
	case "vars":
		return s.ExpVar(false).String()
	default:
		err = fmt.Errorf("unknown command %q", verb)
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// keepLink makes the relay a mesh client of another one.
func keepLink(s *derpserver.Server, url string) error {
	c, err := derphttp.NewClient(s.PrivateKey(), url, log.Printf, netmon.NewStatic())
	if err != nil {
		return err
	}
	c.MeshKey = s.MeshKey()
	c.WatchConnectionChanges = true
	add := func(m derp.PeerPresentMessage) { s.AddPacketForwarder(m.Key, c) }
	remove := func(m derp.PeerGoneMessage) { s.RemovePacketForwarder(m.Peer, c) }
	go c.RunWatchConnectionLoop(context.Background(), s.PublicKey(), log.Printf, add, remove, func(error) {})
	return nil
}

// checkRegion puts one client on the relay and one on each of the others, and lets each send to each.
func checkRegion(r *relay) error {
	peers, err := r.oneEach()
	if err != nil {
		return err
	}
	defer hangUp(peers)
	err = eachPair(peers, func(from, to *peer) error { return stream(from, to, 2000) })
	if err != nil {
		return err
	}
	// Everybody has received from the last one, so everybody hears that it left the region.
	last := peers[len(peers)-1]
	last.conn.Close()
	for i, p := range peers[:len(peers)-1] {
		gone, err := next[derp.PeerGoneMessage](p)
		if err != nil {
			return fmt.Errorf("relay %d: %w", i, err)
		}
		if gone.Peer != last.PublicKey() || gone.Reason != derp.PeerGoneReasonDisconnected {
			return fmt.Errorf("relay %d: PeerGone %v reason %d", i, gone.Peer, gone.Reason)
		}
	}
	return nil
}

// checkRegionSizes exchanges packets of every size between relays.
func checkRegionSizes(r *relay) error {
	peers, err := r.oneEach()
	if err != nil {
		return err
	}
	defer hangUp(peers)
	return eachPair(peers, func(from, to *peer) error {
		for _, size := range []int{0, 1, 1280, 16384, 65535, 65536} {
			if err := exchange(from, to, make([]byte, size)); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
		return nil
	})
}

// eachPair lets every peer meet every other one, and then do something with it.
func eachPair(peers []*peer, do func(from, to *peer) error) error {
	for i, from := range peers {
		for j, to := range peers {
			if i == j {
				continue
			}
			if err := meet(from, to); err != nil {
				return fmt.Errorf("from relay %d to %d: %w", i, j, err)
			}
			if err := do(from, to); err != nil {
				return fmt.Errorf("from relay %d to %d: %w", i, j, err)
			}
		}
	}
	return nil
}

// oneEach connects one client to the relay and one to each of the others.
func (r *relay) oneEach() ([]*peer, error) {
	if len(r.others) == 0 {
		return nil, errors.New("-others: needs the URLs of the region's other relays")
	}
	var peers []*peer
	for i, host := range append([]string{r.host}, r.others...) {
		at := relay{host: host}
		p, err := at.dial(r.identity(i), dialOption{})
		if err != nil {
			hangUp(peers)
			return nil, fmt.Errorf("relay %d: %w", i, err)
		}
		peers = append(peers, p)
	}
	return peers, nil
}

// meet sends until a packet arrives, since the sender's relay learns of the receiver in its own time, and takes what was sent too often.
func meet(from, to *peer) error {
	deadline := time.After(patience)
	for met := false; !met; {
		if err := from.Send(to.PublicKey(), []byte("probe")); err != nil {
			return err
		}
		select {
		case m := <-to.inbox:
			p, ok := m.(derp.ReceivedPacket)
			met = ok && p.Source == from.PublicKey()
		case <-to.ended:
			return fmt.Errorf("connection ended: %w", to.err)
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			return errors.New("no packet arrived")
		}
	}
	if err := from.Send(to.PublicKey(), []byte("last probe")); err != nil {
		return err
	}
	for {
		p, err := next[derp.ReceivedPacket](to)
		if err != nil {
			return err
		}
		if string(p.Data) == "last probe" {
			return nil
		}
	}
}
