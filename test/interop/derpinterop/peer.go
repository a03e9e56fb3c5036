package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// peer is a derp.Client whose messages are read all the time, so that no check deadlocks on a full socket.
type peer struct {
	*derp.Client
	private key.NodePrivate
	conn    net.Conn
	inbox   chan derp.ReceivedMessage
	ended   chan struct{} // closed when Recv failed
	err     error         // why; read it only after ended
}

// dialOption changes how a peer connects.
type dialOption struct {
	fastStart bool
	// serverKey, if set, lets the client send its ClientInfo without waiting for ServerKey.
	serverKey key.NodePublic
	meshKey   key.DERPMesh
}

// dial connects, upgrades by hand and does the DERP handshake up to ServerInfo.
func (r *relay) dial(private key.NodePrivate, o dialOption) (*peer, error) {
	conn, brw, err := r.upgrade(o.fastStart)
	if err != nil {
		return nil, err
	}
	client, err := derp.NewClient(private, conn, brw, func(string, ...any) {},
		derp.ServerPublicKey(o.serverKey), derp.MeshKey(o.meshKey), derp.CanAckPings(true), derp.AppName("derpinterop"))
	if err != nil {
		conn.Close()
		return nil, err
	}
	first, err := client.Recv()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("waiting for ServerInfo: %w", err)
	}
	if info, ok := first.(derp.ServerInfoMessage); !ok {
		conn.Close()
		return nil, fmt.Errorf("first message is %T, want ServerInfo", first)
	} else if info.TokenBucketBytesPerSecond != 0 || info.TokenBucketBytesBurst != 0 {
		return nil, fmt.Errorf("ServerInfo announces a token bucket: %+v", info)
	}
	p := &peer{Client: client, private: private, conn: conn,
		inbox: make(chan derp.ReceivedMessage, 1<<15), ended: make(chan struct{})}
	go p.read()
	return p, nil
}

// dialTransport opens a TCP connection, or with an https URL a TLS connection to a relay that the system's roots vouch for.
func (r *relay) dialTransport() (net.Conn, error) {
	dialer := &net.Dialer{Timeout: patience}
	if r.secure {
		return tls.DialWithDialer(dialer, "tcp", r.host, nil)
	}
	return dialer.Dial("tcp", r.host)
}

// upgrade returns a TCP connection on which DERP begins.
func (r *relay) upgrade(fastStart bool) (net.Conn, *bufio.ReadWriter, error) {
	conn, err := r.dialTransport()
	if err != nil {
		return nil, nil, err
	}
	brw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	head := "GET /derp HTTP/1.1\r\nHost: " + r.host + "\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n"
	if fastStart {
		head += derp.FastStartHeader + ": 1\r\n"
	}
	if _, err := io.WriteString(conn, head+"\r\n"); err != nil {
		conn.Close()
		return nil, nil, err
	}
	if fastStart {
		return conn, brw, nil
	}
	conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := http.ReadResponse(brw.Reader, nil)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	h := answer.Header
	if answer.StatusCode != 101 || h.Get("Upgrade") != "DERP" || h.Get("Connection") != "Upgrade" ||
		h.Get("Derp-Version") != "2" || len(h.Get("Derp-Public-Key")) != 64 {
		conn.Close()
		return nil, nil, fmt.Errorf("upgrade answered %s %v", answer.Status, h)
	}
	return conn, brw, nil
}

func (p *peer) read() {
	defer close(p.ended)
	for {
		m, err := p.Recv()
		if err != nil {
			p.err = err
			return
		}
		switch m := m.(type) {
		case derp.ReceivedPacket:
			m.Data = bytes.Clone(m.Data)
			p.inbox <- m
		case derp.PingMessage:
			p.SendPong(m)
		default:
			p.inbox <- m
		}
	}
}

// next waits for one message of type T and passes over others.
func next[T derp.ReceivedMessage](p *peer) (T, error) {
	var zero T
	deadline := time.After(patience)
	for {
		select {
		case m := <-p.inbox:
			if m, ok := m.(T); ok {
				return m, nil
			}
		case <-p.ended:
			// What was received before the end still counts.
			select {
			case m := <-p.inbox:
				if m, ok := m.(T); ok {
					return m, nil
				}
			default:
				return zero, fmt.Errorf("connection ended while waiting for %T: %w", zero, p.err)
			}
		case <-deadline:
			return zero, fmt.Errorf("no %T within %v", zero, patience)
		}
	}
}

// expectPacket waits for the next packet and compares it.
func (p *peer) expectPacket(source key.NodePublic, data []byte) error {
	got, err := next[derp.ReceivedPacket](p)
	if err != nil {
		return err
	}
	if got.Source != source {
		return fmt.Errorf("packet from %v, want %v", got.Source, source)
	}
	if !bytes.Equal(got.Data, data) {
		return fmt.Errorf("packet of %d bytes differs from the %d bytes sent", len(got.Data), len(data))
	}
	return nil
}

// exchange sends data from p to q and checks that it arrives.
func exchange(p, q *peer, data []byte) error {
	if err := p.Send(q.PublicKey(), data); err != nil {
		return err
	}
	return q.expectPacket(p.PublicKey(), data)
}

// expectEnd waits for the relay to close the connection.
func (p *peer) expectEnd() error {
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		return errors.New("the connection was not closed")
	}
}

// settle returns when the relay has handled everything that p sent before.
func (p *peer) settle() error {
	data := [8]byte{'s', 'e', 't', 't', 'l', 'e'}
	if err := p.SendPing(data); err != nil {
		return err
	}
	_, err := next[derp.PongMessage](p)
	return err
}
