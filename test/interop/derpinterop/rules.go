package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// disco is a packet that looks like Tailscale's discovery traffic: magic, sender key, nonce.
func disco() []byte {
	data := make([]byte, 6+32+24)
	copy(data, "TS\xf0\x9f\x92\xac")
	return data
}

func checkTooBig(r *relay) error {
	peers, err := r.dialAll(3)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	bad := peers[2]
	bw := bufio.NewWriter(bad.conn)
	body := peers[0].PublicKey().AppendTo(nil)
	body = append(body, make([]byte, derp.MaxPacketSize+1)...)
	// The relay may close before it has read everything, so a failing write is no error.
	if err := derp.WriteFrameHeader(bw, derp.FrameSendPacket, uint32(len(body))); err == nil {
		bw.Write(body)
		bw.Flush()
	}
	if err := bad.expectEnd(); err != nil {
		return err
	}
	return errors.Join(exchange(peers[0], peers[1], []byte("still here")), exchange(peers[1], peers[0], []byte("me too")))
}

func checkDuplicate(r *relay) error {
	sender, err := r.dial(r.identity(0), dialOption{})
	if err != nil {
		return err
	}
	older, err := r.dial(r.identity(1), dialOption{})
	if err != nil {
		return err
	}
	newer, err := r.dial(r.identity(1), dialOption{fastStart: true})
	if err != nil {
		return err
	}
	defer hangUp([]*peer{sender, older, newer})
	if err := exchange(sender, newer, []byte("to the newest")); err != nil {
		return fmt.Errorf("the newest connection is not active: %w", err)
	}
	if err := older.settle(); err != nil {
		return err
	}
	if err := exchange(sender, older, []byte("to the last writer")); err != nil {
		return fmt.Errorf("the last writer is not active: %w", err)
	}
	older.conn.Close()
	// How soon the relay notices the close is its own matter: repeat until the newer one gets a packet.
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		if err := sender.Send(newer.PublicKey(), []byte("to the one that is left")); err != nil {
			return err
		}
		select {
		case m := <-newer.inbox:
			if _, ok := m.(derp.ReceivedPacket); ok {
				return nil
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("the one that is left gets nothing")
}

func checkPeerGone(r *relay) error {
	p, err := r.dial(r.identity(0), dialOption{})
	if err != nil {
		return err
	}
	defer p.conn.Close()
	unknown := key.NewNode().Public()
	// Ordinary packets to nobody are dropped in silence.
	if err := errors.Join(p.Send(unknown, []byte("anybody?")), p.Send(unknown, disco())); err != nil {
		return err
	}
	gone, err := next[derp.PeerGoneMessage](p)
	if err != nil {
		return err
	}
	if gone.Peer != unknown || gone.Reason != derp.PeerGoneReasonNotHere {
		return fmt.Errorf("got %+v, want not-here for %v", gone, unknown)
	}
	if err := p.settle(); err != nil {
		return err
	}
	select {
	case m := <-p.inbox:
		return fmt.Errorf("unexpected %T %+v", m, m)
	default:
		return nil
	}
}

func checkDisconnect(r *relay) error {
	peers, err := r.dialAll(3)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	for _, q := range peers[1:] {
		if err := exchange(peers[0], q, []byte("remember me")); err != nil {
			return err
		}
	}
	peers[0].conn.Close()
	for _, q := range peers[1:] {
		gone, err := next[derp.PeerGoneMessage](q)
		if err != nil {
			return err
		}
		if gone.Peer != peers[0].PublicKey() || gone.Reason != derp.PeerGoneReasonDisconnected {
			return fmt.Errorf("got %+v, want disconnected for %v", gone, peers[0].PublicKey())
		}
	}
	return nil
}

func checkForward(r *relay) error {
	q, err := r.dial(r.identity(0), dialOption{})
	if err != nil {
		return err
	}
	mesh, err := r.dial(r.identity(1), dialOption{meshKey: r.meshKey})
	if err != nil {
		return err
	}
	defer hangUp([]*peer{q, mesh})
	remote := key.NewNode().Public()
	for _, size := range []int{0, 1, 1400, derp.MaxPacketSize} {
		data := make([]byte, size)
		if err := mesh.ForwardPacket(remote, q.PublicKey(), data); err != nil {
			return err
		}
		if err := q.expectPacket(remote, data); err != nil {
			return fmt.Errorf("%d bytes forwarded: %w", size, err)
		}
	}
	unknown := key.NewNode().Public()
	if err := mesh.ForwardPacket(remote, unknown, disco()); err != nil {
		return err
	}
	gone, err := next[derp.PeerGoneMessage](mesh)
	if err != nil {
		return err
	}
	if gone.Peer != unknown || gone.Reason != derp.PeerGoneReasonNotHere {
		return fmt.Errorf("got %+v, want not-here for %v", gone, unknown)
	}
	return nil
}

func checkForwardForbidden(r *relay) error {
	peers, err := r.dialAll(3)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	if err := peers[2].ForwardPacket(key.NewNode().Public(), peers[0].PublicKey(), []byte("sneaky")); err != nil {
		return err
	}
	if err := peers[2].expectEnd(); err != nil {
		return err
	}
	return exchange(peers[1], peers[0], []byte("the next packet is mine"))
}

func checkHTTPClient(r *relay) error {
	private, other := r.identity(0), r.identity(1)
	client, err := derphttp.NewClient(private, r.url, func(string, ...any) {}, netmon.NewStatic())
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := client.Connect(ctx); err != nil {
		return err
	}
	q, err := r.dial(other, dialOption{})
	if err != nil {
		return err
	}
	defer hangUp([]*peer{q})
	if err := client.Send(other.Public(), []byte("over derphttp")); err != nil {
		return err
	}
	if err := q.expectPacket(private.Public(), []byte("over derphttp")); err != nil {
		return err
	}
	received := make(chan derp.ReceivedPacket, 1)
	go func() {
		for {
			m, err := client.Recv()
			if err != nil {
				return
			}
			if m, ok := m.(derp.ReceivedPacket); ok {
				received <- derp.ReceivedPacket{Source: m.Source, Data: append([]byte(nil), m.Data...)}
				return
			}
		}
	}()
	client.NotePreferred(true)
	if err := q.Send(private.Public(), []byte("and back")); err != nil {
		return err
	}
	select {
	case m := <-received:
		if m.Source != other.Public() || string(m.Data) != "and back" {
			return fmt.Errorf("got %q from %v", m.Data, m.Source)
		}
	case <-ctx.Done():
		return errors.New("derphttp client received nothing")
	}
	go client.Recv() // Ping needs a reader
	return client.Ping(ctx)
}
