package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// window is how many packets may be on their way to one receiver: below the relay's queue of 32, so nothing may be lost.
const window = 16

func checkHandshake(r *relay) error {
	plain, err := r.dial(r.identity(0), dialOption{})
	if err != nil {
		return fmt.Errorf("101: %w", err)
	}
	defer plain.conn.Close()
	fast, err := r.dial(r.identity(1), dialOption{fastStart: true})
	if err != nil {
		return fmt.Errorf("fast start: %w", err)
	}
	defer fast.conn.Close()
	if plain.ServerPublicKey() != fast.ServerPublicKey() || plain.ServerPublicKey().IsZero() {
		return fmt.Errorf("server keys differ: %v and %v", plain.ServerPublicKey(), fast.ServerPublicKey())
	}
	eager, err := r.dialKnowing(r.identity(2), plain.ServerPublicKey())
	if err != nil {
		return fmt.Errorf("fast start with a known server key: %w", err)
	}
	defer eager.conn.Close()
	return errors.Join(exchange(plain, fast, []byte("plain to fast")), exchange(fast, eager, []byte("fast to eager")),
		exchange(eager, plain, []byte("eager to plain")))
}

// dialKnowing is the way of a client that read the relay's key from its certificate: ServerKey comes as an unknown frame.
func (r *relay) dialKnowing(private key.NodePrivate, server key.NodePublic) (*peer, error) {
	return r.dial(private, dialOption{fastStart: true, serverKey: server})
}

func checkSizes(r *relay) error {
	peers, err := r.dialAll(4)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	for _, size := range []int{0, 1, 2, 100, 1280, 1400, 16384, 65535, 65536} {
		data := bytes.Repeat([]byte{byte(size), byte(size >> 8), 0x5a}, size/3+1)[:size]
		for i, p := range peers {
			for j, q := range peers {
				if i == j {
					continue
				}
				if err := exchange(p, q, data); err != nil {
					return fmt.Errorf("%d bytes from %d to %d: %w", size, i, j, err)
				}
			}
		}
	}
	return nil
}

func checkOrder(r *relay) error {
	peers, err := r.dialAll(3)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	var wg sync.WaitGroup
	failures := make(chan error, len(peers))
	// A circle: everybody sends and receives at once.
	for i, p := range peers {
		wg.Go(func() {
			if err := stream(p, peers[(i+1)%len(peers)], 10_000); err != nil {
				failures <- err
			}
		})
	}
	wg.Wait()
	close(failures)
	return <-failures
}

// stream sends count numbered packets and checks that they arrive whole and in order.
func stream(from, to *peer, count uint32) error {
	credit := make(chan struct{}, window)
	stop := make(chan struct{})
	defer close(stop)
	sendErr := make(chan error, 1)
	go func() {
		for i := range count {
			select {
			case credit <- struct{}{}:
			case <-stop:
				return
			}
			if err := from.Send(to.PublicKey(), numbered(i)); err != nil {
				sendErr <- err
				return
			}
		}
	}()
	for i := range count {
		if err := to.expectPacket(from.PublicKey(), numbered(i)); err != nil {
			select {
			case err = <-sendErr:
			default:
			}
			return fmt.Errorf("packet %d: %w", i, err)
		}
		<-credit
	}
	return nil
}

// numbered makes packet i, of a length that varies with it.
func numbered(i uint32) []byte {
	data := make([]byte, 4+(i*37)%1400)
	binary.BigEndian.PutUint32(data, i)
	return data
}

func checkMany(r *relay) error {
	const clients, rounds = 200, 64
	peers, err := r.dialAll(clients)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	// In round k client i sends to client i+k*3+1: every client gets exactly one packet a round, of which window/2 may be open.
	for first := 0; first < rounds; first += window / 2 {
		for k := first; k < first+window/2; k++ {
			for i, p := range peers {
				if err := p.Send(peers[(i+k*3+1)%clients].PublicKey(), numbered(uint32(k))); err != nil {
					return fmt.Errorf("round %d, client %d: %w", k, i, err)
				}
			}
		}
		for i, p := range peers {
			if err := p.expectRounds(peers, i, first, window/2); err != nil {
				return fmt.Errorf("rounds from %d, client %d: %w", first, i, err)
			}
		}
	}
	return nil
}

// expectRounds checks the packets of some rounds, which may come in any order since their senders differ.
func (p *peer) expectRounds(peers []*peer, self, first, count int) error {
	want := map[key.NodePublic]int{}
	for k := first; k < first+count; k++ {
		from := ((self-k*3-1)%len(peers) + len(peers)) % len(peers)
		want[peers[from].PublicKey()] = k
	}
	for range count {
		m, err := next[derp.ReceivedPacket](p)
		if err != nil {
			return err
		}
		k, expected := want[m.Source]
		if !expected || !bytes.Equal(m.Data, numbered(uint32(k))) {
			return fmt.Errorf("unexpected packet of %d bytes from %v", len(m.Data), m.Source)
		}
		delete(want, m.Source)
	}
	return nil
}

func checkPing(r *relay) error {
	p, err := r.dial(r.identity(0), dialOption{})
	if err != nil {
		return err
	}
	defer p.conn.Close()
	for i := range 20 {
		data := [8]byte{1, 2, 3, byte(i)}
		if err := p.SendPing(data); err != nil {
			return err
		}
		pong, err := next[derp.PongMessage](p)
		if err != nil {
			return err
		}
		if pong != derp.PongMessage(data) {
			return fmt.Errorf("pong %x, want %x", pong, data)
		}
	}
	return nil
}

func checkKeepAlive(r *relay) error {
	peers, err := r.dialAll(2)
	if err != nil {
		return err
	}
	defer hangUp(peers)
	for i := range 3 {
		if _, err := next[derp.KeepAliveMessage](peers[0]); err != nil {
			return err
		}
		if err := exchange(peers[1], peers[0], numbered(uint32(i))); err != nil {
			return fmt.Errorf("after keepalive %d: %w", i, err)
		}
	}
	return nil
}

// dialAll connects n clients, a few at a time, half of them with fast start.
func (r *relay) dialAll(n int) ([]*peer, error) {
	peers := make([]*peer, n)
	failures := make(chan error, n)
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	for i := range n {
		private := r.identity(i)
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			p, err := r.dial(private, dialOption{fastStart: i%2 == 1})
			if err != nil {
				failures <- fmt.Errorf("client %d: %w", i, err)
				return
			}
			peers[i] = p
		})
	}
	wg.Wait()
	close(failures)
	if err := <-failures; err != nil {
		hangUp(peers)
		return nil, err
	}
	return peers, nil
}

// hangUp closes the connections and waits until their readers ended.
func hangUp(peers []*peer) {
	for _, p := range peers {
		if p == nil {
			continue
		}
		p.conn.Close()
		select {
		case <-p.ended:
		case <-time.After(patience):
		}
	}
}
